"""The ports of the cluster: what a store asks of it, and what it asks of a state machine and of a transport."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from callfs.cluster.identity import PeerIdentity
from callfs.cluster.requests import Request
from callfs.cluster.unusable import CannotTakePart
from callfs.raft.boundary import SnapshotMeta, Status
from callfs.raft.membership import Member, Membership


class Applied(msgspec.Struct, frozen=True, gc=False):
    """
    What became of a proposal.

    :param index: its place in the log.
    :param result: what the state machine said, as bytes.
    """

    index: int
    result: bytes


class ClusterStatus(msgspec.Struct, frozen=True):
    """
    What ``cluster status`` and readiness show.

    :param cluster_id: empty while the node belongs to none.
    :param disk_id: of this node's log.
    :param raft: the core's own view.
    :param stopped_because: why the node doesn't take part any more; empty while it does.
    :param disk_full: whether the log can't grow just now.
    :param connected: peers that this node has a proven connection to.
    """

    cluster_id: str
    disk_id: str
    raft: Status
    stopped_because: str
    disk_full: bool
    connected: tuple[str, ...]


class ChangeRefused(Exception):
    """
    A membership change or a transfer wasn't made; nothing has changed.

    :param reason: a code (of :class:`callfs.raft.boundary.Refusal` in lower case, or ``unreachable``, ``node``,
        ``secret``, ``cluster``, ``self``, ``version``, ``timeout``; ``no_cluster`` and ``removed`` when the node
        that is asked belongs to none, or doesn't any more).
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class IReplicator(Interface):
    """
    A log that all nodes of a cluster agree on, and the state that it makes.

    **Order**: proposals have one order, the same on all nodes. **Durability**: when :meth:`propose` fires, the
    command is durable on a majority, and what it comes to is settled; a read that follows :meth:`read_barrier` sees
    it, on any node. **Once**: it is applied once, however often it had to be sent.

    What can't be done in ``apply_timeout`` fails with :class:`callfs.errors.MetadataUnavailable`, when it is
    certain that nothing has changed.
    """

    def propose(command: bytes, version: int = 1) -> Deferred[Applied]:
        """
        Have a command applied on all nodes.

        :param version: the kind's version: it isn't proposed before all members announced that they know it.
        :return: the result of applying it, once. Cancelled, it may or may not be applied.
        :raises callfs.errors.MetadataUnavailable: nothing happened and nothing will.
        :raises callfs.errors.InsufficientStorage: the leader's disk is full; nothing happened.
        :raises callfs.errors.OutcomeUnknown: it may have happened, or happen yet.
        """

    def read_barrier() -> Deferred[int]:
        """
        Fires when this node's state machine contains everything that was acknowledged before the call.

        :return: an applied index.
        :raises callfs.errors.MetadataUnavailable: no majority confirmed it in time.
        """

    def status() -> ClusterStatus:
        """What this node knows."""

    def membership() -> Membership:
        """The members as this node knows them, with the addresses of their APIs."""

    def join(node_id: str, raft_address: str, api_endpoint: str = "") -> Deferred[Membership]:
        """
        Let a node in; it may be asked of any node. Joining twice changes nothing.

        :param node_id: who must be found at ``raft_address``.
        :return: a membership that contains it; it becomes a voter by itself when it has caught up.
        :raises ChangeRefused: it isn't there, is somebody else, belongs to another cluster, has another secret, or
            the leader refuses.
        :raises callfs.errors.MetadataUnavailable: there is no leader, or no majority answered in time.
        """

    def remove(node_id: str) -> Deferred[Membership]:
        """
        Remove a node for good; may be asked of any node. Removing twice changes nothing.

        :raises ChangeRefused: the leader refuses.
        :raises callfs.errors.MetadataUnavailable: there is no leader, or no majority answered in time.
        """

    def transfer(node_id: str) -> Deferred[None]:
        """
        Hand the leadership to a voter; may be asked of any node. Fires when it leads.

        :raises ChangeRefused: the leader refuses, or the node didn't take over in time; the old one goes on then.
        :raises callfs.errors.MetadataUnavailable: there is no leader.
        """


class Step(msgspec.Struct, frozen=True, gc=False):
    """
    A committed entry as a state machine gets it. It is always recorded as applied; at most one of the last two is
    set.

    :param index: one more than the step before.
    :param term: of the entry.
    :param request: a command to carry out.
    :param membership: the membership in force from here on, to be kept with the state.
    """

    index: int
    term: int
    request: Request | None = None
    membership: Membership | None = None


class ClientForgotten(msgspec.Struct, frozen=True):
    """
    The command wasn't carried out: it is below its client's lowest open number, or the client was forgotten because
    the log had heard nothing from it for :data:`callfs.cluster.requests.SILENT_CLIENT_MICROSECONDS`.
    """


Outcome = bytes | ClientForgotten | None
"""Of a step: the result of its command, or nothing for a step without one."""


class StateUnusable(CannotTakePart):
    """
    The state can't be opened, or doesn't go on (corrupt, an I/O error, a command of an unknown kind).

    The message is for the operator: what is wrong and what to do.
    """


class ISnapshot(Interface):
    """A state as it was at one index: a consistent copy that nothing changes."""

    meta: SnapshotMeta = Attribute("What it contains.")
    size: int = Attribute("Its length in bytes.")
    sha256: bytes = Attribute("The digest of all of it.")

    def read(offset: int, size: int) -> Deferred[bytes]:
        """A piece of it; shorter only at the end."""

    def close() -> Deferred[None]:
        """Let go of the copy."""


class IStateMachine(Interface):
    """
    What the log's commands are applied to.

    Its methods are called one at a time, but for :meth:`ISnapshot.read`. The state carries its own
    :class:`~callfs.raft.boundary.SnapshotMeta` (index and term of the last applied entry, membership in force),
        which
    moves in one transaction with what the entries do. It needn't be durable before :meth:`checkpoint` says so: the
    log is. It holds nothing that belongs to one node alone, and applying reads no clock and makes no chance.
    """

    command_version: int = Attribute("The newest version of a command that it knows; at least 1.")

    def open() -> Deferred[SnapshotMeta]:
        """
        Open the state, or make an empty one (index 0, term 0, :data:`callfs.raft.membership.NOBODY`).

        :return: what it contains.
        :raises StateUnusable: what is there can't be used.
        """

    def apply(steps: Sequence[Step]) -> Deferred[Sequence[Outcome]]:
        """
        Apply entries, in order, all or none of them; exactly once each as :mod:`callfs.cluster.requests` says.

        A command's own refusal is a result like any other.

        :return: an outcome for each step.
        :raises StateUnusable: an I/O error or an unknown command; the state is as before or as after the steps, and
            the node stops.
        :raises callfs.errors.InsufficientStorage: the disk is full; the state is as before and the call is
            repeated.
        """

    def checkpoint() -> Deferred[int]:
        """
        Make the state durable.

        :return: the index up to which it is: the log may be cut there.
        :raises StateUnusable: an I/O error; the node stops.
        :raises callfs.errors.InsufficientStorage: the disk is full; the log stays as it is.
        """

    def snapshot() -> Deferred[ISnapshot]:
        """
        A consistent copy of the state as it is, for sending.

        :raises callfs.errors.InsufficientStorage: there is no room for a copy.
        :raises StateUnusable: an I/O error; the node goes on.
        """

    def install(file: Path, meta: SnapshotMeta) -> Deferred[None]:
        """
        Replace the state by that in ``file`` (complete, digest checked), durably and at once: an atomic switch,
        never written over the old one. The file is the state machine's from now on.

        :raises StateUnusable: the file isn't a state, or doesn't contain what ``meta`` says; the old state is in
            force.
        """

    def close() -> Deferred[None]:
        """End; what is applied stays. It may not have been opened, and may have failed."""


class IForesightedState(IStateMachine):
    """
    A state machine that says what steps come to before it is certain that they come, and which of them can wait.

    Whoever waits for a step gets its outcome when the log has it for certain, and the state takes it in afterwards.
    That is safe because steps mean the same on every node and at any time: a node that dies in between replays them
    from its log, and a read waits until the state contains them.
    """

    def prepare(steps: Sequence[Step]) -> Callable[[], Deferred[Sequence[Outcome] | None]]:
        """
        Begin to find out what steps come to that are likely to be the next, without anybody seeing anything of it.
        It isn't waited for: other methods may be called at once, and have their turn after it. What they find is
        as if this had never been called, but for :meth:`apply` with exactly these steps, which is the quicker.

        :param steps: few.
        :return: to be called once, if at all: fires with what applying the steps will come to; ``None`` where that
            isn't to be known before.
        """

    def can_wait(steps: Sequence[Step]) -> bool:
        """Whether on this node nobody learns of these steps but by their outcomes, and by reads."""


class Receiver(Protocol):
    """What a transport calls."""

    def admit(self, peer: PeerIdentity) -> str | None:
        """Why a proven peer can't come in, as a code; or nothing."""

    def opened(self, peer: PeerIdentity) -> None:
        """This node reached a peer."""

    def reached_by(self, peer: PeerIdentity) -> None:
        """A peer reached this node."""

    def message(self, peer: PeerIdentity, payload: bytes) -> None:
        """A peer sent a message."""

    def asked(self, peer: PeerIdentity, payload: bytes) -> Deferred[bytes]:
        """A peer asks; to decline fail with :class:`callfs.cluster.connections.DeclinedQuestion`."""


class ITransport(Interface):
    """Messages and questions between nodes that have proven who they are."""

    def start(identity: Callable[[], PeerIdentity], receiver: Receiver) -> Deferred[None]:
        """Listen. ``identity`` is asked anew for every connection."""

    def stop() -> Deferred[None]:
        """Hang up and stop listening."""

    def set_peers(addresses: Mapping[str, str], known: Mapping[str, Sequence[str]] | None = None) -> None:
        """
        Keep connections to these nodes, by id, and to no others.

        :param known: the members, and the raft addresses that the membership and the configuration have for each:
            a certificate of a member has to be for its id or for one of these hosts.
        """

    def identity_changed() -> None:
        """Make all connections anew, because what was said about this node isn't true any more."""

    def connected() -> tuple[str, ...]:
        """The nodes that there is a proven connection to."""

    def send(node_id: str, payload: bytes) -> None:
        """Send a message, or lose it."""

    def ask(node_id: str, payload: bytes, seconds: float) -> Deferred[bytes]:
        """
        Ask a peer.

        :raises callfs.cluster.link.Unsent: it certainly didn't get there.
        :raises callfs.cluster.link.Unanswered: it may have.
        :raises callfs.cluster.link.DeclinedByPeer: it did, and the peer says no.
        """

    def probe(address: str, node_id: str, seconds: float) -> Deferred[PeerIdentity]:
        """
        Find out who is at an address.

        :param node_id: who is expected; empty for anybody.
        :raises callfs.cluster.handshake.HandshakeRefused: somebody else, or somebody who doesn't know the secret.
        :raises callfs.cluster.link.Unsent: nobody answers.
        """


__all__ = [
    "Applied",
    "ChangeRefused",
    "ClientForgotten",
    "ClusterStatus",
    "IForesightedState",
    "IReplicator",
    "ISnapshot",
    "IStateMachine",
    "ITransport",
    "Member",
    "Membership",
    "Outcome",
    "Receiver",
    "SnapshotMeta",
    "StateUnusable",
    "Status",
    "Step",
]
