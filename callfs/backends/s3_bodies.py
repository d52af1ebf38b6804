"""
Bodies on their way: a request's, of chunks that stay for another attempt, and a reply's, with back-pressure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IConsumer, IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from callfs.backends.s3_errors import S3Unreachable
from callfs.backends.s3_request import Chunks, Content

BUFFER_BYTES = 512 * 1024
"""A reply's connection isn't read any further while so much waits."""

_SLICE_BYTES = 256 * 1024


class Watch:
    """
    Tells when nothing has moved for too long.

    :param silent: called then, once.
    """

    def __init__(self, clock: IReactorTime, seconds: float, silent: Callable[[], None]) -> None:
        self._clock = clock
        self._seconds = seconds
        self._silent = silent
        self._call: IDelayedCall | None = None
        self.was_silent = False

    def moved(self) -> None:
        """Something has moved, or is waited for from now on."""
        if self._call is None:
            self._call = self._clock.callLater(self._seconds, self._over)
        else:
            self._call.reset(self._seconds)

    def rest(self) -> None:
        """Nothing is waited for."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _over(self) -> None:
        self._call = None
        self.was_silent = True
        self._silent()


@implementer(IBodyProducer)
class ContentProducer:
    """
    Sends content as fast as the connection takes it.

    :param watch: told of progress.
    """

    def __init__(self, content: Content, watch: Watch) -> None:
        self.length = content.size
        self._slices = _slices(content.chunks)
        self._watch = watch
        self._consumer: IConsumer | None = None
        self._paused = False
        self._running = False
        self._done: Deferred[None] = Deferred()

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """See :meth:`IBodyProducer.startProducing`."""
        self._consumer = consumer
        self._run()
        return self._done

    def pauseProducing(self) -> None:
        """See :meth:`twisted.internet.interfaces.IPushProducer.pauseProducing`."""
        self._paused = True

    def resumeProducing(self) -> None:
        """See :meth:`twisted.internet.interfaces.IPushProducer.resumeProducing`."""
        self._paused = False
        self._run()

    def stopProducing(self) -> None:
        """See :meth:`twisted.internet.interfaces.IProducer.stopProducing`."""
        self._consumer = None

    def _run(self) -> None:
        """Writing may pause and resume at once, from within."""
        if self._running:
            return
        self._running = True
        try:
            while self._consumer is not None and not self._paused:
                piece = next(self._slices, None)
                if piece is None:
                    self._consumer = None
                    self._done.callback(None)
                    return
                self._watch.moved()
                self._consumer.write(piece)
        finally:
            self._running = False


class Connection(Protocol):
    """What carries a reply."""

    def abort(self) -> None:
        """Cut it; nothing of it is used again."""


class ReplyBody(TwistedProtocol):
    """
    The body of a reply. One reader.

    :param connection: cut by :meth:`abort`.
    :ivar watch: runs only while the server is the one waited for.
    """

    transport: Any

    def __init__(self, connection: Connection) -> None:
        self.watch: Watch | None = None
        self.over: Deferred[None] = Deferred()
        """Fires when nothing more will come."""
        self._connection = connection
        self._pieces: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._paused = False
        self._reason: Failure | None = None
        self._waiter: Deferred[None] | None = None

    @property
    def waiting_bytes(self) -> int:
        """Received and not yet read."""
        return self._waiting_bytes

    def dataReceived(self, data: bytes) -> None:
        """See :class:`twisted.internet.protocol.Protocol`."""
        if self._reason is not None:
            return
        self._pieces.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes >= BUFFER_BYTES and not self._paused:
            self._paused = True
            self.transport.pauseProducing()
            if self.watch is not None:
                self.watch.rest()
        elif not self._paused:
            self._moved()
        self._wake()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See :class:`twisted.internet.protocol.Protocol`."""
        self._end(reason)
        self._wake()

    def read(self, most: int) -> Deferred[bytes]:
        """
        The next bytes, as soon as there are any: at most so many; none at the end.

        :raises S3Unreachable: the body was cut; what came before was given.
        """
        if self._pieces:
            return succeed(self._take(most))
        if self._reason is None:
            self._waiter = Deferred(lambda _: self._forget_waiter())
            return self._waiter.addCallback(lambda _: self.read(most))
        if _is_end(self._reason):
            return succeed(b"")
        return fail(S3Unreachable(f"the reply was cut: {self._reason.getErrorMessage() or self._reason.type}"))

    def abort(self) -> None:
        """Nobody wants the rest."""
        if self._end(Failure(S3Unreachable("given up"))):
            self._connection.abort()
        self._pieces.clear()
        self._waiting_bytes = 0
        self._wake()

    def cut(self) -> None:
        """The server was silent for too long."""
        if self._end(Failure(S3Unreachable("nothing came for too long"))):
            self._connection.abort()
            self._wake()

    def _end(self, reason: Failure) -> bool:
        """Nothing more comes; whether that is news."""
        if self._reason is not None:
            return False
        self._reason = reason
        if self.watch is not None:
            self.watch.rest()
        self.over.callback(None)
        return True

    def _take(self, most: int) -> bytes:
        piece = self._pieces.popleft()
        if len(piece) > most:
            self._pieces.appendleft(piece[most:])
            piece = piece[:most]
        self._waiting_bytes -= len(piece)
        if self._paused and self._waiting_bytes <= BUFFER_BYTES // 2:
            self._paused = False
            if self._reason is None:
                self._moved()
                self.transport.resumeProducing()
        return piece

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.callback(None)

    def _forget_waiter(self) -> None:
        self._waiter = None

    def _moved(self) -> None:
        if self.watch is not None:
            self.watch.moved()


def _slices(chunks: Chunks) -> Iterator[bytes]:
    for chunk in chunks:
        if isinstance(chunk, bytes) and len(chunk) <= _SLICE_BYTES:
            yield chunk
            continue
        for start in range(0, len(chunk), _SLICE_BYTES):
            yield bytes(memoryview(chunk)[start : start + _SLICE_BYTES])


def _is_end(reason: Failure) -> bool:
    """Whether a body is complete, as far as HTTP can tell."""
    return reason.check(ResponseDone, PotentialDataLoss) is not None
