"""
The one table that gives an error its HTTP status, and the error as it is answered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from callfs.errors import CallFSError, InternalError, MethodNotAllowed, RangeNotSatisfiable, RetryableError

STATUS: Mapping[str, int] = MappingProxyType(
    {
        "BAD_REQUEST": 400,
        "INVALID_PATH": 400,
        "CHECKSUM_MISMATCH": 400,
        "NOT_A_FILE": 400,
        "NOT_A_DIRECTORY": 400,
        "AUTHENTICATION_FAILED": 401,
        "PERMISSION_DENIED": 403,
        "NOT_FOUND": 404,
        "FILE_NOT_FOUND": 404,
        "LINK_NOT_FOUND": 404,
        "SHARD_NOT_FOUND": 404,
        "METHOD_NOT_ALLOWED": 405,
        "REQUEST_TIMEOUT": 408,
        "CONFLICT": 409,
        "CONTENT_MOVED": 409,
        "FILE_ALREADY_EXISTS": 409,
        "DIRECTORY_NOT_EMPTY": 409,
        "PARENT_NOT_A_DIRECTORY": 409,
        "LINK_EXPIRED": 410,
        "LINK_USED": 410,
        "PRECONDITION_FAILED": 412,
        "PAYLOAD_TOO_LARGE": 413,
        "URI_TOO_LONG": 414,
        "RANGE_NOT_SATISFIABLE": 416,
        "RESOURCE_LOCKED": 423,
        "RATE_LIMITED": 429,
        "HEADERS_TOO_LARGE": 431,
        "INTERNAL_ERROR": 500,
        "PEER_UNAVAILABLE": 503,
        "METADATA_UNAVAILABLE": 503,
        "INSUFFICIENT_SHARDS": 503,
        "SERVICE_UNAVAILABLE": 503,
        "OUTCOME_UNKNOWN": 504,
        "INSUFFICIENT_STORAGE": 507,
    }
)

JSON = "application/json"


def status_of(error: CallFSError) -> int:
    """The HTTP status of an error; a test proves that each code has one."""
    return STATUS[error.code]


class ErrorAnswer(msgspec.Struct, frozen=True):
    """
    What a client gets for an error.

    :param headers: those that belong to the error.
    :param body: JSON.
    """

    status: int
    headers: dict[str, str]
    body: bytes


def error_answer(error: CallFSError) -> ErrorAnswer:
    """
    The JSON answer to an error: its code, its message, its details, and the headers that belong to it.

    Sources of the headers: RFC 9110, sections 10.2.1 (``Allow``), 10.2.3 (``Retry-After``), 11.6.1
    (``WWW-Authenticate``), and 14.4 (``Content-Range``).
    """
    headers = {"Content-Type": JSON}
    status = status_of(error)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = ", ".join(error.allowed)
    if isinstance(error, RangeNotSatisfiable):
        headers["Content-Range"] = f"bytes */{error.size}"
    if isinstance(error, RetryableError):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_seconds)))
    body = {"code": error.code, "message": error.message, **error.details}
    return ErrorAnswer(status, headers, msgspec.json.encode(body))


def internal_error() -> InternalError:
    """What a client is told of a fault whose cause is in the log alone."""
    return InternalError("the server failed; its log has the cause under this response's X-Request-ID")
