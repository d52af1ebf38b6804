"""
The commands that wait to be carried out, on the node where they were asked for.

::

    due ──► placed here, or sent to the leader ──► placed there ──► applied here: the result
     ▲                        │                          │
     └──── refused, unsent ───┴── no answer: unsure ─────┴── another entry took the place

A result is taken from this node's own state machine, which all entries reach; so an answer that gets lost loses
nothing. A place that is taken by an entry of a later term is lost for certain, and so are all places of earlier
terms behind it, since terms never fall along a log (thesis 3.5). Whoever is unsure asks again under the same
number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec
from twisted.internet.defer import Deferred

from callfs.cluster.interfaces import Applied, ClientForgotten, Outcome, Step
from callfs.cluster.questions import Place, Refused
from callfs.cluster.requests import NONCE_BYTES, Request, encode_request
from callfs.errors import InsufficientStorage, MetadataUnavailable, OutcomeUnknown, PayloadTooLarge
from callfs.identifiers import TokenBytes

MAX_OPEN = 16_384
"""Commands of one node that may wait; more are refused."""

MAX_FORWARDED_BYTES = 1024 * 1024
"""Requests in one question to the leader, together; at least one goes, however long."""

_FINAL = frozenset(("TOO_NEW", "MALFORMED", "TOO_LARGE"))
"""Refusals that waiting doesn't change."""

_CROWDED = "too many changes wait; nothing was changed"
_FULL = "the disk of the metadata cluster is full; nothing was changed"
_NO_LEADER = "the metadata cluster has no leader, or it is too busy; nothing was changed"
_TOO_NEW = "not all nodes of the cluster know this kind of change yet: finish the upgrade; nothing was changed"
_TOO_LARGE = "the change is too large for the metadata cluster; nothing was changed"
_UNKNOWN = "the metadata cluster didn't say in time what became of this change: look before repeating it"


class ProposalObserver(Protocol):
    """Who is told what becomes of proposals."""

    def raft_proposal(self, outcome: str, seconds: float) -> None:
        """A proposal has ended without a result: ``unavailable``, ``unknown``."""

    def raft_applied(self, seconds: Sequence[float]) -> None:
        """Proposals have been applied, each after so long."""


class Proposal(msgspec.Struct, eq=False, gc=False):
    """
    One command.

    :ivar sequence: its number among those of this client; another one under the next client.
    :ivar place: where it is in the log as far as known.
    :ivar sent: it was handed out, and what became of that isn't known yet.
    :ivar unsure: it may be in the log at a place that isn't known.
    :ivar skipped: it may have been carried out without this node seeing its result.
    """

    command: bytes
    version: int
    begun: float
    sequence: int = 0
    place: Place | None = None
    sent: bool = False
    unsure: bool = False
    skipped: bool = False
    refusal: str = ""
    deferred: Deferred[Applied] = msgspec.field(default_factory=Deferred)

    @property
    def may_happen(self) -> bool:
        """Whether it is or may be in the log."""
        return self.sent or self.unsure or self.place is not None


