"""Who belongs to a cluster, and how that changes: one server at a time (thesis 4.1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import msgspec

from callfs.raft.messages import Count, Entry, EntryKind
from callfs.raft.refusal import Refusal


class Member(msgspec.Struct, frozen=True, array_like=True):
    """
    A node of the cluster.

    :param disk_id: the random identity of the disk that it joined with; from another disk it neither votes nor
        counts.
    :param raft_address: where its peers reach it (``host:port``).
    :param api_endpoint: where its API is (URL); empty when unknown.
    :param voter: ``False`` for a learner, which gets the log but doesn't count.
    :param version: the newest version of commands and messages that it has announced.
    """

    node_id: str
    disk_id: str
    raft_address: str
    api_endpoint: str
    voter: bool
    version: Count = 1


class Membership(msgspec.Struct, frozen=True, array_like=True):
    """
    All nodes of a cluster.

    :param cluster_id: the cluster's random identity; empty on a node that belongs to none yet.
    :param members: in the order of their ids.
    """

    cluster_id: str
    members: tuple[Member, ...]

    @property
    def voters(self) -> tuple[str, ...]:
        """The ids of those that count."""
        return tuple(member.node_id for member in self.members if member.voter)

    def get(self, node_id: str) -> Member | None:
        """The member of that id."""
        return next((member for member in self.members if member.node_id == node_id), None)


NOBODY = Membership("", ())
"""What a fresh node knows."""


class AddLearner(msgspec.Struct, frozen=True, tag="add_learner"):
    """
    A node joins; it becomes a voter by itself once its log is near the end.

    With the id and disk of a member it changes the addresses and version only.

    :param member: ``voter`` is of no account.
    """

    member: Member


class RemoveMember(msgspec.Struct, frozen=True, tag="remove_member"):
    """A node leaves for good; to come back it has to join again."""

    node_id: str


class UpdateMember(msgspec.Struct, frozen=True, tag="update_member"):
    """
    A member announces other addresses or a newer version; ``None`` leaves a value as it is. Its raft address may be
    one that the membership still has for another: two that took each other's place couldn't say so otherwise.

    :param disk_id: the disk that the announcement comes from, which must be the member's.
    """

    node_id: str
    disk_id: str
    raft_address: str | None = None
    api_endpoint: str | None = None
    version: int | None = None


class Promote(msgspec.Struct, frozen=True, tag="promote"):
    """A learner becomes a voter; the leader proposes it by itself."""

    node_id: str


class Disown(msgspec.Struct, frozen=True, tag="disown"):
    """
    A member's disk was set back: it lacks what it acknowledged, and has forgotten its votes. No disk is the
    member's from now on, so that it counts with no leader until it was removed and joined again; the leader
    proposes it by itself.
    """

    node_id: str


MembershipChange: TypeAlias = AddLearner | RemoveMember | UpdateMember | Promote | Disown

NO_DISK = ""
"""The disk of a member that was disowned: no node has one of that name."""


class History:
    """
    The memberships of a log, newest last: an entry counts from when it is in the log until it is replaced.

    :param index: where the log was cut.
    :param membership: in force there.
    """

    def __init__(self, index: int, membership: Membership) -> None:
        self._known: list[tuple[int, Membership]] = [(index, membership)]

    @property
    def index(self) -> int:
        """The entry of the membership in force."""
        return self._known[-1][0]

    @property
    def current(self) -> Membership:
        """The membership in force."""
        return self._known[-1][1]

    def at(self, index: int) -> Membership:
        """The one in force at an index that isn't before the cut."""
        return next(membership for since, membership in reversed(self._known) if since <= index)

    def has_known(self, node_id: str, disk_id: str) -> bool:
        """Whether a node on that disk is or was a member, as far as this goes back."""
        members = (membership.get(node_id) for _, membership in self._known)
        return any(member is not None and member.disk_id == disk_id for member in members)

    def append(self, entries: Iterable[Entry]) -> None:
        """
        The log has grown.

        :raises msgspec.ValidationError, msgspec.DecodeError: an entry holds no membership; nothing was taken.
        """
        self._known.extend(
            [(entry.index, decoded(entry.data)) for entry in entries if entry.kind is EntryKind.MEMBERSHIP]
        )

    def truncate(self, index: int) -> None:
        """The entries from ``index`` on are gone."""
        while len(self._known) > 1 and self._known[-1][0] >= index:
            self._known.pop()

    def cut(self, index: int) -> None:
        """What was before ``index`` is only asked for as what was in force there."""
        in_force = self.at(index)
        self._known = [(index, in_force), *(known for known in self._known if known[0] > index)]


