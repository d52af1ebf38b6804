"""
A connection between two peers, as each of its two sides sees it.

Who dials sends messages and questions; who accepts sends the answers, on the same connection. Each side notices
within ``idle_seconds`` that the other is gone without a word.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from callfs.cluster.certified import CertifiedNames
from callfs.cluster.frames import FrameBuffer, FrameTooLong, framed
from callfs.cluster.handshake import HANDSHAKE_FRAME_BYTES, Acceptor, Dialer, HandshakeRefused, refusal
from callfs.cluster.identity import PeerIdentity
from callfs.cluster.wire import (
    Answer,
    Declined,
    Frame,
    Malformed,
    Message,
    Ping,
    Pong,
    Question,
    decode,
    encode,
)
from callfs.sending import send_now

MAX_OPEN_QUESTIONS = 4096
"""Questions of one connection that may be under way; more are declined as ``busy``."""

UNSURE = "failed"
"""The code of the only answer that leaves open whether what was asked for happens."""

_LOOKS_PER_IDLE_TIME = 4


class Dropped(Exception):
    """
    The connection was closed by this side.

    :param reason: ``idle``, ``handshake_timeout``, ``malformed``, ``too_long``, ``replaced``, ``crowded``,
        ``stopped``.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"the connection was dropped: {reason}")
        self.reason = reason


class Asked(Protocol):
    """Answers the questions of a peer; fails with :class:`DeclinedQuestion` to decline."""

    def __call__(self, peer: PeerIdentity, payload: bytes) -> Deferred[bytes]: ...


class DeclinedQuestion(Exception):
    """
    The question isn't answered, and changed nothing but with the reason :data:`UNSURE`.

    :param reason: a code.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"declined: {reason}")
        self.reason = reason


class PeerConnection(TwistedProtocol):
    """
    What both sides have in common: frames, and an eye on the other side.

    :param idle_seconds: how long the other side may be silent; the handshake has to be over as soon.
    """

    transport: Any  # ITCPTransport and IConsumer

    def __init__(self, clock: IReactorTime, idle_seconds: float) -> None:
        self.peer: PeerIdentity | None = None
        self.dropped: Exception | None = None
        self._clock = clock
        self._idle_seconds = idle_seconds
        self._frames = FrameBuffer(HANDSHAKE_FRAME_BYTES)
        self._silent_looks = 0
        self._looking: LoopingCall | None = None

    def connectionMade(self) -> None:
        """The handshake may begin."""
        self.transport.setTcpNoDelay(True)
        self._looking = LoopingCall(self._look)
        self._looking.clock = self._clock
        self._looking.start(self._idle_seconds / _LOOKS_PER_IDLE_TIME, now=False)

    def certified(self) -> CertifiedNames:
        """Whom the other side's certificate names; only with TLS."""
        shown = self.transport.getPeerCertificate()
        return CertifiedNames() if shown is None else CertifiedNames.of(shown.to_cryptography())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Nothing more comes."""
        if self._looking is not None and self._looking.running:
            self._looking.stop()

    def dataReceived(self, data: bytes) -> None:
        """Cut into frames."""
        if self.peer is not None:
            self._silent_looks = 0
        try:
            for body in self._frames.feed(data):
                if self.dropped is not None:
                    return
                self._take(body)
        except FrameTooLong:
            self.drop(Dropped("too_long"))
        except Malformed:
            self.drop(Dropped("malformed"))

    def drop(self, reason: Exception) -> None:
        """Close the connection at once; the first reason counts."""
        if self.dropped is None:
            self.dropped = reason
            self.transport.abortConnection()

    def _take(self, body: bytes) -> None:
        if self.peer is None:
            self._greet(body)
        else:
            self._open_frame(decode(body))

    def _proven(self, peer: PeerIdentity) -> None:
        self.peer = peer
        self._silent_looks = 0
        self._frames.limit_bytes = FrameBuffer().limit_bytes

    def _look(self) -> None:
        # Looks are counted, not time: when this process itself was held up, what came meanwhile is read first.
        self._silent_looks += 1
        if self._silent_looks > _LOOKS_PER_IDLE_TIME:
            self.dropped = self.dropped or Dropped("idle" if self.peer is not None else "handshake_timeout")
            self.transport.abortConnection()
        elif self.peer is not None:
            self._show_life()

    def _send(self, frame: Frame) -> None:
        self.transport.write(framed(encode(frame)))
        # An entry goes this way twice before anybody gets an answer.
        send_now(self.transport)

    def _greet(self, body: bytes) -> None:
        raise NotImplementedError

    def _open_frame(self, frame: Frame) -> None:
        raise NotImplementedError

    def _show_life(self) -> None:
        raise NotImplementedError


class OutgoingConnection(PeerConnection):
    """
    The side that dialled.

    :param handshake: makes one, for this connection.
    :param opened: called when both sides are proven.
    :param answered: called with :class:`Answer` and :class:`Declined`.
    :param writable: called with whether there is room for more.
    :param lost: called once, with the reason, when the connection is gone.
    """

    def __init__(
        self,
        clock: IReactorTime,
        idle_seconds: float,
        *,
        handshake: Callable[[PeerConnection], Dialer],
        opened: Callable[[OutgoingConnection], None],
        answered: Callable[[Answer | Declined], None],
        writable: Callable[[bool], None],
        lost: Callable[[OutgoingConnection, Exception], None],
    ) -> None:
        super().__init__(clock, idle_seconds)
        self._handshake = handshake(self)
        self._opened = opened
        self._answered = answered
        self._writable = writable
        self._lost = lost

    def connectionMade(self) -> None:
        """Say hello."""
        super().connectionMade()
        self.transport.registerProducer(self, True)
        self.transport.write(framed(self._handshake.first()))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the owner why."""
        super().connectionLost(reason)
        why = reason.value
        self._lost(self, self.dropped or (why if isinstance(why, Exception) else ConnectionDone()))

    def send(self, frame: Message | Question) -> None:
        """Send a frame; the caller heeds what ``writable`` said."""
        self._send(frame)

    # IPushProducer, called by the transport

    def pauseProducing(self) -> None:
        """The transport's buffer is full."""
        self._writable(False)

    def resumeProducing(self) -> None:
        """The transport's buffer is empty."""
        self._writable(True)

    def stopProducing(self) -> None:
        """The connection is going away."""

    def _greet(self, body: bytes) -> None:
        try:
            reply = self._handshake.received(body)
        except HandshakeRefused as error:
            self.drop(error)
            return
        if reply is not None:
            self.transport.write(framed(reply))
        elif self._handshake.peer is not None:
            self._proven(self._handshake.peer)
            self._opened(self)

    def _open_frame(self, frame: Frame) -> None:
        if isinstance(frame, Answer | Declined):
            self._answered(frame)
        elif not isinstance(frame, Pong):
            raise Malformed("a frame that only a dialer may send")

    def _show_life(self) -> None:
        self._send(Ping())


