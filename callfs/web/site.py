"""
The site: a factory of connections, and what they share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocol
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from callfs.identifiers import TokenBytes
from callfs.web.app import Application
from callfs.web.channel import Channel
from callfs.web.context import Authenticate, Context, HTTPMetrics, SiteSettings, UpgradeRoute
from callfs.web.refusal import MAX_REFUSED, RefusedConnection
from callfs.web.routes import RouteEntry


class CallFSSite(Factory):
    """
    Serves resources over HTTP/1.1 and HTTP/1.0.

    :param resources: objects with a Klein app in ``router``; see :mod:`callfs.web.routes`.
    :param settings: limits; :attr:`settings` takes other ones while the site runs.
    :param authenticate: from the ``Authorization`` header and the access that is wanted to who asks.
    :param reactor: the clock of all limits, and what waits for sockets.
    :param now: the wall clock, an instant, for the ``Date`` header.
    :param pool: where ``sendfile`` runs; started and stopped by who made it. Without one files are copied.
    :param token_bytes: chance, for request ids.
    :param upgrade: takes over WebSocket requests; without one they are requests for ordinary files.
    :param log: gets the access events.
    """

    noisy = False

    def __init__(
        self,
        resources: Iterable[object],
        *,
        settings: SiteSettings,
        authenticate: Authenticate,
        metrics: HTTPMetrics,
        reactor: Any,
        now: Callable[[], int],
        pool: ThreadPool | None,
        token_bytes: TokenBytes,
        upgrade: UpgradeRoute | None = None,
        log: Logger | None = None,
    ) -> None:
        self._context = Context(
            application=Application(resources),
            settings=settings,
            authenticate=authenticate,
            metrics=metrics,
            clock=reactor,
            now=now,
            pool=pool,
            token_bytes=token_bytes,
            upgrade=upgrade,
            log=log or Logger(namespace="callfs.access"),
        )
        self._open: set[Channel] = set()
        self._refused: set[RefusedConnection] = set()
        self._stopped: Deferred[None] | None = None
        self._deadline: IDelayedCall | None = None

    @property
    def table(self) -> tuple[RouteEntry, ...]:
        """All routes."""
        return self._context.application.table

    @property
    def settings(self) -> SiteSettings:
        """The limits; new ones count from the next time that a limit begins to run."""
        return self._context.settings

    @settings.setter
    def settings(self, settings: SiteSettings) -> None:
        self._context.settings = settings

    @property
    def ready(self) -> bool:
        """Whether requests are served; before, everything but ``/health`` is answered with 503."""
        return self._context.ready

    @ready.setter
    def ready(self, ready: bool) -> None:
        self._context.ready = ready

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._open)

    def buildProtocol(self, addr: IAddress | None) -> IProtocol | None:  # type: ignore[override]
        """For Twisted: a connection, or the refusal of one."""
        if len(self._open) >= self._context.settings.max_connections or self._context.closing:
            return self._refuse()
        channel = Channel(self._context, self._channel_ended)
        channel.factory = self
        self._open.add(channel)
        self._context.metrics.connections(len(self._open))
        return channel

    def _refuse(self) -> IProtocol | None:
        self._context.metrics.connection_refused()
        if len(self._refused) >= MAX_REFUSED:
            return None
        refused = RefusedConnection(self._context, self._refused.discard)
        self._refused.add(refused)
        return refused

    def _channel_ended(self, channel: Channel) -> None:
        self._open.discard(channel)
        self._context.metrics.connections(len(self._open))
        if not self._open:
            self._all_ended()

    def stop(self, timeout_seconds: float) -> Deferred[None]:
        """
        End all connections: idle ones now, others after their exchange, and what is left after the timeout at once.

        Listening is for who began it to end, before this.

        :return: fires when no connection is left.
        """
        self._context.closing = True
        for channel in tuple(self._open):
            channel.finish_soon()
        if not self._open:
            return succeed(None)
        self._stopped = Deferred()
        self._deadline = self._context.clock.callLater(timeout_seconds, self._abort_all)
        return self._stopped

    def _abort_all(self) -> None:
        self._deadline = None
        for connection in (*self._open, *self._refused):
            connection.cut()

    def _all_ended(self) -> None:
        stopped, self._stopped = self._stopped, None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if stopped is not None:
            stopped.callback(None)
