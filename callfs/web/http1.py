"""
The head of an HTTP/1 request, parsed strictly (RFC 9112).

Everything that two parsers could read differently is refused with 400, because the difference is how requests are
smuggled past a proxy: a bare line feed, a folded header, a space before the colon, two lengths, a length beside a
transfer coding, a transfer coding that isn't exactly ``chunked``, a missing or second ``Host``, a ``#`` in the
target (which some cut off there, and with it what they compare with their rules).
"""

from __future__ import annotations

import re

import msgspec

from callfs.errors import BadRequest, HeadersTooLarge, UriTooLong

MAX_TARGET_BYTES = 8192
"""A path of 2,048 bytes takes 6,144 when each is percent-encoded; the rest is for the query."""

MAX_HEADER_LINE_BYTES = 8192
MAX_HEAD_BYTES = 32768
MAX_HEADERS = 100

HEAD_END = b"\r\n\r\n"
_MAX_REQUEST_LINE_BYTES = MAX_TARGET_BYTES + 64

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21\x22\x24-\x7e\x80-\xff]+) HTTP/1\.([01])")
_HEADER_LINE = re.compile(rb"(" + _TOKEN + rb"):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_LENGTH = re.compile(r"[0-9]{1,18}")
_HOST = re.compile(r"[A-Za-z0-9\-._~%!$&'()*+,;=:\[\]]*")
_ABSOLUTE = re.compile(r"https?://([^/?]+)(.*)", re.IGNORECASE)


class RequestHead(msgspec.Struct, frozen=True):
    """
    A request line and its headers.

    :param path: of the target, still percent-encoded, its bytes read as Latin-1.
    :param query: what follows the first ``?``, likewise.
    :param headers: by lower-case name; the values of a repeated header joined by ``, `` (RFC 9110, section 5.3).
    :param body_length: bytes of the body; 0 without one; ``None`` when it comes in chunks.
    :param keep_alive: whether the client would send another request on this connection.
    :param raw: the head as it came, its empty last line included.
    """

    method: str
    path: str
    query: str
    http_1_1: bool
    host: str
    headers: dict[str, str]
    body_length: int | None
    keep_alive: bool
    raw: bytes

    @property
    def expects_continue(self) -> bool:
        """Whether the client holds its body back until it is asked for (RFC 9110, section 10.1.1)."""
        return self.http_1_1 and "100-continue" in tokens(self.headers.get("expect"))

    def upgrades_to(self, protocol: str) -> bool:
        """Whether the client asks to go on in another protocol (RFC 9110, section 7.8)."""
        return (
            self.http_1_1
            and "upgrade" in tokens(self.headers.get("connection"))
            and protocol in tokens(self.headers.get("upgrade"))
        )


def tokens(value: str | None) -> tuple[str, ...]:
    """A comma-separated header as lower-case tokens."""
    return () if not value else tuple(token.strip(" \t").lower() for token in value.split(","))


def find_head(data: bytes, searched: int) -> int | None:
    """
    Where the first head in ``data`` ends.

    :param searched: bytes at the front of ``data`` that were looked at before.
    :return: the number of bytes of the head with its empty line; ``None`` when it isn't complete.
    :raises callfs.errors.CallFSError: it is over its limits already, or its first line ends in a bare line feed.
    """
    end = data.find(HEAD_END, max(0, searched - 3))
    if end < 0 and len(data) <= MAX_HEADER_LINE_BYTES:
        line_feed = data.find(b"\n")
        if line_feed >= 0 and data[line_feed - 1 : line_feed] != b"\r":
            raise BadRequest("the request line doesn't end in CR LF")
        return None
    head_size = len(data) if end < 0 else end + len(HEAD_END)
    _check_sizes(data, head_size)
    return None if end < 0 else head_size


def _check_sizes(data: bytes, head_size: int) -> None:
    line_end = data.find(b"\r\n")
    if line_end > _MAX_REQUEST_LINE_BYTES or (line_end < 0 and len(data) > _MAX_REQUEST_LINE_BYTES):
        raise UriTooLong(f"the URL is longer than {MAX_TARGET_BYTES} bytes")
    if head_size > MAX_HEAD_BYTES:
        raise HeadersTooLarge(f"the request's headers are longer than {MAX_HEAD_BYTES} bytes in all")


def parse_head(raw: bytes) -> RequestHead:
    """
    Parse a complete head.

    :raises callfs.errors.BadRequest: it is malformed or ambiguous.
    :raises callfs.errors.UriTooLong: the request target is over its limit.
    :raises callfs.errors.HeadersTooLarge: a header is too long, or there are too many.
    """
    request_line, *lines = raw[: -len(HEAD_END)].split(b"\r\n")
    match = _REQUEST_LINE.fullmatch(request_line)
    if match is None:
        raise BadRequest("the request line isn't one of HTTP/1.1 or HTTP/1.0")
    method, target, minor = match.groups()
    if len(target) > MAX_TARGET_BYTES:
        raise UriTooLong(f"the URL is longer than {MAX_TARGET_BYTES} bytes")
    http_1_1 = minor == b"1"
    headers = _parse_headers(lines)
    authority, path, query = _split_target(target.decode("latin-1"))
    return RequestHead(
        method.decode("ascii"),
        path,
        query,
        http_1_1,
        _host(headers, authority, http_1_1),
        headers,
        _body_length(headers, http_1_1),
        http_1_1 and "close" not in tokens(headers.get("connection")),
        raw,
    )


def _parse_headers(lines: list[bytes]) -> dict[str, str]:
    if len(lines) > MAX_HEADERS:
        raise HeadersTooLarge(f"the request has more than {MAX_HEADERS} headers")
    headers: dict[str, str] = {}
    for line in lines:
        match = _HEADER_LINE.fullmatch(line)
        if match is None:
            raise BadRequest("a header of the request is malformed")
        if len(line) > MAX_HEADER_LINE_BYTES:
            raise HeadersTooLarge(f"a header of the request is longer than {MAX_HEADER_LINE_BYTES} bytes")
        name = match[1].decode("ascii").lower()
        value = match[2].decode("latin-1").rstrip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _split_target(target: str) -> tuple[str | None, str, str]:
    """Authority, path and query of a request target (RFC 9112, section 3.2)."""
    authority = None
    if not target.startswith("/") and target != "*":
        match = _ABSOLUTE.fullmatch(target)
        if match is None or _HOST.fullmatch(match[1]) is None:
            raise BadRequest("the request target is neither a path nor a URL")
        authority, target = match[1], match[2]
        if not target.startswith("/"):
            target = "/" + target
    path, _, query = target.partition("?")
    return authority, path, query


def _host(headers: dict[str, str], authority: str | None, http_1_1: bool) -> str:
    """RFC 9112, section 3.2: exactly one valid Host in HTTP/1.1; that of an absolute target takes its place."""
    host = headers.get("host")
    if host is None and http_1_1:
        raise BadRequest("the request has no Host header")
    # A repeated header is joined by a comma and a space, which no host has.
    if host is not None and _HOST.fullmatch(host) is None:
        raise BadRequest("the request's Host header is malformed or came twice")
    return host or "" if authority is None else authority


def _body_length(headers: dict[str, str], http_1_1: bool) -> int | None:
    """RFC 9112, section 6.3, without its leniency."""
    length = headers.get("content-length")
    coding = headers.get("transfer-encoding")
    if coding is not None:
        if length is not None or not http_1_1 or coding.lower() != "chunked":
            raise BadRequest("Transfer-Encoding is used in a way that isn't safe: it must be 'chunked', alone")
        return None
    if length is None:
        return 0
    if _LENGTH.fullmatch(length) is None:
        raise BadRequest("the request's Content-Length is malformed or came twice")
    return int(length)
