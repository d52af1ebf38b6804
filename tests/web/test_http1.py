"""Heads and bodies of HTTP/1, without a connection."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callfs.errors import BadRequest, HeadersTooLarge, UriTooLong
from callfs.web.framing import BodyDecoder, Chunked, FixedLength, decoder
from callfs.web.http1 import MAX_TARGET_BYTES, RequestHead, find_head, parse_head


def head(line: str = "GET / HTTP/1.1", *headers: str, host: bool = True) -> RequestHead:
    """Parse a head; a Host is added unless it isn't wanted."""
    lines = [line, *(["Host: x"] if host else []), *headers, "", ""]
    return parse_head("\r\n".join(lines).encode("latin-1"))


class TestHeads:
    """``parse_head``."""

    def test_parts(self) -> None:
        """A head is taken apart without decoding anything."""
        parsed = head("PUT /a%2Fb?c=%20&d HTTP/1.1", "Content-Length: 5", "X-A: one", "x-a:  two \t", "Host2: y")
        assert (parsed.method, parsed.path, parsed.query) == ("PUT", "/a%2Fb", "c=%20&d")
        assert parsed.headers["x-a"] == "one, two"
        assert (parsed.body_length, parsed.host, parsed.keep_alive) == (5, "x", True)

    def test_body_lengths(self) -> None:
        """No length is no body; chunks have none that is known."""
        assert head().body_length == 0
        assert head("GET / HTTP/1.1", "Transfer-Encoding: CHUNKED").body_length is None
        assert head("GET / HTTP/1.1", "Content-Length: 007").body_length == 7

    @pytest.mark.parametrize(
        "line",
        [
            "GET /",
            "GET / HTTP/1.2",
            "GET / http/1.1",
            "GET  / HTTP/1.1",
            " GET / HTTP/1.1",
            "GET / HTTP/1.1 ",
            "GET\t/\tHTTP/1.1",
            "G(T / HTTP/1.1",
            "GET /a b HTTP/1.1",
            "GET /\x00 HTTP/1.1",
            "GET /\x7f HTTP/1.1",
            "GET a HTTP/1.1",
            "GET ftp://x/ HTTP/1.1",
            "GET http:///a HTTP/1.1",
            "GET http://?a HTTP/1.1",
            "GET http://user@x/ HTTP/1.1",
            "GET http://x,y z/ HTTP/1.1",
            "GET http://\xe4/ HTTP/1.1",
            "GET /a#b HTTP/1.1",
            "GET http://x#/ HTTP/1.1",
            "CONNECT x:443 HTTP/1.1",
            "",
        ],
    )
    def test_request_lines(self, line: str) -> None:
        """Anything but method, target and version, one space between them, is refused."""
        with pytest.raises(BadRequest):
            head(line)

    @pytest.mark.parametrize(
        "header",
        [
            "no colon",
            ": no name",
            "Space : x",
            "X(: y",
            " folded",
            "\tfolded",
            "X: a\x00b",
            "X: a\rb",
            "X: a\nb",
            "X: \x7f",
            "Host: y",
            "Content-Length: ",
            "Content-Length: -1",
            "Content-Length: +1",
            "Content-Length: 1_0",
            "Content-Length: 5, 5",
            "Content-Length: \xb2",
            "Content-Length: 1234567890123456789",
            "Transfer-Encoding: gzip",
            "Transfer-Encoding: identity",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding:",
        ],
    )
    def test_headers(self, header: str) -> None:
        """A malformed or ambiguous header is refused."""
        with pytest.raises(BadRequest):
            head("PUT / HTTP/1.1", header)

    def test_ambiguous_lengths(self) -> None:
        """Two lengths, or a length beside chunks, are refused (RFC 9112, section 6.3)."""
        for headers in (
            ("Content-Length: 5", "Content-Length: 5"),
            ("Content-Length: 5", "Transfer-Encoding: chunked"),
            ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
        ):
            with pytest.raises(BadRequest):
                head("PUT / HTTP/1.1", *headers)
        with pytest.raises(BadRequest):
            head("PUT / HTTP/1.0", "Transfer-Encoding: chunked")

    def test_hosts(self) -> None:
        """HTTP/1.1 needs a Host, HTTP/1.0 doesn't; a URL as target has its own (RFC 9112, section 3.2)."""
        with pytest.raises(BadRequest):
            head(host=False)
        assert head("GET / HTTP/1.0", host=False).host == ""
        assert head("GET http://y:1 HTTP/1.1").host == "y:1"
        assert head("GET http://y?q HTTP/1.1").path == "/"
        for host in ("a b", "a/b", "a@b", "a,b c"):
            with pytest.raises(BadRequest):
                head("GET / HTTP/1.1", f"Host: {host}", host=False)

    def test_connections(self) -> None:
        """Connection: close, among others, ends the connection; HTTP/1.0 always does."""
        assert not head("GET / HTTP/1.1", "Connection: TE, Close").keep_alive
        assert not head("GET / HTTP/1.0", "Connection: keep-alive").keep_alive
        assert head("GET / HTTP/1.1", "Connection: closed").keep_alive

    def test_expectations(self) -> None:
        """100-continue counts in HTTP/1.1 alone."""
        assert head("PUT / HTTP/1.1", "Expect: 100-Continue").expects_continue
        assert not head("PUT / HTTP/1.0", "Expect: 100-continue").expects_continue
        assert not head("PUT / HTTP/1.1", "Expect: nothing").expects_continue

    def test_limits(self) -> None:
        """A target up to its limit is taken, a longer one is refused; so with headers."""
        assert len(head(f"GET /{'x' * (MAX_TARGET_BYTES - 1)} HTTP/1.1").path) == MAX_TARGET_BYTES
        with pytest.raises(UriTooLong):
            head(f"GET /{'x' * MAX_TARGET_BYTES} HTTP/1.1")
        with pytest.raises(HeadersTooLarge):
            head("GET / HTTP/1.1", *(f"X-{number}: x" for number in range(100)))
        with pytest.raises(HeadersTooLarge):
            head("GET / HTTP/1.1", "X: " + "y" * 8192)

    @given(st.binary(max_size=300))
    def test_noise(self, noise: bytes) -> None:
        """Whatever comes, it is a head or a refusal."""
        with contextlib.suppress(BadRequest, UriTooLong, HeadersTooLarge):
            parse_head(noise.replace(b"\r\n\r\n", b"") + b"\r\n\r\n")


