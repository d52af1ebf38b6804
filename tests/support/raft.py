"""Twins for a node of the cluster: a state machine in memory and a file, a network without sockets, an observer."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from callfs.cluster.connections import DeclinedQuestion
from callfs.cluster.handshake import HandshakeRefused
from callfs.cluster.identity import PeerIdentity
from callfs.cluster.interfaces import (
    ClientForgotten,
    ISnapshot,
    IStateMachine,
    ITransport,
    Outcome,
    Receiver,
    SnapshotMeta,
    StateUnusable,
    Step,
)
from callfs.cluster.link import DeclinedByPeer, Unanswered, Unsent
from callfs.cluster.requests import SILENT_CLIENT_MICROSECONDS, Request
from callfs.errors import InsufficientStorage
from callfs.raft.boundary import Status
from callfs.raft.membership import NOBODY


class _Client(msgspec.Struct):
    heard_at: int
    lowest: int
    results: dict[int, bytes]


class KeptState(msgspec.Struct):
    """What is in the file."""

    meta: SnapshotMeta
    values: list[str]
    clients: dict[int, _Client]
    log_time: int = 0


class MemorySnapshot:
    """A copy of a :class:`MemoryState`, whose registered name is ISnapshot."""

    def __init__(self, meta: SnapshotMeta, data: bytes) -> None:
        self.meta = meta
        self.data = data
        self.size = len(data)
        self.sha256 = hashlib.sha256(data).digest()
        self.closed = False

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """A piece."""
        return succeed(self.data[offset : offset + size])

    def close(self) -> Deferred[None]:
        """Let go."""
        self.closed = True
        return succeed(None)


@implementer(IStateMachine)
class MemoryState:
    """
    Appends each command, as text, to a list; the result is how long the list is then, in digits.

    :param file: what is kept between starts: the state of the last checkpoint or installation.
    :param command_version: what it claims to know.
    """

    def __init__(self, file: Path, command_version: int = 1) -> None:
        self.file = file
        self.command_version = command_version
        self.failure: Exception | None = None
        self.checkpoints = 0
        self.installed = 0
        self._state = KeptState(SnapshotMeta(0, 0, NOBODY), [], {})

    @property
    def values(self) -> list[str]:
        """What was appended."""
        return self._state.values

    @property
    def meta(self) -> SnapshotMeta:
        """What the state contains."""
        return self._state.meta

    def open(self) -> Deferred[SnapshotMeta]:
        """Read the file."""
        with contextlib.suppress(FileNotFoundError):
            self._state = msgspec.msgpack.decode(self.file.read_bytes(), type=KeptState)
        return succeed(self._state.meta)

    def apply(self, steps: Sequence[Step]) -> Deferred[Sequence[Outcome]]:
        """Append."""
        if self.failure is not None:
            return fail(self.failure)
        return succeed([self._apply_one(step) for step in steps])

    def checkpoint(self) -> Deferred[int]:
        """Write the file."""
        if self.failure is not None:
            return fail(self.failure)
        self.checkpoints += 1
        try:
            self._save(msgspec.msgpack.encode(self._state))
        except OSError as error:
            return fail(InsufficientStorage("full") if error.errno == errno.ENOSPC else StateUnusable(str(error)))
        return succeed(self._state.meta.index)

    def snapshot(self) -> Deferred[ISnapshot]:
        """A copy."""
        return succeed(MemorySnapshot(self._state.meta, msgspec.msgpack.encode(self._state)))  # type: ignore[arg-type]

    def install(self, file: Path, meta: SnapshotMeta) -> Deferred[None]:
        """Take the file over."""
        try:
            state = msgspec.msgpack.decode(file.read_bytes(), type=KeptState)
        except msgspec.DecodeError:
            return fail(StateUnusable("this isn't a state"))
        if state.meta != meta:
            return fail(StateUnusable("this is another state"))
        self.installed += 1
        self._state = state
        self._save(file.read_bytes())
        return succeed(None)

    def close(self) -> Deferred[None]:
        """Nothing is open."""
        return succeed(None)

    def _save(self, data: bytes) -> None:
        new = self.file.with_suffix(".new")
        new.write_bytes(data)
        os.rename(new, self.file)

    def _apply_one(self, step: Step) -> Outcome:
        state = self._state
        assert step.index == state.meta.index + 1, "entries come in order, each once"
        membership = state.meta.membership if step.membership is None else step.membership
        state.meta = SnapshotMeta(step.index, step.term, membership)
        return None if step.request is None else self._carry_out(step.index, step.request)

    def _carry_out(self, index: int, request: Request) -> Outcome:
        state = self._state
        state.log_time = max(state.log_time, request.at)
        for name, each in list(state.clients.items()):
            if each.heard_at < state.log_time - SILENT_CLIENT_MICROSECONDS:
                del state.clients[name]
        if request.client == 0:
            state.clients[index] = _Client(state.log_time, 0, {})
            return b""
        client = state.clients.get(request.client)
        if client is None:
            return ClientForgotten()
        client.heard_at = state.log_time
        client.lowest = max(client.lowest, request.lowest)
        client.results = {number: each for number, each in client.results.items() if number >= client.lowest}
        if request.sequence < client.lowest:
            return ClientForgotten()
        if request.sequence not in client.results:
            state.values.append(request.command.decode())
            client.results[request.sequence] = b"%d" % len(state.values)
        return client.results[request.sequence]


class Network:
    """
    Messages between nodes of one process, each in a later turn of the reactor.

    :param reactor: its ``callLater`` carries them.
    :ivar cut: pairs (from, to) that nothing passes between.
    :ivar frozen: nodes that take everything and say nothing, questions included.
    """

    def __init__(self, reactor: Any, delay_seconds: float = 0.0) -> None:
        self.cut: set[tuple[str, str]] = set()
        self.frozen: set[str] = set()
        self.members: dict[str, MemoryTransport] = {}
        self.reactor = reactor
        self.delay_seconds = delay_seconds

    def isolate(self, node_id: str) -> None:
        """Nothing reaches that node and nothing leaves it."""
        for other in self.members:
            if other != node_id:
                self.cut |= {(node_id, other), (other, node_id)}

    def heal(self) -> None:
        """Everything passes."""
        self.cut.clear()

    def passes(self, sender: str, receiver: str) -> bool:
        """Whether a message gets through."""
        frozen = {sender, receiver} & self.frozen
        return not frozen and (sender, receiver) not in self.cut and self.members[receiver].is_running

    def at(self, address: str) -> MemoryTransport | None:
        """Who listens there."""
        return next((each for each in self.members.values() if each.address == address and each.is_running), None)


@implementer(ITransport)
class MemoryTransport:
    """A node's place in a :class:`Network`."""

    def __init__(self, network: Network, node_id: str, address: str) -> None:
        self.node_id = node_id
        self.address = address
        self.is_running = False
        self.sent: list[tuple[str, bytes]] = []
        self._network = network
        self._peers: Mapping[str, str] = {}
        network.members[node_id] = self

    def start(self, identity: Callable[[], PeerIdentity], receiver: Receiver) -> Deferred[None]:
        """Listen."""
        self.identity = identity
        self.receiver = receiver
        self.is_running = True
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """Stop listening."""
        self.is_running = False
        return succeed(None)

    def set_peers(self, addresses: Mapping[str, str], known: Mapping[str, Sequence[str]] | None = None) -> None:
        """Who can be reached."""
        self._peers = dict(addresses)

    def identity_changed(self) -> None:
        """Identities are looked up with each message."""

    def connected(self) -> tuple[str, ...]:
        """Who is there."""
        return tuple(name for name in sorted(self._peers) if name in self._network.members)

    def send(self, node_id: str, payload: bytes) -> None:
        """Deliver in a later turn."""
        self.sent.append((node_id, payload))
        if node_id in self._peers and node_id in self._network.members:
            self._network.reactor.callLater(self._network.delay_seconds, self._deliver, node_id, payload)

    def _deliver(self, node_id: str, payload: bytes) -> None:
        if self.is_running and self._network.passes(self.node_id, node_id):
            self._network.members[node_id].receiver.message(self.identity(), payload)

    def ask(self, node_id: str, payload: bytes, seconds: float) -> Deferred[bytes]:
        """Ask in a later turn."""
        answer: Deferred[bytes] = Deferred()
        if node_id not in self._peers or node_id not in self._network.members:
            answer.errback(Unsent("nobody"))
            return answer
        late = self._network.reactor.callLater(seconds, _settle, answer, Unanswered("too late"))
        self._network.reactor.callLater(self._network.delay_seconds, self._put, node_id, payload, answer)

        def ended(result: object) -> object:
            if late.active():
                late.cancel()
            return result

        return answer.addBoth(ended)  # type: ignore[return-value]

    def _put(self, node_id: str, payload: bytes, answer: Deferred[bytes]) -> None:
        if node_id in self._network.frozen:
            return
        if not self.is_running or not self._network.passes(self.node_id, node_id):
            _settle(answer, Unanswered("lost"))
            return

        def back(result: Any) -> None:
            self._network.reactor.callLater(self._network.delay_seconds, self._bring, node_id, result, answer)

        self._network.members[node_id].receiver.asked(self.identity(), payload).addBoth(back)

    def _bring(self, node_id: str, result: Any, answer: Deferred[bytes]) -> None:
        if not self._network.passes(node_id, self.node_id):
            _settle(answer, Unanswered("lost"))
        elif isinstance(result, bytes):
            _settle(answer, result)
        else:
            declined = isinstance(result.value, DeclinedQuestion)
            _settle(answer, DeclinedByPeer(result.value.reason if declined else "failed"))

    def probe(self, address: str, node_id: str, seconds: float) -> Deferred[PeerIdentity]:
        """Who is there."""
        other = self._network.at(address)
        if other is None or not self._network.passes(self.node_id, other.node_id):
            return fail(Unsent("nobody answers there"))
        peer, own = other.identity(), self.identity()
        if node_id not in ("", peer.node_id):
            return fail(HandshakeRefused("node"))
        if own.cluster_id and peer.cluster_id and own.cluster_id != peer.cluster_id:
            return fail(HandshakeRefused("cluster"))
        return succeed(peer)


