"""
The writing half of an HTTP/1 connection.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPullProducer, IPushProducer
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from callfs.backends.interfaces import HandedOver
from callfs.web import splicing
from callfs.web.context import Context
from callfs.web.outgoing import ClientGone, ResponseHead
from callfs.web.progress import acknowledged
from callfs.web.sendfile import send_file
from callfs.web.timers import IdleTimer
from callfs.web.wire import LAST_CHUNK, chunk, wire_head
from callfs.web.zerocopy import Sender, plain_tcp_socket

_Beside = Callable[[Sender, int], Coroutine[Deferred[Any], Any, int]]
"""Lets a sender send to a socket."""


@implementer(IPushProducer)
class WritingHalf(Protocol):
    """
    Writes responses to the transport, and watches whether the client takes them.

    It stays registered as the transport's producer: between :meth:`pauseProducing` and :meth:`resumeProducing` the
    client is the one waited for, and the write timeout runs.
    """

    # A reactor's transports have more than one interface says.
    transport: Any

    def __init__(self, context: Context) -> None:
        self._context = context
        self.secure = False
        self.bytes_sent = 0
        self.begun = False
        self.complete = False
        self.was_cut = False
        self.close_after = False
        self.blocked = False
        self._http_1_1 = True
        self._chunked = False
        self._owed: int | None = None
        self._room: Deferred[None] | None = None
        self._socket: socket.socket | None = None
        self._on_transport = False
        self._empty = True
        self._write_timer = IdleTimer(context.clock, self._write_expired, self._progress)

    def connectionMade(self) -> None:
        """For Twisted."""
        self._socket = plain_tcp_socket(self.transport)
        if self._socket is not None:
            self.transport.setTcpNoDelay(True)
        self._join_transport()

    def connectionLost(self, reason: Failure | None = None) -> None:
        """For Twisted."""
        self._write_timer.close()
        self._on_transport = False
        self._socket = None

    def _join_transport(self) -> None:
        self._on_transport = True
        self.transport.registerProducer(self, True)

    def leave_transport(self) -> None:
        """From now on the transport may close as soon as it is empty."""
        if self._on_transport:
            self._on_transport = False
            self.transport.unregisterProducer()
        self.blocked = False
        self._write_timer.stop()

    # A response; see callfs.web.outgoing.ResponseStream.

    def must_close(self) -> bool:
        """Whether the connection has to end after the response that is about to begin."""
        raise NotImplementedError

    def begin_answers(self, http_1_1: bool) -> None:
        """A new request: nothing of its response is out."""
        self._http_1_1 = http_1_1
        self.begun = self.complete = self.was_cut = self.close_after = False
        self.bytes_sent = 0

    def begin(self, head: ResponseHead, first: bytes = b"") -> None:
        """Send the headers, and the first of the body in the same packet."""
        unknown_length = head.has_body and head.length is None
        self._chunked = unknown_length and self._http_1_1
        # HTTP/1.0 has no chunks: there the end of the connection is the end of the body.
        self.close_after = self.must_close() or (unknown_length and not self._http_1_1)
        self._owed = head.length if head.has_body else 0
        data = wire_head(
            head, self._context.date_line(), secure=self.secure, chunked=self._chunked, close=self.close_after
        )
        self.begun = True
        if self._chunked:
            self.put(data)
            self.write(first)
            return
        self._sent(len(first))
        if self._owed or not self._empty or not self._sent_directly(data + first):
            self.put(data, first)

    def write(self, data: bytes) -> None:
        """Send more of the body."""
        if not data:
            return
        self._sent(len(data))
        if self._chunked:
            self.put(*chunk(data))
        elif not self._empty or not self._sent_directly(data):
            self.put(data)

    def _sent_directly(self, whole: bytes) -> bool:
        """
        Hand a whole response, or a piece of one, to the kernel, when nothing waits before it.

        The transport would wait for the socket to be writable, which takes two changes of what the reactor watches
        and a round through it: a fifth of the time of a small request. What the kernel doesn't take goes the
        ordinary way, as does the news of an error.

        :return: whether it is done; if not, nothing was sent.
        """
        if self._socket is None:
            return False
        try:
            count = self._socket.send(whole)
        except OSError:
            return False
        if count < len(whole):
            self.put(whole[count:])
        return True

    def put(self, *data: bytes) -> None:
        """Give bytes to the transport."""
        self._empty = False
        self.transport.writeSequence(data)

    def _sent(self, count: int) -> None:
        self.bytes_sent += count
        if self._owed is not None:
            self._owed -= count

    def drained(self) -> Deferred[None] | None:
        """Fires when there is room for more; ``None`` when there is."""
        if not self.blocked:
            return None
        self._room = Deferred()
        return self._room

    def end(self) -> None:
        """The body is complete; one that isn't as long as announced cuts the connection."""
        if self._owed:
            self.cut()
            return
        if self._chunked:
            self.put(LAST_CHUNK)
        self.complete = True

    def send_file(self, descriptor: int, start: int, length: int) -> Deferred[int] | None:
        """Send part of a file straight from the kernel, when the connection is plain TCP."""
        return self._beside(lambda sender, target: send_file(sender, target, descriptor, start, length))

    def relays(self) -> bool:
        """Whether :meth:`send_socket` can do its work here."""
        return splicing.AVAILABLE and self._can_go_beside()

    def send_socket(self, source: HandedOver, length: int) -> Deferred[int] | None:
        """Send what comes from a socket, straight through the kernel, when the connection is plain TCP."""
        return self._beside(
            lambda sender, target: splicing.send_socket(
                sender, target, source.descriptor, length, source.timeout_seconds
            )
        )

    def _can_go_beside(self) -> bool:
        return self._socket is not None and self._context.pool is not None and not self._chunked

    def _beside(self, send: _Beside) -> Deferred[int] | None:
        """Let something write to the socket beside the transport, once that has nothing more to write."""
        return Deferred.fromCoroutine(self._sent_beside(send)) if self._can_go_beside() else None

    async def _sent_beside(self, send: _Beside) -> int:
        if not self._empty and self._socket is not None:
            await self._emptied()
        if self._socket is None or self._context.pool is None:
            raise ClientGone
        sender = Sender(self._context.clock, self._context.pool, self._sent, self._wait_for_client)
        try:
            return await send(sender, self._socket.fileno())
        except (ConnectionError, TimeoutError):
            raise ClientGone from None

    async def _emptied(self) -> None:
        """The transport has handed everything to the kernel."""
        self.leave_transport()
        self._write_timer.start(self._context.settings.write_timeout_seconds)
        try:
            await _Emptied(self.transport).fired
            self._empty = True
        finally:
            self._write_timer.stop()
            if self._socket is not None:
                self.transport.unregisterProducer()
                self._join_transport()

    # Back-pressure and the idle limit.

    def pauseProducing(self) -> None:
        """For Twisted: the transport has more than it could get rid of."""
        self.blocked = True
        self._write_timer.start(self._context.settings.write_timeout_seconds)

    def resumeProducing(self) -> None:
        """For Twisted: the transport is empty."""
        self.blocked = False
        self._empty = True
        self._write_timer.stop()
        room, self._room = self._room, None
        if room is not None and not room.called:
            room.callback(None)
        self.room_again()

    def stopProducing(self) -> None:
        """For Twisted: the connection is lost, of which we are told otherwise."""

    def room_again(self) -> None:
        """The transport is empty again."""

    def _wait_for_client(self, waiting: bool) -> None:
        if waiting:
            self._write_timer.start(self._context.settings.write_timeout_seconds)
        else:
            self._write_timer.stop()

    def _progress(self) -> object:
        connection = self._socket
        return self.bytes_sent if connection is None else acknowledged(connection)

    def _write_expired(self) -> None:
        self.cut()

    # The end.

    def cut(self) -> None:
        """End the connection at once, so that the client can't take what it got for the whole."""
        self.was_cut = True
        self.transport.abortConnection()

    def half_close(self) -> None:
        """Say that nothing more will be sent, where the transport can say that; reading goes on."""
        self.leave_transport()
        if self._socket is not None:
            self.transport.loseWriteConnection()

    def close_when_sent(self) -> None:
        """End the connection when the client took all, or took nothing for too long."""
        self.leave_transport()
        self._write_timer.start(self._context.settings.write_timeout_seconds)
        self.transport.loseConnection()


@implementer(IPullProducer)
class _Emptied:
    """Fires when a transport that has something to write has written it."""

    def __init__(self, transport: Any) -> None:
        self.fired: Deferred[None] = Deferred()
        self._registering = True
        transport.registerProducer(self, False)
        self._registering = False

    def resumeProducing(self) -> None:
        """Called at the registration, and then each time the transport is empty."""
        if not self._registering and not self.fired.called:
            self.fired.callback(None)

    def stopProducing(self) -> None:
        """The connection is lost; whoever waits is cancelled."""
