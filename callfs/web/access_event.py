"""
What the log and the metrics say of a request when it has ended.
"""

from __future__ import annotations

import msgspec

from callfs.tracing import Origin
from callfs.web.context import Context

NO_ROUTE = "(none)"
NO_INTERNAL_ROUTE = "/v1/internal/(none)"
_INTERNAL = "/v1/internal"
_KNOWN_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_OTHER_METHOD = "OTHER"


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """
    A request that has ended. It holds no path, no query and no credentials: a path may have a link's token in it.

    :param route: the route's pattern.
    :param status: of the response; 499 when the client went away before there was one.
    :param bytes_in: of the request's body.
    :param bytes_out: of the response's body.
    :param aborted: the response didn't reach the client whole.
    :param origin: the user's request on another node, for which a peer asked.
    """

    method: str
    route: str
    status: int
    bytes_in: int
    bytes_out: int
    duration_seconds: float
    request_id: str
    user: str
    client_address: str
    aborted: bool
    origin: Origin | None = None


def report(context: Context, ended: Ended) -> None:
    """Write the access event and count the request."""
    method = ended.method if ended.method in _KNOWN_METHODS else _OTHER_METHOD
    # A text without fields: formatting one costs more than all the rest of this event.
    context.log.info(
        "request",
        event="request",
        method=method,
        route=ended.route,
        status=ended.status,
        bytes_in=ended.bytes_in,
        bytes_out=ended.bytes_out,
        duration_seconds=round(ended.duration_seconds, 6),
        request_id=ended.request_id,
        user=ended.user,
        client_address=ended.client_address,
        aborted=ended.aborted,
        **({} if ended.origin is None else _joined(ended.origin)),
    )
    metrics = context.metrics
    metrics.request_ended(ended.bytes_in, ended.bytes_out)
    if ended.route.startswith(_INTERNAL):
        metrics.internal_request(method, ended.route, ended.status)
    else:
        metrics.http_request(method, ended.route, ended.status, ended.duration_seconds)


def _joined(origin: Origin) -> dict[str, str]:
    return {"origin_request_id": origin.request_id, "origin_user": origin.user}
