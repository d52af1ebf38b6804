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


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(
        status=status, headers={"Content-Type": JSON} | dict(headers or {}), body=msgspec.json.encode(value)
    )
