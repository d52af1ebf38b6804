"""
What entries come to, found out while they are on their way into the log.

An entry alone has to get to the disks of a majority, and then through the state machine, before somebody gets an
answer. The state machine needn't wait for the first: what it is going to say follows from what it contains and from
the entry, and both are certain, should the entry be committed. It is looked at here and taken back otherwise. Where
entries come so thick that they are applied many at once that would only be in the way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred

from callfs.cluster.interfaces import IForesightedState, Outcome, Step
from callfs.raft.messages import Entry

MOST_FORESEEN = 8
"""Entries; a batch of more is quick to apply, and busies its node enough."""

Read = Callable[[Sequence[Entry]], "list[Step] | None"]
"""Gives the steps for entries, or nothing when one of them isn't understood."""


class Foreseen:
    """
    What a state machine was asked about.

    :param outcomes: to be called once: fires with them; with ``None`` when they aren't to be known.
    """

    def __init__(self, steps: list[Step], outcomes: Callable[[], Deferred[Sequence[Outcome] | None]]) -> None:
        self.steps = steps
        self.outcomes = outcomes

    def came(self, entries: Sequence[Entry]) -> bool:
        """Whether these begin with what was asked about: a term and an index name one entry in any log."""
        return len(entries) >= len(self.steps) and all(
            step.index == entry.index and step.term == entry.term
            for step, entry in zip(self.steps, entries, strict=False)
        )


class Foresight:
    """
    Asks a state machine about entries before they are committed.

    :param state: what they are to be applied to; ``None`` where that can't be asked.
    :param read: makes steps of entries.
    """

    def __init__(self, state: IForesightedState | None, read: Read) -> None:
        self._state = state
        self._read = read
        self._expected: list[Entry] = []
        self._foreseen: Foreseen | None = None

    @property
    def is_busy(self) -> bool:
        """Whether something was asked about and hasn't come yet."""
        return self._foreseen is not None

    def expect(self, entries: Sequence[Entry]) -> bool:
        """
        These are on their way into the log.

        :return: whether to call :meth:`begin` when nothing else is to be done.
        """
        if self._state is None:
            return False
        expected = self._expected
        if not expected or entries[0].index != expected[-1].index + 1:
            expected = []
        self._expected = [*expected, *entries] if len(expected) + len(entries) <= MOST_FORESEEN else []
        return bool(self._expected)

    def begin(self, after: int) -> None:
        """
        Ask about what is expected, if the state is there where it begins.

        :param after: the last entry that is applied.
        """
        expected, state = self._expected, self._state
        if state is None or self._foreseen is not None or not expected:
            return
        self._expected = []
        steps = self._read(expected) if expected[0].index == after + 1 else None
        if steps is not None:
            self._foreseen = Foreseen(steps, state.prepare(steps))

    def take(self, entries: Sequence[Entry]) -> Foreseen | None:
        """What was found out about the first of these committed entries, which are the next to be applied."""
        foreseen, self._foreseen = self._foreseen, None
        return foreseen if foreseen is not None and foreseen.came(entries) else None
