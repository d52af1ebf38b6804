"""
A request's body between the connection, which pushes, and the route, which pulls.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from typing import Protocol

from twisted.internet.defer import CancelledError, Deferred

from callfs.errors import CallFSError, PayloadTooLarge

HIGH_WATER_BYTES = 1024 * 1024
"""The connection is paused while so much, or more, waits for the route."""

MAX_PIECE_BYTES = 1024 * 1024
_SMALL_PIECE_BYTES = 16 * 1024


class BodySource(Protocol):
    """The connection as the body sees it."""

    def ask_for_body(self) -> None:
        """The route wants the body: answer ``Expect: 100-continue``."""

    def pause_body(self) -> None:
        """Enough for now."""

    def resume_body(self) -> None:
        """There is room again."""

    def wait_for_body(self, waiting: bool) -> None:
        """Whether the client is the one waited for: the idle limit runs just then."""


class BodyStream:
    """
    See :class:`callfs.web.messages.Body`, which this provides.

    What arrives while the route is busy with the piece before is handed over in one piece, up to 1 MiB: a route
    that is fast gets what is there at once, a slow one gets large pieces.

    :param declared_length: ``Content-Length``; ``None`` when chunked.
    :param source: where the body comes from; it calls :meth:`received` and :meth:`fail`.
    """

    def __init__(self, declared_length: int | None, source: BodySource) -> None:
        self.declared_length = declared_length
        self.complete = declared_length == 0
        self.bytes_received = 0
        self._source = source
        self._pieces: deque[bytes | bytearray] = deque()
        self._buffered = 0
        self._asked = False
        self._paused = False
        self._error: CallFSError | None = None
        self._waiter: Deferred[None] | None = None

    # What the connection calls.

    def received(self, data: bytes, last: bool) -> None:
        """More of the body; ``last``: and nothing after it."""
        self.complete = last
        if data:
            self._keep(data)
        if data or last:
            self._wake()

    def _keep(self, data: bytes) -> None:
        self.bytes_received += len(data)
        self._buffered += len(data)
        last = self._pieces[-1] if self._pieces else None
        if last is not None and len(data) < _SMALL_PIECE_BYTES and len(last) < MAX_PIECE_BYTES - _SMALL_PIECE_BYTES:
            # Tiny pieces go together: a list of them would take many times their size.
            if not isinstance(last, bytearray):
                last = self._pieces[-1] = bytearray(last)
            last += data
        else:
            self._pieces.append(data)
        if self._buffered >= HIGH_WATER_BYTES and not self._paused:
            self._paused = True
            self._source.pause_body()

    def fail(self, error: CallFSError) -> bool:
        """
        There won't be more; what is buffered is of no use.

        :return: whether the route was waiting for it, and so knows now.
        """
        if self.complete or self._error is not None:
            return False
        self._error = error
        waiting = self._waiter is not None
        self.discard()
        self._wake()
        return waiting

    def discard(self) -> None:
        """Forget what is buffered: nobody will read it."""
        self._pieces.clear()
        self._buffered = 0

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            self._source.wait_for_body(False)
            waiter.callback(None)

    # What the route calls.

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while True:
            if self._error is not None:
                raise self._error
            if self._pieces:
                return self._take()
            if self.complete:
                raise StopAsyncIteration
            await self._wait()

    def at_hand(self, max_bytes: int) -> bytes | None:
        """See :class:`callfs.web.messages.Body`."""
        untouched = self._buffered == self.bytes_received
        if not (self.complete and untouched and self._buffered <= min(max_bytes, MAX_PIECE_BYTES)):
            return None
        return self._take() if self._pieces else b""

    async def read(self, max_bytes: int) -> bytes:
        """See :class:`callfs.web.messages.Body`."""
        too_large = PayloadTooLarge(f"the body is longer than {max_bytes} bytes")
        if self.declared_length is not None and self.declared_length > max_bytes:
            raise too_large
        pieces = []
        size = 0
        async for piece in self:
            size += len(piece)
            if size > max_bytes:
                raise too_large
            pieces.append(piece)
        return b"".join(pieces)

    async def _wait(self) -> None:
        if not self._asked:
            self._asked = True
            self._source.ask_for_body()
        waiter: Deferred[None] = Deferred()
        self._waiter = waiter
        self._source.wait_for_body(True)
        try:
            await waiter
        except CancelledError:
            if self._waiter is waiter:
                self._waiter = None
                self._source.wait_for_body(False)
            raise

    def _take(self) -> bytes:
        taken = [self._pieces.popleft()]
        size = len(taken[0])
        while self._pieces and size + len(self._pieces[0]) <= MAX_PIECE_BYTES:
            taken.append(self._pieces.popleft())
            size += len(taken[-1])
        self._buffered -= size
        if self._paused and self._buffered < HIGH_WATER_BYTES:
            self._paused = False
            self._source.resume_body()
        first = taken[0]
        return first if len(taken) == 1 and isinstance(first, bytes) else b"".join(taken)
