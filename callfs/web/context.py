"""
What all requests of a site share: its collaborators and its limits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Protocol

from twisted.internet.interfaces import IProtocol, IReactorTime
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from callfs.identifiers import TokenBytes
from callfs.model import Principal
from callfs.web.app import Application
from callfs.web.messages import Request
from callfs.web.proxies import TrustedProxies
from callfs.web.routes import Access

Authenticate = Callable[[str | None, Access], Principal]
"""From the ``Authorization`` header; raises :class:`callfs.errors.AuthenticationFailed`."""


@dataclass(frozen=True, kw_only=True)
class SiteSettings:
    """
    The limits of a site. Another value may take its place while the site runs.

    :param read_timeout_seconds: how long the client may be waited for while it sends nothing; and, from their first
        byte on, how long a request's headers may take in all.
    :param write_timeout_seconds: how long the client may be waited for while it takes nothing.
    :param linger_seconds: how long what still arrives is thrown away after the last answer of a connection.
    :param max_connections: beyond it new connections get 503.
    :param trusted_proxies: whose word on the client's address is believed.
    """

    read_timeout_seconds: float = 30.0
    write_timeout_seconds: float = 30.0
    linger_seconds: float = 2.0
    max_connections: int = 10000
    trusted_proxies: TrustedProxies = field(default_factory=TrustedProxies)


class HTTPMetrics(Protocol):
    """What a site counts; :class:`callfs.metrics.Metrics` is one."""

    def http_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request has ended; ``route`` is its pattern."""

    def internal_request(self, method: str, route: str, status: int) -> None:
        """A request under ``/v1/internal`` has ended."""

    def request_started(self) -> None:
        """A request's headers are there."""

    def request_ended(self, received_bytes: int, sent_bytes: int) -> None:
        """A started request is over, with the bytes of its two bodies."""

    def connections(self, count: int) -> None:
        """How many connections are open."""

    def connection_refused(self) -> None:
        """A connection over the limit."""


@dataclass(frozen=True, kw_only=True)
class Upgraded:
    """
    What a connection goes on with after an upgrade.

    :param protocol: gets the transport, then the request's head as it came and all that follows; it sends the 101.
    :param traffic: bytes received and sent so far, for the access event.
    """

    protocol: IProtocol
    traffic: Callable[[], tuple[int, int]] = lambda: (0, 0)


class UpgradeRoute(Protocol):
    """Takes over requests for ``/v1/files/ws/{path}`` that ask for a WebSocket."""

    def authorization(self, headers: Mapping[str, str]) -> str | None:
        """The credentials of the handshake, in the words of an ``Authorization`` header."""

    async def upgrade(self, request: Request) -> Upgraded:
        """
        Decide on the handshake.

        :raises callfs.errors.CallFSError: refused; answered as any other error; the connection stays HTTP.
        """


@dataclass(kw_only=True)
class Context:
    """
    The collaborators of a site.

    :param clock: measures time limits; a clock that never goes back.
    :param now: the wall clock, an instant, for ``Date``.
    :param ready: as long as it is false, everything but what :func:`callfs.web.app.open_before_ready` names is
        answered with 503.
    :param closing: no request is accepted on a connection after the one under way.
    """

    application: Application
    settings: SiteSettings
    authenticate: Authenticate
    metrics: HTTPMetrics
    clock: IReactorTime
    now: Callable[[], int]
    pool: ThreadPool | None
    token_bytes: TokenBytes
    upgrade: UpgradeRoute | None
    log: Logger
    ready: bool = False
    closing: bool = False
    _date_second: int = -1
    _date_line: bytes = b""

    def date_line(self) -> bytes:
        """The ``Date`` header, made once a second."""
        second = self.now() // 1_000_000
        if second != self._date_second:
            self._date_second = second
            self._date_line = f"Date: {formatdate(second, usegmt=True)}\r\n".encode()
        return self._date_line
