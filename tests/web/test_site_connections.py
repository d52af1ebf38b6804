"""Connections: refusals of the parser, limits, idle ones, upgrades, and the end of the site."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from callfs.errors import FileNotFound
from callfs.web.context import SiteSettings, Upgraded
from callfs.web.messages import Request, Response
from tests.support.http import Answer, Wire
from tests.support.site import KEY, SWIFT, FileReader, SiteCase, echo, hello

KEY_LINE = b"Authorization: Bearer user\r\n"


class RefusalTests(SiteCase):
    """What the parser can't accept: 4xx as JSON with all headers, then the end."""

    async def refusal(self, data: bytes, status: int, code: str) -> None:
        """One answer, of this kind, and the connection ends."""

        def client(wire: Wire) -> Answer:
            wire.send(data)
            answer = wire.read_answer()
            assert wire.ends()
            return answer

        answer = await self.talk(client)
        answer.refused(status, code)
        assert answer.closes
        assert answer["X-Request-ID"]
        assert answer["X-Content-Type-Options"] == "nosniff"

    async def test_malformed(self) -> None:
        """What isn't HTTP/1 is 400 BAD_REQUEST; each refusal has its access event."""
        await self.serve(hello)
        for data in (
            b"GET /\r\n\r\n",
            b"GET / HTTP/0.9\r\n\r\n",
            b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
            b"GET / HTTP/1.1\n\n",
            b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n",
            b"GET / HTTP/1.1\r\n\r\n",
        ):
            await self.refusal(data, 400, "BAD_REQUEST")
        assert [event["status"] for event in self.ended()] == [400] * 7
        assert self.metrics.under_way == 0

    async def test_smuggling(self) -> None:
        """A request whose end could be read in two ways is refused, and what follows it is no request."""
        await self.serve(hello)
        head = b"PUT /v1/files/x HTTP/1.1\r\nHost: x\r\n" + KEY_LINE
        for framing in (
            b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            b"Content-Length: 5\r\nContent-Length: 5\r\n",
            b"Transfer-Encoding: chunked, chunked\r\n",
            b"Transfer-Encoding : chunked\r\n",
            b"X: y\r\n Content-Length: 5\r\n",
        ):
            await self.refusal(
                head + framing + b"\r\n0\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\n\r\n", 400, "BAD_REQUEST"
            )

    async def test_bad_chunk(self) -> None:
        """A chunked body that is malformed is 400 from the route's reading, and the connection ends."""
        await self.serve(echo)
        head = b"PUT /v1/files/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n" + KEY_LINE + b"\r\n"
        for body in (b"zz\r\n", b"5\r\nhelloXX", b"5\r\nhello\r\n0\r\nno trailer\r\n\r\n"):
            await self.refusal(head + body, 400, "BAD_REQUEST")

    async def test_sizes(self) -> None:
        """A target over its limit is 414, headers over theirs are 431, complete or not."""
        await self.serve(hello)
        line = b"GET /v1/files/%b HTTP/1.1\r\nHost: x\r\n"
        await self.refusal(line % (b"x" * 9000) + b"\r\n", 414, "URI_TOO_LONG")
        await self.refusal(b"GET /" + b"x" * 9000, 414, "URI_TOO_LONG")
        await self.refusal(line % b"x" + b"X: %b\r\n\r\n" % (b"y" * 9000), 431, "HEADERS_TOO_LARGE")
        await self.refusal(line % b"x" + b"X: y\r\n" * 101 + b"\r\n", 431, "HEADERS_TOO_LARGE")
        await self.refusal(line % b"x" + b"X: " + b"y" * 33000, 431, "HEADERS_TOO_LARGE")

    async def test_longest_path(self) -> None:
        """A path of 2,048 bytes, all percent-encoded, with a query, is no problem."""
        await self.serve(hello)
        path = "/".join(["%C3%A4" * 127] * 8)
        assert (await self.get(f"/v1/files/{path}?{'q' * 1000}")).status == 200

    async def test_slow_headers(self) -> None:
        """Headers that aren't complete in time from their first byte on are 408, however busy the client is."""
        await self.serve(hello, SWIFT)
        wire = Wire(self.address)
        for piece in (b"GET / HTTP/1.1\r\n", b"Host: x\r\n", b"X: 1\r\n", b"X: 2\r\n"):
            wire.send(piece)
            await self.moment(0.15)

        def client(_: Wire) -> Answer:
            answer = wire.read_answer()
            assert wire.ends()
            return answer

        (await self.talk(client)).refused(408, "REQUEST_TIMEOUT")
        wire.close()

    async def test_idle(self) -> None:
        """An idle connection ends without a word, a fresh one and one that was used."""
        await self.serve(hello, SWIFT)

        def client(wire: Wire) -> None:
            wire.send_request("GET", "/health")
            wire.read_answer()
            assert wire.ends(3)

        assert await self.talk(lambda wire: wire.ends(3))
        await self.talk(client)