def encoded(membership: Membership) -> bytes:
    """The data of a membership entry."""
    return msgspec.msgpack.encode(membership)


def decoded(data: bytes) -> Membership:
    """
    The membership in an entry.

    :raises msgspec.ValidationError, msgspec.DecodeError: it isn't one.
    """
    return msgspec.msgpack.decode(data, type=Membership)


def changed(membership: Membership, change: MembershipChange) -> Membership | Refusal:
    """
    The membership after a change of one server.

    :returns: it; or ``UNCHANGED``, ``UNKNOWN_MEMBER``, ``OTHER_DISK``, ``ADDRESS_TAKEN``, ``LAST_VOTER``.
    """
    match change:
        case AddLearner(member):
            outcome = _added(membership, member)
        case UpdateMember():
            outcome = _updated(membership, change)
        case Promote(node_id):
            outcome = _promoted(membership, node_id)
        case Disown(node_id):
            outcome = _disowned(membership, node_id)
        case RemoveMember(node_id):
            return _removed(membership, node_id)
    if isinstance(outcome, Refusal):
        return outcome
    return _with(membership, outcome)


def _added(membership: Membership, member: Member) -> Member | Refusal:
    known = membership.get(member.node_id)
    if known is not None and known.disk_id != member.disk_id:
        return Refusal.OTHER_DISK
    if any(one.raft_address == member.raft_address for one in _others(membership, member.node_id)):
        return Refusal.ADDRESS_TAKEN
    return msgspec.structs.replace(member, voter=known is not None and known.voter)


def _updated(membership: Membership, change: UpdateMember) -> Member | Refusal:
    known = membership.get(change.node_id)
    if known is None:
        return Refusal.UNKNOWN_MEMBER
    if known.disk_id != change.disk_id:
        return Refusal.OTHER_DISK
    news = {
        name: value
        for name in ("raft_address", "api_endpoint", "version")
        if (value := getattr(change, name)) is not None
    }
    return msgspec.structs.replace(known, **news)


def _promoted(membership: Membership, node_id: str) -> Member | Refusal:
    known = membership.get(node_id)
    return Refusal.UNKNOWN_MEMBER if known is None else msgspec.structs.replace(known, voter=True)


def _disowned(membership: Membership, node_id: str) -> Member | Refusal:
    known = membership.get(node_id)
    return Refusal.UNKNOWN_MEMBER if known is None else msgspec.structs.replace(known, disk_id=NO_DISK)


def _removed(membership: Membership, node_id: str) -> Membership | Refusal:
    known = membership.get(node_id)
    if known is None:
        return Refusal.UNKNOWN_MEMBER
    if membership.voters == (node_id,):
        return Refusal.LAST_VOTER
    return Membership(membership.cluster_id, tuple(one for one in membership.members if one is not known))


def _with(membership: Membership, member: Member) -> Membership | Refusal:
    """The membership with a member added or exchanged."""
    members = tuple(sorted([*_others(membership, member.node_id), member], key=lambda one: one.node_id))
    return Refusal.UNCHANGED if members == membership.members else Membership(membership.cluster_id, members)


def _others(membership: Membership, node_id: str) -> list[Member]:
    return [one for one in membership.members if one.node_id != node_id]
