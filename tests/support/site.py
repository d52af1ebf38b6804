"""A site on a socket, with routes that a test makes up, for trial's reactor; blocking clients run in threads."""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from klein import Klein
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IListeningPort
from twisted.internet.threads import deferToThread
from twisted.logger import Logger, LogLevel
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from callfs.backends.interfaces import IBlobReader
from callfs.errors import AuthenticationFailed
from callfs.model import ByteRange, Principal
from callfs.web.context import SiteSettings, UpgradeRoute
from callfs.web.messages import BlobBody, Request, Response
from callfs.web.routes import Access, route
from callfs.web.site import CallFSSite
from tests.support.http import Answer, Wire

T = TypeVar("T")
KEY = {"Authorization": "Bearer user"}
INTERNAL_KEY = {"Authorization": "Bearer internal"}
SWIFT = SiteSettings(read_timeout_seconds=0.4, write_timeout_seconds=0.4, linger_seconds=0.4)

Behaviour = Callable[[Request], Awaitable[Response]]


def authenticate(authorization: str | None, access: Access) -> Principal:
    """Two keys: ``user`` and ``internal``."""
    allowed = {Access.USER: ("Bearer user",), Access.INTERNAL: ("Bearer internal",)}[access]
    if authorization not in allowed:
        raise AuthenticationFailed("the credentials aren't valid")
    return Principal(authorization.removeprefix("Bearer "))


class Routes:
    """A few patterns; what they do is the test's affair."""

    router = Klein()

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour

    @route(router, "/v1/files/{path}", methods=("GET", "HEAD", "PUT", "POST"))
    async def files(self, request: Request) -> Response:
        """A file."""
        return await self.behaviour(request)

    @route(router, "/v1/files/{path}", methods=("DELETE",))
    async def delete(self, request: Request) -> Response:
        """A file's end."""
        return await self.behaviour(request)

    @route(router, "/v1/shards/{path}/{index}")
    async def shard(self, request: Request) -> Response:
        """A shard."""
        return await self.behaviour(request)

    @route(router, "/download/{token}", methods=("GET", "HEAD"), access=Access.PUBLIC)
    async def download(self, request: Request) -> Response:
        """A link."""
        return await self.behaviour(request)

    @route(router, "/v1/internal/blobs/{id}", access=Access.INTERNAL)
    async def blob(self, request: Request) -> Response:
        """A blob."""
        return await self.behaviour(request)


class Health:
    """Another resource."""

    router = Klein()

    @route(router, "/health", access=Access.PUBLIC)
    async def health(self, request: Request) -> Response:
        """Whether the process answers."""
        return Response(headers={"Content-Type": "application/json"}, body=b'{"status":"ok"}')


@dataclass
class Counted:
    """What the site's metrics were told."""

    requests: list[tuple[str, str, int]] = field(default_factory=list)
    internal: list[tuple[str, str, int]] = field(default_factory=list)
    under_way: int = 0
    received: int = 0
    sent: int = 0
    open: int = 0
    refused: int = 0

    def http_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """See :class:`callfs.web.context.HTTPMetrics`."""
        self.requests.append((method, route, status))

    def internal_request(self, method: str, route: str, status: int) -> None:
        """See :class:`callfs.web.context.HTTPMetrics`."""
        self.internal.append((method, route, status))

    def request_started(self) -> None:
        """See :class:`callfs.web.context.HTTPMetrics`."""
        self.under_way += 1

    def request_ended(self, received_bytes: int, sent_bytes: int) -> None:
        """See :class:`callfs.web.context.HTTPMetrics`."""
        self.under_way -= 1
        self.received += received_bytes
        self.sent += sent_bytes

    def connections(self, count: int) -> None:
        """See :class:`callfs.web.context.HTTPMetrics`."""
        self.open = count

    def connection_refused(self) -> None:
        """See :class:`callfs.web.context.HTTPMetrics`."""
        self.refused += 1


