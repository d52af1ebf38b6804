"""Opens Redis stores for trial's test cases."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, ClassVar

from twisted.internet import reactor

from callfs.metadata.interfaces import IMetadataStore
from callfs.metadata.redis import RedisStore
from tests.support.commands import Commands
from tests.support.redis import RedisServer

_numbers = itertools.count()


class RedisBinding:
    """
    To be mixed, first, with trial's ``TestCase``: one server for a class, keys of its own for each store.

    :cvar server_options: lines of the server's configuration.
    """

    server_options: ClassVar[dict[str, str]] = {}
    server: ClassVar[RedisServer]
    timeout = 100
    prefix: str | None = None
    addCleanup: Callable[..., None]

    @classmethod
    def setUpClass(cls) -> None:
        """Start the server."""
        cls.server = RedisServer(**cls.server_options).start()

    @classmethod
    def tearDownClass(cls) -> None:
        """End it."""
        cls.server.stop()

    def redis_store(self, prefix: str, address: str | None = None, **options: Any) -> RedisStore:
        """A store that isn't open yet."""
        number = next(_numbers)
        given: dict[str, Any] = {
            "token_bytes": Commands(number).token_bytes,
            "op_timeout_seconds": 20.0,
            "pool_size": 4,
            "key_prefix": prefix,
        }
        return RedisStore(address or self.server.address, reactor=reactor, **(given | options))

    async def opened(self, prefix: str, **options: Any) -> RedisStore:
        """A store that is closed with the test."""
        store = self.redis_store(prefix, **options)
        await store.open()
        self.addCleanup(store.close)
        return store

    async def open_store(self) -> IMetadataStore:
        """An empty store with keys of its own."""
        prefix = f"test-{next(_numbers)}:"
        if self.prefix is None:
            self.prefix = prefix
        return await self.opened(prefix)

    async def open_other(self) -> IMetadataStore:
        """Another client of the first store."""
        assert self.prefix is not None
        return await self.opened(self.prefix)
