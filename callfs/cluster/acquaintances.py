"""
Whom a node keeps connections to: the members, and strangers who talk to it, so that they get answers.

Whoever talks says where it is. Of a member that moved this is the only way to learn it before the membership does.
"""

from __future__ import annotations

from collections.abc import Callable

from callfs.cluster.identity import PeerIdentity
from callfs.cluster.interfaces import ITransport
from callfs.raft.membership import Member, Membership

REMEMBERED_SECONDS = 30.0
MAX_STRANGERS = 16


class Acquaintances:
    """
    Keeps the transport's list of peers.

    A fresh node knows nobody until a leader talks to it, and a removed one isn't in the list of the others any
    more.

    :param node_id: this node.
    :param seconds: a clock that never jumps.
    """

    def __init__(self, node_id: str, transport: ITransport, seconds: Callable[[], float]) -> None:
        self._node_id = node_id
        self._transport = transport
        self._seconds = seconds
        self._members: dict[str, Member] = {}
        self._moved: dict[str, tuple[str, float]] = {}
        self._strangers: dict[str, tuple[str, float]] = {}

    def know(self, membership: Membership) -> None:
        """These are the members."""
        self._members = {member.node_id: member for member in membership.members if member.node_id != self._node_id}
        self._moved = {
            name: (address, at)
            for name, (address, at) in self._moved.items()
            if name in self._members and self._members[name].raft_address != address
        }
        self._tell()

    def met(self, peer: PeerIdentity) -> None:
        """Somebody talks to this node."""
        member = self._members.get(peer.node_id)
        if member is not None:
            self._meet_member(member, peer)
            return
        known = self._strangers.get(peer.node_id)
        if known is None and len(self._strangers) >= MAX_STRANGERS:
            return
        self._strangers[peer.node_id] = (peer.raft_address, self._seconds())
        if known is None or known[0] != peer.raft_address:
            self._tell()

    def _meet_member(self, member: Member, peer: PeerIdentity) -> None:
        if peer.raft_address == member.raft_address or peer.disk_id != member.disk_id:
            return
        moved = self._moved.get(peer.node_id)
        if (moved is None or moved[0] != peer.raft_address) and peer.node_id not in self._transport.connected():
            self._moved[peer.node_id] = (peer.raft_address, self._seconds())
            self._tell()

    def forget(self) -> None:
        """Drop strangers who fell silent, or became members, and members' places where they aren't found."""
        oldest = self._seconds() - REMEMBERED_SECONDS
        gone = [name for name, (_, at) in self._strangers.items() if at < oldest or name in self._members]
        for name in gone:
            del self._strangers[name]
        connected = self._transport.connected() if self._moved else ()
        lost = [name for name, (_, at) in self._moved.items() if at < oldest and name not in connected]
        for name in lost:
            del self._moved[name]
        if gone or lost:
            self._tell()

    def _tell(self) -> None:
        strangers = {name: address for name, (address, _) in self._strangers.items()}
        members = {name: member.raft_address for name, member in self._members.items()}
        moved = {name: address for name, (address, _) in self._moved.items()}
        self._transport.set_peers({**strangers, **members, **moved})
