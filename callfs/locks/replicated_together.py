"""
Commands about locks on their way to the log.

One proposal is under way at a time, and what comes meanwhile goes together in the next. So there are few entries
however many locks are taken, and the commands of a node are carried out in the order in which it gave them, also
when a proposal has to be repeated or nobody knows what became of it: whoever gives a claim up tells so right
behind it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from callfs.errors import CallFSError, InternalError, MetadataUnavailable, OutcomeUnknown
from callfs.locks.replicated_commands import (
    MAX_TOGETHER,
    LockCommand,
    Place,
    UnknownAnswer,
    decode_answers,
    encode_command,
    encode_commands,
)

_MAX_BYTES = 1024 * 1024
"""Of the commands in one entry; one goes however long it is."""

_REFUSED = "the cluster can't keep locks just now; nothing was changed"


class Asking:
    """
    A command in the queue.

    :ivar answer: fires when it was carried out; fails with ``MetadataUnavailable`` when it wasn't, or may not
        have been.
    :ivar sent: whether it may reach the log.
    :ivar lost: it certainly isn't in the log, and won't be.
    """

    __slots__ = ("answer", "data", "lost", "sent", "size")

    def __init__(self, command: LockCommand) -> None:
        encoded = encode_command(command)
        self.data = msgspec.Raw(encoded)
        self.size = len(encoded)
        self.answer: Deferred[Place | None] = Deferred()
        self.sent = False
        self.lost = False


class Together:
    """
    The queue.

    :param propose: has an entry applied on all nodes, and gives what came of it.
    """

    _log = Logger()

    def __init__(self, propose: Callable[[bytes], Deferred[bytes]]) -> None:
        self._propose = propose
        self._queue: deque[Asking] = deque()
        self._busy = False

    def ask(self, command: LockCommand) -> Asking:
        """Put a command behind all others."""
        asking = Asking(command)
        self._queue.append(asking)
        self._go_on()
        return asking

    def withdraw(self, asking: Asking) -> bool:
        """Take a command back, which gets no answer then; false when it is, or may come to be, in the log."""
        if asking.sent:
            return asking.lost
        self._queue.remove(asking)
        return True

    def _go_on(self) -> None:
        if self._busy or not self._queue:
            return
        self._busy = True
        batch = self._taken()
        proposing = self._propose(encode_commands([asking.data for asking in batch]))
        proposing.addCallback(_answers, len(batch)).addBoth(self._ended, batch)

    def _taken(self) -> list[Asking]:
        batch: list[Asking] = []
        room = _MAX_BYTES
        while self._queue and len(batch) < MAX_TOGETHER:
            room -= self._queue[0].size
            if room < 0 and batch:
                break
            asking = self._queue.popleft()
            asking.sent = True
            batch.append(asking)
        return batch

    def _ended(self, result: tuple[Place | None, ...] | Failure, batch: list[Asking]) -> None:
        if isinstance(result, Failure):
            refusal = self._refusal(result)
            lost = isinstance(result.value, CallFSError) and not isinstance(result.value, OutcomeUnknown)
            behind: deque[Asking] = deque()
            if isinstance(result.value, (MetadataUnavailable, OutcomeUnknown)):
                # Who waits behind what waited in vain as long as anybody may would wait twice as long. What is
                # asked for from now on is tried: who is told may well know better.
                behind, self._queue = self._queue, behind
            for asking in batch:
                asking.lost = lost
            for asking in behind:
                asking.sent = asking.lost = True
            for asking in (*batch, *behind):
                asking.answer.errback(Failure(refusal))
        else:
            for asking, answer in zip(batch, result, strict=True):
                asking.answer.callback(answer)
        self._busy = False
        self._go_on()

    def _refusal(self, failure: Failure) -> Exception:
        error = failure.value
        if isinstance(error, MetadataUnavailable):
            return error
        if not isinstance(error, CallFSError):
            self._log.failure("a proposal about locks failed", failure, event="locks_failed")
            return InternalError("the locks couldn't be taken; nothing was changed")
        # The port knows one error for all that keeps locks from being had, and whoever gets it holds none.
        return MetadataUnavailable(_REFUSED)


def _answers(data: bytes, count: int) -> tuple[Place | None, ...]:
    answers = decode_answers(data)
    if len(answers) != count:
        raise UnknownAnswer(f"{len(answers)} answers to {count} commands")
    return answers