def _settle(answer: Deferred[bytes], result: bytes | Exception) -> None:
    if answer.called:
        return
    if isinstance(result, Exception):
        answer.errback(result)
    else:
        answer.callback(result)


class Recording:
    """A :class:`callfs.cluster.observing.ClusterObserver` that keeps what it is told."""

    def __init__(self) -> None:
        self.refused: list[str] = []
        self.lost: list[str] = []
        self.connected: dict[str, bool] = {}
        self.proposals: list[str] = []
        self.snapshots: list[str] = []
        self.errors: list[tuple[str, str]] = []
        self.statuses: list[Status] = []
        self.elections = 0
        self.leader_changes = 0
        self.writes = 0

    def peer_connected(self, node_id: str, connected: bool) -> None:
        """A way opened or closed."""
        self.connected[node_id] = connected

    def peer_message_lost(self, node_id: str) -> None:
        """A message was thrown away."""
        self.lost.append(node_id)

    def peer_refused(self, reason: str) -> None:
        """A connection was refused."""
        self.refused.append(reason)

    def raft_proposal(self, outcome: str, seconds: float) -> None:
        """A proposal ended without a result."""
        self.proposals.append(outcome)

    def raft_applied(self, seconds: Sequence[float]) -> None:
        """Proposals were applied."""
        self.proposals += ["applied"] * len(seconds)

    def raft_snapshot(self, event: str) -> None:
        """Something happened to a copy."""
        self.snapshots.append(event)

    def raft_status(self, status: Status, heartbeat_seconds: float) -> None:
        """How the node is."""
        self.statuses.append(status)

    def raft_election(self) -> None:
        """It stood for election."""
        self.elections += 1

    def raft_leader_changed(self) -> None:
        """Somebody leads."""
        self.leader_changes += 1

    def raft_log_written(self, seconds: float) -> None:
        """A group of writes is durable."""
        self.writes += 1

    def error(self, component: str, error_type: str) -> None:
        """Something went wrong."""
        self.errors.append((component, error_type))
