"""
One WebSocket: Autobahn's protocol with the rules of a transfer.

Autobahn parses and builds the frames. Here is what it leaves open or does otherwise than a transfer needs: a
message's bytes are passed on as they come instead of being collected, the client's close frame is answered when the
transfer says so, and the limits of time are those of the site.

============  ==================================  ==========================================================
state         what arrives                        ends with
============  ==================================  ==========================================================
open          goes to the transfer                :meth:`TransferConnection.finish`, a violation, the client's
                                                  close frame, a lost connection
close held    thrown away                         :meth:`TransferConnection.finish`, which answers the frame
closing       parsed for the answer to our close  the answer, or the limit of time
============  ==================================  ==========================================================
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from autobahn.twisted.websocket import WebSocketServerProtocol
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol, IReactorTime
from twisted.python.failure import Failure
from txaio import tx
from zope.interface import implementer

from callfs.web.progress import acknowledged
from callfs.web.timers import IdleTimer
from callfs.web.websocket_codes import NORMAL, TOO_BIG, fitting
from callfs.web.websocket_handshake import VERSION, Opening
from callfs.web.websocket_outflow import Outflow
from callfs.web.zerocopy import plain_tcp_socket

MAX_MESSAGE_BYTES = 1024 * 1024

_READ_BYTES = 16 * 1024
"""Read at once: of the shortest messages that is 2,300, which take some 60 ms to parse."""

_HEAD_END = b"\r\n\r\n"
_CUSTOM_CODES = range(3000, 5000)


@dataclass(frozen=True, kw_only=True)
class ConnectionLimits:
    """
    How long the client may be waited for.

    :param read_timeout_seconds: while it sends nothing of what it is to send.
    :param write_timeout_seconds: while it takes nothing of what it was sent.
    :param linger_seconds: while it doesn't answer the close frame that refused it.
    """

    read_timeout_seconds: float = 30.0
    write_timeout_seconds: float = 30.0
    linger_seconds: float = 2.0


class Transfer(Protocol):
    """What a connection is for."""

    def start(self, connection: TransferConnection) -> None:
        """The handshake is done."""

    def received(self, data: bytes) -> None:
        """Some of a message, not empty."""

    def message_ended(self) -> None:
        """The message that was received last is complete."""

    def close_received(self, code: int | None, inside_message: bool) -> None:
        """The client closes, and gets its answer from :meth:`TransferConnection.finish`."""

    def silent(self) -> None:
        """The client was waited for too long."""

    def input_ended(self) -> None:
        """Nothing will be received any more; something may still be sent."""

    def broken_off(self) -> None:
        """The connection is closing or gone."""

    def stop_idle(self) -> None:
        """The server stops, and the client hasn't moved for a while."""


