"""
The one table that gives an error its WebSocket close code (RFC 6455, section 7.4.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from callfs.errors import CallFSError

NORMAL = 1000
GOING_AWAY = 1001
DIRECTORY = 1003
REFUSED = 1008
TOO_BIG = 1009
INTERNAL = 1011

MAX_REASON_BYTES = 123
"""A control frame has at most 125 bytes, two of which are the code (RFC 6455, section 5.5)."""

_CODES: Mapping[str, int] = MappingProxyType(
    {
        "NOT_A_FILE": DIRECTORY,
        "PERMISSION_DENIED": REFUSED,
        "FILE_NOT_FOUND": REFUSED,
        "RANGE_NOT_SATISFIABLE": REFUSED,
        "CONFLICT": REFUSED,
        "CONTENT_MOVED": REFUSED,
        "PARENT_NOT_A_DIRECTORY": REFUSED,
        "PAYLOAD_TOO_LARGE": TOO_BIG,
        "SERVICE_UNAVAILABLE": GOING_AWAY,
    }
)


def close_code(error: CallFSError) -> int:
    """The close code that stands for an error; :data:`INTERNAL` for whatever isn't the client's to mend."""
    return _CODES.get(error.code, INTERNAL)


def close_reason(error: CallFSError) -> str:
    """What a close frame says of an error: the code that HTTP has for it too, and as much of the text as fits."""
    return fitting(f"{error.code}: {error.message}")


def fitting(text: str) -> str:
    """As much of ``text`` as a close frame holds, cut between characters."""
    return text.encode("utf-8")[:MAX_REASON_BYTES].decode("utf-8", "ignore")
