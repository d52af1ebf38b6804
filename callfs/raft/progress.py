"""How far a follower is, as its leader knows it (etcd's three states)."""

from __future__ import annotations

import enum
from collections import deque

_DENIALS = 8
"""So often in a row isn't by late or doubled messages."""


class Phase(enum.Enum):
    """How a follower is fed."""

    PROBE = "probe"
    """It isn't known where the logs agree: one append at a time."""
    REPLICATE = "replicate"
    """It is known: appends go out one after the other, unanswered."""
    SNAPSHOT = "snapshot"
    """It needs entries that were cut: nothing is sent until it has a copy of the state."""


class Progress:
    """
    One follower.

    :param next_index: the first guess of what it needs next.
    """

    def __init__(self, next_index: int) -> None:
        self.phase = Phase.PROBE
        self.match = 0
        self.next_index = next_index
        self.round = 0
        self.silent_ticks = 0
        self.sent_commit = 0
        self.other_disk = False
        self._asked = False
        self._inflight: deque[tuple[int, int]] = deque()
        self._inflight_bytes = 0
        self._match_at_heartbeat = 0
        self._denials = 0
        self._doubted_at: int | None = None

    @property
    def has_forgotten(self) -> bool:
        """
        Whether it says again and again that it lacks the entry that it acknowledged last.

        Its disk was set back then, to a backup for instance, and its votes with it.
        """
        return self._denials >= _DENIALS

    @property
    def inflight(self) -> int:
        """Appends under way."""
        return len(self._inflight)

    def may_send(self, max_inflight: int, max_bytes: int) -> bool:
        """Whether another append may go out."""
        if self.phase is Phase.REPLICATE:
            return len(self._inflight) < max_inflight and self._inflight_bytes < max_bytes
        return self.phase is Phase.PROBE and not self._asked

    def sent(self, last_index: int, size_bytes: int, commit: int) -> None:
        """An append went out, up to that index."""
        self.sent_commit = commit
        if self.phase is Phase.PROBE:
            self._asked = True
        elif last_index >= self.next_index:
            self.next_index = last_index + 1
            self._inflight.append((last_index, size_bytes))
            self._inflight_bytes += size_bytes

    def matched(self, index: int) -> None:
        """It has everything up to that index, durably; from then on it is known where the logs agree."""
        if index >= self.match:
            self._denials = 0
            self._doubted_at = None
        self.match = max(self.match, index)
        self.next_index = max(self.next_index, self.match + 1)
        while self._inflight and self._inflight[0][0] <= self.match:
            self._inflight_bytes -= self._inflight.popleft()[1]
        if self.phase is Phase.PROBE:
            self._enter(Phase.REPLICATE, self.match + 1)

    @property
    def is_doubted(self) -> bool:
        """
        Whether it may lack what it acknowledged, and what it acknowledged was cut here.

        A copy of the state would hide that, so it is asked first, with the end of what was cut, where its log ends.
        """
        return self._doubted_at is not None

    def doubted(self, previous_index: int, commit: int) -> None:
        """An append without entries went out, to learn where its log ends."""
        self.sent_commit = commit
        self._doubted_at = previous_index
        self._asked = True

    def rejected(self, previous_index: int, retry_index: int, last_index: int | None = None) -> None:
        """
        It doesn't have the entry before those of an append.

        :param retry_index: what to send next according to its hint.
        :param last_index: where its log ends, if it says so.
        """
        if previous_index <= self.match:
            self._denials += previous_index == self.match
            return
        if last_index is not None and last_index < self.match and self.phase is not Phase.SNAPSHOT:
            self._lacks_what_it_had(previous_index)
            return
        if previous_index == self._doubted_at:
            self._denials, self._doubted_at = 0, None
            self._enter(Phase.PROBE, self.match + 1)
            return
        if self.phase is Phase.REPLICATE:
            self._enter(Phase.PROBE, self.match + 1)
        elif self.phase is Phase.PROBE and previous_index == self.next_index - 1:
            self._enter(Phase.PROBE, max(self.match + 1, min(retry_index, previous_index)))

    def answered_heartbeat(self, round_number: int) -> bool:
        """
        It is there.

        :returns: whether something seems lost: appends are unanswered, and none was since the last heartbeat.
        """
        self.round = max(self.round, round_number)
        self._asked = False
        stalled = (
            self.phase is Phase.REPLICATE
            and self.match < self.next_index - 1
            and self.match == self._match_at_heartbeat
        )
        self._match_at_heartbeat = self.match
        return stalled

    def lost(self) -> None:
        """What is under way won't be answered."""
        self._enter(Phase.PROBE, self.match + 1)
        if self.match:
            self._doubted_at = 0

    def needs_snapshot(self) -> None:
        """What it needs next was cut."""
        self._enter(Phase.SNAPSHOT, self.next_index)

    def snapshot_ended(self, index: int | None) -> None:
        """
        A copy of the state went out, or failed.

        :param index: what it has by it; ``None`` when it failed: then it has to be heard before another try.
        """
        if self.phase is Phase.SNAPSHOT:
            self._enter(Phase.PROBE, max(self.match, index or 0) + 1)
            self._asked = index is None

    def _lacks_what_it_had(self, previous_index: int) -> None:
        """It is asked again with each heartbeat; only answers to the same question count, others may be late."""
        self._denials += previous_index == self._doubted_at
        self._doubted_at = self._doubted_at or 0
        self._enter(Phase.PROBE, self.match + 1)
        self._asked = True

    def _enter(self, phase: Phase, next_index: int) -> None:
        self.phase, self.next_index = phase, next_index
        self._asked = False
        self._inflight.clear()
        self._inflight_bytes = 0
