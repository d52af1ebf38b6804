"""A node whose blobs are on a real disk, behind a real site, and another one that reaches it as a peer."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IListeningPort, IReactorTime
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.logger import Logger, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from twisted.web.iweb import IPolicyForHTTPS

from callfs.backends.breaker import BreakerSettings, BreakerState
from callfs.backends.interfaces import IBlobBackend
from callfs.backends.jobs import Jobs
from callfs.backends.peercalls import PeerContext
from callfs.backends.peerclient import PeerClient
from callfs.backends.peers import Peers
from callfs.backends.peertls import VerifiedPeers
from callfs.config.secret import Secret
from callfs.model import Instance
from callfs.web.auth import ApiKeys, Authenticator
from callfs.web.context import SiteSettings
from callfs.web.internal import InternalBlobResource
from callfs.web.site import CallFSSite
from tests.backends.support import start_pool
from tests.support.site import Counted

HERE, THERE = "node-1", "node-2"
SECRET, API_KEY = "internal-secret-of-peers", "alice-key-number-1"
BEARER = {"Authorization": f"Bearer {SECRET}"}

reactor: Any = global_reactor


@dataclass
class Observed:
    """What the calls' observer was told."""

    requests: list[tuple[str, str]] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    breakers: dict[str, BreakerState] = field(default_factory=dict)

    def peer_request(self, peer: str, operation: str) -> None:
        """See :class:`callfs.backends.peermetrics.PeerObserver`."""
        self.requests.append((peer, operation))

    def peer_failure(self, peer: str, reason: str) -> None:
        """See :class:`callfs.backends.peermetrics.PeerObserver`."""
        self.failures.append((peer, reason))

    def peer_breaker(self, peer: str, state: BreakerState) -> None:
        """See :class:`callfs.backends.peermetrics.PeerObserver`."""
        self.breakers[peer] = state


class Holder:
    """
    A node that serves its blobs on 127.0.0.1.

    :param tls: a context factory; plain HTTP without.
    """

    def __init__(
        self,
        case: TestCase,
        backend: IBlobBackend | None,
        *,
        instance_id: str = THERE,
        secret: str = SECRET,
        settings: SiteSettings | None = None,
        tls: Any = None,
        port: int = 0,
    ) -> None:
        self.metrics = Counted()
        self.events: list[dict[str, Any]] = []
        keys = ApiKeys(b"pepper", {"alice": [API_KEY]}, internal_secrets=[secret])
        self.site = CallFSSite(
            [InternalBlobResource(backend, instance_id)],
            settings=settings or SiteSettings(),
            authenticate=Authenticator(keys).authenticate,
            metrics=self.metrics,
            reactor=reactor,
            now=lambda: time.time_ns() // 1000,
            pool=start_pool(case),
            token_bytes=secrets.token_bytes,
            log=Logger(namespace="test", observer=self.events.append),  # type: ignore[arg-type]
        )
        self.site.ready = True
        self._port: IListeningPort = (
            reactor.listenTCP(port, self.site, interface="127.0.0.1")
            if tls is None
            else reactor.listenSSL(port, self.site, tls, interface="127.0.0.1")
        )
        self.port: int = self._port.getHost().port
        self.address = ("127.0.0.1", self.port)
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.port}"
        self._stopped = False
        case.addCleanup(self.stop)

    async def stop(self) -> None:
        """Serve nothing more; all connections end."""
        if self._stopped:
            return
        self._stopped = True
        stopped = self._port.stopListening()
        if isinstance(stopped, Deferred):
            await stopped
        await self.site.stop(0)

    def ended(self) -> list[dict[str, Any]]:
        """The access events."""
        return [event for event in self.events if "request_id" in event and "status" in event]


@dataclass
class Registry:
    """Stands for the instances table; counts how often it was asked."""

    instances: list[Instance] = field(default_factory=list)
    error: Exception | None = None
    asked: int = 0

    def register(self, instance_id: str, url: str) -> None:
        """A node announces itself, or moves."""
        self.instances = [found for found in self.instances if found.id != instance_id]
        self.instances.append(Instance(instance_id, None, url, 0))

    def __call__(self) -> Deferred[Sequence[Instance]]:
        self.asked += 1
        if self.error is not None:
            raised: Deferred[Sequence[Instance]] = Deferred()
            raised.errback(self.error)
            return raised
        return succeed(self.instances)


