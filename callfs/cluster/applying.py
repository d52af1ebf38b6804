"""Committed entries on their way into the state machine, one batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from callfs.cluster.interfaces import IStateMachine, Outcome, StateUnusable, Step
from callfs.cluster.requests import NotARequest, decode_request
from callfs.deferreds import returns_deferred
from callfs.errors import InsufficientStorage
from callfs.raft.membership import decoded
from callfs.raft.messages import Entry, EntryKind

FULL_DISK_RETRY_SECONDS = 1.0

T = TypeVar("T")


class CannotApply(Exception):
    """An entry that this node doesn't understand: it stops rather than guess. The message is for the operator."""


def steps_of(entries: Sequence[Entry], known_version: int) -> list[Step]:
    """
    What a state machine gets for entries.

    :param known_version: the newest version of a command that it knows.
    :raises CannotApply: one of them is newer than this program, or none.
    """
    steps: list[Step] = []
    command = EntryKind.COMMAND
    try:
        for entry in entries:
            if entry.kind is command:
                request = decode_request(entry.data)
                if request.version > known_version:
                    raise CannotApply(
                        f"entry {entry.index} of the raft log is a command of version {request.version}, this "
                        f"program knows {known_version}: install the newer version of CallFS again"
                    )
                steps.append(Step(entry.index, entry.term, request))
            elif entry.kind is EntryKind.MEMBERSHIP:
                steps.append(Step(entry.index, entry.term, membership=decoded(entry.data)))
            else:
                steps.append(Step(entry.index, entry.term))
    except (NotARequest, msgspec.DecodeError, msgspec.ValidationError) as error:
        raise CannotApply(
            f"entry {entry.index} of the raft log isn't understood by this version of CallFS"
        ) from error
    return steps


class Applier:
    """
    Feeds a state machine.

    :param state: open; called by nobody else but through :meth:`exclusively`.
    :param clock: for the pause after a full disk, and for what is applied later.
    :param applied: called with each batch and its outcomes.
    :param failed: called once, with a message for the operator; nothing is applied after it.
    :param full: called with whether the disk of the state is full.
    """

    _log = Logger()

    def __init__(
        self,
        state: IStateMachine,
        clock: IReactorTime,
        *,
        applied: Callable[[Sequence[Step], Sequence[Outcome]], None],
        failed: Callable[[str], None],
        full: Callable[[bool], None],
    ) -> None:
        self._state = state
        self._clock = clock
        self._applied = applied
        self._failed = failed
        self._full = full
        self._queue: list[Entry] = []
        self._busy = False
        self._stopped = False
        self._exclusive = DeferredLock()
        self._idle: list[Deferred[None]] = []

    def add(self, entries: Sequence[Entry], *, later: bool = False) -> None:
        """
        Apply these after all others.

        :param later: not before the reactor has turned.
        """
        self._queue += entries
        if self._busy or self._stopped:
            return
        self._busy = True
        if later:
            self._clock.callLater(0, self._begin)
        else:
            self._begin()

    def drained(self) -> Deferred[None]:
        """Fires when everything that was added is applied, or never will be."""
        waiting: Deferred[None] = Deferred()
        self._idle.append(waiting)
        self._tell_idle()
        return waiting

    def exclusively(self, ask: Callable[[], Deferred[T]]) -> Deferred[T]:
        """Ask something of the state machine while nothing is applied."""
        return self._exclusive.run(ask)

    def stop(self) -> Deferred[None]:
        """Apply nothing more; fires when what is under way has ended."""
        self._stopped = True
        self._queue.clear()
        return self.drained()

    def _begin(self) -> None:
        self._work().addErrback(self._broken)

    @returns_deferred
    async def _work(self) -> None:
        while self._queue and not self._stopped:
            entries, self._queue = self._queue, []
            try:
                steps = steps_of(entries, self._state.command_version)
            except CannotApply as error:
                self._stopped = True
                self._failed(str(error))
                break
            outcomes = await self._outcomes(steps)
            if outcomes is None:
                break
            self._applied(steps, outcomes)
        self._busy = False
        self._tell_idle()

    async def _outcomes(self, steps: Sequence[Step]) -> Sequence[Outcome] | None:
        full = False
        while True:
            try:
                outcomes = await self.exclusively(lambda: self._state.apply(steps))
            except InsufficientStorage:
                if not full:
                    full = True
                    self._full(True)
                await deferLater(self._clock, FULL_DISK_RETRY_SECONDS)
                if self._is_stopped():
                    return None
            else:
                if full:
                    self._full(False)
                return outcomes

    def _is_stopped(self) -> bool:
        return self._stopped

    def _broken(self, failure: Failure) -> None:
        self._stopped = True
        self._busy = False
        if not failure.check(StateUnusable):
            self._log.failure("the state machine failed", failure, event="raft_state_failed")
        self._failed(f"the state of the raft node can't be changed: {failure.value}")
        self._tell_idle()

    def _tell_idle(self) -> None:
        if self._busy:
            return
        waiting, self._idle = self._idle, []
        for each in waiting:
            each.callback(None)