class LimitTests(SiteCase):
    """Not more connections than allowed."""

    async def test_max_connections(self) -> None:
        """Over the limit a connection gets 503 with Retry-After and ends; with room again it is served."""
        await self.serve(hello, SiteSettings(max_connections=2))
        first = [Wire(self.address) for _ in range(2)]
        while self.site.connections < 2:
            await self.moment()

        def client(wire: Wire) -> Answer:
            wire.send_request("GET", "/health")
            answer = wire.read_answer()
            assert wire.ends()
            return answer

        for _ in range(3):
            answer = await self.talk(client)
            answer.refused(503, "SERVICE_UNAVAILABLE")
            assert answer["Retry-After"] == "5"
            assert answer.closes
            assert answer["X-Frame-Options"] == "DENY"
        assert self.metrics.refused == 3
        first[0].close()
        while self.site.connections > 1:
            await self.moment()
        assert (await self.get("/v1/files/x")).status == 200
        first[1].close()
        await self.settled()
        assert self.metrics.open == 0

    def test_descriptors_run_out(self) -> None:
        """When descriptors run out, the connections that are there are served, and new ones later."""
        script = textwrap.dedent(
            """
            import resource, socket, sys
            from tests.support.http import Wire
            from tests.support.site import SiteCase, hello

            class Case(SiteCase):
                async def runTest(self):
                    await self.serve(hello)
                    early = Wire(self.address)
                    assert (await self.ask_on(early)).status == 200
                    import os
                    used = len(os.listdir("/proc/self/fd"))
                    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
                    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 60, hard))
                    wires = []
                    for _ in range(29):
                        try:
                            wires.append(Wire(self.address))
                        except OSError:
                            break
                        await self.moment(0.005)
                    spare = []
                    try:
                        while True:
                            spare.append(open(os.devnull))
                    except OSError:
                        pass
                    spare.pop().close()
                    extra = Wire(self.address)
                    await self.moment(0.1)
                    assert (await self.ask_on(early)).status == 200
                    for one in spare:
                        one.close()
                    extra.close()
                    for wire in wires:
                        wire.close()
                    await self.moment(0.1)
                    assert (await self.get("/v1/files/x")).status == 200
                    early.close()

                def ask_on(self, wire):
                    from twisted.internet.threads import deferToThread
                    wire.send_request("GET", "/health")
                    return deferToThread(wire.read_answer)

            import unittest
            result = unittest.TestResult()
            Case().run(result)
            print(result.errors, result.failures)
            sys.exit(0 if result.wasSuccessful() and result.testsRun else 1)
            """
        )
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


class Echo(Protocol):
    """Another protocol: everything comes back."""

    def __init__(self) -> None:
        self.received = b""
        self.lost = 0

    def dataReceived(self, data: bytes) -> None:
        """Echo it."""
        self.received += data
        assert self.transport is not None
        self.transport.write(data)

    def connectionLost(self, reason: Failure | None = None) -> None:  # type: ignore[override]
        """Count."""
        self.lost += 1


class Upgrader:
    """Hands connections to :class:`Echo`."""

    def __init__(self) -> None:
        self.protocol = Echo()
        self.requests: list[Request] = []

    def authorization(self, headers: Mapping[str, str]) -> str | None:
        """A key in a header of its own."""
        return f"Bearer {headers.get('x-key', '')}"

    async def upgrade(self, request: Request) -> Upgraded:
        """Everything but ``/missing``."""
        self.requests.append(request)
        if request.path == "/missing":
            raise FileNotFound("nothing there")
        return Upgraded(protocol=self.protocol, traffic=lambda: (11, 22))


