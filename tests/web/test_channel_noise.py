"""
A connection under noise, over a transport in memory: whatever comes in whatever pieces, it answers in sync or ends.
"""

from __future__ import annotations

import itertools
from typing import Any

import h11
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import Logger
from twisted.python.failure import Failure

from callfs.web.app import Application
from callfs.web.channel import Channel
from callfs.web.context import Context, SiteSettings
from callfs.web.messages import Request, Response
from tests.support.site import Counted, Routes, authenticate
from tests.web.test_http1_against_h11 import mutated, mutations, requests

Told = tuple[str, str, bytes]


class Transport(StringTransport):
    """Ends when it is told to, as a socket would."""

    bufferSize = 65536
    protocol: Channel

    def loseConnection(self) -> None:
        """See :class:`twisted.internet.interfaces.ITransport`."""
        self.abortConnection()

    def abortConnection(self) -> None:
        """See :class:`twisted.internet.interfaces.ITransport`."""
        self.disconnecting = True

    def feed(self, pieces: list[bytes]) -> None:
        """Deliver what comes, as long as it is read."""
        for piece in pieces:
            if self.disconnecting or self.producerState != "producing":
                return
            if piece:
                self.protocol.dataReceived(piece)


class Connection:
    """A channel with routes that answer what they were told."""

    def __init__(self, limits: SiteSettings | None = None) -> None:
        self.told: list[Told] = []
        self.events: list[dict[str, Any]] = []
        self.metrics = Counted()
        self.clock = Clock()
        self.ended = 0
        numbers = itertools.count()
        context = Context(
            application=Application([Routes(self.behave)]),
            settings=limits or SiteSettings(),
            authenticate=authenticate,
            metrics=self.metrics,
            clock=self.clock,
            now=lambda: 0,
            pool=None,
            token_bytes=lambda size: next(numbers).to_bytes(size, "big"),
            upgrade=None,
            log=Logger(namespace="test", observer=self.events.append),
            ready=True,
        )
        self.channel = Channel(context, self._ended)
        self.transport = Transport()
        self.transport.protocol = self.channel
        self.channel.makeConnection(self.transport)

    def _ended(self, _channel: Channel) -> None:
        self.ended += 1

    async def behave(self, request: Request) -> Response:
        """Read the body, unless the path says otherwise, and answer its length."""
        body = b"" if request.path == "/unread" else await request.body.read(1 << 20)
        self.told.append((request.method, request.path, body))
        return Response(body=b"%d" % len(body))

    def run(self, pieces: list[bytes]) -> list[tuple[h11.Response, bytes]]:
        """Feed the pieces, let every limit of time pass, end the connection; the answers."""
        self.transport.feed(pieces)
        for _ in range(8):
            self.clock.advance(16)
        assert self.transport.disconnecting, "a silent client was waited for without end"
        self.channel.connectionLost(Failure(ConnectionResetError()))
        assert self.ended == 1
        assert self.metrics.under_way == 0
        assert not self.clock.getDelayedCalls(), "a timer was left behind"
        assert not [event for event in self.events if event.get("log_failure")]
        return answers(self.transport.value(), [event["method"] for event in self.events if "status" in event])


def answers(data: bytes, methods: list[str]) -> list[tuple[h11.Response, bytes]]:
    """Every response in what was written, by h11's judgement: one for each request, and nothing left over."""
    found = []
    for method in methods:
        connection = h11.Connection(h11.CLIENT)
        connection.send(
            h11.Request(method="HEAD" if method == "HEAD" else "GET", target="/", headers=[("Host", "x")])
        )
        connection.send(h11.EndOfMessage())
        connection.receive_data(data)
        event = connection.next_event()
        while isinstance(event, h11.InformationalResponse):
            assert event.status_code == 100
            event = connection.next_event()
        assert isinstance(event, h11.Response), event
        body = b""
        while not isinstance(more := connection.next_event(), h11.EndOfMessage):
            assert isinstance(more, h11.Data), more
            body += more.data
        found.append((event, body))
        data = connection.trailing_data[0]
        closes = (b"connection", b"close") in list(event.headers)
        assert not (closes and data), "something was sent after the last answer"
    assert not data, "something was sent that is no answer to a request"
    return found


Places = list[int] | None


