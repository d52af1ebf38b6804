"""The log in memory: everything since the last cut."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from callfs.raft.messages import Entry

ENTRY_BYTES = 32
"""What an entry costs besides its data, on the wire and about in memory too."""


class Log:
    """
    Entries without a gap after a point where the log was cut; what came before is in the state machine.

    Terms, sizes and positions are found without walking: runs of equal terms and running sums are kept beside the
    entries.

    :param index: the point's index; 0 for a log from the beginning.
    :param term: the point's term.
    """

    def __init__(self, index: int, term: int) -> None:
        self.point_index = index
        """The last entry that is gone."""
        self.point_term = term
        """Its term."""
        self.last_index = index
        """The last entry, or the point."""
        self.last_term = term
        """The last entry's term, or the point's."""
        self.restart(index, term)

    def restart(self, index: int, term: int) -> None:
        """Forget everything; the log goes on after that point."""
        self.point_index = self.last_index = index
        self.point_term = self.last_term = term
        self._entries: list[Entry] = []
        self._sums: list[int] = []
        self._cut_sum = 0
        self._run_starts: list[int] = []
        self._run_terms: list[int] = []

    @property
    def size_bytes(self) -> int:
        """What all entries cost."""
        return self.bytes_between(self.point_index, self.last_index)

    def bytes_between(self, after: int, to: int) -> int:
        """What the entries after ``after`` up to ``to`` cost."""
        return self._sum(to) - self._sum(after)

    def term_at(self, index: int) -> int | None:
        """The term of an entry, or of the point; ``None`` outside."""
        if index == self.point_index:
            return self.point_term
        if self.point_index < index <= self.last_index:
            return self._entries[index - self.point_index - 1].term
        return None

    def first_index_of(self, term: int) -> int:
        """The first entry of a term that is in the log."""
        return self._run_starts[bisect_right(self._run_terms, term) - 1]

    def last_index_of(self, term: int) -> int | None:
        """The last entry of a term; ``None`` when the log has none."""
        run = bisect_right(self._run_terms, term)
        if run == 0 or self._run_terms[run - 1] != term:
            return self.point_index if term == self.point_term else None
        return self._run_starts[run] - 1 if run < len(self._run_starts) else self.last_index

    def append(self, entries: Sequence[Entry]) -> None:
        """
        Go on with these.

        :param entries: the first one right after the last, terms never falling.
        """
        if not entries:
            return
        if entries[-1].term != self.last_term or not self._run_terms:
            self._note_runs(entries)
        costs = [len(entry.data) + ENTRY_BYTES for entry in entries]
        costs[0] += self._sum(self.last_index)
        self._sums.extend(accumulate(costs))
        self._entries.extend(entries)
        self.last_index += len(entries)

    def truncate(self, index: int) -> None:
        """Drop the entries from ``index`` on."""
        keep = index - self.point_index - 1
        del self._entries[keep:]
        del self._sums[keep:]
        while self._run_starts and self._run_starts[-1] >= index:
            self._run_starts.pop()
            self._run_terms.pop()
        self.last_index = index - 1
        self.last_term = self._run_terms[-1] if self._run_terms else self.point_term

    def cut(self, index: int) -> None:
        """Drop the entries up to ``index``, which is in the log."""
        term = self.term_at(index)
        assert term is not None, "the point of a cut is in the log"
        gone = index - self.point_index
        self._cut_sum = self._sum(index)
        del self._entries[:gone]
        del self._sums[:gone]
        self.point_index, self.point_term = index, term
        self._cut_runs()

    def slice(self, start: int, stop: int, max_bytes: int) -> tuple[Entry, ...]:
        """
        Entries from ``start`` to ``stop``, both included, at most so many bytes of them, but at least one.

        :param start: after the point.
        """
        offset = start - self.point_index - 1
        end = min(stop, self.last_index) - self.point_index
        if end <= offset:
            return ()
        fitting = bisect_right(self._sums, self._sum(start - 1) + max_bytes, offset, end)
        return tuple(self._entries[offset : max(fitting, offset + 1)])

    def _sum(self, index: int) -> int:
        """What all entries ever held up to this one cost."""
        return self._sums[index - self.point_index - 1] if index > self.point_index else self._cut_sum

    def _note_runs(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if entry.term != self.last_term or not self._run_terms:
                self._run_starts.append(entry.index)
                self._run_terms.append(entry.term)
                self.last_term = entry.term

    def _cut_runs(self) -> None:
        """A run that the cut goes through starts after it."""
        first = bisect_right(self._run_starts, self.point_index + 1) - 1
        del self._run_starts[: max(first, 0)]
        del self._run_terms[: max(first, 0)]
        if not self._entries:
            self._run_starts, self._run_terms = [], []
        elif self._run_starts:
            self._run_starts[0] = max(self._run_starts[0], self.point_index + 1)
