"""S3 backends on a real server."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from callfs.backends.s3 import S3Backend
from callfs.backends.s3_settings import S3Settings
from callfs.config.secret import Secret
from tests.backends.support import start_pool
from tests.support.faulty_s3 import FaultyS3
from tests.support.s3 import S3Server, shared_server

_numbers = itertools.count()


def wall_clock() -> int:
    """The instant."""
    return time.time_ns() // 1000


def new_prefix() -> str:
    """A prefix that no other test has."""
    return f"test-{os.getpid()}-{time.time_ns()}-{next(_numbers)}/"


def settings_for(server: S3Server, prefix: str | None = None, **changes: Any) -> S3Settings:
    """What an operator would set for a server."""
    given: dict[str, Any] = {
        "bucket": server.bucket,
        "key_prefix": new_prefix() if prefix is None else prefix,
        "access_key": Secret(server.access_key),
        "secret_key": Secret(server.secret_key),
        "region": server.region,
        "endpoint": server.endpoint,
        "server_side_encryption": server.encryption,
        "timeout_seconds": 20.0,
    }
    return S3Settings(**(given | changes))


def backend_of(
    case: TestCase,
    settings: S3Settings,
    now: Callable[[], int] = wall_clock,
    random: Callable[[], float] = lambda: 0.1,
    **options: Any,
) -> S3Backend:
    """A backend, closed at the end of the test."""
    given: dict[str, Any] = {"reactor": reactor, "clock": reactor, "pool": start_pool(case), "now": now}
    backend = S3Backend(settings, random=random, **(given | options))
    case.addCleanup(backend.close)
    return backend


async def names_nothing() -> bool:
    """What a metadata store without blobs on S3 says."""
    return False


class FaultyServer:
    """
    To be mixed, first, with trial's ``TestCase``: a server that misbehaves as the test wants.

    :ivar prefix: of the test's backends.
    """

    faulty: FaultyS3
    server: S3Server
    prefix: str
    url: str

    async def begin(self: Any, tls: Any = None) -> None:
        """Start it, with a certificate if one is given."""
        self.prefix = new_prefix()
        self.server = shared_server(own=True)
        self.faulty = FaultyS3(urlsplit(self.server.endpoint).port)
        self.url = await self.faulty.listen(tls)
        self.addCleanup(self.faulty.close)

    def settings(self, **changes: Any) -> S3Settings:
        """What an operator would set for it."""
        return settings_for(self.server, self.prefix, **({"endpoint": self.url} | changes))

    def backend(self: Any, options: dict[str, Any] | None = None, **changes: Any) -> Any:
        """A backend on it, closed before it."""
        return backend_of(self, self.settings(**changes), **(options or {}))


def make_s3(
    case: TestCase, prefix: str | None = None, now: Callable[[], int] = wall_clock, **changes: Any
) -> S3Backend:
    """A backend on the shared server, below a prefix of its own unless one is given."""
    return backend_of(case, settings_for(shared_server(), prefix, **changes), now)
