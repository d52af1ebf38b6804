"""All the ways between this node and its peers, over TCP."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults, maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint, serverFromString
from twisted.internet.interfaces import IListeningPort, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from zope.interface import implementer

from callfs.cluster.connections import Dropped, IncomingConnection, PeerConnection
from callfs.cluster.handshake import NONCE_BYTES, Acceptor, Dialer, HandshakeRefused
from callfs.cluster.identity import PeerIdentity
from callfs.cluster.interfaces import ITransport, Receiver
from callfs.cluster.link import LinkObserver, LinkTiming, PeerLink, Unsent
from callfs.cluster.tls import PeerTLS
from callfs.cluster.vetting import REFUSED, Vetting
from callfs.config.addresses import endpoint_description, parse_host_port
from callfs.deferreds import returns_deferred, with_timeout
from callfs.identifiers import TokenBytes

MAX_UNPROVEN = 64
"""Connections whose handshake is under way; one more, and the oldest of them is closed."""


@implementer(ITransport)
class PeerTransport:
    """
    Peers over TCP, proven by the internal secret, and by certificates of their own where TLS is configured.

    :param bind_address: ``host:port`` to listen on.
    :param reactor: networking, names and time.
    :param secrets: at least one; asked anew for every handshake, so that they can be replaced.
    :param token_bytes: makes nonces.
    :param random: from 0 to 1, for the pauses between attempts to connect.
    :param observer: is told of connections and losses.
    :param tls: certificates, or none for plain TCP.
    :param dual_stack: whether ``:port`` may listen on ``::`` for IPv4, too.
    """

    _log = Logger()

    def __init__(
        self,
        bind_address: str,
        *,
        reactor: Any,
        secrets: Callable[[], Sequence[bytes]],
        token_bytes: TokenBytes,
        random: Callable[[], float],
        observer: LinkObserver,
        timing: LinkTiming = LinkTiming(),
        tls: PeerTLS | None = None,
        dual_stack: bool = False,
    ) -> None:
        self._bind_address = bind_address
        self._reactor = reactor
        self._secrets = secrets
        self._token_bytes = token_bytes
        self._random = random
        self._observer = observer
        self._timing = timing
        self._tls = tls
        self._vetting = Vetting()
        self._dual_stack = dual_stack
        self._port: IListeningPort | None = None
        self._links: dict[str, tuple[str, PeerLink]] = {}
        self._ending: set[Deferred[None]] = set()
        self._incoming: dict[str, IncomingConnection] = {}
        # Dictionaries as sets that keep their order.
        self._accepted: dict[IncomingConnection, None] = {}
        self._twins: tuple[str, str, str] | None = None
        self._all_gone: Deferred[None] | None = None
        self._running = False

    @property
    def port(self) -> int:
        """The TCP port that is listened on."""
        assert self._port is not None
        number: int = self._port.getHost().port  # type: ignore[attr-defined]
        return number

    @returns_deferred
    async def start(self, identity: Callable[[], PeerIdentity], receiver: Receiver) -> None:
        """
        Listen.

        :raises twisted.internet.error.CannotListenError: the address is taken or isn't this machine's.
        """
        self._identity = identity
        self._receiver = receiver
        self._running = True
        factory: Any = _Accepting(self._accept)
        if self._tls is not None:
            factory = self._tls.accepting(factory)
        endpoint = serverFromString(self._reactor, endpoint_description(self._bind_address, self._dual_stack))
        self._port = await endpoint.listen(factory)

    @returns_deferred
    async def stop(self) -> None:
        """Hang up; fires when all connections are gone."""
        self._running = False
        if self._port is not None:
            await maybeDeferred(self._port.stopListening)
        self.set_peers({})
        if self._accepted:
            gone = self._all_gone = Deferred[None]()
            for connection in list(self._accepted):
                connection.drop(Dropped("stopped"))
            await gone
        await gatherResults(list(self._ending))

    def set_peers(self, addresses: Mapping[str, str], known: Mapping[str, Sequence[str]] | None = None) -> None:
        """Keep connections to these nodes and to no others; a link whose address stays is left alone."""
        for node_id, (address, link) in list(self._links.items()):
            if addresses.get(node_id) != address:
                del self._links[node_id]
                self._end(link)
        for node_id, address in addresses.items():
            if node_id not in self._links and (endpoint := self._endpoint(address)) is not None:
                link = self._link(node_id, address, endpoint, self._receiver.opened)
                self._links[node_id] = (address, link)
                link.start()
        if self._running and self._vetting.know(known or {}) and self._tls is not None:
            self._vet_again()

    def identity_changed(self) -> None:
        """Make all connections anew."""
        for _, link in list(self._links.values()):
            link.renew()
        for connection in list(self._accepted):
            connection.drop(Dropped("replaced"))

    def connected(self) -> tuple[str, ...]:
        """The nodes that were reached."""
        return tuple(sorted(node_id for node_id, (_, link) in self._links.items() if link.peer is not None))

    def send(self, node_id: str, payload: bytes) -> None:
        """Send a message, or lose it."""
        if node_id in self._links:
            self._links[node_id][1].send(payload)

    def ask(self, node_id: str, payload: bytes, seconds: float) -> Deferred[bytes]:
        """Ask a peer."""
        if node_id not in self._links:
            answer: Deferred[bytes] = Deferred()
            answer.errback(Unsent("this node has no way to the peer"))
            return answer
        return self._links[node_id][1].ask(payload, seconds)

    @returns_deferred
    async def probe(self, address: str, node_id: str, seconds: float) -> PeerIdentity:
        """Find out who is at an address, by the connection that is there or one of its own."""
        known = self._links.get(node_id)
        if known is not None and known[0] == address and known[1].peer is not None:
            return known[1].peer
        endpoint = self._endpoint(address)
        if endpoint is None:
            raise Unsent("this is no address (host:port)")
        found: Deferred[PeerIdentity] = Deferred()
        link = self._link(
            node_id,
            address,
            endpoint,
            lambda peer: None if found.called else found.callback(peer),
            lambda error: None if found.called else found.errback(error),
            is_probe=True,
        )
        link.start()
        try:
            return await with_timeout(found, seconds, self._reactor, lambda: Unsent("nobody answers there"))
        except (CancelledError, HandshakeRefused, Unsent):
            raise
        except Exception as error:
            raise Unsent(f"nobody answers there: {error}") from error
        finally:
            self._end(link)

    def _link(
        self,
        node_id: str,
        address: str,
        endpoint: IStreamClientEndpoint,
        opened: Callable[[PeerIdentity], None],
        failed: Callable[[Exception], None] = lambda _: None,
        is_probe: bool = False,
    ) -> PeerLink:
        judge = self._vetting.probed if is_probe else self._vetting.met

        def admit(connection: PeerConnection, peer: PeerIdentity) -> str | None:
            foreign = None if self._tls is None else judge(connection.certified(), peer.node_id, address)
            return foreign or self._receiver.admit(peer)

        return PeerLink(
            node_id,
            endpoint,
            clock=self._reactor,
            timing=self._timing,
            handshake=lambda connection: Dialer(
                self._identity(),
                node_id,
                self._secrets(),
                self._token_bytes(NONCE_BYTES),
                lambda peer: admit(connection, peer),
            ),
            random=self._random,
            observer=self._observer,
            opened=opened,
            failed=failed,
            is_probe=is_probe,
        )

    def _end(self, link: PeerLink) -> None:
        ending = link.stop()
        if not ending.called:
            self._ending.add(ending)
            ending.addCallback(lambda _: self._ending.discard(ending))

    def _endpoint(self, address: str) -> IStreamClientEndpoint | None:
        place = parse_host_port(address)
        if place is None or not place.host:
            return None
        endpoint = HostnameEndpoint(self._reactor, place.host, place.port, timeout=self._timing.connect_seconds)
        return endpoint if self._tls is None else self._tls.dialling(endpoint, place.host)

    # Who comes in

    def _accept(self) -> IncomingConnection | None:
        strangers = [connection for connection in self._accepted if connection.peer is None]
        if not self._running or len(strangers) >= 2 * MAX_UNPROVEN:
            self._observer.peer_refused("crowded")
            return None
        silent = [connection for connection in strangers if connection.dropped is None]
        if len(silent) >= MAX_UNPROVEN:
            # The one that has waited longest: a peer's handshake takes two round trips.
            silent[0].drop(Dropped("crowded"))
        connection = IncomingConnection(
            self._reactor,
            self._timing.idle_seconds,
            handshake=lambda connection: Acceptor(
                self._identity(),
                self._secrets(),
                self._token_bytes(NONCE_BYTES),
                lambda peer: self._foreign(connection, peer) or self._admit(peer),
            ),
            opened=self._came_in,
            message=self._receiver.message,
            asked=self._receiver.asked,
            lost=self._went,
        )
        self._accepted[connection] = None
        return connection

    def _foreign(self, connection: PeerConnection, peer: PeerIdentity) -> str | None:
        """Why a peer isn't believed that has made a connection."""
        if self._tls is None:
            return None
        return self._vetting.met(connection.certified(), peer.node_id, peer.raft_address)

    def _vet_again(self) -> None:
        """More is known of the peers than when they were let in."""
        for connection in list(self._incoming.values()):
            assert connection.peer is not None
            if self._foreign(connection, connection.peer) is not None:
                connection.drop(HandshakeRefused(REFUSED))
        for node_id, (address, link) in list(self._links.items()):
            if link.peer is not None and self._vetting.met(link.certified(), node_id, address) is not None:
                link.renew()

    def _admit(self, peer: PeerIdentity) -> str | None:
        """
        A node isn't in two places. One that moved has left its old place, or falls silent there; so whoever comes
        while that one is heard is a copy of it, whose words mustn't be taken for its own.
        """
        earlier = self._incoming.get(peer.node_id)
        if earlier is None or earlier.peer is None or earlier.peer.raft_address == peer.raft_address:
            return self._receiver.admit(peer)
        places = (peer.node_id, earlier.peer.raft_address, peer.raft_address)
        if self._twins != places:
            self._twins = places
            self._log.error(
                "node {node} is at {known}, and a copy of it at {other}: stop the one that is too much",
                event="raft_twin",
                node=peer.node_id,
                known=earlier.peer.raft_address,
                other=peer.raft_address,
            )
        return "twin"

    def _came_in(self, connection: IncomingConnection) -> None:
        assert connection.peer is not None
        node_id = connection.peer.node_id
        earlier = self._incoming.get(node_id)
        self._incoming[node_id] = connection
        if earlier is not None:
            earlier.drop(Dropped("replaced"))
        self._receiver.reached_by(connection.peer)

    def _went(self, connection: IncomingConnection, reason: Exception | None) -> None:
        self._accepted.pop(connection, None)
        if connection.peer is not None and self._incoming.get(connection.peer.node_id) is connection:
            del self._incoming[connection.peer.node_id]
        if isinstance(reason, Dropped | HandshakeRefused) and reason.reason not in ("stopped", "replaced"):
            self._observer.peer_refused(reason.reason)
        if self._all_gone is not None and not self._accepted and not self._all_gone.called:
            self._all_gone.callback(None)


class _Accepting(Factory):
    noisy = False

    def __init__(self, make: Callable[[], IncomingConnection | None]) -> None:
        self._make = make

    def buildProtocol(self, _address: Any) -> IncomingConnection | None:
        return self._make()