def make_client(
    case: TestCase, secret: str = SECRET, policy: IPolicyForHTTPS | None = None, timeout_seconds: float = 5.0
) -> PeerClient:
    """Connections to peers, closed at the end of the test."""
    client = PeerClient(
        reactor, secrets=[Secret(secret)], policy=policy or VerifiedPeers(), connect_seconds=timeout_seconds
    )
    case.addCleanup(client.close)
    return client


def make_peers(
    case: TestCase,
    configured: dict[str, str] | None = None,
    *,
    registry: Registry | None = None,
    observer: Observed | None = None,
    client: PeerClient | None = None,
    policy: IPolicyForHTTPS | None = None,
    timeout_seconds: float = 5.0,
    breaker: BreakerSettings | None = None,
    clock: IReactorTime | None = None,
) -> Peers:
    """The other nodes as ``node-1`` sees them; closed at the end of the test."""
    context = PeerContext(
        client=client or make_client(case, policy=policy, timeout_seconds=timeout_seconds),
        clock=clock or reactor,
        chance=lambda: 0.0,
        observer=observer or Observed(),
        timeout_seconds=timeout_seconds,
    )
    peers = Peers(
        context,
        instance_id=HERE,
        endpoint="http://127.0.0.1:1",
        configured=configured or {},
        registered=registry or Registry(),
        jobs=Jobs(reactor, start_pool(case)),
        breaker=breaker,
    )
    case.addCleanup(peers.close)
    return peers


class Script(Protocol):
    """
    One connection of a peer that does what a test says, byte by byte.

    ``received`` is what came; the script is called each time that a request's head is complete.
    """

    def __init__(self, server: ScriptedPeer) -> None:
        self.received = b""
        self.lost = False
        self._server = server
        self._begun = False

    @property
    def wire(self) -> Any:
        """The transport."""
        return self.transport

    def connectionMade(self) -> None:
        """For Twisted."""
        self._server.connections.append(self)

    def dataReceived(self, data: bytes) -> None:
        """For Twisted."""
        self.received += data
        if not self._begun and b"\r\n\r\n" in self.received:
            self._begun = True
            self._server.script(self)

    def connectionLost(self, reason: Failure | None = None) -> None:
        """For Twisted."""
        self.lost = True

    def again(self) -> None:
        """The next head counts anew."""
        self.received = b""
        self._begun = False

    def answer(self, status: str, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        """An answer of ``node-2``, whole unless ``Content-Length`` says otherwise."""
        lines = {"X-CallFS-Instance-ID": THERE, "Content-Length": str(len(body)), **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.wire.write(f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body)


class ScriptedPeer(Factory):
    """A peer on 127.0.0.1 that does what ``script`` says."""

    noisy = False

    def __init__(self, case: TestCase, script: Callable[[Script], object]) -> None:
        self.script = script
        self.connections: list[Script] = []
        self._port = reactor.listenTCP(0, self, interface="127.0.0.1")
        self.url = f"http://127.0.0.1:{self._port.getHost().port}"
        case.addCleanup(self._stop)

    def buildProtocol(self, addr: object) -> Script:
        """For Twisted."""
        return Script(self)

    async def _stop(self) -> None:
        await self._port.stopListening()
        for connection in self.connections:
            connection.wire.abortConnection()
        while not all(connection.lost for connection in self.connections):
            await moment()


def unused_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def moment(seconds: float = 0.01) -> Deferred[None]:
    """A little later."""
    return deferLater(reactor, seconds, lambda: None)


class Log:
    """What is logged during a test."""

    def __init__(self, case: TestCase) -> None:
        self.events: list[dict[str, Any]] = []
        observer: Any = self.events.append
        globalLogPublisher.addObserver(observer)
        case.addCleanup(globalLogPublisher.removeObserver, observer)

    def named(self, event: str) -> list[dict[str, Any]]:
        """The events of this name."""
        return [found for found in self.events if found.get("event") == event]
