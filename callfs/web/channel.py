"""
An HTTP/1 connection: requests in, one at a time and in order; responses out.

=========  ===========================  =============================================  ==========================
state      what arrives is              idle limit                                     ends with
=========  ===========================  =============================================  ==========================
HEAD       the next request's head      read timeout; whole head from its first byte   an exchange: BODY or BUSY
BODY       the body of the exchange     read timeout, while the route waits for it     BUSY when it is complete
BUSY       kept for later, up to 64 KiB none: the server is the one waited for         HEAD, LINGER or the end
LINGER     thrown away                  2 s in all                                     the end
UPGRADED   the other protocol's         that protocol's                                the end
CLOSED     thrown away
=========  ===========================  =============================================  ==========================

Whatever the state, the write timeout runs while the transport holds more than it could get rid of.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable

from twisted.internet.interfaces import IHalfCloseableProtocol, ISSLTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from callfs.errors import BadRequest, CallFSError, RequestTimeout
from callfs.web.access_event import NO_ROUTE, Ended, report
from callfs.web.context import Context, Upgraded
from callfs.web.exchange import REQUEST_ID_BYTES, Exchange, error_as_response
from callfs.web.framing import BodyDecoder, decoder
from callfs.web.http1 import RequestHead, find_head, parse_head
from callfs.web.incoming import BodyStream
from callfs.web.outgoing import head_of
from callfs.web.proxies import plain_address
from callfs.web.timers import IdleTimer
from callfs.web.wire import CONTINUE
from callfs.web.writing import WritingHalf

_READ_BYTES = 64 * 1024
_BODY_READ_BYTES = 256 * 1024
_KEPT_BYTES = 64 * 1024
_EMPTY_LINES = re.compile(rb"(?:\r\n)+")


class State(enum.Enum):
    """What arrives belongs to what; see the table above."""

    HEAD = enum.auto()
    BODY = enum.auto()
    BUSY = enum.auto()
    LINGER = enum.auto()
    UPGRADED = enum.auto()
    CLOSED = enum.auto()


@implementer(IHalfCloseableProtocol)
class Channel(WritingHalf):
    """
    One connection of a site.

    :param ended: called when the connection is lost.
    """

    def __init__(self, context: Context, ended: Callable[[Channel], object]) -> None:
        super().__init__(context)
        self._ended = ended
        self.peer_host = ""
        self._state = State.HEAD
        self._input = b""
        self._searched = 0
        self._advancing = False
        self._reading = True
        self._client_finished = False
        self._body_paused = False
        self._head: RequestHead | None = None
        self._decoder: BodyDecoder | None = None
        self._exchange: Exchange | None = None
        self._upgraded: Upgraded | None = None
        self._read_timer = IdleTimer(context.clock, self._read_expired)

    # The connection begins and ends.

    def connectionMade(self) -> None:
        """For Twisted."""
        super().connectionMade()
        self.peer_host = plain_address(getattr(self.transport.getPeer(), "host", ""))
        self.secure = ISSLTransport.providedBy(self.transport)
        self._read_timer.start(self._context.settings.read_timeout_seconds)

    def connectionLost(self, reason: Failure | None = None) -> None:
        """For Twisted."""
        super().connectionLost(reason)
        self._state = State.CLOSED
        self._read_timer.close()
        self._input = b""
        exchange, self._exchange = self._exchange, None
        if self._upgraded is not None:
            self._upgraded.protocol.connectionLost(reason)  # type: ignore[arg-type]
        if exchange is not None:
            if self._upgraded is not None:
                exchange.upgrade_ended()
            else:
                exchange.connection_lost()
        self._ended(self)

    def readConnectionLost(self) -> None:
        """
        For Twisted: the client sends nothing more, but may still read: a request that is complete is answered.
        """
        self._client_finished = True
        self._reading = False
        if self._state is State.BODY and self._exchange is not None:
            self._exchange.body_cut_short()
        elif self._state is State.UPGRADED:
            self._upgraded_read_lost()
        elif self._state is not State.BUSY:
            self._close()

    def _upgraded_read_lost(self) -> None:
        """The other protocol knows what it still owes the client; one that doesn't care is over."""
        assert self._upgraded is not None
        protocol = self._upgraded.protocol
        if IHalfCloseableProtocol.providedBy(protocol):
            protocol.readConnectionLost()
        else:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """For Twisted: our own half-close took effect."""

    def finish_soon(self) -> None:
        """The site is stopping: an idle connection ends now, another after its exchange."""
        if self._state is State.HEAD and not self._input:
            self._close()

    # What arrives.

    def dataReceived(self, data: bytes) -> None:
        """For Twisted."""
        if self._state is State.BODY:
            self._feed(data)
        elif self._state is State.UPGRADED:
            assert self._upgraded is not None
            self._upgraded.protocol.dataReceived(data)
        elif self._state in (State.HEAD, State.BUSY):
            if self._state is State.HEAD and not self._input:
                self._read_timer.start(self._context.settings.read_timeout_seconds)
            self._input += data
            self._advance()

    def _advance(self) -> None:
        """Take requests out of the input until one has to be waited for."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while self._state is State.HEAD and self._input and not self.blocked and self._take_head():
                pass
        finally:
            self._advancing = False
        if self._state is State.HEAD and self._client_finished and not self.blocked:
            self._close()
        self._update_reading()

    def _take_head(self) -> bool:
        """Take a head out of the input and begin its exchange; whether there was one."""
        if (empty_lines := _EMPTY_LINES.match(self._input)) is not None:
            # RFC 9112, section 2.2: empty lines before a request are passed over.
            self._input, self._searched = self._input[empty_lines.end() :], 0
        try:
            size = find_head(self._input, self._searched)
            if size is None:
                self._searched = len(self._input)
                return False
            head = parse_head(self._input[:size])
        except CallFSError as error:
            self._refuse(error)
            return False
        rest, self._input, self._searched = self._input[size:], b"", 0
        self._begin_exchange(head, rest)
        return True

    def _begin_exchange(self, head: RequestHead, rest: bytes) -> None:
        self._read_timer.stop()
        self._head = head
        self.begin_answers(head.http_1_1)
        body = BodyStream(head.body_length, self)
        exchange = self._exchange = Exchange(self._context, self, head, body)
        if body.complete:
            self._state = State.BUSY
            self._input = rest
        else:
            self._state = State.BODY
            self._body_paused = False
            self._decoder = decoder(head.body_length)
            if head.body_length is None or head.body_length > _READ_BYTES:
                self.transport.bufferSize = _BODY_READ_BYTES
            if rest:
                self._feed(rest)
        exchange.start()

    def _feed(self, data: bytes) -> None:
        assert self._exchange is not None
        assert self._decoder is not None
        body = self._exchange.body
        try:
            content, rest = self._decoder.feed(data)
        except BadRequest as error:
            # Nothing after this can be understood: the route is told, and the connection ends with its answer.
            self.pause_body()
            body.fail(error)
            return
        complete = self._decoder.complete
        if complete:
            self._state = State.BUSY
            self._decoder = None
            self._input = rest
            self.transport.bufferSize = _READ_BYTES
        body.received(content, complete)

    def _update_reading(self) -> None:
        if self._state is State.HEAD:
            wanted = not self.blocked
        elif self._state is State.BODY:
            wanted = not self._body_paused
        elif self._state is State.BUSY:
            wanted = len(self._input) < _KEPT_BYTES
        else:
            wanted = self._state is State.LINGER
        leave_alone = self._client_finished or self._state in (State.CLOSED, State.UPGRADED)
        if wanted != self._reading and not leave_alone:
            self._reading = wanted
            if wanted:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    # What the body asks for; see callfs.web.incoming.BodySource.

    def ask_for_body(self) -> None:
        """The route wants the body: answer ``Expect: 100-continue``, unless the client didn't wait for it."""
        assert self._head is not None
        assert self._exchange is not None
        if self._head.expects_continue and self._exchange.body.bytes_received == 0 and not self.begun:
            self.put(CONTINUE)

    def pause_body(self) -> None:
        """Enough for now."""
        self._body_paused = True
        self._update_reading()

    def resume_body(self) -> None:
        """There is room again."""
        self._body_paused = False
        self._update_reading()

    def wait_for_body(self, waiting: bool) -> None:
        """The idle limit of reading runs while the route waits."""
        if waiting and self._state is State.BODY:
            self._read_timer.start(self._context.settings.read_timeout_seconds)
        else:
            self._read_timer.stop()

    # How it goes on after a request.

    def must_close(self) -> bool:
        """Whether the connection has to end after the response that is about to begin."""
        if self._head is None or self._exchange is None:
            return True
        return not self._head.keep_alive or self._context.closing or not self._exchange.body.complete

    def exchange_ended(self) -> None:
        """See :class:`callfs.web.exchange.Carrier`."""
        exchange, self._exchange = self._exchange, None
        head, self._head = self._head, None
        self._decoder = None
        if self._state is State.CLOSED or exchange is None or head is None:
            return
        if not self.complete:
            self.cut()
        elif not self.close_after:
            self._next_request()
        elif self._client_finished or (exchange.body.complete and not head.keep_alive and not self._input):
            self._close()
        else:
            exchange.body.discard()
            self._linger()

    def _next_request(self) -> None:
        self._state = State.HEAD
        self._read_timer.start(self._context.settings.read_timeout_seconds)
        self._advance()
        if self._context.closing:
            # The head of the answer may have been out before: then it doesn't say that the connection ends.
            self.finish_soon()

    def room_again(self) -> None:
        """The transport got rid of what it had: a request that waited behind it can begin."""
        self._advance()

    def hand_over(self, upgraded: Upgraded) -> None:
        """See :class:`callfs.web.exchange.Carrier`."""
        assert self._head is not None
        self._state = State.UPGRADED
        self._upgraded = upgraded
        self._read_timer.stop()
        self.leave_transport()
        if not self._reading and not self._client_finished:
            self._reading = True
            self.transport.resumeProducing()
        data, self._input = self._head.raw + self._input, b""
        upgraded.protocol.makeConnection(self.transport)
        upgraded.protocol.dataReceived(data)

    def _refuse(self, error: CallFSError) -> None:
        """Answer what the parser can't accept, and end the connection."""
        self._input = b""
        self._read_timer.stop()
        self.begin_answers(http_1_1=True)
        request_id = self._context.token_bytes(REQUEST_ID_BYTES).hex()
        response = error_as_response(error)
        self.begin(head_of(response, request_id, ""), response.body if isinstance(response.body, bytes) else b"")
        self.end()
        self._context.metrics.request_started()
        report(
            self._context,
            Ended(
                method="",
                route=NO_ROUTE,
                status=response.status,
                bytes_in=0,
                bytes_out=self.bytes_sent,
                duration_seconds=0.0,
                request_id=request_id,
                user="",
                client_address=self.peer_host,
                aborted=False,
            ),
        )
        self._linger()

    def _linger(self) -> None:
        """
        Throw away what still arrives for a while: closing with unread bytes resets the connection, and a reset
        destroys the answer on its way (RFC 9112, section 9.6).
        """
        self._state = State.LINGER
        self._input = b""
        self.half_close()
        self._update_reading()
        self._read_timer.start(self._context.settings.linger_seconds)

    def _close(self) -> None:
        """End the connection when all is sent."""
        if self._state is not State.CLOSED:
            self._state = State.CLOSED
            self._read_timer.stop()
            self.close_when_sent()

    def _read_expired(self) -> None:
        if self._state is State.BODY and self._exchange is not None:
            self._exchange.body.fail(RequestTimeout("nothing of the body arrived for too long"))
        elif self._state is State.HEAD and self._input and self.blocked:
            # Nothing is read, because the client doesn't take what it has coming: the write timeout runs for that.
            self._read_timer.start(self._context.settings.read_timeout_seconds)
        elif self._state is State.HEAD and self._input:
            self._refuse(RequestTimeout("the request's headers took too long"))
        else:
            self._close()