class Proposals:
    """
    What waits on this node.

    :param seconds: a clock that never jumps.
    :param instant: the wall clock, in microseconds.
    :param token_bytes: makes the nonces by which the node recognises its clients.
    :param timeout_seconds: how long a caller waits.
    :param wake: called when :meth:`take` has something.
    """

    def __init__(
        self,
        *,
        seconds: Callable[[], float],
        instant: Callable[[], int],
        token_bytes: TokenBytes,
        timeout_seconds: float,
        observer: ProposalObserver,
        wake: Callable[[], None],
    ) -> None:
        self._seconds = seconds
        self._instant = instant
        self._token_bytes = token_bytes
        self._timeout_seconds = timeout_seconds
        self._observer = observer
        self._wake = wake
        self._client = 0
        self._registering: Proposal | None = None
        self._next_sequence = 1
        # Dictionaries as sets that keep their order.
        self._due: dict[Proposal, None] = {}
        self._later: dict[Proposal, None] = {}
        # All that wait, by number, and those in the log by index, so that looking for either costs nothing.
        self._open: dict[int, Proposal] = {}
        self._places: dict[int, Proposal] = {}
        self._applied = Place(0, 0)
        self._closed: str | None = None

    def propose(self, command: bytes, version: int) -> Deferred[Applied]:
        """Let a command wait; see :meth:`callfs.cluster.interfaces.IReplicator.propose`."""
        sequence = self._next_sequence
        proposal = Proposal(command, version, self._seconds(), sequence)
        if self._closed is not None or len(self._open) >= MAX_OPEN:
            proposal.deferred.errback(MetadataUnavailable(self._closed or _CROWDED))
            return proposal.deferred
        self._next_sequence = sequence + 1
        self._open[sequence] = proposal
        if not self._due:
            self._wake()
        self._due[proposal] = None
        return proposal.deferred

    @property
    def are_open(self) -> bool:
        """Whether somebody on this node waits for what becomes of a command."""
        return bool(self._open)

    def take(self) -> list[tuple[Proposal, bytes]]:
        """
        What is to be proposed now, in order, with its bytes; each is then reported to :meth:`placed`,
        :meth:`refused` or :meth:`unanswered`.
        """
        if not self._due:
            return []
        if not self._client:
            return self._register()
        due, self._due = self._due, {}
        for proposal in due:
            proposal.sent = True
        client, lowest, at = self._client, next(iter(self._open)), self._instant()
        return [
            (each, encode_request(Request(client, each.sequence, lowest, at, each.version, each.command)))
            for each in due
        ]

    def reported(self, proposals: Sequence[Proposal], outcomes: Sequence[Place | Refused]) -> None:
        """What became of proposals that were handed out, in the same order."""
        for proposal, outcome in zip(proposals, outcomes, strict=True):
            if isinstance(outcome, Place):
                self.placed(proposal, outcome)
            else:
                self.refused(proposal, outcome.reason)

    def placed(self, proposal: Proposal, place: Place) -> None:
        """It is in the log there, unless another entry takes the place."""
        proposal.sent = False
        if self._is_passed(place):
            self._again(proposal)
        elif self._waits(proposal):
            proposal.place = place
            earlier = self._places.get(place.index, proposal)
            self._places[place.index] = proposal
            if earlier is not proposal:
                # Both may yet be the one that stays there: no leader's word on its own place is the last.
                earlier.unsure = True
                self._lost(earlier)

    def refused(self, proposal: Proposal, reason: str) -> None:
        """It certainly isn't in the log by this attempt."""
        proposal.sent = False
        proposal.refusal = reason
        if reason in _FINAL and proposal is not self._registering:
            self._give_up(proposal)
        else:
            self._again(proposal)

    def unanswered(self, proposal: Proposal) -> None:
        """Nobody knows whether it is in the log by this attempt."""
        proposal.sent = False
        proposal.unsure = True
        self._again(proposal)

    def applied(self, steps: Sequence[Step], outcomes: Sequence[Outcome]) -> None:
        """These entries are committed, and come to this; the state machine contains them, or is about to."""
        term_before, self._applied = self._applied.term, Place(steps[-1].term, steps[-1].index)
        if not self._open and self._registering is None:
            self._places.clear()
            return
        answered: list[tuple[Proposal, Applied]] = []
        for step, outcome in zip(steps, outcomes, strict=True):
            placed, proposal, request = self._places.pop(step.index, None), None, step.request
            if request is None:
                pass
            elif request.client == 0:
                proposal = self._maybe_registered(step.index, request)
            elif request.client == self._client and isinstance(outcome, bytes):
                proposal = self._open.pop(request.sequence, None)
                if proposal is not None:
                    answered.append((proposal, Applied(step.index, outcome)))
            elif request.client == self._client and isinstance(outcome, ClientForgotten):
                proposal = self._open.get(request.sequence)
                if proposal is not None:
                    self._forgotten(proposal)
            if placed is not None and placed is not proposal:
                self._lost(placed)
        if self._applied.term > term_before:
            self._forget_older_places()
        self._answer(answered)

    def jumped(self, index: int) -> None:
        """The state was replaced by one that contains everything up to ``index``: nobody saw what came of it."""
        for proposal in self._all():
            if proposal.unsure or proposal.sent or (proposal.place is not None and proposal.place.index <= index):
                proposal.unsure = proposal.skipped = True
        self._applied = Place(self._applied.term, max(index, self._applied.index))
        self._forget_older_places()
        self._wake()

    def try_again(self) -> None:
        """What was refused may be taken now."""
        if self._later:
            self._due.update(self._later)
            self._later = {}
            self._wake()

    def expire(self) -> None:
        """Give up what has waited too long."""
        oldest = self._seconds() - self._timeout_seconds
        for proposal in list(self._open.values()):
            if proposal.begun > oldest:
                break
            self._give_up(proposal)

    def close(self, reason: str) -> None:
        """Give everything up, and refuse what comes from now on."""
        self._closed = reason
        for proposal in list(self._open.values()):
            self._give_up(proposal)

    def _all(self) -> list[Proposal]:
        waiting = list(self._open.values())
        return waiting if self._registering is None else [self._registering, *waiting]

    def _waits(self, proposal: Proposal) -> bool:
        return proposal is self._registering or self._open.get(proposal.sequence) is proposal

    def _is_passed(self, place: Place) -> bool:
        """Whether what is applied shows that the entry at this place, if it was seen at all, is another one."""
        return place.index <= self._applied.index or place.term < self._applied.term

    def _again(self, proposal: Proposal) -> None:
        if self._waits(proposal):
            self._later[proposal] = None

    def _lost(self, proposal: Proposal) -> None:
        """Another entry has its place."""
        place, proposal.place = proposal.place, None
        if place is not None and self._places.get(place.index) is proposal:
            del self._places[place.index]
        if self._waits(proposal):
            self._due[proposal] = None
            self._wake()

    def _forget_older_places(self) -> None:
        """All that are passed; seldom needed, since what is applied one by one is looked up by its index."""
        for index, proposal in list(self._places.items()):
            if proposal.place is None or self._is_passed(proposal.place):
                self._places.pop(index, None)
                self._lost(proposal)

    # Clients

    def _register(self) -> list[tuple[Proposal, bytes]]:
        """The request that makes this process a client goes first and alone."""
        registering = self._registering
        if registering is None:
            registering = self._registering = Proposal(self._token_bytes(NONCE_BYTES), 0, self._seconds())
        elif registering in self._due:
            del self._due[registering]
        else:
            return []
        registering.sent = True
        return [(registering, encode_request(Request(0, 0, 0, self._instant(), 0, registering.command)))]

    def _maybe_registered(self, index: int, request: Request) -> Proposal | None:
        registering = self._registering
        if registering is None or request.command != registering.command:
            return None
        self._drop(registering)
        self._registering = None
        self._client = index
        self._wake()
        return registering

    def _forgotten(self, refused: Proposal) -> None:
        """
        The cluster doesn't know this client any more. All entries are seen here, so what has no result wasn't
        carried out, and never will be under the old client; but for what was skipped. The next client counts anew.
        """
        self._client = 0
        skipped = [proposal for proposal in self._open.values() if proposal.skipped]
        waiting = [proposal for proposal in self._open.values() if not proposal.skipped]
        self._open = dict(enumerate(waiting, 1))
        self._next_sequence = len(waiting) + 1
        for sequence, proposal in self._open.items():
            proposal.sequence = sequence
            proposal.unsure = False
        self._lost(refused)
        for proposal in skipped:
            self._fail(proposal, OutcomeUnknown(_UNKNOWN), "unknown")
        self._wake()

    # Ends

    def _answer(self, answered: Sequence[tuple[Proposal, Applied]]) -> None:
        """Last of all, and together: whoever hears it may ask for more."""
        if not answered:
            return
        for waiting in (self._due, self._later):
            if waiting:
                for proposal, _ in answered:
                    waiting.pop(proposal, None)
        now = self._seconds()
        self._observer.raft_applied([now - proposal.begun for proposal, _ in answered])
        for proposal, applied in answered:
            if not proposal.deferred.called:
                proposal.deferred.callback(applied)

    def _give_up(self, proposal: Proposal) -> None:
        if proposal.may_happen:
            self._fail(proposal, OutcomeUnknown(_UNKNOWN), "unknown")
        elif proposal.refusal == "UNWRITABLE":
            self._fail(proposal, InsufficientStorage(_FULL), "unavailable")
        elif proposal.refusal == "TOO_NEW":
            self._fail(proposal, MetadataUnavailable(_TOO_NEW, 60), "unavailable")
        elif proposal.refusal == "TOO_LARGE":
            self._fail(proposal, PayloadTooLarge(_TOO_LARGE), "unavailable")
        else:
            self._fail(proposal, MetadataUnavailable(self._closed or _NO_LEADER), "unavailable")

    def _fail(self, proposal: Proposal, error: Exception, outcome: str) -> None:
        self._drop(proposal)
        self._observer.raft_proposal(outcome, self._seconds() - proposal.begun)
        if not proposal.deferred.called:
            proposal.deferred.errback(error)

    def _drop(self, proposal: Proposal) -> None:
        if self._open.get(proposal.sequence) is proposal:
            del self._open[proposal.sequence]
        if self._due:
            self._due.pop(proposal, None)
        if self._later:
            self._later.pop(proposal, None)
