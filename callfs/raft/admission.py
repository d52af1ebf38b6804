"""How many commands a leader takes: none too large, and no more at once than its memory is meant to hold."""

from __future__ import annotations

from collections.abc import Sequence

from callfs.raft.log import ENTRY_BYTES
from callfs.raft.refusal import Refusal
from callfs.raft.replica import Replica


class Admission:
    """
    The limits of a log that grows.

    :param replica: what all parts share.
    """

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    def fitting(self, commands: Sequence[bytes]) -> tuple[int, Refusal | None]:
        """
        How many of the first of these may be taken together.

        :returns: the number, and why not one more: ``TOO_LARGE`` or ``BUSY``; nothing when all may.
        """
        if self._all_fit(commands):
            return len(commands), None
        taken_bytes = 0
        for number, command in enumerate(commands):
            size_bytes = len(command) + ENTRY_BYTES
            refusal = self._refuses(size_bytes, taken_bytes)
            if refusal is not None:
                return number, refusal
            taken_bytes += size_bytes
        return len(commands), None

    def _all_fit(self, commands: Sequence[bytes]) -> bool:
        """The common case in one step: the whole log is small, all the more so is what of it isn't committed."""
        settings = self._replica.settings
        sizes = [len(command) for command in commands]
        total = self._replica.log.size_bytes + sum(sizes) + len(sizes) * ENTRY_BYTES
        return (
            max(sizes, default=0) <= settings.max_entry_bytes
            and total <= settings.max_uncommitted_bytes
            and total <= 2 * settings.max_log_bytes
        )

    def _refuses(self, size_bytes: int, taken_bytes: int) -> Refusal | None:
        """One command is always taken, however large, if nothing else is uncommitted."""
        log, settings = self._replica.log, self._replica.settings
        if size_bytes > settings.max_entry_bytes + ENTRY_BYTES:
            return Refusal.TOO_LARGE
        if log.size_bytes + taken_bytes > 2 * settings.max_log_bytes:
            return Refusal.BUSY
        uncommitted = log.bytes_between(self._replica.commit, log.last_index) + taken_bytes
        too_much = uncommitted > 0 and uncommitted + size_bytes > settings.max_uncommitted_bytes
        return Refusal.BUSY if too_much else None
