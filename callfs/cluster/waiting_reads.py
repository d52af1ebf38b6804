"""Reads that wait until this node's state contains everything that was acknowledged before them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred

from callfs.errors import MetadataUnavailable
from callfs.raft.boundary import SafeRead

HELD_UP_SECONDS = 2.0
"""How long a read waits on a node that can't follow the others: a full disk is tried again every second."""

_NOT_CONFIRMED = "no majority of the metadata cluster confirmed this read in time"


class _Batch:
    """Reads that came in one turn of the reactor: one question to raft serves them all."""

    __slots__ = ("begun", "waiting")

    def __init__(self, begun: float) -> None:
        self.begun = begun
        self.waiting: list[Deferred[int]] = []


class WaitingReads:
    """
    :param seconds: a clock that never jumps.
    :param timeout_seconds: how long a caller waits.
    :param wake: called when :meth:`take` has something.
    :param held_up: says why this node can't follow the others just now, so that waiting long is of no use; or
        nothing.
    """

    def __init__(
        self,
        *,
        seconds: Callable[[], float],
        timeout_seconds: float,
        wake: Callable[[], None],
        held_up: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._seconds = seconds
        self._held_up = held_up
        self._timeout_seconds = timeout_seconds
        self._wake = wake
        self._gathering: _Batch | None = None
        self._due: list[_Batch] = []
        self._failed: list[_Batch] = []
        self._asked: dict[int, _Batch] = {}
        self._token = 0
        self._closed: str | None = None

    def add(self) -> Deferred[int]:
        """Let a read wait; see :meth:`callfs.cluster.interfaces.IReplicator.read_barrier`."""
        read: Deferred[int] = Deferred()
        if self._closed is not None:
            read.errback(MetadataUnavailable(self._closed))
            return read
        if self._gathering is None:
            self._gathering = _Batch(self._seconds())
            self._due.append(self._gathering)
            self._wake()
        self._gathering.waiting.append(read)
        return read

    @property
    def are_due(self) -> bool:
        """Whether :meth:`take` has something."""
        return bool(self._due)

    @property
    def are_asked(self) -> bool:
        """Whether raft was asked for something and hasn't answered."""
        return bool(self._asked)

    def take(self) -> Sequence[int]:
        """Tokens to ask raft for."""
        due, self._due, self._gathering = self._due, [], None
        tokens = []
        for batch in due:
            self._token += 1
            self._asked[self._token] = batch
            tokens.append(self._token)
        return tokens

    def safe(self, reads: Sequence[SafeRead]) -> None:
        """These may be served now."""
        for read in reads:
            batch = self._asked.pop(read.token, None)
            for waiting in batch.waiting if batch is not None else ():
                if not waiting.called:
                    waiting.callback(read.index)

    def failed(self, tokens: Sequence[int]) -> None:
        """These got no answer; they are asked for again."""
        self._failed += [self._asked.pop(token) for token in tokens if token in self._asked]

    def try_again(self) -> None:
        """What failed may be answered now."""
        if self._failed:
            self._due += self._failed
            self._failed = []
            self._wake()

    def expire(self) -> None:
        """Give up what has waited too long."""
        reason, limit_seconds = self._held_up(), self._timeout_seconds
        if reason is not None:
            limit_seconds = min(limit_seconds, HELD_UP_SECONDS)
        oldest = self._seconds() - limit_seconds
        if self._gathering is not None and self._gathering.begun <= oldest:
            self._gathering = None
        for batches in (self._due, self._failed):
            for batch in [each for each in batches if each.begun <= oldest]:
                batches.remove(batch)
                _fail(batch, reason or _NOT_CONFIRMED)
        for token, batch in list(self._asked.items()):
            if batch.begun <= oldest:
                del self._asked[token]
                _fail(batch, reason or _NOT_CONFIRMED)

    def close(self, reason: str) -> None:
        """Give everything up, and refuse what comes from now on."""
        self._closed = reason
        for batch in [*self._due, *self._failed, *self._asked.values()]:
            _fail(batch, reason)
        self._due, self._failed, self._asked, self._gathering = [], [], {}, None


def _fail(batch: _Batch, reason: str) -> None:
    for waiting in batch.waiting:
        if not waiting.called:
            waiting.errback(MetadataUnavailable(reason))
