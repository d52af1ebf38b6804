"""Committed entries on their way into the state machine, one batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from callfs.cluster.foresight import Foresight
from callfs.cluster.interfaces import IForesightedState, IStateMachine, Outcome, StateUnusable, Step
from callfs.cluster.requests import NotARequest, decode_request
from callfs.deferreds import returns_deferred
from callfs.errors import InsufficientStorage
from callfs.raft.membership import decoded
from callfs.raft.messages import Entry, EntryKind

FULL_DISK_RETRY_SECONDS = 1.0
PUT_OFF_SECONDS = 0.05
MOST_PUT_OFF = 16
"""Entries: no more than can be applied while a read asks the leader how far it has to wait."""

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

    What nobody on this node waits for may be put off for a moment, so that it is applied together with what
    follows, and out of the way of those who wait elsewhere.

    :param state: open; called by nobody else but through :meth:`exclusively`.
    :param clock: for the pause after a full disk, and for what is applied later.
    :param decided: called once with each batch and its outcomes; that may be before the state contains it, when it
        is certain all the same what it comes to.
    :param applied: called with each batch that the state contains, in order.
    :param failed: called once, with a message for the operator; nothing is applied after it.
    :param full: called with whether the disk of the state is full.
    """

    _log = Logger()

    def __init__(
        self,
        state: IStateMachine,
        clock: IReactorTime,
        *,
        decided: Callable[[Sequence[Step], Sequence[Outcome]], None],
        applied: Callable[[Sequence[Step]], None],
        failed: Callable[[str], None],
        full: Callable[[bool], None],
    ) -> None:
        self._state = state
        self._clock = clock
        self._decided = decided
        self._applied = applied
        self._failed = failed
        self._full = full
        self._foresighted: IForesightedState | None = state if IForesightedState.providedBy(state) else None
        self._foresight = Foresight(self._foresighted, self._understood)
        self._queue: list[Entry] = []
        self._last = 0
        self._busy = False
        self._stopped = False
        self._put_off: IDelayedCall | None = None
        self._looking: IDelayedCall | None = None
        self._exclusive = DeferredLock()
        self._idle: list[Deferred[None]] = []

    def add(self, entries: Sequence[Entry], *, later: bool = False, awaited: bool = True) -> None:
        """
        Apply these after all others.

        :param later: not before the reactor has turned.
        :param awaited: whether somebody on this node waits for them, or for anything.
        """
        self._queue += entries
        self._last = entries[-1].index
        if self._busy or self._stopped:
            return
        if not awaited and self._can_wait(entries):
            if self._put_off is None:
                self._put_off = self._clock.callLater(PUT_OFF_SECONDS, self.hurry)
        elif later and not self._foresight.is_busy:
            self._busy = True
            self._forget_delay()
            self._clock.callLater(0, self._begin)
        else:
            self._start()

    def hurry(self) -> None:
        """Apply now what was put off."""
        if self._put_off is not None:
            self._start()

    def expect(self, entries: Sequence[Entry]) -> None:
        """Somebody waits for these, which are on their way into the log: find out meanwhile what they come to."""
        if not self._stopped and self._foresight.expect(entries) and not self._busy and self._looking is None:
            # What was sent and written goes first: its way is the longer one.
            self._looking = self._clock.callLater(0, self._look_ahead)

    def drained(self) -> Deferred[None]:
        """Fires when everything that was added is applied, or never will be."""
        waiting: Deferred[None] = Deferred()
        self._idle.append(waiting)
        self.hurry()
        self._tell_idle()
        return waiting

    def exclusively(self, ask: Callable[[], Deferred[T]]) -> Deferred[T]:
        """Ask something of the state machine while nothing is applied."""
        return self._exclusive.run(ask)

    def stop(self) -> Deferred[None]:
        """Apply nothing more; fires when what is under way has ended."""
        self._stopped = True
        self._queue.clear()
        self._forget_delay()
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        return self.drained()

    def _can_wait(self, entries: Sequence[Entry]) -> bool:
        """Commands that are of no interest but to those who ask for them; few, with those that were put off."""
        state = self._foresighted
        if state is None or len(self._queue) > MOST_PUT_OFF:
            return False
        steps = self._understood(entries)
        return steps is not None and bool(state.can_wait(steps))

    def _understood(self, entries: Sequence[Entry]) -> list[Step] | None:
        try:
            return steps_of(entries, self._state.command_version)
        except CannotApply:
            return None

    def _start(self) -> None:
        self._busy = True
        self._forget_delay()
        self._begin()

    def _forget_delay(self) -> None:
        put_off, self._put_off = self._put_off, None
        if put_off is not None and put_off.active():
            put_off.cancel()

    def _look_ahead(self) -> None:
        self._looking = None
        if not (self._busy or self._stopped or self._queue or self._exclusive.locked):
            self._foresight.begin(self._last)

    def _begin(self) -> None:
        self._work().addErrback(self._broken)

    @returns_deferred
    async def _work(self) -> None:
        while self._queue and not self._stopped:
            foreseen = self._foresight.take(self._queue)
            if foreseen is not None:
                del self._queue[: len(foreseen.steps)]
                if not await self._carry_out(foreseen.steps, await foreseen.outcomes()):
                    break
                continue
            entries, self._queue = self._queue, []
            try:
                steps = steps_of(entries, self._state.command_version)
            except CannotApply as error:
                self._stopped = True
                self._failed(str(error))
                break
            if not await self._carry_out(steps, None):
                break
        self._busy = False
        self._tell_idle()
        self._look_ahead()

    async def _carry_out(self, steps: list[Step], foreseen: Sequence[Outcome] | None) -> bool:
        """Whether that was done."""
        if self._is_stopped():
            return False
        if foreseen is not None:
            self._decided(steps, foreseen)
        outcomes = await self._outcomes(steps)
        if outcomes is None:
            return False
        self._applied(steps)
        if foreseen is None:
            self._decided(steps, outcomes)
        elif list(foreseen) != list(outcomes):
            # Somebody was told what isn't so. Whatever follows from this state may be wrong as well.
            raise StateUnusable(f"entry {steps[0].index} came to something else than was foreseen")
        return True

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
