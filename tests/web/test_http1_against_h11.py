"""
Our parser of HTTP/1 against that of h11: whatever ours accepts, another reads in the same way. It may refuse more;
it must never accept what would begin or end elsewhere for whoever stands in front of it.
"""

from __future__ import annotations

import re

import h11
from hypothesis import example, given, settings
from hypothesis import strategies as st

from callfs.errors import CallFSError
from callfs.web.framing import decoder
from callfs.web.http1 import find_head, parse_head

Understood = tuple[bytes, bytes, dict[bytes, bytes], bytes, bytes]
"""Method, target, headers (the values of a repeated one joined), body, and what follows."""

_NOT_ASCII = re.compile(rb"[\x80-\xff]")


def ours(data: bytes) -> Understood | None:
    """What our parser makes of ``data``; ``None`` for a refusal, and for a request that isn't complete."""
    try:
        size = find_head(data, 0)
        if size is None:
            return None
        head = parse_head(data[:size])
        body = decoder(head.body_length)
        content, rest = (b"", data[size:]) if body.complete else body.feed(data[size:])
    except CallFSError:
        return None
    if not body.complete:
        return None
    target = data.split(b" ", 2)[1]
    if target.startswith(b"/"):
        assert target == f"{head.path}?{head.query}".encode("latin-1")[: len(target)]
    headers = {name.encode("ascii"): value.encode("latin-1") for name, value in head.headers.items()}
    return head.method.encode("ascii"), target, headers, content, rest


def theirs(data: bytes) -> Understood:
    """What h11 makes of it; bytes beyond ASCII in the target, which it doesn't take, are percent-encoded for it."""
    line, end, rest = data.partition(b"\r\n")
    line = _NOT_ASCII.sub(lambda match: b"%%%02X" % match[0][0], line)
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(line + end + rest)
    request = connection.next_event()
    assert isinstance(request, h11.Request), request
    content = b""
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        assert isinstance(event, h11.Data), event
        content += event.data
    headers: dict[bytes, bytes] = {}
    for name, value in request.headers:
        headers[name] = headers[name] + b", " + value if name in headers else value
    return request.method, request.target, headers, content, connection.trailing_data[0]


def same(data: bytes) -> bool:
    """Assert that h11 agrees with us, if we accept ``data``; whether we do."""
    mine = ours(data)
    if mine is None:
        return False
    method, target, headers, content, rest = mine
    encoded = _NOT_ASCII.sub(lambda match: b"%%%02X" % match[0][0], target)
    if b"transfer-encoding" in headers:
        # h11 hands the coding's name on in lower case.
        headers = {**headers, b"transfer-encoding": headers[b"transfer-encoding"].lower()}
    assert (method, encoded, headers, content, rest) == theirs(data)
    return True


methods = st.sampled_from([b"GET", b"PUT", b"POST", b"DELETE", b"HEAD", b"M-SEARCH"])
targets = st.one_of(
    st.sampled_from([b"/", b"*", b"/v1/files/a?b=c", b"http://x/y", b"/a%2Fb", b"http://x", b"/\xc3\xa4"]),
    st.binary(min_size=1, max_size=12).map(lambda noise: b"/" + noise),
)
values = st.one_of(
    st.sampled_from([b"", b"5", b"0", b"chunked", b"close", b"keep-alive", b"100-continue", b"a, b", b"\xff"]),
    st.binary(max_size=12),
)
names = st.sampled_from(
    [
        b"Content-Length",
        b"Transfer-Encoding",
        b"Connection",
        b"Expect",
        b"X",
        b"Upgrade",
        b"Trailer",
        b"Host",
        b"TE",
    ]
)
blanks = st.sampled_from([b"", b" ", b"\t", b" \t "])
sizes = st.integers(0, 9)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Requests that are nearly right."""
    lines = [b"%b %b HTTP/1.%d" % (draw(methods), draw(targets), draw(st.sampled_from([1, 1, 1, 0]))), b"Host: x"]
    headers = draw(st.lists(st.tuples(names, blanks, values, blanks), max_size=4))
    lines += [b"%b:%b%b%b" % header for header in headers]
    content = draw(st.binary(max_size=9))
    framing = draw(st.sampled_from(["none", "length", "chunks"]))
    if framing == "length":
        lines.append(b"Content-Length: %d" % len(content))
    elif framing == "chunks":
        lines.append(draw(st.sampled_from([b"Transfer-Encoding: chunked", b"transfer-encoding:Chunked"])))
        content = draw(chunked_bodies())
    return b"\r\n".join([*lines, b"", content]) + draw(st.binary(max_size=4))


@st.composite
def chunked_bodies(draw: st.DrawFn) -> bytes:
    """Bodies in chunks that are nearly right."""
    extensions = st.sampled_from([b"", b"", b";x", b";x=y", b';x="y z"', b" ;x", b"; x = y", b" ", b";\xff", b";"])
    ends = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b""])
    parts = []
    for chunk in draw(st.lists(st.binary(min_size=1, max_size=20), max_size=3)):
        parts.append(
            b"%b%x%b%b" % (draw(st.sampled_from([b"", b"", b"0", b"+"])), len(chunk), draw(extensions), b"\r\n")
        )
        parts += [chunk, draw(ends)]
    trailers = draw(
        st.lists(st.sampled_from([b"A: b\r\n", b"A:\r\n", b"A : b\r\n", b" b\r\n", b"A: b\n"]), max_size=2)
    )
    return b"".join([*parts, b"0", draw(extensions), b"\r\n", *trailers, b"\r\n"])


mutations = st.lists(
    st.tuples(st.integers(0, 400), st.sampled_from(["flip", "cut", "insert"]), st.binary(min_size=1, max_size=2)),
    max_size=3,
)


def mutated(data: bytes, changes: list[tuple[int, str, bytes]]) -> bytes:
    """``data`` with bytes replaced, taken away and put in."""
    for place, kind, noise in changes:
        at = place % (len(data) + 1)
        skipped = 0 if kind == "insert" else len(noise)
        data = data[:at] + (b"" if kind == "cut" else noise) + data[at + skipped :]
    return data


@settings(max_examples=600, deadline=None)
@example(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1 ;x\r\na\r\n0\r\n\r\n", [])
@example(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n", [])
@example(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", [])
@example(b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n", [])
@given(requests(), mutations)
def test_what_we_accept_is_read_alike(data: bytes, changes: list[tuple[int, str, bytes]]) -> None:
    """Method, target, headers, body and its end are the same for h11, whatever is accepted here."""
    same(mutated(data, changes))


@settings(max_examples=100, deadline=None)
@given(
    methods,
    st.lists(st.binary(min_size=1, max_size=2000), max_size=4),
    st.sampled_from([b"", b";x=y"]),
    st.booleans(),
)
def test_what_is_right_is_accepted(method: bytes, chunks: list[bytes], extension: bytes, in_chunks: bool) -> None:
    """A request as any client sends it is accepted, and read as h11 reads it."""
    content = b"".join(chunks)
    if in_chunks:
        framing = b"Transfer-Encoding: chunked"
        content = b"".join(b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks) + b"0\r\n\r\n"
    else:
        framing = b"Content-Length: %d" % len(content)
    assert same(method + b" /v1/files/a?b=c HTTP/1.1\r\nHost: x:1\r\n" + framing + b"\r\n\r\n" + content)