def cut(data: bytes, places: Places) -> list[bytes]:
    """Data in pieces; ``None``: byte by byte."""
    if places is None:
        return [bytes([byte]) for byte in data]
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


places = st.one_of(st.lists(st.integers(0, 2000), max_size=30), st.none())


@st.composite
def proper(draw: st.DrawFn) -> tuple[bytes, Told]:
    """A request, and what its route is to be told."""
    path = draw(st.sampled_from(["/a", "/b/c", "/unread"]))
    content = draw(st.binary(max_size=300))
    method = draw(st.sampled_from(["PUT", "POST", "GET"]))
    lines = [f"{method} /v1/files{path} HTTP/1.1", "Host: x", "Authorization: Bearer user"]
    if draw(st.booleans()):
        lines.append("Expect: 100-continue")
    if draw(st.booleans()):
        body = content
        lines.append(f"Content-Length: {len(content)}")
    else:
        step = draw(st.integers(1, 200))
        chunks = [content[start : start + step] for start in range(0, len(content), step)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
        lines.append("Transfer-Encoding: chunked")
    empty_line = draw(st.sampled_from(["", "\r\n"]))
    return (empty_line + "\r\n".join([*lines, "", ""])).encode() + body, (method, path, content)


@settings(max_examples=300, deadline=None)
@given(st.lists(proper(), min_size=1, max_size=5), places)
def test_pipelined_requests(stream: list[tuple[bytes, Told]], where: Places) -> None:
    """Requests in a row are answered in order, however they are cut, up to the first whose body nobody read."""
    connection = Connection()
    found = connection.run(cut(b"".join(data for data, _ in stream), where))
    expected = [told for _, told in stream]
    for (method, path, body), (_, _, wanted), (response, said) in zip(
        connection.told, expected, found, strict=False
    ):
        assert response.status_code == 200
        assert said == b"%d" % len(body)
        assert body == (b"" if path == "/unread" else wanted)
        assert method
    assert [told[:2] for told in connection.told] == [told[:2] for told in expected[: len(found)]]
    assert len(found) == len(connection.told)
    if len(found) < len(stream):
        last, _ = found[-1]
        assert connection.told[-1][1] == "/unread"
        assert (b"connection", b"close") in list(last.headers)


@settings(max_examples=600, deadline=None)
@given(st.lists(st.one_of(proper().map(lambda both: both[0]), requests()), max_size=4), mutations, places)
def test_noise(stream: list[bytes], changes: list[tuple[int, str, bytes]], where: Places) -> None:
    """Nothing but whole responses comes out, nothing is left behind, and no fault of ours is logged."""
    connection = Connection()
    found = connection.run(cut(mutated(b"".join(stream), changes), where))
    for response, _ in found[:-1]:
        assert response.status_code < 500
        assert (b"connection", b"close") not in list(response.headers)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), places)
def test_mere_noise(data: bytes, where: Places) -> None:
    """So with bytes that never were HTTP."""
    assert len(Connection().run(cut(data, where))) <= 1


@settings(max_examples=300, deadline=None)
@given(proper(), st.integers(0, 2000), st.booleans())
def test_an_end_anywhere(request: tuple[bytes, Told], size: int, half: bool) -> None:
    """A client that ends within a request, or stops sending there, leaves nothing behind."""
    connection = Connection()
    data, _ = request
    connection.transport.feed([data[: size % (len(data) + 1)]])
    if half:
        connection.channel.readConnectionLost()
        connection.run([])
    else:
        connection.channel.connectionLost(Failure(ConnectionResetError()))
        assert connection.ended == 1
        assert not connection.clock.getDelayedCalls()
        assert connection.metrics.under_way == 0


def test_slow_reader_that_asks_again() -> None:
    """A request that arrives while the answer before is still being taken isn't too slow: we don't read it yet."""
    connection = Connection(SiteSettings(read_timeout_seconds=30, write_timeout_seconds=300))
    request = b"GET /v1/files/a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer user\r\n\r\n"
    connection.transport.feed([request])
    connection.channel.pauseProducing()
    connection.transport.feed([request[:20]])
    connection.clock.advance(31)
    connection.clock.advance(31)
    connection.channel.resumeProducing()
    connection.transport.feed([request[20:]])
    assert connection.told == [("GET", "/a", b""), ("GET", "/a", b"")]
    assert len(connection.run([])) == 2
