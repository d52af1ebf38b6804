"""
Linearizable reads without a log entry (ReadIndex, thesis 6.4).

A leader notes its commit index and lets a majority confirm, by one round of heartbeats, that it still leads; a
follower asks the leader for such an index. The read is safe on a node that has applied it. One round, and one
question, is under way at a time; what is asked meanwhile shares the next one.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from callfs.raft.boundary import Role, SafeRead
from callfs.raft.messages import ReadIndexRequest, ReadIndexResponse
from callfs.raft.replica import Replica
from callfs.raft.replication import Replication

CONTEXTS = 2**61


class Asked(NamedTuple):
    """A read of this node, and when it was asked for."""

    token: int
    tick: int


class _Round(msgspec.Struct):
    """A leader's round of heartbeats: once answered, all these may read at ``index``."""

    number: int
    index: int
    own: list[Asked]
    askers: dict[str, int]


class _Question(msgspec.Struct):
    """A follower's question to the leader."""

    context: int
    own: list[Asked]
    sent_tick: int


class Reads:
    """
    The reads of one node, and at the leader those of others.

    :param replica: what all parts share.
    :param replication: confirms rounds.
    """

    def __init__(self, replica: Replica, replication: Replication) -> None:
        self._replica = replica
        self._replication = replication
        self._now = 0
        self._waiting: list[Asked] = []
        self._askers: dict[str, int] = {}
        self._rounds = 1
        self._round: _Round | None = None
        self._question: _Question | None = None
        self._context = replica.random.randrange(0, CONTEXTS)
        self._safe: list[tuple[int, list[Asked]]] = []
        self._failed: list[int] = []

    @property
    def newest_round(self) -> int:
        """The number of the round that went out last; the first is nobody's, so that each heartbeat is answered."""
        return self._rounds

    def ask(self, token: int) -> None:
        """A read on this node waits."""
        self._waiting.append(Asked(token, self._now))

    def serve(self, token: int, index: int) -> None:
        """A read is safe once that index is applied."""
        self._safe.append((index, [Asked(token, self._now)]))

    def asked_by(self, peer: str, request: ReadIndexRequest) -> None:
        """A follower asks this leader; only its newest question matters."""
        self._askers[peer] = request.context

    def answered(self, response: ReadIndexResponse) -> None:
        """The leader has answered."""
        question = self._question
        if question is not None and question.context == response.context:
            self._question = None
            self._safe.append((response.index, question.own))

    def confirm(self) -> None:
        """An answer to a heartbeat has come in, or fewer are needed: release what a majority has confirmed."""
        round_ = self._round
        if round_ is not None and self._replication.confirmed_round(self._rounds) >= round_.number:
            self._round = None
            self._release(round_)

    def leader_lost(self) -> None:
        """This node leads no more: its reads have to be asked again, others' are asked by their nodes."""
        own = self._round.own if self._round is not None else []
        self._failed.extend(asked.token for asked in [*own, *self._waiting])
        self._round, self._askers, self._waiting = None, {}, []

    def leader_changed(self) -> None:
        """Another leader, or none: what the last one was asked is asked again."""
        if self._question is not None:
            self._waiting[:0] = self._question.own
            self._question = None

    def tick(self) -> None:
        """Time has passed; reads without an answer for two election timeouts fail."""
        self._now += 1
        if self._replica.role is Role.LEADER:
            self.confirm()  # after a removal nobody may be left whose answer would do it
        oldest = self._now - 2 * self._replica.settings.election_ticks
        for reads in self._all():
            old = sum(asked.tick < oldest for asked in reads) if reads and reads[0].tick < oldest else 0
            self._failed.extend(asked.token for asked in reads[:old])
            del reads[:old]
        if self._question is not None and not self._question.own:
            self._question = None

    def flush(self) -> None:
        """Begin the next round, or ask the next question, if one is due."""
        replica = self._replica
        if replica.role is Role.LEADER:
            self._begin_round()
        elif replica.leader is not None:
            self._ask_leader(replica.leader)

    def take(self, applied: int) -> tuple[tuple[SafeRead, ...], tuple[int, ...]]:
        """The reads that may be served now that so much is applied, and those that failed."""
        if not self._safe and not self._failed:
            return (), ()
        safe = [SafeRead(asked.token, index) for index, reads in self._safe if index <= applied for asked in reads]
        self._safe = [(index, reads) for index, reads in self._safe if index > applied]
        failed, self._failed = self._failed, []
        return tuple(safe), tuple(failed)

    def _begin_round(self) -> None:
        """Not before an entry of this term is committed: until then a leader doesn't know what is."""
        replica = self._replica
        if self._round is not None or not (self._waiting or self._askers) or not replica.knows_own_term_committed:
            return
        self._rounds += 1
        self._round = _Round(self._rounds, replica.commit, self._waiting, self._askers)
        self._waiting, self._askers = [], {}
        self._replication.heartbeat(self._rounds)
        self.confirm()

    def _ask_leader(self, leader: str) -> None:
        """A question that got no answer for a heartbeat's time is sent again: either of us may have missed it."""
        question = self._question
        if question is None:
            if not self._waiting:
                return
            self._context += 1
            question = self._question = _Question(self._context, self._waiting, self._now)
            self._waiting = []
        elif self._now < question.sent_tick + self._replica.settings.heartbeat_ticks:
            return
        question.sent_tick = self._now
        self._replica.send(leader, ReadIndexRequest(self._replica.term, question.context))

    def _release(self, round_: _Round) -> None:
        self._safe.append((round_.index, round_.own))
        for peer, context in round_.askers.items():
            self._replica.send(peer, ReadIndexResponse(self._replica.term, context, round_.index))

    def _all(self) -> list[list[Asked]]:
        reads = [self._waiting, *(reads for _, reads in self._safe)]
        if self._round is not None:
            reads.append(self._round.own)
        if self._question is not None:
            reads.append(self._question.own)
        return reads
