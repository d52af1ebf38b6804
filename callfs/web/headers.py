"""
The headers that every response carries.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus

_SECURITY = (
    b"X-Content-Type-Options: nosniff\r\n"
    b"X-Frame-Options: DENY\r\n"
    b"Referrer-Policy: strict-origin-when-cross-origin\r\n"
    b"Permissions-Policy: geolocation=(), microphone=(), camera=(), payment=(), usb=(), magnetometer=(), "
    b"gyroscope=(), accelerometer=()\r\n"
    b"Cross-Origin-Opener-Policy: same-origin\r\n"
    b"Cross-Origin-Embedder-Policy: require-corp\r\n"
)
_OWN_POLICY = (
    b"Content-Security-Policy: default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'\r\n"
)
# Stored content may show its own inline styles and media, but runs in an origin of its own and without scripts.
_STORED_POLICY = (
    b"Content-Security-Policy: sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    b"media-src data:; font-src data:; frame-ancestors 'none'\r\n"
)
_TRANSPORT_SECURITY = b"Strict-Transport-Security: max-age=31536000; includeSubDomains\r\n"

_STATIC = {
    (stored, secure): b"Server: CallFS\r\n"
    + _SECURITY
    + (_STORED_POLICY if stored else _OWN_POLICY)
    + (_TRANSPORT_SECURITY if secure else b"")
    for stored in (False, True)
    for secure in (False, True)
}

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}

_UNSAFE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def static_block(stored_content: bool, secure: bool) -> bytes:
    """
    The header lines that don't depend on the request.

    :param stored_content: the body is what a user uploaded: it gets a policy with ``sandbox``.
    :param secure: over TLS also HSTS, never over plain HTTP (RFC 6797, section 7.2).
    """
    return _STATIC[stored_content, secure]


def status_line(status: int) -> bytes:
    """The first line of a response."""
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d Status\r\n" % status


def header_lines(headers: Mapping[str, str]) -> bytes:
    """
    Header fields as they go over the wire.

    :raises ValueError: a value has a control character or one outside Latin-1: it would be another header.
    """
    text = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if text.count("\r\n") != len(headers) or _UNSAFE.search(text.replace("\r\n", "")) is not None:
        raise ValueError("a response header has a control character")
    return text.encode("latin-1")
