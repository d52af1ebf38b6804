"""
Whom a node keeps connections to: the members, and strangers who talk to it, so that they get answers.

A member is sought where the membership says, and when it isn't found there, in turn wherever else it may be: where
it said itself that it is when it reached this node, and where this node's configuration has it. So a member that
moved is found before the membership knows, and a cluster whose nodes all moved at once comes together when one of
them is told where the others are. To look in the wrong place costs nothing: whoever is there has to prove its name.
With TLS its certificate has to be for its id, or for the host where the membership or the configuration has it: its
own word isn't enough.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from callfs.cluster.identity import PeerIdentity
from callfs.cluster.interfaces import ITransport
from callfs.raft.membership import Member, Membership

REMEMBERED_SECONDS = 30.0
"""How long a stranger who fell silent is kept a connection to."""

SOUGHT_SECONDS = 3.0
"""How long a member is sought in one place, at first: more than it takes to connect. Twice as long each time."""

MOST_SOUGHT_SECONDS = 60.0
"""The longest; who comes back tells anyway where it is."""

MAX_STRANGERS = 16


@dataclass
class _Sought:
    """
    A member.

    :ivar at: where it is sought.
    :ivar since: when that began, or when it was last seen to be connected.
    :ivar said: where it was by its own word, or that of another node which reached it.
    :ivar moves: how often it was sought elsewhere since it was there.
    """

    member: Member
    at: str
    since: float
    said: str | None = None
    moves: int = 0

    def places(self, configured: str | None) -> Sequence[str]:
        """Where it may be, each place once, that of the membership first."""
        places = (self.member.raft_address, self.said, configured)
        return tuple(dict.fromkeys(place for place in places if place is not None))

    def patience_seconds(self) -> float:
        """How long to look in one place."""
        return min(SOUGHT_SECONDS * 2.0 ** min(self.moves, 10), MOST_SOUGHT_SECONDS)


class Acquaintances:
    """
    Keeps the transport's list of peers.

    A fresh node knows nobody until a leader talks to it, and a removed one isn't in the list of the others any
    more.

    :param node_id: this node.
    :param seconds: a clock that never jumps.
    :param configured: node id to raft address, by the configuration.
    """

    def __init__(
        self,
        node_id: str,
        transport: ITransport,
        seconds: Callable[[], float],
        configured: Mapping[str, str] | None = None,
    ) -> None:
        self._node_id = node_id
        self._transport = transport
        self._seconds = seconds
        self._configured = {name: at for name, at in (configured or {}).items() if name != node_id}
        self._members: dict[str, _Sought] = {}
        self._strangers: dict[str, tuple[str, float]] = {}
        self._knows_nobody = False

    def begin(self) -> None:
        """
        Go by the configuration until there is a membership: a member that was stopped before it had one can tell
        where it is to nobody but whom it dials itself.
        """
        self._knows_nobody = not self._members
        self._tell()

    def know(self, membership: Membership) -> None:
        """These are the members."""
        others = [member for member in membership.members if member.node_id != self._node_id]
        self._members = {member.node_id: self._known_as(member) for member in others}
        self._knows_nobody = self._knows_nobody and not membership.members
        self._tell()

    def _known_as(self, member: Member) -> _Sought:
        sought = self._members.get(member.node_id)
        if sought is None:
            return _Sought(member, member.raft_address, self._seconds())
        if sought.at == sought.member.raft_address:
            sought.at = member.raft_address
        sought.member = member
        return sought

    def met(self, peer: PeerIdentity) -> None:
        """Somebody talks to this node."""
        if peer.node_id in self._members:
            self.reached_by(peer)
            return
        known = self._strangers.get(peer.node_id)
        if known is None and len(self._strangers) >= MAX_STRANGERS:
            return
        self._strangers[peer.node_id] = (peer.raft_address, self._seconds())
        if known is None or known[0] != peer.raft_address:
            self._tell()

    def reached_by(self, peer: PeerIdentity) -> None:
        """Somebody has made a connection to this node. Where a member says that it is it is sought at once."""
        sought = self._members.get(peer.node_id)
        if sought is not None and peer.disk_id == sought.member.disk_id:
            self._told(sought, peer.raft_address)

    def heard_of(self, node_id: str, address: str) -> None:
        """Another node reaches a member there."""
        sought = self._members.get(node_id)
        if sought is not None:
            self._told(sought, address)

    def _told(self, sought: _Sought, address: str) -> None:
        if address == sought.said:
            return
        sought.said = address
        if sought.at != address and sought.member.node_id not in self._transport.connected():
            sought.at, sought.since = address, self._seconds()
            self._tell()

    def sightings(self) -> Mapping[str, str]:
        """The members that this node reaches where the membership doesn't have them."""
        elsewhere = {name: each.at for name, each in self._members.items() if each.at != each.member.raft_address}
        connected = self._transport.connected() if elsewhere else ()
        return {name: address for name, address in elsewhere.items() if name in connected}

    def look(self) -> None:
        """
        Drop strangers who fell silent, or became members, and seek those members elsewhere who aren't where they
        are sought.
        """
        now = self._seconds()
        oldest = now - REMEMBERED_SECONDS
        gone = [name for name, (_, at) in self._strangers.items() if at < oldest or name in self._members]
        for name in gone:
            del self._strangers[name]
        if self._look_elsewhere(now) or gone:
            self._tell()

    def _look_elsewhere(self, now: float) -> bool:
        late = [name for name, sought in self._members.items() if now - sought.since >= sought.patience_seconds()]
        connected = self._transport.connected() if late else ()
        moved = False
        for name in late:
            sought, places = self._members[name], self._members[name].places(self._configured.get(name))
            sought.since = now
            if name in connected:
                sought.moves = 0
            elif places != (sought.at,):
                at = places.index(sought.at) if sought.at in places else -1
                sought.at = places[(at + 1) % len(places)]
                sought.moves += 1
                moved = True
        return moved

    def _tell(self) -> None:
        configured = self._configured if self._knows_nobody else {}
        strangers = {name: address for name, (address, _) in self._strangers.items()}
        members = {name: sought.at for name, sought in self._members.items()}
        self._transport.set_peers({**configured, **strangers, **members}, self._known())

    def _known(self) -> Mapping[str, Sequence[str]]:
        """Where the members are, without what anybody said of himself."""
        known = {name: [sought.member.raft_address] for name, sought in self._members.items()}
        for name, address in self._configured.items():
            if name in known and address not in known[name]:
                known[name].append(address)
        return known
