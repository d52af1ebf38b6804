"""A node of a simulated cluster: a core with its disk, its state machine, its clock and its callers."""

from __future__ import annotations

import random

import msgspec

from callfs.raft.boundary import Position, Ready, Role, Write
from callfs.raft.core import Core
from callfs.raft.membership import Membership, MembershipChange
from callfs.raft.messages import (
    AppendResponse,
    Entry,
    EntryKind,
    Message,
    Outgoing,
    Sender,
    VoteRequest,
    VoteResponse,
)
from callfs.raft.refusal import Refusal
from tests.simulation.clients import Answered
from tests.simulation.copies import Copies
from tests.simulation.disk import Disk
from tests.simulation.history import Request
from tests.simulation.invariants import Violation
from tests.simulation.machine import Client, Command, Machine
from tests.simulation.process import Process
from tests.simulation.shadow import ShadowLog
from tests.simulation.stored import Contents
from tests.simulation.world import Copy, CopyReceived, Forwarded, World

PROMISES = (AppendResponse, VoteResponse, VoteRequest)
WIRE = msgspec.msgpack.Decoder(Message)


class Node(Process):
    """
    One node, up or down.

    :param contents: what is on its disk.
    :param pace: how fast its clock goes; 1.0 is right.
    :param chance: for its cores, one after the other.
    """

    def __init__(self, name: str, world: World, contents: Contents, pace: float, chance: random.Random) -> None:
        super().__init__(world.schedule, world.rng, int(world.tick * pace))
        self.name = name
        self.world = world
        self.contents = contents
        self.machine = contents.state.copy()
        self.disk = Disk(world.schedule, world.rng, self._store, self._usable, self._sync_failed)
        self._chance = chance
        self._power_failed = False

    @property
    def label(self) -> str:
        """The node and its disk, for the invariants."""
        return f"{self.name}/{self.contents.disk_id}"

    @property
    def leads(self) -> bool:
        """Whether it believes that it is leader."""
        return self.up and self.core.role is Role.LEADER

    def membership(self) -> Membership:
        """The last membership it knows of, from its disk when it is down."""
        return self.core.membership if self.up else self.contents.membership()

    # starting and stopping

    def start(self) -> None:
        """Start from what is durable; after a mere kill the state machine is as it was, in the page cache."""
        if self.up:
            return
        if self._power_failed:
            self.machine = self.contents.state.copy()
        self._power_failed = False
        self._sender = Sender(self.name, self.contents.disk_id)
        self._waiters: dict[tuple[Client, int], Answered] = {}
        self._reads: dict[int, tuple[Request, int, Answered]] = {}
        self._token = 0
        self._to_apply: list[Entry] = []
        self._applying = False
        self._copies = Copies(self)
        self._since_cut = 0
        self._configurations: list[list[str]] = []
        self._shadow = ShadowLog(self.label, self.world.invariants, self.contents.point, self.contents.entries)
        self.core: Core = self.world.core(
            node_id=self.name,
            disk_id=self.contents.disk_id,
            saved=self.contents.saved(self.machine),
            settings=self.world.settings,
            random=self._chance,
        )
        self._commit = self.core.commit_index
        self._led_term = 0
        self.world.note(self.name, f"starts at {self.machine.index} of {self._shadow.last}")
        self._learn(self.core.membership)
        self.begin_life()

    def crash(self, power: bool) -> None:
        """Stop at once. What isn't durable is lost; in a power failure also what the system hadn't written back."""
        self._power_failed = self._power_failed or power
        if self.up:
            self.world.note(self.name, "loses its power" if power else "is killed")
            self.disk.crash()
            self.end_life()

    def wipe(self, disk_id: str) -> None:
        """Begin anew with an empty disk."""
        self.crash(True)
        self.contents = Contents(disk_id)
        self.machine = Machine()

    # what comes in

    def tick(self) -> None:
        """One unit of time has passed."""
        self.core.tick()

    def receive(self, sender: Sender, message: object) -> None:
        """Take a message from another node."""
        self.input(self._receive, sender, message)

    def propose(self, command: Command, answered: Answered) -> None:
        """Have a command applied, by forwarding it if need be."""
        self.input(self._propose, command, answered)

    def read(self, request: Request, answered: Answered) -> None:
        """Answer a read once this node's copy is new enough."""
        self.input(self._read, request, answered)

    def change(self, change: MembershipChange) -> None:
        """Have the membership changed, by forwarding the change if need be."""
        self.input(self._offer, change)

    def transfer(self, to: str) -> None:
        """Hand the leadership over."""
        self.input(self._transfer, to)

    def cut_log(self) -> None:
        """Checkpoint the state and cut the log."""
        self.input(self._cut_log)

    def _receive(self, sender: Sender, message: object) -> None:
        match message:
            case Forwarded(content):
                self._take(content)
            case Copy():
                self._copies.fetch(sender.node_id, message)
            case CopyReceived():
                self._copies.heard(sender.node_id, message)
            case _ if self.world.rng.random() < 0.02:
                self.core.step(sender, WIRE.decode(msgspec.msgpack.encode(message)))
            case _:
                self.core.step(sender, message)  # type: ignore[arg-type]

    def _propose(self, command: Command, answered: Answered) -> None:
        number = len(self.world.commands)
        self.world.commands.append(command)
        self._waiters[command.client, command.sequence] = answered
        self._offer(number.to_bytes(8, "big"))

    def _offer(self, content: bytes | MembershipChange) -> None:
        leader = self.core.leader
        if leader == self.name:
            self._take(content)
        elif leader is not None:
            self.send(leader, Forwarded(content))

    def _take(self, content: bytes | MembershipChange) -> None:
        core = self.core
        outcome = core.propose(content) if isinstance(content, bytes) else core.propose_membership(content)
        if not isinstance(content, bytes):
            said = outcome.value if isinstance(outcome, Refusal) else f"at {outcome.index}"
            self.world.note(self.name, f"is to {content}: {said}")
        if isinstance(outcome, Position) and (outcome.term, outcome.index) != (core.term, core.last_index):
            raise Violation("proposals", f"{self.name} took {outcome} as {core.last_index} of term {core.term}")

    def _read(self, request: Request, answered: Answered) -> None:
        self._token += 1
        self._reads[self._token] = (request, self.world.invariants.commit, answered)
        self.core.read(self._token)

    def _transfer(self, to: str) -> None:
        refusal = self.core.transfer_leadership(to)
        self.world.note(self.name, f"is to transfer to {to}: {refusal.value if refusal else 'under way'}")

    # what goes out

    def turn(self) -> None:
        """Do what the core wants done."""
        core = self.core
        while (ready := core.ready()) is not None:
            if ready.write is not None:
                self._shadow.follow(ready.write)
            if ready.standing is not None:
                standing = ready.standing
                gone = ", removed" if standing.removed else ""
                told = f"{standing.role.value} in term {standing.term} of {standing.leader}{gone}"
                self.world.note(self.name, told)
                if standing.role is Role.LEADER:
                    self.world.invariants.leads(self.label, standing.term, self._shadow.term_at)
            if ready.membership is not None:
                self._learn(ready.membership)
            if core.commit_index != self._commit:
                self._committed(core)
            self._act(ready)
        self._led_term = core.term if core.role is Role.LEADER else 0

    def send(self, to: str, message: object) -> None:
        """Send something to another node."""
        self.world.network.send(self.name, to, (self._sender, message))

    def _act(self, ready: Ready) -> None:
        for outgoing in ready.messages:
            if type(outgoing.message) in PROMISES:
                self._check_promise(outgoing)
            self.send(outgoing.to, outgoing.message)
        write = ready.write
        if write is not None:
            number = write.number
            self.disk.write(write, lambda: self.input(self.core.persisted, number))
        if ready.committed:
            last = ready.committed[-1]
            durable = self.contents.term_at(last.index) == last.term
            self.world.invariants.promises(self.label, f"{last} is to be applied", durable)
            self._to_apply.extend(ready.committed)
            if not self._applying:
                self._applying = True
                self.later(self.world.rng.randrange(300), self.apply_now)
        for read in ready.reads:
            request, committed, answered = self._reads.pop(read.token)
            self.world.invariants.reads(self.label, self.machine.index, read.index, committed)
            answered(self.machine.read(request))
        for token in ready.failed_reads:
            del self._reads[token]
        for to in ready.snapshots:
            self._copies.send(to)

    def _check_promise(self, outgoing: Outgoing) -> None:
        """A message that promises something does so when it is durable, or was and gave way to a newer term."""
        message, invariants, contents = outgoing.message, self.world.invariants, self.contents
        known, vote = contents.hard_state.term, contents.hard_state.vote
        match message:
            case AppendResponse(term, match):
                durable = match <= contents.point.index or contents.term_at(match) == self._shadow.term_at(match)
                invariants.promises(self.label, message, known > term or durable)
            case VoteResponse(term, True, False):
                invariants.votes(self.label, term, outgoing.to)
                invariants.promises(self.label, message, known > term or (known, vote) == (term, outgoing.to))
            case VoteRequest(term, _, _, False):
                invariants.votes(self.label, term, self.name)
                invariants.promises(self.label, message, known > term or (known, vote) == (term, self.name))

    def _committed(self, core: Core) -> None:
        """
        The commit index moved: on a leader by counting, which is checked; on a follower by being told.

        A leader that leads no more after the same turn has counted what no leader called committed before.
        """
        first = self._commit + 1
        if core.role is Role.LEADER:
            self._led_term = core.term
        elif core.term != self._led_term:
            first = max(first, self.world.invariants.commit + 1)
        if self._led_term:
            new = [self._shadow.entry_at(index) for index in range(first, core.commit_index + 1)]
            self.world.invariants.commits(self.label, self._led_term, new, self._configurations)
        self._commit = core.commit_index

    def _learn(self, membership: Membership) -> None:
        voters = [f"{member.node_id}/{member.disk_id}" for member in membership.members if member.voter]
        self._configurations = [*self._configurations[-1:], voters]

    # the disk

    def _store(self, write: Write) -> None:
        self.contents.store(write)
        self.world.invariants.holds(self.label, write.entries)
        if write.hard_state is not None:
            self.world.invariants.advances(self.label, write.hard_state.term)

    def _usable(self, usable: bool) -> None:
        self.input(self._set_writable, usable)

    def _set_writable(self, writable: bool) -> None:
        self.world.note(self.name, "has room" if writable else "has a full disk")
        self.core.set_writable(writable)

    def _sync_failed(self) -> None:
        self.world.note(self.name, "stops: fsync failed")
        self.crash(True)

    # the state machine

    def apply_now(self) -> None:
        """Apply what was handed out for it, and answer those who waited for that."""
        self._applying = False
        entries, self._to_apply = self._to_apply, []
        if not entries:
            return
        for entry in entries:
            self.world.invariants.applies(self.label, entry)
            command = None
            if entry.kind is EntryKind.COMMAND:
                command = self.world.commands[int.from_bytes(entry.data, "big")]
            answer = self.machine.apply(entry, command)
            if command is not None:
                answered = self._waiters.pop((command.client, command.sequence), None)
                if answered is not None:
                    answered(answer)
        self.core.applied(self.machine.index)
        self._since_cut += len(entries)
        if self._since_cut >= self.world.threshold:
            self._cut_log()

    def exchange(self, state: Machine) -> None:
        """Put another state into the place of the node's own, durably."""
        self.contents.state = state.copy()
        self.machine = state.copy()

    def _cut_log(self) -> None:
        """Make the state durable, then let the log be cut."""
        self._since_cut = 0
        self.later(self.world.rng.randrange(20_000), self._checkpointed, self.machine.copy())

    def _checkpointed(self, state: Machine) -> None:
        if state.index >= self.contents.state.index:
            self.contents.state = state
            self.world.note(self.name, f"cuts its log up to {state.index}")
            self.core.compact(state.index)