@implementer(IHalfCloseableProtocol)
class TransferConnection(WebSocketServerProtocol):
    """
    The server's side of one WebSocket.

    :param headers: for the 101, besides those of the handshake.
    """

    # A reactor's transports have more than one interface says.
    transport: Any

    # Autobahn warns of whatever a client does wrong; that is the client's affair and in the access event.
    log = tx.make_logger(level="error")  # type: ignore[no-untyped-call]

    def __init__(
        self,
        opening: Opening,
        headers: Mapping[str, str],
        transfer: Transfer,
        limits: ConnectionLimits,
        clock: IReactorTime,
    ) -> None:
        super().__init__()
        self.bytes_received = 0
        self.bytes_sent = 0
        self.opened: Deferred[None] = Deferred()
        """Fires when the handshake is done, just before the transfer starts."""

        self.ended: Deferred[None] = Deferred()
        """Fires when the connection is gone."""

        self._opening = opening
        self._headers = headers
        self._transfer = transfer
        self._limits = limits
        self._head: bytes | None = b""
        self._message_bytes = 0
        self._close_held = False
        self._dropping = False
        self._input_ended = False
        self._expecting = False
        self._pong: bytes | None = None
        self._socket: socket.socket | None = None
        self._outflow = Outflow(self._filled, self._emptied)
        self._input_timer = IdleTimer(clock, transfer.silent)
        self._output_timer = IdleTimer(clock, self._stalled, self._acknowledged)

    # The connection begins and ends.

    def connectionMade(self) -> None:
        """For Twisted."""
        self._socket = plain_tcp_socket(self.transport)
        if self._socket is not None:
            self.transport.bufferSize = _READ_BYTES
        super().connectionMade()
        self.transport.registerProducer(self._outflow, True)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """For Twisted."""
        self._input_timer.close()
        self._output_timer.close()
        self._socket = None
        super().connectionLost(reason)
        self._outflow.close()
        self._transfer.broken_off()
        self.ended.callback(None)

    def readConnectionLost(self) -> None:
        """
        For Twisted: the client sends nothing more, but may still read: what is complete is finished, and a download
        goes on. Our close frame won't be answered.
        """
        self._input_ended = True
        if not self.is_live:
            self.dropConnection()
        elif not self._close_held:
            self._transfer.input_ended()

    def writeConnectionLost(self) -> None:
        """For Twisted."""

    def dataReceived(self, data: bytes) -> None:
        """
        For Twisted; first comes the head of the request, which has been checked and is replaced by what Autobahn
        needs of it: what it would refuse it would answer in a way of its own, and it has no need of the key.
        """
        if self._head is not None:
            self._head += data
            end = self._head.find(_HEAD_END)
            if end < 0:
                return
            data, self._head = self._head[end + len(_HEAD_END) :], None
            super().dataReceived(_bare_request(self._opening))
        if data and not self._close_held and not self._dropping:
            super().dataReceived(data)

    def onConnect(self, request: Any) -> tuple[str | None, dict[str, str]]:
        """For Autobahn: the subprotocol and the headers of the 101."""
        return self._opening.subprotocol, dict(self._headers)

    def onOpen(self) -> None:
        """For Autobahn."""
        self.opened.callback(None)
        self._transfer.start(self)

    # What arrives.

    def onMessageBegin(self, isBinary: bool) -> None:
        """For Autobahn."""
        self._message_bytes = 0

    def onMessageFrameBegin(self, length: int) -> None:
        """For Autobahn: refuse what is too long before any of it is here."""
        self._message_bytes += length
        if self._message_bytes > MAX_MESSAGE_BYTES:
            self.finish(TOO_BIG, f"a message may have at most {MAX_MESSAGE_BYTES} bytes")

    def onMessageFrameData(self, payload: bytes) -> None:
        """For Autobahn."""
        if self.is_live and payload:
            self.bytes_received += len(payload)
            self._transfer.received(payload)

    def onMessageFrameEnd(self) -> None:
        """For Autobahn."""

    def onMessageEnd(self) -> None:
        """For Autobahn."""
        if self.is_live:
            self._transfer.message_ended()

    def onPing(self, payload: bytes) -> None:
        """
        For Autobahn: answer, but the latest alone when the client doesn't read (RFC 6455, section 5.5.3), so that
        answers don't pile up.
        """
        if self._outflow.is_full:
            self._pong = payload
        elif self.is_live:
            self.sendPong(payload)  # type: ignore[no-untyped-call]

    def onCloseFrame(self, code: int | None, reasonRaw: bytes | None) -> bool | None:
        """For Autobahn: keep a valid close frame until :meth:`finish`; nothing counts that follows it."""
        if not self.is_live or not self._is_valid_close(code, reasonRaw):
            return super().onCloseFrame(code, reasonRaw)  # type: ignore[arg-type]
        self._close_held = True
        self.data = b""
        self.remoteCloseCode = code
        self.resume_reading()
        self._transfer.close_received(code, self.inside_message)
        return True

    def _is_valid_close(self, code: int | None, reason: bytes | None) -> bool:
        """RFC 6455, sections 5.5.1 and 7.4."""
        if code is not None and code not in self.CLOSE_STATUS_CODES_ALLOWED and code not in _CUSTOM_CODES:
            return False
        try:
            (reason or b"").decode("utf-8")
        except UnicodeDecodeError:
            return False
        return True

    # What the transfer calls.

    @property
    def is_live(self) -> bool:
        """Whether :meth:`finish` has still to be called: nobody has closed, or the client alone has."""
        is_live: bool = self.state == self.STATE_OPEN
        return is_live

    def send(self, message: bytes) -> Deferred[None] | None:
        """
        Send a binary message.

        :return: fires when there is room for more; ``None`` when there is.
        """
        if self.is_live and not self._close_held:
            self.bytes_sent += len(message)
            self.sendMessage(message, isBinary=True)  # type: ignore[no-untyped-call]
        return self._outflow.room()

    def send_text(self, text: str) -> None:
        """Send a text message, unless the client closed: then it would be against the protocol."""
        if self.is_live and not self._close_held:
            message = text.encode("utf-8")
            self.bytes_sent += len(message)
            self.sendMessage(message)  # type: ignore[no-untyped-call]

    def wait_for_client(self, waiting: bool) -> None:
        """Whether the client is the one waited for: the read timeout runs just then."""
        self._expecting = waiting and self.is_live and not self._close_held
        if self._expecting:
            self._input_timer.start(self._limits.read_timeout_seconds)
        else:
            self._input_timer.stop()

    @property
    def waits_for_client(self) -> bool:
        """Whether the client is the one waited for, to send or to take something."""
        return self._expecting or self._outflow.is_full

    def pause_reading(self) -> None:
        """Enough for now."""
        if not self._input_ended:
            self.transport.pauseProducing()

    def resume_reading(self) -> None:
        """There is room again."""
        if not self._input_ended:
            self.transport.resumeProducing()

    def finish(self, code: int, reason: str = "") -> None:
        """
        Send a close frame: our own, or the answer to the client's. Does nothing when one was sent.

        :param reason: cut to what a close frame holds.
        """
        if not self.is_live:
            return
        text = fitting(reason).encode("utf-8")
        if not self._close_held:
            self.sendCloseFrame(code, text)
        else:
            self.wasClean = True
            self.sendCloseFrame(code, text, isReply=True)
            self.dropConnection()

    def cut(self) -> None:
        """End the connection at once."""
        self.transport.abortConnection()

    # Closing.

    def sendCloseFrame(
        self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False
    ) -> None:
        """Every close frame goes through here, Autobahn's own about violations of the protocol included."""
        was_open = self.is_live
        super().sendCloseFrame(code, reasonUtf8, isReply)
        if not was_open:
            return
        self._input_timer.close()
        limits = self._limits
        self._output_timer.start(limits.write_timeout_seconds if code == NORMAL else limits.linger_seconds)
        self.resume_reading()
        self._transfer.broken_off()
        if self._input_ended:
            self.dropConnection()

    def dropConnection(self, abort: bool = False) -> None:
        """
        For Autobahn: what was written goes out first.

        Its own way, to reset a connection that was closed in good order, could destroy what the client hasn't read.
        """
        self._dropping = True
        super().dropConnection(abort=False)

    def _stalled(self) -> None:
        """
        The client takes nothing, or doesn't answer our close frame.

        In the latter case it may still have to read what is on its side: such a connection ends without a reset, if
        it can.
        """
        if self.is_live or self._outflow.is_full or self._dropping:
            self.cut()
        else:
            self.dropConnection()
            self._output_timer.start(self._limits.linger_seconds)

    # Output.

    def _filled(self) -> None:
        self._output_timer.start(self._limits.write_timeout_seconds)

    def _emptied(self) -> None:
        if not self.is_live:
            return
        self._output_timer.stop()
        pong, self._pong = self._pong, None
        if pong is not None:
            self.sendPong(pong)  # type: ignore[no-untyped-call]

    def _acknowledged(self) -> int | None:
        return None if self._socket is None else acknowledged(self._socket)

    def traffic(self) -> tuple[int, int]:
        """Bytes of messages received and sent."""
        return self.bytes_received, self.bytes_sent

    def progress(self) -> tuple[int, int, int | None]:
        """What changes as the transfer moves."""
        return self.bytes_received, self.bytes_sent, self._acknowledged()


def _bare_request(opening: Opening) -> bytes:
    lines = [
        "GET / HTTP/1.1",
        "Host: callfs",
        "Connection: Upgrade",
        "Upgrade: websocket",
        f"Sec-WebSocket-Version: {VERSION}",
        f"Sec-WebSocket-Key: {opening.nonce}",
    ]
    if opening.subprotocol is not None:
        lines.append(f"Sec-WebSocket-Protocol: {opening.subprotocol}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")
