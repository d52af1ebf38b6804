"""The body of a peer's answer as it is taken piece by piece, with back-pressure to the peer."""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone

from callfs.deferreds import with_timeout

FIRST_BYTES = 64 * 1024
"""So much is taken in before anybody reads: a reader may want to begin elsewhere."""

MOST_BYTES = 1024 * 1024
"""So much waits at most; what arrived with the piece that went over it comes on top."""

_LONG_PAUSE_SECONDS = 5.0


class StreamEnded(Exception):
    """
    The body ended before its end.

    :param kept_waiting: we had let the peer wait for so long that it may have lost its patience with us.
    """

    def __init__(self, text: str, kept_waiting: bool) -> None:
        super().__init__(text)
        self.kept_waiting = kept_waiting


class StreamSilent(Exception):
    """Nothing arrived for too long."""


class PeerStream(Protocol):
    """
    A body of known length, given to a response's ``deliverBody``.

    :param position: where in the blob it begins; grows as bytes are taken.
    :param length: of the body.
    :param timeout_seconds: how long the peer may send nothing while it is waited for.
    """

    def __init__(self, position: int, length: int, clock: IReactorTime, timeout_seconds: float) -> None:
        self.position = position
        self._missing = length
        self._clock = clock
        self._timeout_seconds = timeout_seconds
        self._pieces: deque[bytes] = deque()
        self._buffered = 0
        self._most_bytes = FIRST_BYTES
        self._paused_at: float | None = None
        self._kept_waiting = False
        self._reason: str | None = None
        self._waiter: Deferred[None] | None = None

    # What Twisted calls.

    def dataReceived(self, data: bytes) -> None:
        """For Twisted."""
        self._pieces.append(data)
        self._missing -= len(data)
        self._buffered += len(data)
        if self._buffered >= self._most_bytes and self._paused_at is None and self.transport is not None:
            self._paused_at = self._clock.seconds()
            self.transport.pauseProducing()  # type: ignore[attr-defined]
        self._wake()

    def connectionLost(self, reason: Failure = Failure(ResponseDone())) -> None:
        """For Twisted: the body is complete, or it was cut."""
        self._reason = "it ended too early" if reason.check(ResponseDone) else "the connection ended"
        self._paused_at = None
        self._wake()

    # What the reader calls.

    def has(self, length: int) -> bool:
        """Whether so many bytes are there."""
        return self._buffered >= length

    async def take(self, most: int) -> bytes:
        """
        The next bytes, at least one and at most so many; not beyond the end of the body.

        :raises StreamEnded: the body was cut.
        :raises StreamSilent: nothing came for too long.
        """
        while not self._pieces:
            if self._reason is not None:
                raise StreamEnded(self._reason, self._kept_waiting)
            await self._more()
        return self.take_now(most)

    def take_now(self, most: int) -> bytes:
        """As much of ``most`` as is there."""
        taken: list[bytes] = []
        size = 0
        while self._pieces and size < most:
            piece = self._pieces.popleft()
            if len(piece) > most - size:
                self._pieces.appendleft(piece[most - size :])
                piece = piece[: most - size]
            taken.append(piece)
            size += len(piece)
        self._buffered -= size
        self.position += size
        self._most_bytes = MOST_BYTES
        self._resume()
        return taken[0] if len(taken) == 1 else b"".join(taken)

    def pause(self) -> None:
        """Take nothing more in until what is there has been taken."""
        if self._paused_at is None:
            self._paused_at = self._clock.seconds()
        if self.transport is not None:
            self.transport.pauseProducing()  # type: ignore[attr-defined]

    def give_all(self) -> bytes:
        """What is there; the stream stays as it is, and is only good for :meth:`stop` from then on."""
        pieces = list(self._pieces)
        self._pieces.clear()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @property
    def flows(self) -> bool:
        """Whether more of the body is to come."""
        return self._missing > 0 and self._reason is None

    @property
    def buffered(self) -> int:
        """Bytes that are there."""
        return self._buffered

    def stop(self) -> None:
        """Nobody wants the rest. The connection is only kept when it has arrived."""
        self._pieces.clear()
        self._buffered = 0
        if self.flows and self.transport is not None:
            self.transport.loseConnection()

    def _resume(self) -> None:
        if self._paused_at is not None and self._buffered <= self._most_bytes // 2 and self.transport is not None:
            self._kept_waiting = self._clock.seconds() - self._paused_at >= _LONG_PAUSE_SECONDS
            self._paused_at = None
            self.transport.resumeProducing()  # type: ignore[attr-defined]

    async def _more(self) -> None:
        self._resume()
        waiter: Deferred[None] = Deferred()
        self._waiter = waiter
        await with_timeout(waiter, self._timeout_seconds, self._clock, StreamSilent)

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.called:
            waiter.callback(None)
