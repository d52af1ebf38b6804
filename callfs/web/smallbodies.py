"""Small bodies in both directions: none at all, or a piece of JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from callfs.errors import BadRequest, PayloadTooLarge
from callfs.web.messages import Request, Response
from callfs.web.representations import JSON


async def refuse_body(request: Request, reason: str) -> None:
    """
    Make sure that the request has no body.

    :raises BadRequest: it has one; ``reason`` is the message.
    """
    if request.body.declared_length:
        raise BadRequest(reason)
    if request.body.declared_length is None:
        try:
            await request.body.read(0)
        except PayloadTooLarge:
            raise BadRequest(reason) from None


def small_response(
    request: Request, body: bytes, content_type: str, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A short answer to GET; to HEAD the same without the body."""
    return Response(
        status=status,
        headers={"Content-Type": content_type} | dict(headers or {}),
        body=b"" if request.method == "HEAD" else body,
        content_length=len(body),
    )


def json_response(
    request: Request, value: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A short answer in JSON."""
    return small_response(request, msgspec.json.encode(value), JSON, status, headers)
