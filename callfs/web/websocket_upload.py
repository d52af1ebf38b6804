"""
A file from a WebSocket: its messages one after the other are the new content.
"""

from __future__ import annotations

from dataclasses import dataclass

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from callfs.engine.filesystem import Filesystem, Upload
from callfs.errors import BadRequest, CallFSError, PayloadTooLarge, RequestTimeout, ServiceUnavailable
from callfs.model import Principal
from callfs.web.errors import internal_error
from callfs.web.incoming import BodyStream
from callfs.web.websocket_codes import NORMAL, close_code, close_reason
from callfs.web.websocket_connection import TransferConnection

_log = Logger()


@dataclass(frozen=True, kw_only=True)
class UploadTarget:
    """
    What is to be written.

    :param size: bytes announced; ``None`` when the client's close tells the end.
    :param max_size: bytes that are allowed.
    """

    principal: Principal
    path: str
    size: int | None
    max_size: int
    request_id: str


class UploadTransfer:
    """
    Feeds messages to the engine.

    The content is complete, and from then on stored whatever becomes of the connection, at the end of the message
    that brings the last byte announced; without an announcement, at a close frame with 1000 between two messages.
    """

    def __init__(self, filesystem: Filesystem, target: UploadTarget) -> None:
        self.done: Deferred[None] = Deferred()
        """Fires when the engine is done with it."""

        self._filesystem = filesystem
        self._target = target
        self._body = BodyStream(target.size, self)
        self._connection: TransferConnection | None = None
        self._refused = False

    # For the connection.

    def start(self, connection: TransferConnection) -> None:
        """See :class:`callfs.web.websocket_connection.Transfer`."""
        self._connection = connection
        Deferred.fromCoroutine(self._store(connection)).addErrback(self._lost_track).chainDeferred(self.done)

    def received(self, data: bytes) -> None:
        """See :class:`callfs.web.websocket_connection.Transfer`; what follows the last byte is ignored."""
        if self._body.complete or self._refused:
            return
        size = self._target.size
        if size is not None and self._body.bytes_received + len(data) > size:
            self._refuse(PayloadTooLarge(f"there are more than the {size} bytes announced; nothing was stored"))
        else:
            self._body.received(data, False)

    def message_ended(self) -> None:
        """See :class:`callfs.web.websocket_connection.Transfer`."""
        if self._body.bytes_received == self._target.size:
            self._body.received(b"", True)

    def close_received(self, code: int | None, inside_message: bool) -> None:
        """See :class:`callfs.web.websocket_connection.Transfer`."""
        if code == NORMAL and self._target.size is None and not inside_message:
            self._body.received(b"", True)
        elif code != NORMAL:
            self._refuse(BadRequest("nothing was stored: only a close with 1000 completes an upload"))
        else:
            self._refuse(BadRequest("nothing was stored: the upload was closed before it was complete"))

    def silent(self) -> None:
        """See :class:`callfs.web.websocket_connection.Transfer`."""
        self._refuse(RequestTimeout("nothing came for too long; nothing was stored"))

    def input_ended(self) -> None:
        """See :class:`callfs.web.websocket_connection.Transfer`."""
        self._refuse(BadRequest("the connection ended before the upload was complete"))

    def broken_off(self) -> None:
        """See :class:`callfs.web.websocket_connection.Transfer`."""
        self.input_ended()
        if self._connection is None and not self.done.called:
            self.done.callback(None)

    def stop_idle(self) -> None:
        """See :class:`callfs.web.websocket_connection.Transfer`."""
        self._refuse(ServiceUnavailable("the server is stopping; nothing was stored"))

    def _refuse(self, error: CallFSError) -> None:
        """Tell the engine, unless the content is complete: then it is too late."""
        self._refused = True
        self._body.fail(error)

    # For the body.

    def ask_for_body(self) -> None:
        """See :class:`callfs.web.incoming.BodySource`: a WebSocket's client sends without being asked."""

    def pause_body(self) -> None:
        """See :class:`callfs.web.incoming.BodySource`."""
        if self._connection is not None:
            self._connection.pause_reading()

    def resume_body(self) -> None:
        """See :class:`callfs.web.incoming.BodySource`."""
        if self._connection is not None:
            self._connection.resume_reading()

    def wait_for_body(self, waiting: bool) -> None:
        """See :class:`callfs.web.incoming.BodySource`."""
        if self._connection is not None:
            self._connection.wait_for_client(waiting)

    # The engine's side.

    async def _store(self, connection: TransferConnection) -> None:
        target = self._target
        try:
            written = await self._filesystem.put_file(
                target.principal,
                target.path,
                Upload(body=aiter(self._body), max_size=target.max_size, declared_size=target.size),
            )
        except CallFSError as error:
            connection.finish(close_code(error), close_reason(error))
        except Exception:
            fault = internal_error()
            connection.finish(close_code(fault), close_reason(fault))
            _log.failure("upload {request_id} failed", request_id=target.request_id)
        else:
            if target.size is not None:
                connection.send_text(f"ok:{written.inode.size}")
            connection.finish(NORMAL)

    def _lost_track(self, failure: Failure) -> None:
        """A fault in this module: nothing may stay open because of it."""
        _log.failure("upload {request_id} failed", failure, request_id=self._target.request_id)
        if self._connection is not None:
            self._connection.cut()