class UpgradeTests(SiteCase):
    """WebSocket requests leave HTTP."""

    HANDSHAKE = {"X-Key": "user", "Connection": "keep-alive, Upgrade", "Upgrade": "WebSocket"}

    async def test_handed_over(self) -> None:
        """The other protocol gets the head as it came and all that follows; one event is written at the end."""
        upgrader = Upgrader()
        await self.serve(hello, upgrade=upgrader)

        def client(wire: Wire) -> bytes:
            wire.send_request("GET", "/v1/files/ws/a%20b?mode=upload", self.HANDSHAKE)
            wire.send(b"more")
            received = b""
            while not received.endswith(b"\r\n\r\nmore"):
                received += wire.read_some()
            return received

        assert (await self.talk(client)).startswith(b"GET /v1/files/ws/a%20b?mode=upload HTTP/1.1\r\n")
        await self.settled()
        (request,) = upgrader.requests
        assert (request.path, request.query("mode"), request.principal.user) == ("/a b", "upload", "user")
        assert upgrader.protocol.lost == 1
        (event,) = self.ended()
        assert event["route"] == "/v1/files/ws/{path}"
        assert (event["status"], event["bytes_in"], event["bytes_out"], event["aborted"]) == (101, 11, 22, False)

    async def test_refused(self) -> None:
        """A refusal is an ordinary error, and the connection stays HTTP."""
        await self.serve(hello, upgrade=Upgrader())

        def client(wire: Wire) -> list[Answer]:
            wire.send_request("GET", "/v1/files/ws/x", {**self.HANDSHAKE, "X-Key": "wrong"})
            wire.send_request("GET", "/v1/files/ws/missing", self.HANDSHAKE)
            wire.send_request("GET", "/health")
            return [wire.read_answer() for _ in range(3)]

        first, second, third = await self.talk(client)
        first.refused(401, "AUTHENTICATION_FAILED")
        second.refused(404, "FILE_NOT_FOUND")
        assert second["X-Frame-Options"] == "DENY"
        assert third.status == 200

    async def test_ordinary_files(self) -> None:
        """Without an upgrade, elsewhere, or with another method, it is a request for an ordinary file."""
        upgrader = Upgrader()

        async def path(request: Request) -> Response:
            return Response(body=request.path.encode())

        await self.serve(path, upgrade=upgrader)
        assert (await self.get("/v1/files/ws/x")).body == b"/ws/x"
        assert (await self.get("/v1/files/ws/x", {"Upgrade": "websocket"})).body == b"/ws/x"
        assert (await self.get("/v1/files/x", {**self.HANDSHAKE})).body == b"/x"
        assert (await self.get("/v1/files/ws/x", {**self.HANDSHAKE}, method="PUT")).body == b"/ws/x"
        assert (await self.get("/v1/files/ws/x", {**self.HANDSHAKE, "Upgrade": "h2c"})).body == b"/ws/x"
        assert not upgrader.requests


class StopTests(SiteCase):
    """The end of a site."""

    async def test_idle_connections_end(self) -> None:
        """Stopping ends idle connections at once."""
        await self.serve(hello)
        wires = [Wire(self.address) for _ in range(3)]
        while self.site.connections < 3:
            await self.moment()
        await self.site.stop(10)
        assert self.site.connections == 0
        for wire in wires:
            assert wire.ends()
            wire.close()

    async def test_requests_under_way_finish(self) -> None:
        """A request under way is answered, with Connection: close, before the site has stopped."""
        begun: Deferred[None] = Deferred()
        go_on: Deferred[None] = Deferred()

        async def behaviour(request: Request) -> Response:
            begun.callback(None)
            await go_on
            return Response(body=b"done")

        await self.serve(behaviour)
        answer = self.get("/v1/files/x")
        await begun
        stopped = self.site.stop(10)
        await self.moment(0.1)
        assert not stopped.called
        go_on.callback(None)
        assert (await answer).closes
        assert (await answer).body == b"done"
        await stopped

    async def test_answers_under_way_are_the_last(self) -> None:
        """A connection whose answer had begun before ends with it, although that answer couldn't say so."""
        begun: Deferred[None] = Deferred()
        go_on: Deferred[None] = Deferred()

        async def body() -> AsyncIterator[bytes]:
            yield b"first "
            begun.callback(None)
            await go_on
            yield b"last"

        async def behaviour(request: Request) -> Response:
            return Response(body=body())

        await self.serve(behaviour)
        wire = Wire(self.address)
        wire.send_request("GET", "/v1/files/x", KEY)
        await begun
        stopped = self.site.stop(3600)
        go_on.callback(None)
        await stopped
        answer = wire.read_answer()
        assert (answer.body, answer.closes) == (b"first last", False)
        assert wire.ends()
        wire.close()

    async def test_the_rest_is_cut(self) -> None:
        """What isn't finished in time is cut off."""
        begun: Deferred[None] = Deferred()

        async def behaviour(request: Request) -> Response:
            begun.callback(None)
            await Deferred()
            return Response()

        await self.serve(behaviour)
        wire = Wire(self.address)
        wire.send_request("GET", "/v1/files/x", KEY)
        await begun
        await self.site.stop(0.2)
        assert wire.read_to_end() == b""
        wire.close()
        assert self.ended()[0]["aborted"] is True

    async def test_limits_change(self) -> None:
        """Other limits count for what begins after they were set."""
        site = await self.serve(hello)
        site.settings = SWIFT
        assert await self.talk(lambda wire: wire.ends(3))


class UnixTests(SiteCase):
    """Transports other than TCP."""

    async def test_large_response(self) -> None:
        """A large download over a UNIX socket is whole."""
        content = bytes(range(256)) * 20_000

        async def behaviour(request: Request) -> Response:
            return Response(body=FileReader(content).whole())

        site = await self.serve(behaviour)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = f"{folder.name}/socket"
        port = self.reactor.listenUNIX(path, site)

        def client(_: Wire) -> bytes:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(path)
                connection.sendall(b"GET /v1/files/x HTTP/1.0\r\n" + KEY_LINE + b"\r\n")
                received = bytearray()
                while data := connection.recv(65536):
                    received += data
            return bytes(received)

        received = await self.talk(client)
        assert received.partition(b"\r\n\r\n")[2] == content
        assert self.ended()[0]["client_address"] == ""
        await port.stopListening()
