"""
A response's head as HTTP/1 writes it.
"""

from __future__ import annotations

from callfs.web.headers import header_lines, static_block, status_line
from callfs.web.outgoing import ResponseHead

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"

_NO_LENGTH = 204


def wire_head(head: ResponseHead, date_line: bytes, *, secure: bool, chunked: bool, close: bool) -> bytes:
    """
    Status line and headers, the empty line included.

    :param date_line: the ``Date`` header.
    :param chunked: the body is sent in chunks.
    :param close: the connection ends after this response.
    :raises ValueError: a header of the response can't be sent.
    """
    response = head.response
    parts = [
        status_line(response.status),
        date_line,
        static_block(response.stored_content, secure),
        b"X-Request-ID: %b\r\n" % head.request_id.encode("ascii"),
        header_lines(response.headers),
    ]
    if chunked:
        parts.append(b"Transfer-Encoding: chunked\r\n")
    elif head.length is not None and response.status != _NO_LENGTH:
        parts.append(b"Content-Length: %d\r\n" % head.length)
    if close:
        parts.append(b"Connection: close\r\n")
    parts.append(b"\r\n")
    return b"".join(parts)


def chunk(data: bytes) -> list[bytes]:
    """A chunk; ``data`` isn't empty."""
    return [b"%x\r\n" % len(data), data, b"\r\n"]
