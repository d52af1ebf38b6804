"""What is durable on a node."""

from __future__ import annotations

import msgspec

from callfs.raft.boundary import HardState, Saved, SnapshotMeta, Write, with_state
from callfs.raft.membership import NOBODY, Membership
from callfs.raft.messages import Entry, EntryKind
from tests.simulation.machine import Machine


class Contents:
    """
    The contents of a node's disk: its log, and a checkpoint of its state machine.

    :param disk_id: the disk's identity; another one after the disk was wiped.
    """

    def __init__(self, disk_id: str) -> None:
        self.disk_id = disk_id
        self.hard_state = HardState(0, None, 0)
        self.point = SnapshotMeta(0, 0, NOBODY)
        self.entries: list[Entry] = []
        self.state = Machine()

    @property
    def last_index(self) -> int:
        """The end of the log."""
        return self.entries[-1].index if self.entries else self.point.index

    def term_at(self, index: int) -> int | None:
        """The term of the entry at an index; ``None`` where there is none, or none any more."""
        if index == self.point.index:
            return self.point.term
        return (
            self.entries[index - self.point.index - 1].term if self.point.index < index <= self.last_index else None
        )

    def store(self, write: Write) -> None:
        """Carry out a write of the core."""
        if write.discard_log:
            self.entries.clear()
        if write.point is not None:
            point = write.point
            self.entries = [entry for entry in self.entries if entry.index > point.index]
            self.point = point
        if write.entries:
            first = write.entries[0].index
            assert first <= self.last_index + 1, f"a gap in the log: {first} after {self.last_index}"
            if first <= self.last_index:
                self.entries = [entry for entry in self.entries if entry.index < first]
            self.entries.extend(write.entries)
        if write.hard_state is not None:
            self.hard_state = write.hard_state

    def saved(self, state: Machine) -> Saved:
        """What a core starts from, with a copy of the state machine as it was found."""
        saved = Saved(hard_state=self.hard_state, point=self.point, entries=tuple(self.entries))
        return with_state(saved, state.meta)

    def membership(self) -> Membership:
        """The membership in the durable log."""
        for entry in reversed(self.entries):
            if entry.kind is EntryKind.MEMBERSHIP:
                return msgspec.msgpack.decode(entry.data, type=Membership)
        return self.point.membership
