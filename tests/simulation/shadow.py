"""The log as a node has handed it out, kept beside it so that the invariants need not ask it."""

from __future__ import annotations

from callfs.raft.boundary import SnapshotMeta, Write
from callfs.raft.messages import Entry
from tests.simulation.invariants import Invariants


class ShadowLog:
    """
    A node's log, durable or not.

    :param label: the node and its disk.
    """

    def __init__(self, label: str, invariants: Invariants, point: SnapshotMeta, entries: list[Entry]) -> None:
        self._label = label
        self._invariants = invariants
        self._base = point.index
        self._base_term = point.term
        self._entries = list(entries)

    @property
    def last(self) -> int:
        """The index of the last entry."""
        return self._base + len(self._entries)

    def term_at(self, index: int) -> int | None:
        """The term of the entry at an index; of one that was cut off at the front the one that was committed."""
        if index < self._base:
            return self._invariants.committed_term(index)
        if index == self._base:
            return self._base_term
        return self._entries[index - self._base - 1].term if index <= self.last else None

    def entry_at(self, index: int) -> Entry:
        """The entry at an index after the cut."""
        return self._entries[index - self._base - 1]

    def follow(self, write: Write) -> None:
        """Do what a write of the core says, and check it."""
        if write.discard_log:
            self._entries.clear()
        point = write.point
        if point is not None:
            del self._entries[: max(0, point.index - self._base)]
            self._base, self._base_term = point.index, point.term
        if write.entries:
            self._truncate(write.entries[0].index)
            before = self.term_at(self.last)
            for entry in write.entries:
                self._invariants.writes(self._label, before or 0, entry)
                before = entry.term
            self._entries.extend(write.entries)

    def _truncate(self, index: int) -> None:
        for entry in self._entries[index - self._base - 1 :]:
            self._invariants.truncates(self._label, entry)
        del self._entries[index - self._base - 1 :]
