"""What of a node's memory is durable, what is on its way there, and who waits to be told."""

from __future__ import annotations

from collections import deque

import msgspec

from callfs.raft.boundary import HardState, SnapshotMeta, Write
from callfs.raft.log import Log
from callfs.raft.messages import AppendResponse, Message, Outgoing

UNLIMITED = 2**62


class _Pending(msgspec.Struct):
    """A write that was handed out and isn't reported yet; ``index`` falls when its entries are replaced."""

    number: int
    index: int
    ballot: tuple[int, str | None]
    promises: list[Outgoing]


class Durability:
    """
    Hands out writes, and holds back the messages that promise what is in them.

    Writes become durable in order. An entry that is replaced while its write is under way never counts as durable,
    though the write is: what is durable of a log is what was written *and* is still in memory.

    :param index: the log is durable up to it.
    :param ballot: the durable term and vote.
    """

    def __init__(self, index: int, ballot: tuple[int, str | None]) -> None:
        self.index = index
        self.ballot = ballot
        self._handed_index = index
        self._handed_ballot = ballot
        self._number = 0
        self._pending: deque[_Pending] = deque()
        self._promises: list[Outgoing] = []
        self._acknowledgement: Outgoing | None = None
        self._point: SnapshotMeta | None = None
        self._discard_log = False

    def promise(self, to: str, message: Message) -> None:
        """Send it once everything that is in memory now is durable."""
        self._promises.append(Outgoing(to, message))

    def acknowledge(self, to: str, response: AppendResponse) -> None:
        """The same for an append; several of one turn are answered by the one that says most."""
        before = self._acknowledgement
        if before is not None and before.to == to and isinstance(before.message, AppendResponse):
            known = before.message
            if known.term == response.term and known.match >= response.match:
                return
        self._acknowledgement = Outgoing(to, response)

    def replaced(self, index: int) -> None:
        """The entries from ``index`` on aren't those any more that were written."""
        self.index = min(self.index, index - 1)
        self._handed_index = min(self._handed_index, index - 1)
        for pending in self._pending:
            pending.index = min(pending.index, index - 1)

    def cut(self, point: SnapshotMeta) -> None:
        """The log was cut there; the state that contains what is gone is durable."""
        self._point = point
        self.index = max(self.index, point.index)
        self._handed_index = max(self._handed_index, point.index)

    def restarted(self, point: SnapshotMeta) -> None:
        """The log starts again after a state that is durable, with nothing in it."""
        self._point, self._discard_log = point, True
        self.replaced(point.index + 1)
        self.index = self._handed_index = point.index

    def take(self, log: Log, hard_state: HardState) -> Write | None:
        """What has to be written now, if anything; promises made so far wait for it."""
        ballot = (hard_state.term, hard_state.vote)
        entries = log.slice(self._handed_index + 1, log.last_index, UNLIMITED)
        if not entries and ballot == self._handed_ballot and self._point is None:
            return None
        self._number += 1
        write = Write(
            number=self._number,
            discard_log=self._discard_log,
            point=self._point,
            entries=entries,
            hard_state=hard_state,
        )
        self._handed_index, self._handed_ballot = log.last_index, ballot
        self._point, self._discard_log = None, False
        self._pending.append(_Pending(self._number, log.last_index, ballot, []))
        return write

    def kept(self) -> list[Outgoing]:
        """The promises that hold already, to be sent; those that don't yet are bound to the last write."""
        if self._acknowledgement is not None:
            self._promises.append(self._acknowledgement)
            self._acknowledgement = None
        promises, self._promises = self._promises, []
        if not self._pending:
            return promises
        self._pending[-1].promises.extend(promises)
        return []

    def persisted(self, number: int) -> list[Outgoing]:
        """
        Writes up to that number are durable: what may be sent now.

        An answer about entries that were replaced meanwhile is dropped: what it says isn't so any more.
        """
        promises: list[Outgoing] = []
        while self._pending and self._pending[0].number <= number:
            done = self._pending.popleft()
            self.index = max(self.index, done.index)
            self.ballot = done.ballot
            promises.extend(promise for promise in done.promises if self._still_holds(promise.message))
        return promises

    def _still_holds(self, message: Message) -> bool:
        return not isinstance(message, AppendResponse) or message.match <= self.index