@implementer(IBlobReader)
class FileReader:
    """
    A real file as an open blob.

    :param sendfile: whether it has a descriptor for ``sendfile``.
    :param size: what it claims to be long.
    """

    def __init__(self, content: bytes, *, sendfile: bool = True, size: int | None = None) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        self._file.write(content)
        self._file.flush()
        self._sendfile = sendfile
        self.size = len(content) if size is None else size
        self.closed = 0

    def read(self, offset: int, length: int) -> Deferred[bytes]:
        """See :class:`IBlobReader`."""
        assert not self.closed
        return succeed(os.pread(self._file.fileno(), length, offset))

    def fileno(self) -> int | None:
        """See :class:`IBlobReader`."""
        return self._file.fileno() if self._sendfile else None

    def close(self) -> None:
        """See :class:`IBlobReader`."""
        self.closed += 1
        self._file.close()

    def whole(self) -> BlobBody:
        """All of it as a body."""
        return BlobBody(self, (ByteRange(0, self.size),))


class SiteCase(TestCase):
    """Has a site, and lets blocking clients talk to it."""

    timeout = 60

    def setUp(self) -> None:
        """Nothing is served yet."""
        self.metrics = Counted()
        self.events: list[dict[str, Any]] = []
        self.reactor: Any = global_reactor
        self.pool = ThreadPool(0, 4)
        self.pool.start()
        self.addCleanup(self.pool.stop)

    async def serve(
        self,
        behaviour: Behaviour,
        settings: SiteSettings | None = None,
        *,
        ready: bool = True,
        upgrade: UpgradeRoute | None = None,
        sendfile: bool = True,
        resources: Sequence[object] = (),
    ) -> CallFSSite:
        """Serve :class:`Routes` with this behaviour, :class:`Health`, and what else is given."""
        log = Logger(namespace="test", observer=self.events.append)
        self.site = CallFSSite(
            [Routes(behaviour), Health(), *resources],
            settings=settings or SiteSettings(),
            authenticate=authenticate,
            metrics=self.metrics,
            reactor=self.reactor,
            now=lambda: time.time_ns() // 1000,
            pool=self.pool if sendfile else None,
            token_bytes=secrets.token_bytes,
            upgrade=upgrade,
            log=log,
        )
        self.site.ready = ready
        port: IListeningPort = self.reactor.listenTCP(0, self.site, interface="127.0.0.1")
        self.address = ("127.0.0.1", port.getHost().port)  # type: ignore[attr-defined]
        self.addCleanup(self._end, port)
        return self.site

    async def _end(self, port: IListeningPort) -> None:
        stopped = port.stopListening()
        if isinstance(stopped, Deferred):
            await stopped
        await self.site.stop(0)

    def talk(self, client: Callable[[Wire], T], **options: Any) -> Deferred[T]:
        """Let a blocking client talk over a connection of its own, in a thread."""

        def run() -> T:
            with Wire(self.address, **{"timeout_seconds": 10.0, **options}) as wire:
                return client(wire)

        return deferToThread(run)

    def ask(self, data: bytes, method: str = "GET") -> Deferred[Answer]:
        """Send bytes on a new connection and read one answer."""

        def client(wire: Wire) -> Answer:
            wire.send(data)
            return wire.read_answer(method)

        return self.talk(client)

    def get(self, target: str, headers: dict[str, str] | None = None, method: str = "GET") -> Deferred[Answer]:
        """One request with the user's key."""

        def client(wire: Wire) -> Answer:
            wire.send_request(method, target, {**KEY, **(headers or {})})
            return wire.read_answer(method)

        return self.talk(client)

    async def settled(self) -> None:
        """Wait until the site has no connection left."""
        while self.site.connections:
            await self.moment()

    def moment(self, seconds: float = 0.01) -> Deferred[None]:
        """A little later."""
        later: Deferred[None] = Deferred()
        self.reactor.callLater(seconds, later.callback, None)
        return later

    def ended(self) -> list[dict[str, Any]]:
        """The access events."""
        return [event for event in self.events if "request_id" in event and "status" in event]

    def faults(self) -> list[dict[str, Any]]:
        """What was logged as a failure."""
        return [event for event in self.events if event["log_level"] is LogLevel.critical]


async def echo(request: Request) -> Response:
    """Answer with the body."""
    return Response(body=await request.body.read(1 << 24))


async def hello(request: Request) -> Response:
    """Answer without looking at anything."""
    return Response(headers={"Content-Type": "text/plain"}, body=b"hello")
