"""
A file to a WebSocket: its bytes in binary messages, then a close with 1000.
"""

from __future__ import annotations

from dataclasses import dataclass

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from callfs.backends.interfaces import IBlobReader
from callfs.engine.filesystem import Filesystem
from callfs.errors import CallFSError, InternalError, RangeNotSatisfiable, ServiceUnavailable
from callfs.model import Principal
from callfs.web.errors import internal_error
from callfs.web.websocket_codes import NORMAL, close_code, close_reason
from callfs.web.websocket_connection import TransferConnection

MESSAGE_BYTES = 64 * 1024
_READ_BYTES = 8 * MESSAGE_BYTES

_log = Logger()


@dataclass(frozen=True, kw_only=True)
class DownloadSource:
    """
    What is to be read.

    :param offset: the first byte wanted.
    """

    principal: Principal
    path: str
    offset: int
    request_id: str


class DownloadTransfer:
    """Sends as fast as the client takes. What the client sends meanwhile, other than a close frame, is ignored."""

    def __init__(self, filesystem: Filesystem, source: DownloadSource) -> None:
        self.done: Deferred[None] = Deferred()
        """Fires when nothing of the file is held any more."""

        self._filesystem = filesystem
        self._source = source
        self._connection: TransferConnection | None = None
        self._work: Deferred[None] | None = None

    # For the connection.

    def start(self, connection: TransferConnection) -> None:
        """See :class:`callfs.web.websocket_connection.Transfer`."""
        self._connection = connection
        work = Deferred.fromCoroutine(self._run(connection))
        work.addErrback(self._lost_track).chainDeferred(self.done)
        if not self.done.called:
            self._work = work

    def received(self, data: bytes) -> None:
        """See :class:`callfs.web.websocket_connection.Transfer`."""

    def message_ended(self) -> None:
        """See :class:`callfs.web.websocket_connection.Transfer`."""

    def close_received(self, code: int | None, inside_message: bool) -> None:
        """See :class:`callfs.web.websocket_connection.Transfer`: the client has enough."""
        self._finish(NORMAL, "")

    def silent(self) -> None:
        """See :class:`callfs.web.websocket_connection.Transfer`: nothing is expected of the client."""

    def input_ended(self) -> None:
        """See :class:`callfs.web.websocket_connection.Transfer`: nothing is expected of the client."""

    def broken_off(self) -> None:
        """See :class:`callfs.web.websocket_connection.Transfer`."""
        work, self._work = self._work, None
        if work is not None:
            work.cancel()
        elif self._connection is None and not self.done.called:
            self.done.callback(None)

    def stop_idle(self) -> None:
        """See :class:`callfs.web.websocket_connection.Transfer`."""
        self._fail(ServiceUnavailable("the server is stopping"))

    def _fail(self, error: CallFSError) -> None:
        self._finish(close_code(error), close_reason(error))

    def _finish(self, code: int, reason: str) -> None:
        if self._connection is not None:
            self._connection.finish(code, reason)

    # The engine's side.

    async def _run(self, connection: TransferConnection) -> None:
        try:
            await self._transfer(connection)
        except CancelledError:
            # The connection is closing or gone, and nobody waits for the rest.
            return
        except CallFSError as error:
            ending = error
        except Exception:
            _log.failure("download {request_id} failed", request_id=self._source.request_id)
            ending = internal_error()
        else:
            self._work = None
            connection.finish(NORMAL)
            return
        self._work = None
        self._fail(ending)

    async def _transfer(self, connection: TransferConnection) -> None:
        source = self._source
        opened = await self._filesystem.open(source.principal, source.path)
        try:
            size = opened.inode.size
            if source.offset > size:
                raise RangeNotSatisfiable(f"the file has {size} bytes: nothing is at offset {source.offset}", size)
            await _send(connection, opened.reader, source.offset, size)
        finally:
            opened.reader.close()

    def _lost_track(self, failure: Failure) -> None:
        """A fault in this module: nothing may stay open because of it."""
        _log.failure("download {request_id} failed", failure, request_id=self._source.request_id)
        if self._connection is not None:
            self._connection.cut()


async def _send(connection: TransferConnection, reader: IBlobReader, position: int, end: int) -> None:
    while position < end:
        data = await reader.read(position, min(_READ_BYTES, end - position))
        if len(data) != min(_READ_BYTES, end - position):
            raise InternalError("the file could not be read to its end")
        position += len(data)
        for start in range(0, len(data), MESSAGE_BYTES):
            room = connection.send(data[start : start + MESSAGE_BYTES])
            if room is not None:
                await room
