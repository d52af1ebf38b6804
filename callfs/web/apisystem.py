"""The operations that are about the daemon itself, for the OpenAPI description, and WebSocket transfers."""

from __future__ import annotations

from callfs.web.apioperations import Operation
from callfs.web.apischemas import Schema, integer, json_content, query, ref, text

_METRICS: Schema = {"text/plain": {"schema": text()}}
_DESCRIPTION = json_content({"type": "object"})
_HEAD = "The headers that GET would send"


def _pair(pattern: str, get: Operation, head_id: str) -> dict[tuple[str, str], Operation]:
    head = Operation(
        id=head_id,
        tag=get.tag,
        summary=_HEAD,
        results={status: (description, {}) for status, (description, _) in get.results.items()},
    )
    return {(pattern, "GET"): get, (pattern, "HEAD"): head}


SYSTEM_OPERATIONS: dict[tuple[str, str], Operation] = {
    **_pair(
        "/health",
        Operation(
            id="health",
            tag="system",
            summary="Whether the process answers",
            results={"200": ("It does.", json_content(ref("Health")))},
        ),
        "headHealth",
    ),
    **_pair(
        "/health/ready",
        Operation(
            id="ready",
            tag="system",
            summary="Whether every part can serve",
            results={
                "200": ("Every part can.", json_content(ref("Readiness"))),
                "503": ("Some part can't.", json_content(ref("Readiness"))),
            },
        ),
        "headReady",
    ),
    **_pair(
        "/metrics",
        Operation(
            id="metrics",
            tag="system",
            summary="Metrics in Prometheus' text format",
            results={"200": ("All series.", _METRICS)},
        ),
        "headMetrics",
    ),
    **_pair(
        "/v1/openapi.json",
        Operation(
            id="description",
            tag="system",
            summary="This description",
            results={"200": ("OpenAPI 3.1.", _DESCRIPTION)},
        ),
        "headDescription",
    ),
    ("/v1/files/ws/{path}", "GET"): Operation(
        id="transferByWebSocket",
        tag="files",
        summary="Download or upload a file over a WebSocket",
        description="Only with an upgrade; any other request is about an ordinary file below /ws.",
        results={"101": ("The WebSocket is open.", {})},
        errors=("400",),
        parameters=(
            query("mode", "What to do.", text(enum=["download", "upload"], default="download")),
            query("offset", "Where a download starts.", integer(minimum=0)),
            query("size", "Bytes of an upload: it is committed when they are there.", integer(minimum=0)),
        ),
    ),
}
