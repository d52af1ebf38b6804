"""Where the credentials for S3 come from."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from callfs.backends.jobs import Jobs
from callfs.backends.s3_credentials import S3Credentials
from callfs.backends.s3_errors import S3NoCredentials
from callfs.backends.s3_settings import S3Settings
from callfs.backends.s3_unusable import S3Unusable
from callfs.config.secret import Secret
from callfs.deferreds import returns_deferred
from tests.backends.s3_support import FaultyServer, names_nothing
from tests.backends.support import new_folder, start_pool
from tests.contract.backends import get, put
from tests.support.faulty_s3 import reply

CHAIN = S3Settings(bucket="files")


class _Container(Resource):
    """What a container's or an instance's role gives: new temporary credentials each time."""

    isLeaf = True

    def __init__(self, lifetime: timedelta) -> None:
        super().__init__()
        self.asked = 0
        self._lifetime = lifetime

    def render_GET(self, request: Any) -> bytes:
        self.asked += 1
        request.setHeader("Connection", "close")
        expires = datetime.now(UTC) + self._lifetime
        return json.dumps(
            {
                "AccessKeyId": f"key-{self.asked}",
                "SecretAccessKey": "secret",
                "Token": f"token-{self.asked}",
                "Expiration": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
        ).encode()


class ChainTests(FaultyServer, TestCase):
    """The AWS chain, in an environment of the test's own."""

    def setUp(self) -> None:
        self.folder = new_folder(self)
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        clean |= {
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": str(self.folder / "config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(self.folder / "credentials"),
        }
        patch = mock.patch.dict(os.environ, clean, clear=True)
        patch.start()
        self.addCleanup(patch.stop)
        self.clock = Clock()

    def credentials(self, settings: S3Settings = CHAIN) -> S3Credentials:
        """Under test."""
        return S3Credentials(settings, jobs=Jobs(reactor, start_pool(self)), clock=self.clock)  # type: ignore[arg-type]

    async def container(self, lifetime: timedelta) -> _Container:
        """A role's server, which the environment names."""
        container = _Container(lifetime)
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Site(container, timeout=None))
        self.addCleanup(port.stopListening)
        os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = f"http://127.0.0.1:{port.getHost().port}/"
        return container

    async def test_configured(self) -> None:
        """Keys of the configuration win over everything else."""
        os.environ |= {"AWS_ACCESS_KEY_ID": "other", "AWS_SECRET_ACCESS_KEY": "other"}
        settings = S3Settings(bucket="files", access_key=Secret("mine"), secret_key=Secret("secret"))
        credentials = self.credentials(settings)
        assert await _current(credentials) == ("mine", "secret", None)
        assert not credentials.refused(await credentials.current())

    async def test_environment(self) -> None:
        """The environment."""
        os.environ |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_SESSION_TOKEN": "c"}
        assert await _current(self.credentials()) == ("a", "b", "c")

    async def test_profile(self) -> None:
        """A profile, also another one than the default."""
        (self.folder / "credentials").write_text(
            "[default]\naws_access_key_id=a\naws_secret_access_key=b\n"
            "[other]\naws_access_key_id=c\naws_secret_access_key=d\n"
        )
        assert await _current(self.credentials()) == ("a", "b", None)
        os.environ["AWS_PROFILE"] = "other"
        assert await _current(self.credentials()) == ("c", "d", None)

    async def test_role(self) -> None:
        """A role's server is asked once, and again shortly before they expire; whoever comes meanwhile waits."""
        container = await self.container(timedelta(hours=1))
        credentials = self.credentials()
        found = await gatherResults([_current(credentials) for _ in range(5)])
        assert {one[0] for one in found} == {"key-1"}
        self.clock.advance(61)
        assert (await _current(credentials))[0] == "key-1"
        assert container.asked == 1

    async def test_renewal(self) -> None:
        """Temporary ones that end soon are renewed, and not for every request."""
        container = await self.container(timedelta(minutes=5))
        credentials = self.credentials()
        first = await _current(credentials)
        asked = container.asked
        assert await _current(credentials) == first
        assert container.asked == asked
        self.clock.advance(61)
        assert await _current(credentials) != first

    async def test_none(self) -> None:
        """Without any the message says how to give some; when there are some later, they are found."""
        credentials = self.credentials()
        error = await self.assertFailure(_current(credentials), S3NoCredentials)  # type: ignore[func-returns-value]
        assert "Set backend.s3_access_key" in str(error)
        os.environ |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
        assert (await _current(credentials))[0] == "a"

    async def test_unusable_profile(self) -> None:
        """A profile that isn't there is told by its name."""
        os.environ["AWS_PROFILE"] = "nobody"
        error = await self.assertFailure(_current(self.credentials()), S3NoCredentials)  # type: ignore[func-returns-value]
        assert "nobody" in str(error)

    async def test_expired_in_use(self) -> None:
        """Credentials that S3 calls expired are got anew, at once, and the request is carried out."""
        container = await self.container(timedelta(hours=1))
        await self.begin()
        backend = self.backend(access_key=None, secret_key=None)
        blob_id = await put(backend, b"data")
        assert self.faulty.seen[-1].headers["x-amz-security-token"] == "token-1"
        assert "x-amz-security-token;" not in self.faulty.seen[-1].headers["x-amz-security-token"]
        self.faulty.on("GET", reply(400, "ExpiredToken"))
        assert await get(backend, blob_id) == b"data"
        assert self.faulty.seen[-1].headers["x-amz-security-token"] == "token-2"
        assert container.asked == 2

    async def test_expired_without_a_code(self) -> None:
        """A reply without body can't say that they have expired: they are got anew once, to be sure."""
        container = await self.container(timedelta(hours=1))
        await self.begin()
        backend = self.backend(access_key=None, secret_key=None)
        blob_id = await put(backend, b"data")
        self.faulty.on("HEAD", reply(400))
        assert (await backend.stat(blob_id)).size == 4
        assert container.asked == 2

    async def test_expired_for_good(self) -> None:
        """When the new ones are refused as well, that is told to the operator."""
        await self.container(timedelta(hours=1))
        await self.begin()
        backend = self.backend(access_key=None, secret_key=None)
        self.faulty.on("GET", reply(400, "ExpiredToken"), times=2)
        error = await self.assertFailure(backend.recognise("a" * 32, True, names_nothing), S3Unusable)  # type: ignore[func-returns-value]
        assert "Renew them" in str(error)
        assert len(self.faulty.seen) == 2


@returns_deferred
async def _current(credentials: S3Credentials) -> tuple[str, str, str | None]:
    """Key, secret, token."""
    current = await credentials.current()
    return current.access_key, current.secret_key, current.token
