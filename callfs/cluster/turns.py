"""
What a node does in one turn of the reactor.

Everything that the turn brings (messages, proposals, reads, a finished write) goes into the core at once; what it
wants done is taken in one go at the end, so that under load entries, messages and writes go in batches, and nothing
waits when there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from callfs.cluster.acquaintances import Acquaintances
from callfs.cluster.answering import place
from callfs.cluster.applying import Applier
from callfs.cluster.connections import UNSURE
from callfs.cluster.disklog import DiskLog
from callfs.cluster.interfaces import ITransport
from callfs.cluster.link import DeclinedByPeer, Unsent
from callfs.cluster.observing import Chronicle
from callfs.cluster.proposals import MAX_FORWARDED_BYTES, Proposal, Proposals
from callfs.cluster.questions import Forward, NotUnderstood, Places, decode_reply, encode
from callfs.cluster.snapshot_sending import SnapshotSending
from callfs.cluster.waiting_reads import WaitingReads
from callfs.raft.boundary import Ready
from callfs.raft.core import Core
from callfs.raft.messages import Message, Outgoing

_encode = msgspec.msgpack.Encoder().encode

Batch = list[tuple[Proposal, bytes]]


class Turns:
    """
    Carries out what the core says.

    :param node_id: this node.
    :param forward_seconds: how long the leader may take to place forwarded commands.
    :param broken: called when something raised that mustn't: the node can't go on then.
    """

    _log = Logger()

    def __init__(
        self,
        core: Core,
        node_id: str,
        clock: IReactorTime,
        *,
        log: DiskLog,
        transport: ITransport,
        applier: Applier,
        proposals: Proposals,
        reads: WaitingReads,
        sending: SnapshotSending,
        acquaintances: Acquaintances,
        chronicle: Chronicle,
        forward_seconds: float,
        broken: Callable[[str], None],
    ) -> None:
        self._core = core
        self._node_id = node_id
        self._clock = clock
        self._disk_log = log
        self._transport = transport
        self._applier = applier
        self._proposals = proposals
        self._reads = reads
        self._sending = sending
        self._acquaintances = acquaintances
        self._chronicle = chronicle
        self._forward_seconds = forward_seconds
        self._broken = broken
        self._due: IDelayedCall | None = None
        self._asked: dict[Deferred[bytes], str] = {}
        self._stopped = False
        self._in_turn = False

    def wake(self) -> None:
        """There is something to do when this turn of the reactor ends; what comes up in one is done in it."""
        if self._due is None and not self._stopped and not self._in_turn:
            self._due = self._clock.callLater(0, self._turn)

    def tick(self) -> None:
        """A unit of time has passed."""
        self.guarded(self._tick)
        self.wake()

    def stop(self) -> None:
        """Do nothing more."""
        self._stopped = True
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def guarded(self, work: Callable[..., None], *args: object) -> None:
        """Ask something of the core that mustn't raise."""
        try:
            work(*args)
        except Exception:
            self._log.failure("raft failed in a way that mustn't happen", event="raft_broken")
            self._broken("raft failed in a way that mustn't happen: see the log")

    def _tick(self) -> None:
        self._core.tick()
        self._proposals.expire()
        self._proposals.try_again()
        self._reads.expire()
        self._reads.try_again()

    def _turn(self) -> None:
        self._due = None
        self._in_turn = True
        self.guarded(self._work)
        self._in_turn = False
        if self._reads.are_due:
            self.wake()

    def _work(self) -> None:
        # Once a turn: where no other node is asked, who reads again and again would never let go of the reactor.
        for token in self._reads.take():
            self._core.read(token)
            self._applier.hurry()
        while not self._stopped:
            self._propose()
            ready = self._core.ready()
            if ready is None:
                return
            # Who gets a result may ask for the next thing at once.
            self._carry_out(ready)

    def _carry_out(self, ready: Ready) -> None:
        if ready.membership is not None:
            self._acquaintances.know(ready.membership)
            self._chronicle.membership(ready.membership)
        if ready.write is not None:
            # First, because its thread has a way to go to the disk, and can begin while messages are sent.
            self._disk_log.write(ready.write)
        self._send(ready.messages)
        if ready.write is not None and ready.write.entries and self._proposals.are_open:
            self._applier.expect(ready.write.entries)
        if ready.committed:
            # A write goes first: its thread needs the interpreter for a moment, and somebody waits for the disk.
            self._applier.add(
                ready.committed,
                later=ready.write is not None,
                awaited=self._proposals.are_open or self._reads.are_asked,
            )
        if ready.reads:
            self._reads.safe(ready.reads)
        if ready.failed_reads:
            self._reads.failed(ready.failed_reads)
        for node_id in ready.snapshots:
            self._sending.send(node_id)
        if ready.standing is not None:
            self._chronicle.standing(ready.standing)
            self._forget_former_leaders()
            self._proposals.try_again()
            self._reads.try_again()

    def _send(self, messages: Sequence[Outgoing]) -> None:
        """What several peers get is encoded once."""
        encoded: Message | None = None
        for outgoing in messages:
            if outgoing.message is not encoded:
                encoded = outgoing.message
                payload = _encode(encoded)
            self._transport.send(outgoing.to, payload)

    def _propose(self) -> None:
        leader = self._core.leader
        if leader is None:
            return
        batch = self._proposals.take()
        if not batch:
            return
        self._applier.hurry()
        if leader == self._node_id:
            own = [proposal for proposal, _ in batch]
            requests, versions = [data for _, data in batch], [proposal.version for proposal in own]
            self._proposals.reported(own, place(self._core, requests, versions))
            return
        for part in _parts(batch):
            self._forward(leader, part)

    def _forward(self, leader: str, batch: Batch) -> None:
        question = encode(Forward(tuple(data for _, data in batch)))
        asked = self._transport.ask(leader, question, self._forward_seconds)
        self._asked[asked] = leader

        def ended(result: bytes | Failure) -> bytes | Failure:
            self._asked.pop(asked, None)
            return result

        asked.addBoth(ended)
        asked.addCallbacks(self._forwarded, self._not_forwarded, callbackArgs=(batch,), errbackArgs=(batch,))

    def _forget_former_leaders(self) -> None:
        """Who led before and is silent (it may be frozen) isn't waited for: the new leader is asked again."""
        leader = self._core.leader
        for asked, whom in list(self._asked.items()):
            if leader not in (None, whom):
                asked.cancel()

    def _forwarded(self, answer: bytes, batch: Batch) -> None:
        try:
            reply = decode_reply(answer)
        except NotUnderstood:
            reply = None
        if isinstance(reply, Places) and len(reply.outcomes) == len(batch):
            self._proposals.reported([proposal for proposal, _ in batch], reply.outcomes)
        else:
            for proposal, _ in batch:
                self._proposals.unanswered(proposal)

    def _not_forwarded(self, failure: Failure, batch: Batch) -> None:
        error = failure.value
        certain = isinstance(error, Unsent) or (isinstance(error, DeclinedByPeer) and error.reason != UNSURE)
        for proposal, _ in batch:
            if certain:
                self._proposals.refused(proposal, "NOT_LEADER")
            else:
                self._proposals.unanswered(proposal)


def _parts(batch: Batch) -> list[Batch]:
    parts: list[Batch] = []
    room = 0
    for item in batch:
        room -= len(item[1])
        if room < 0:
            parts.append([])
            room = MAX_FORWARDED_BYTES - len(item[1])
        parts[-1].append(item)
    return parts
