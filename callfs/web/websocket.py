"""
Files over WebSockets: ``GET /v1/files/ws/{path}`` with an upgrade.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from autobahn.twisted.websocket import WebSocketServerFactory
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from callfs.engine.filesystem import Filesystem
from callfs.errors import ServiceUnavailable
from callfs.web.context import Upgraded
from callfs.web.headers import static_block
from callfs.web.messages import Request
from callfs.web.websocket_connection import ConnectionLimits, TransferConnection
from callfs.web.websocket_download import DownloadSource, DownloadTransfer
from callfs.web.websocket_handshake import Mode, Opening, authorization, opening
from callfs.web.websocket_upload import UploadTarget, UploadTransfer

_log = Logger()

STOP_CHECK_SECONDS = 1.0
"""While the server stops: who hasn't moved for so long is idle."""


class WebSocketMetrics(Protocol):
    """What is counted; :class:`callfs.metrics.Metrics` does it."""

    def websocket_opened(self) -> None:
        """A transfer begins."""

    def websocket_closed(self) -> None:
        """An opened transfer is over."""


@dataclass(eq=False)
class _Open:
    """A transfer under way, and how far it was when it was last looked at."""

    transfer: UploadTransfer | DownloadTransfer
    connection: TransferConnection
    request_id: str
    seen: object = None


class WebSocketTransfers:
    """
    Decides on handshakes and keeps the transfers that came of them; a
    :class:`callfs.web.context.UpgradeRoute`.

    :param filesystem: where the files are.
    :param max_upload_bytes: over it an upload ends with 1009.
    :param limits: how long clients are waited for.
    :param clock: measures that.
    """

    def __init__(
        self,
        filesystem: Filesystem,
        *,
        max_upload_bytes: int,
        limits: ConnectionLimits,
        clock: IReactorTime,
        metrics: WebSocketMetrics,
    ) -> None:
        self._filesystem = filesystem
        self._max_upload_bytes = max_upload_bytes
        self._limits = limits
        self._clock = clock
        self._metrics = metrics
        self._factory = _autobahn_factory(clock)
        self._open: set[_Open] = set()
        self._stopped: Deferred[None] | None = None
        self._check: IDelayedCall | None = None

    def authorization(self, headers: Mapping[str, str]) -> str | None:
        """The credentials of a handshake; see :func:`callfs.web.websocket_handshake.authorization`."""
        return authorization(headers)

    async def upgrade(self, request: Request) -> Upgraded:
        """
        Decide on a handshake.

        :param request: authenticated.
        :raises callfs.errors.BadRequest: malformed, or parameters that can't be used.
        :raises callfs.errors.PermissionDenied: a page of another host asks.
        :raises callfs.errors.ServiceUnavailable: the server is stopping.
        """
        wanted = opening(request.headers, request.parameters, request.host, request.directory_expected)
        if self._stopped is not None:
            raise ServiceUnavailable("the server is stopping")
        transfer = self._transfer(request, wanted)
        connection = TransferConnection(wanted, _headers(request), transfer, self._limits, self._clock)
        connection.factory = self._factory
        connection.opened.addCallback(lambda _: self._begun(_Open(transfer, connection, request.request_id)))
        return Upgraded(protocol=connection, traffic=connection.traffic)

    def _transfer(self, request: Request, wanted: Opening) -> UploadTransfer | DownloadTransfer:
        principal, path, request_id = request.principal, request.path, request.request_id
        if wanted.mode is Mode.DOWNLOAD:
            source = DownloadSource(principal=principal, path=path, offset=wanted.offset, request_id=request_id)
            return DownloadTransfer(self._filesystem, source)
        target = UploadTarget(
            principal=principal,
            path=path,
            size=wanted.size,
            max_size=self._max_upload_bytes,
            request_id=request_id,
        )
        return UploadTransfer(self._filesystem, target)

    # The transfers under way.

    @property
    def open_transfers(self) -> int:
        """How many there are; one ends when its connection is gone and the engine is done with it."""
        return len(self._open)

    def _begun(self, transfer: _Open) -> None:
        self._open.add(transfer)
        self._metrics.websocket_opened()
        ended = transfer.connection.ended
        ended.addCallback(lambda _: transfer.transfer.done)
        ended.addCallback(lambda _: self._over(transfer))

    def _over(self, transfer: _Open) -> None:
        self._open.remove(transfer)
        self._metrics.websocket_closed()
        _log.debug(
            "WebSocket {request_id} ended with {close_code}",
            request_id=transfer.request_id,
            close_code=transfer.connection.localCloseCode,
        )
        if not self._open:
            self._all_over()

    def stop(self) -> Deferred[None]:
        """
        Begin no more transfers, and end those that don't move with 1001; others go on.

        :return: fires when none is left. What moves too slowly for the caller's patience ends with :meth:`cut`.
        """
        if not self._open:
            self._stopped = succeed(None)
            return self._stopped
        self._stopped = Deferred()
        self._look()
        return self._stopped

    def cut(self) -> None:
        """End all connections at once; what is complete already is stored all the same."""
        for transfer in tuple(self._open):
            transfer.connection.cut()

    def _look(self) -> None:
        for transfer in tuple(self._open):
            progress = transfer.connection.progress()
            if progress == transfer.seen and transfer.connection.waits_for_client:
                transfer.transfer.stop_idle()
            transfer.seen = progress
        self._check = self._clock.callLater(STOP_CHECK_SECONDS, self._look)

    def _all_over(self) -> None:
        if self._check is not None:
            self._check.cancel()
            self._check = None
        if self._stopped is not None and not self._stopped.called:
            self._stopped.callback(None)


def _headers(request: Request) -> dict[str, str]:
    """What every response carries, the 101 too."""
    lines = static_block(False, request.secure).decode("ascii").splitlines()
    headers = dict(line.split(": ", 1) for line in lines)
    return headers | {"X-Request-ID": request.request_id}


def _autobahn_factory(clock: IReactorTime) -> Any:
    """
    The options of Autobahn.

    Its own time limits are off: they know nothing of a commit under way or a slow reader. Compression isn't
    accepted: it would need 300 KiB a connection and let a small message become a large one.
    """
    factory = WebSocketServerFactory(reactor=clock, server="")
    factory.setProtocolOptions(
        versions=[13],
        webStatus=False,
        failByDrop=False,
        openHandshakeTimeout=0,
        closeHandshakeTimeout=0,
        perMessageCompressionAccept=lambda offers: None,
    )
    return factory
