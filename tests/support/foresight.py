"""A twin of a state machine that knows beforehand what steps will come to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from callfs.cluster.interfaces import IForesightedState, Outcome, Step
from tests.support.raft import KeptState, MemoryState


@implementer(IForesightedState)
class ForesightedMemoryState(MemoryState):
    """
    A :class:`MemoryState` that tells the outcomes of commands before it applies them.

    :ivar foreseen: how many outcomes it told so.
    :ivar gate: nothing is applied before it fires, if it is set.
    """

    foreseen = 0
    gate: Deferred[None] | None = None

    def apply(self, steps: Sequence[Step]) -> Deferred[Sequence[Outcome]]:
        """Append, when the gate is open."""
        if self.gate is None:
            return super().apply(steps)
        applied: Deferred[Sequence[Outcome]] = Deferred()
        self.gate.addCallback(lambda _: super(ForesightedMemoryState, self).apply(steps).chainDeferred(applied))
        return applied

    def prepare(self, steps: Sequence[Step]) -> Callable[[], Deferred[Sequence[Outcome] | None]]:
        """Carry them out on a copy."""
        outcomes = self._imagined(steps)
        return lambda: succeed(outcomes)

    def _imagined(self, steps: Sequence[Step]) -> Sequence[Outcome] | None:
        if self.failure is not None or not self.can_wait(steps) or steps[0].index != self.meta.index + 1:
            return None
        state, self._state = (
            self._state,
            msgspec.msgpack.decode(msgspec.msgpack.encode(self._state), type=KeptState),
        )
        try:
            outcomes = [self._apply_one(step) for step in steps]
        finally:
            self._state = state
        self.foreseen += len(steps)
        return outcomes

    def can_wait(self, steps: Sequence[Step]) -> bool:
        """Commands of clients that are known."""
        return all(step.request is not None and step.request.client for step in steps)