class TestFinding:
    """``find_head``."""

    def test_in_pieces(self) -> None:
        """A head that comes byte by byte is found when it is complete, and not before."""
        data = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        for size in range(len(data)):
            assert find_head(data[:size], max(0, size - 1)) is None
        assert find_head(data + b"body", len(data) - 1) == len(data)

    def test_line_feeds(self) -> None:
        """A first line that ends in a bare line feed is refused at once, as is one at the very start."""
        for data in (b"GET / HTTP/1.1\n", b"\n"):
            with pytest.raises(BadRequest):
                find_head(data, 0)

    def test_sizes(self) -> None:
        """What is too long already isn't waited for."""
        with pytest.raises(UriTooLong):
            find_head(b"GET /" + b"x" * 9000, 0)
        with pytest.raises(HeadersTooLarge):
            find_head(b"GET / HTTP/1.1\r\nX: " + b"x" * 40000, 0)


def feed_all(body: BodyDecoder, pieces: list[bytes]) -> tuple[bytes, bytes]:
    """Feed a decoder until it is complete; content, and what wasn't taken."""
    content = b""
    for number, piece in enumerate(pieces):
        more, rest = body.feed(piece)
        content += more
        if body.complete:
            return content, rest + b"".join(pieces[number + 1 :])
    return content, b""


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Data in pieces."""
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


class TestBodies:
    """The decoders."""

    @given(
        st.lists(st.binary(min_size=1, max_size=40), max_size=8),
        st.lists(st.integers(0, 999)),
        st.binary(max_size=9),
    )
    def test_chunks(self, chunks: list[bytes], places: list[int], rest: bytes) -> None:
        """Content and rest are the same however the bytes are cut."""
        data = b"".join(b"%X;x=y\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\nTrailer: x\r\n\r\n"
        assert feed_all(Chunked(), cut(data + rest, places)) == (b"".join(chunks), rest)

    @given(st.binary(min_size=1, max_size=100), st.lists(st.integers(0, 999)), st.binary(max_size=9))
    def test_fixed_length(self, content: bytes, places: list[int], rest: bytes) -> None:
        """As many bytes as declared are the body."""
        assert feed_all(FixedLength(len(content)), cut(content + rest, places)) == (content, rest)

    def test_empty(self) -> None:
        """A body of no bytes is complete from the start."""
        assert decoder(0).complete
        assert not decoder(None).complete

    @pytest.mark.parametrize(
        "data",
        [
            b"\r\n",
            b"g\r\n",
            b"-1\r\n",
            b"+1\r\n",
            b"0x1\r\n",
            b" 1\r\n",
            b"1 \r\n",
            b"1 ;x\r\n",
            b"1\n",
            b"1" * 16 + b"\r\n",
            b"1;" + b"x" * 1100,
            b"1;\x00\r\n",
            b"1\r\nab",
            b"1\r\na\n",
            b"1\r\na\rb",
            b"0\r\nno trailer\r\n",
            b"0\r\n folded: x\r\n",
            b"0\r\n" + b"X: y\r\n" * 2000,
        ],
    )
    def test_malformed_chunks(self, data: bytes) -> None:
        """Anything but the grammar of RFC 9112, section 7.1, is refused."""
        with pytest.raises(BadRequest):
            Chunked().feed(data)