class IncomingConnection(PeerConnection):
    """
    The side that was connected to.

    :param handshake: makes one, for this connection.
    :param opened: called when both sides are proven.
    :param message: called with each message of the peer.
    :param asked: answers the questions of the peer.
    :param lost: called once when the connection is gone.
    """

    def __init__(
        self,
        clock: IReactorTime,
        idle_seconds: float,
        *,
        handshake: Callable[[PeerConnection], Acceptor],
        opened: Callable[[IncomingConnection], None],
        message: Callable[[PeerIdentity, bytes], None],
        asked: Asked,
        lost: Callable[[IncomingConnection, Exception | None], None],
    ) -> None:
        super().__init__(clock, idle_seconds)
        self._handshake = handshake(self)
        self._opened = opened
        self._message = message
        self._asked = asked
        self._lost = lost
        self._questions = 0
        self._gone = False

    def connectionMade(self) -> None:
        """Wait for the dialer's hello."""
        super().connectionMade()
        self.transport.registerProducer(self, True)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the owner."""
        super().connectionLost(reason)
        self._gone = True
        self._lost(self, self.dropped)

    # IPushProducer: who doesn't read answers isn't listened to, so that answers can't pile up.

    def pauseProducing(self) -> None:
        """The transport's buffer is full."""
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """The transport's buffer is empty."""
        self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """The connection is going away."""

    def _greet(self, body: bytes) -> None:
        try:
            reply = self._handshake.received(body)
        except HandshakeRefused as error:
            # Who doesn't read what it is told is cut when the time of the handshake is over.
            self.dropped = error
            self.transport.write(framed(refusal(error)))
            self.transport.unregisterProducer()
            self.transport.loseConnection()
            return
        self.transport.write(framed(reply))
        if self._handshake.peer is not None:
            self._proven(self._handshake.peer)
            self._opened(self)

    def _open_frame(self, frame: Frame) -> None:
        assert self.peer is not None
        if isinstance(frame, Message):
            self._message(self.peer, frame.payload)
        elif isinstance(frame, Question):
            self._answer(self.peer, frame)
        elif not isinstance(frame, Ping):
            raise Malformed("a frame that only an acceptor may send")

    def _answer(self, peer: PeerIdentity, question: Question) -> None:
        if self._questions >= MAX_OPEN_QUESTIONS:
            self._send(Declined(question.number, "busy"))
            return
        self._questions += 1

        def ended(result: bytes | Failure) -> None:
            self._questions -= 1
            if self._gone or self.dropped is not None:
                return
            if not isinstance(result, Failure):
                self._send(Answer(question.number, result))
                return
            error = result.value
            self._send(Declined(question.number, error.reason if isinstance(error, DeclinedQuestion) else UNSURE))

        self._asked(peer, question.payload).addBoth(ended)

    def _show_life(self) -> None:
        if self._silent_looks == 1:
            self._send(Pong())
