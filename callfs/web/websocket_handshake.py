"""
What a WebSocket handshake asks for, and whether it may have it (RFC 6455, sections 4.2 and 10.2).
"""

from __future__ import annotations

import base64
import binascii
import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass

from callfs.errors import BadRequest, PermissionDenied
from callfs.web import queries

SUBPROTOCOL = "callfs"
VERSION = "13"
_KEY_PREFIX = "callfs.bearer."
_NO_KEY = "Bearer"

_BASE64URL = re.compile(r"[A-Za-z0-9_-]+={0,2}")
_NONCE = re.compile(r"[A-Za-z0-9+/]{22}==")
_ORIGIN = re.compile(r"(https?)://([^/?#@\s]+)", re.IGNORECASE)
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^:\[\]]+)(?::([0-9]{1,5}))?")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_SIZE = 10**18 - 1


class Mode(enum.Enum):
    """Which way the bytes go."""

    DOWNLOAD = "download"
    UPLOAD = "upload"


@dataclass(frozen=True)
class Opening:
    """
    A handshake that is in order.

    :param nonce: ``Sec-WebSocket-Key``, as it came.
    :param subprotocol: the one to be echoed, if any.
    :param offset: of a download: the first byte wanted.
    :param size: of an upload: the bytes announced, ``None`` when the client's close tells the end.
    """

    nonce: str
    subprotocol: str | None
    mode: Mode
    offset: int = 0
    size: int | None = None


def authorization(headers: Mapping[str, str]) -> str | None:
    """
    The credentials of a handshake, in the words of an ``Authorization`` header.

    That header counts if there is one. A browser can't send it with a WebSocket, so the key may come as the
    subprotocol ``callfs.bearer.<base64url of the key>`` instead.

    :param headers: of the request, by lower-case name.
    :return: ``None`` without any; what can't be read becomes credentials that nobody has.
    """
    header = headers.get("authorization")
    if header is not None:
        return header
    offered = [name for name in _subprotocols(headers) if name.startswith(_KEY_PREFIX)]
    if not offered:
        return None
    return _bearer(offered[0].removeprefix(_KEY_PREFIX)) if len(offered) == 1 else _NO_KEY


def _bearer(encoded: str) -> str:
    if _BASE64URL.fullmatch(encoded) is None:
        return _NO_KEY
    bare = encoded.rstrip("=")
    try:
        return f"Bearer {base64.urlsafe_b64decode(bare + '=' * (-len(bare) % 4)).decode('utf-8')}"
    except (binascii.Error, UnicodeDecodeError):
        return _NO_KEY


def _subprotocols(headers: Mapping[str, str]) -> list[str]:
    return [name.strip() for name in headers.get("sec-websocket-protocol", "").split(",")]


def opening(
    headers: Mapping[str, str], parameters: Mapping[str, str], host: str, directory_expected: bool
) -> Opening:
    """
    Check a handshake.

    :param headers: of the request, by lower-case name.
    :param parameters: the query, decoded.
    :param host: the request's host, with its port if it has one.
    :param directory_expected: the path ended like a directory.
    :raises callfs.errors.BadRequest: malformed, another version than 13, or parameters that can't be used.
    :raises callfs.errors.PermissionDenied: a browser's page of another host asks.
    """
    _check_origin(headers.get("origin"), host)
    if headers.get("sec-websocket-version") != VERSION:
        raise BadRequest("the WebSocket protocol is spoken here in version 13: send Sec-WebSocket-Version: 13")
    nonce = headers.get("sec-websocket-key", "")
    if _NONCE.fullmatch(nonce) is None:
        raise BadRequest("Sec-WebSocket-Key must be 16 bytes in base64")
    if directory_expected:
        raise BadRequest("a WebSocket transfers a file, but the path ends like a directory")
    subprotocol = SUBPROTOCOL if SUBPROTOCOL in _subprotocols(headers) else None
    mode = _mode(parameters.get("mode"))
    offset, size = parameters.get("offset"), parameters.get("size")
    if mode is Mode.DOWNLOAD:
        if size is not None:
            raise BadRequest("size is for uploads")
        return Opening(nonce, subprotocol, mode, offset=0 if offset is None else _number("offset", offset))
    if offset is not None:
        raise BadRequest("offset is for downloads: an upload replaces the whole file")
    return Opening(nonce, subprotocol, mode, size=None if size is None else _number("size", size))


def _mode(text: str | None) -> Mode:
    try:
        return Mode.DOWNLOAD if text is None else Mode(text)
    except ValueError:
        raise BadRequest("mode must be download or upload") from None


def _number(name: str, text: str) -> int:
    return queries.integer(name, text, 0, _MAX_SIZE)


def _check_origin(origin: str | None, host: str) -> None:
    """
    RFC 6455, section 10.2. The scheme isn't compared: a proxy may end TLS before this server.
    """
    if origin is None:
        return
    match = _ORIGIN.fullmatch(origin)
    if match is not None:
        default_port = _DEFAULT_PORTS[match[1].lower()]
        asking = _host_and_port(match[2], default_port)
        if asking is not None and asking == _host_and_port(host, default_port):
            return
    raise PermissionDenied("a WebSocket may be opened only by pages of this host")


def _host_and_port(authority: str, default_port: int) -> tuple[str, int] | None:
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        return None
    return match[1].lower(), default_port if match[2] is None else int(match[2])
