"""The log in memory answers like a plain list would."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from callfs.raft.log import ENTRY_BYTES, Log
from callfs.raft.messages import Entry
from tests.raft.cores import command


class LogAgainstList(RuleBasedStateMachine):
    """Grows, is truncated, cut and restarted, and is asked everything after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.log = Log(0, 0)
        self.point = (0, 0)
        self.entries: list[Entry] = []

    @property
    def last(self) -> tuple[int, int]:
        """Index and term of the end."""
        return (self.entries[-1].index, self.entries[-1].term) if self.entries else self.point

    @rule(steps=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 20)), max_size=6))
    def append(self, steps: list[tuple[int, int]]) -> None:
        """Entries of rising terms and any size."""
        new: list[Entry] = []
        for rise, size in steps:
            index, term = (new[-1].index, new[-1].term) if new else self.last
            new.append(command(index + 1, max(term + rise, 1), b"x" * size))
        self.log.append(new)
        self.entries.extend(new)

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        """The end goes."""
        keep = data.draw(st.integers(0, len(self.entries) - 1))
        self.log.truncate(self.entries[keep].index)
        del self.entries[keep:]

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def cut(self, data: st.DataObject) -> None:
        """The beginning goes."""
        position = data.draw(st.integers(0, len(self.entries) - 1))
        entry = self.entries[position]
        self.log.cut(entry.index)
        self.point = (entry.index, entry.term)
        del self.entries[: position + 1]

    @rule(gap=st.integers(0, 5), rise=st.integers(0, 2))
    def restart(self, gap: int, rise: int) -> None:
        """Everything goes."""
        index, term = self.last
        self.point = (index + gap, term + rise)
        self.log.restart(*self.point)
        self.entries = []

    @rule(data=st.data(), max_bytes=st.integers(0, 200))
    def slice(self, data: st.DataObject, max_bytes: int) -> None:
        """A part is what fits, but at least one."""
        start = data.draw(st.integers(self.point[0] + 1, self.last[0] + 2))
        stop = data.draw(st.integers(start - 1, self.last[0] + 2))
        wanted = [entry for entry in self.entries if start <= entry.index <= stop]
        fitting: list[Entry] = []
        for entry in wanted:
            if fitting and sum(cost(one) for one in [*fitting, entry]) > max_bytes:
                break
            fitting.append(entry)
        assert self.log.slice(start, stop, max_bytes) == tuple(fitting)

    @invariant()
    def terms_and_ends(self) -> None:
        """Terms, ends and sizes."""
        assert (self.log.last_index, self.log.last_term) == self.last
        assert self.log.size_bytes == sum(map(cost, self.entries))
        known = {self.point[0]: self.point[1]} | {entry.index: entry.term for entry in self.entries}
        for index in range(self.last[0] + 2):
            assert self.log.term_at(index) == known.get(index)

    @invariant()
    def runs_of_terms(self) -> None:
        """Where a term begins and ends."""
        for term in {entry.term for entry in self.entries}:
            indexes = [entry.index for entry in self.entries if entry.term == term]
            assert self.log.first_index_of(term) == indexes[0]
            assert self.log.last_index_of(term) == indexes[-1]
        strange = self.last[1] + 1
        assert self.log.last_index_of(strange) is None


def cost(entry: Entry) -> int:
    """What an entry costs."""
    return len(entry.data) + ENTRY_BYTES


TestLogAgainstList = LogAgainstList.TestCase
TestLogAgainstList.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
