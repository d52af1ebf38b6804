"""What is about the daemon itself: health, metrics, and the description of the API."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from klein import Klein
from twisted.internet.defer import Deferred

from callfs.web.messages import Request, Response
from callfs.web.openapi import RouteRow, document
from callfs.web.representations import JSON
from callfs.web.routes import Access, RouteEntry, entries_of, route
from callfs.web.smallbodies import json_response, small_response

Readiness = Callable[[], Deferred[Mapping[str, Mapping[str, Any]]]]
Render = Callable[[], tuple[str, bytes]]

_UNCACHED = {"Cache-Control": "no-store"}
_UPGRADE = RouteEntry("/v1/files/ws/{path}", ("GET",), Access.USER, "websocket", "")


class HealthResource:
    """
    Whether the daemon lives, and whether it can serve.

    :param readiness: fires with each part by name: ``ok``, a boolean, and what else there is to say of it.
    """

    router = Klein()

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness

    @route(router, "/health", methods=("GET", "HEAD"), access=Access.PUBLIC)
    async def alive(self, request: Request) -> Response:
        """The process answers."""
        return json_response(request, {"status": "ok"}, headers=_UNCACHED)

    @route(router, "/health/ready", methods=("GET", "HEAD"), access=Access.PUBLIC)
    async def ready(self, request: Request) -> Response:
        """Whether every part can serve: 200, or 503 with the parts that can't."""
        parts = await self._readiness()
        is_ready = all(part.get("ok") is True for part in parts.values())
        body = {"status": "ready" if is_ready else "unavailable", "parts": parts}
        return json_response(request, body, 200 if is_ready else 503, _UNCACHED)


class MetricsResource:
    """
    Prometheus metrics for whoever has a key.

    :param render: the content type and the text of all series.
    """

    router = Klein()

    def __init__(self, render: Render) -> None:
        self._render = render

    @route(router, "/metrics", methods=("GET", "HEAD"))
    async def metrics(self, request: Request) -> Response:
        """All series in Prometheus' text format."""
        return _exposition(request, self._render)


class OpenMetricsResource:
    """
    Prometheus metrics without credentials: the only resource of the site at ``metrics.listen_addr``.

    :param render: as for :class:`MetricsResource`.
    """

    router = Klein()

    def __init__(self, render: Render) -> None:
        self._render = render

    @route(router, "/metrics", methods=("GET", "HEAD"), access=Access.PUBLIC)
    async def metrics(self, request: Request) -> Response:
        """All series in Prometheus' text format."""
        return _exposition(request, self._render)


class DescriptionResource:
    """
    The OpenAPI description of the API.

    :param table: the rows of all other resources; this one adds its own, and that of WebSocket transfers, which
        aren't among the routes because an upgrade leaves HTTP.
    :param external_url: base URL of the API.
    """

    router = Klein()

    def __init__(self, table: Sequence[RouteRow], external_url: str) -> None:
        rows = [*table, *entries_of(self).values(), _UPGRADE]
        self._body = msgspec.json.encode(document(rows, external_url))

    @route(router, "/v1/openapi.json", methods=("GET", "HEAD"))
    async def describe(self, request: Request) -> Response:
        """The OpenAPI 3.1 description of the API."""
        return small_response(request, self._body, JSON)


def _exposition(request: Request, render: Render) -> Response:
    content_type, text = render()
    return small_response(request, text, content_type, headers=_UNCACHED)
