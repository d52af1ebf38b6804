"""What a route gets, and what a client gets, over real connections."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from twisted.internet.error import CannotListenError
from twisted.trial.unittest import SkipTest

from callfs.errors import Conflict, PeerUnavailable, RangeNotSatisfiable
from callfs.web.context import SiteSettings
from callfs.web.messages import Request, Response
from callfs.web.proxies import TrustedProxies
from tests.support.http import Answer, Wire
from tests.support.site import INTERNAL_KEY, KEY, FileReader, SiteCase, echo, hello

COMMON = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "strict-origin-when-cross-origin",
    "Permissions-Policy": "geolocation=(), microphone=(), camera=(), payment=(), usb=(), magnetometer=(), "
    "gyroscope=(), accelerometer=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Server": "CallFS",
}


class RequestTests(SiteCase):
    """From the wire to the route."""

    async def request_of(self, target: str, headers: dict[str, str] | None = None) -> Request:
        """The request that a route got."""
        seen = []

        async def note(request: Request) -> Response:
            seen.append(request)
            return Response()

        await self.serve(note)
        assert (await self.get(target, headers)).status == 200
        return seen[0]

    async def test_path(self) -> None:
        """The path is cut from the raw target, decoded once, and canonical; a trailing slash says directory."""
        for raw, path, directory in (
            ("/v1/files", "/", True),
            ("/v1/files/", "/", True),
            ("/v1/files/a/b", "/a/b", False),
            ("/v1/files//a//b/", "/a/b", True),
            ("/v1/files/a%2Fb", "/a/b", False),
            ("/v1/files/a/%2e%2e/b", "/b", False),
            ("/v1/files/100%2525", "/100%25", False),
            ("/v1/files/a+b%20c", "/a+b c", False),
            ("/v1/files/%C3%A4", "/ä", False),
            ("/v1/files/ws/x", "/ws/x", False),
            ("/v1/files/a;b=c&d|e", "/a;b=c&d|e", False),
            ("/v1/shards/a/b/7", "/a/b", False),
        ):
            request = await self.request_of(raw)
            assert (request.path, request.directory_expected) == (path, directory), raw

    async def test_undecoded_bytes(self) -> None:
        """A path that wasn't percent-encoded is taken as the UTF-8 it is."""

        async def path(request: Request) -> Response:
            return Response(body=request.path.encode())

        await self.serve(path)
        target = "GET /v1/files/ä HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer user\r\n\r\n"
        assert (await self.ask(target.encode())).body == "/ä".encode()

    async def test_captures(self) -> None:
        """What a pattern takes out of the URL besides the path is decoded once."""
        assert (await self.request_of("/v1/shards/a/b/7")).captured == {"index": "7"}
        assert (await self.request_of("/v1/shards/a/b/%37%2525")).captured == {"index": "7%25"}
        assert (await self.request_of("/download/a.b%2Fc")).captured == {"token": "a.b/c"}

    async def test_query(self) -> None:
        """The query is decoded, and the last value of a name counts."""
        request = await self.request_of("/v1/files/x?a=1&b=x%20y+z&a=2&c&%C3%A4=%C3%B6&=nothing")
        assert request.parameters == {"a": "2", "b": "x y z", "c": "", "ä": "ö"}

    async def test_bad_query(self) -> None:
        """A query that is no UTF-8 is 400."""
        await self.serve(hello)
        (await self.get("/v1/files/x?a=%ff")).refused(400, "BAD_REQUEST")

    async def test_bad_path(self) -> None:
        """A path that is refused is 400 INVALID_PATH, but only for who may know."""
        await self.serve(hello)
        (await self.get("/v1/files/../x")).refused(400, "INVALID_PATH")
        (await self.get("/v1/files/%ff")).refused(400, "INVALID_PATH")
        (await self.get("/v1/files/../x", {"Authorization": "no"})).refused(401, "AUTHENTICATION_FAILED")

    async def test_bad_segment(self) -> None:
        """A segment that is no path, and no UTF-8, is for its route to refuse."""
        assert (await self.request_of("/download/%ff")).captured == {"token": "\ufffd"}

    async def test_request(self) -> None:
        """A route gets headers by any case, who asks, from where, and on which host."""
        request = await self.request_of("/v1/files/x", {"X-Mixed": " a ", "Host": "files.example:8443"})
        assert request.header("x-MIXED") == "a"
        assert request.principal.user == "user"
        assert request.client_address == "127.0.0.1"
        assert request.host == "files.example:8443"
        assert not request.secure
        assert re.fullmatch("[0-9a-f]{16}", request.request_id)

    async def test_mapped_address(self) -> None:
        """A client of IPv4 has its own address also where the server listens on ::."""

        async def address(request: Request) -> Response:
            return Response(body=request.client_address.encode())

        site = await self.serve(address)
        try:
            port = self.reactor.listenTCP(0, site, interface="::")
        except CannotListenError:
            raise SkipTest("this machine has no IPv6") from None
        self.addCleanup(port.stopListening)
        self.address = ("127.0.0.1", port.getHost().port)
        assert (await self.get("/v1/files/x")).body == b"127.0.0.1"
        (await self.ask(b"nonsense\r\n\r\n")).refused(400, "BAD_REQUEST")
        assert [event["client_address"] for event in self.ended()] == ["127.0.0.1"] * 2

    async def test_absolute_target(self) -> None:
        """A proxy's absolute target is the same request, and its host counts (RFC 9112, 3.2.2)."""

        async def host(request: Request) -> Response:
            return Response(body=f"{request.host} {request.path}".encode())

        await self.serve(host)
        answer = await self.get("http://a.example/v1/files/x?y", {"Host": "b.example"})
        assert answer.body == b"a.example /x"


class RoutingTests(SiteCase):
    """Which route, and who may call it."""

    async def test_unknown_route(self) -> None:
        """Outside /v1 an unknown URL is 404, below it that is told only with credentials."""
        await self.serve(hello)
        nobody = {"Authorization": ""}
        (await self.get("/nothing", nobody)).refused(404, "NOT_FOUND")
        for target in ("/v1", "/v1/", "/v1/nothing", "/v1/shards/1", "/v1/files/x"):
            (await self.get(target, nobody)).refused(401, "AUTHENTICATION_FAILED")
        (await self.get("/v1/nothing")).refused(404, "NOT_FOUND")

    async def test_no_redirects(self) -> None:
        """A doubled or trailing slash in the route itself is another URL, never a redirect."""
        await self.serve(hello)
        for target in ("//health", "/health/", "//v1/files/x", "/v1//files/x", "/V1/files/x", "/v1/%66iles/x"):
            assert (await self.get(target)).status in (401, 404), target

    async def test_methods(self) -> None:
        """405 names the methods of all routes of the URL; HEAD and OPTIONS are none of them unless declared."""
        await self.serve(hello)
        for method in ("PATCH", "OPTIONS", "BREW", "get"):
            answer = await self.get("/v1/files/x", method=method)
            answer.refused(405, "METHOD_NOT_ALLOWED")
            assert answer["Allow"] == "DELETE, GET, HEAD, POST, PUT"
        answer = await self.get("/health", method="HEAD")
        assert (answer.status, answer["Allow"]) == (405, "GET")

    async def test_internal(self) -> None:
        """Everything below /v1/internal wants the internal secret, whatever the path."""
        await self.serve(hello)
        for target in ("/v1/internal", "/v1/internal/nothing", "/v1/internal/blobs/x"):
            (await self.get(target)).refused(401, "AUTHENTICATION_FAILED")
        (await self.get("/v1/internal/nothing", INTERNAL_KEY)).refused(404, "NOT_FOUND")
        assert (await self.get("/v1/internal/blobs/x", INTERNAL_KEY)).status == 200
        assert self.metrics.internal[-1] == ("GET", "/v1/internal/blobs/{id}", 200)

    async def test_not_ready(self) -> None:
        """Before the site is ready everything but /health is 503 with Retry-After; afterwards it is served."""
        site = await self.serve(hello, ready=False)
        answer = await self.get("/v1/files/x")
        answer.refused(503, "SERVICE_UNAVAILABLE")
        assert answer["Retry-After"] == "1"
        assert (await self.get("/health")).status == 200
        site.ready = True
        assert (await self.get("/v1/files/x")).status == 200


class ResponseTests(SiteCase):
    """From the route to the wire."""

    def common(self, answer: Answer) -> None:
        """Every response has these."""
        for name, value in COMMON.items():
            assert answer[name] == value
        assert re.fullmatch("[0-9a-f]{16}", answer["X-Request-ID"])
        assert answer["Content-Security-Policy"]
        assert answer["Date"].endswith(" GMT")
        assert answer.get("Strict-Transport-Security") is None

    async def test_common_headers(self) -> None:
        """Success, refusal and fault carry the same security headers, the parser's refusals too."""

        async def broken(request: Request) -> Response:
            raise RuntimeError("secret of the machine")

        await self.serve(broken)
        for answer in (
            await self.get("/health"),
            await self.get("/nothing"),
            await self.get("/v1/files/x"),
            await self.ask(b"garbage\r\n\r\n"),
        ):
            self.common(answer)

    async def test_stored_content(self) -> None:
        """Stored content gets a policy with sandbox, all else doesn't."""

        async def stored(request: Request) -> Response:
            return Response(body=b"<script>", stored_content=True)

        await self.serve(stored)
        assert "sandbox" in (await self.get("/v1/files/x"))["Content-Security-Policy"]
        assert "sandbox" not in (await self.get("/health"))["Content-Security-Policy"]

    async def test_iterator(self) -> None:
        """An iterator is sent in chunks, and the connection goes on."""

        async def lines() -> AsyncIterator[bytes]:
            yield b"one\n"
            await self.moment()
            yield b""
            yield b"two\n"

        async def behaviour(request: Request) -> Response:
            return Response(body=lines())

        def client(wire: Wire) -> list[Answer]:
            answers = []
            for _ in range(2):
                wire.send_request("GET", "/v1/files/x", KEY)
                answers.append(wire.read_answer())
            return answers

        await self.serve(behaviour)
        for answer in await self.talk(client):
            assert answer["Transfer-Encoding"] == "chunked"
            assert answer.body == b"one\ntwo\n"

    async def test_http_1_0(self) -> None:
        """HTTP/1.0 gets no chunks: an iterator ends with the connection, and so does everything else."""

        async def lines() -> AsyncIterator[bytes]:
            yield b"one\n"
            yield b"two\n"

        async def behaviour(request: Request) -> Response:
            return Response(body=lines() if request.path == "/lines" else b"hello")

        def client(wire: Wire) -> bytes:
            wire.send(b"GET /v1/files/lines HTTP/1.0\r\nAuthorization: Bearer user\r\n\r\n")
            return wire.read_to_end()

        await self.serve(behaviour)
        head, _, body = (await self.talk(client)).partition(b"\r\n\r\n")
        assert body == b"one\ntwo\n"
        assert b"chunked" not in head
        answer = await self.ask(b"GET /v1/files/x HTTP/1.0\r\nAuthorization: Bearer user\r\n\r\n")
        assert answer.closes
        assert answer.body == b"hello"

    async def test_head(self) -> None:
        """HEAD gets the headers of GET and no body, and the reader of the blob is closed."""
        reader = FileReader(b"x" * 100_000)

        async def behaviour(request: Request) -> Response:
            return Response(body=reader.whole())

        await self.serve(behaviour)
        answer = await self.get("/v1/files/x", method="HEAD")
        assert answer["Content-Length"] == "100000"
        await self.settled()
        assert reader.closed == 1

    async def test_statuses_without_body(self) -> None:
        """204 and 304 have no body, and the connection goes on."""

        async def behaviour(request: Request) -> Response:
            return Response(status=int(request.path[1:]), body=b"")

        def client(wire: Wire) -> list[Answer]:
            answers = []
            for status in ("204", "304", "200"):
                wire.send_request("GET", f"/v1/files/{status}", KEY)
                answers.append(wire.read_answer())
            return answers

        await self.serve(behaviour)
        none, unchanged, last = await self.talk(client)
        assert none.get("Content-Length") is None
        assert [none.status, unchanged.status, last.status] == [204, 304, 200]

    async def test_errors(self) -> None:
        """An error of the domain gets its status, its details, and the headers that belong to it."""
        raised = {
            "/conflict": Conflict("taken", existing_path="/a"),
            "/range": RangeNotSatisfiable("no such bytes", size=10),
            "/peer": PeerUnavailable("away", retry_after_seconds=2.5),
        }

        async def behaviour(request: Request) -> Response:
            raise raised[request.path]

        await self.serve(behaviour)
        answer = await self.get("/v1/files/conflict")
        assert answer.json() == {"code": "CONFLICT", "message": "taken", "existing_path": "/a"}
        assert (await self.get("/v1/files/range"))["Content-Range"] == "bytes */10"
        assert (await self.get("/v1/files/peer"))["Retry-After"] == "3"

    async def test_fault(self) -> None:
        """An unexpected exception is 500 without a word of it; the log has it under the request's id."""

        async def behaviour(request: Request) -> Response:
            raise RuntimeError("secret of the machine")

        await self.serve(behaviour)
        answer = await self.get("/v1/files/x")
        answer.refused(500, "INTERNAL_ERROR")
        assert b"secret" not in answer.body
        (fault,) = self.faults()
        assert fault["request_id"] == answer["X-Request-ID"]
        assert "secret of the machine" in str(fault["log_failure"].value)

    async def test_unusable_header(self) -> None:
        """A response header with a line end in it is a fault, not another header."""

        async def behaviour(request: Request) -> Response:
            return Response(headers={"X-Name": "a\r\nX-Evil: b"})

        await self.serve(behaviour)
        answer = await self.get("/v1/files/x")
        answer.refused(500, "INTERNAL_ERROR")
        assert answer.get("X-Evil") is None


class AccessEventTests(SiteCase):
    """One event for each request, when it has ended."""

    async def test_fields(self) -> None:
        """The event has method, route, status, bytes, duration, id, user and address, and no path or query."""
        await self.serve(echo)
        head = {"Content-Length": "5"}

        def client(wire: Wire) -> Answer:
            wire.send_request("PUT", "/v1/files/secret?token=secret", {**KEY, **head})
            wire.send(b"hello")
            return wire.read_answer()

        answer = await self.talk(client)
        (event,) = self.ended()
        assert {
            "method": "PUT",
            "route": "/v1/files/{path}",
            "status": 200,
            "bytes_in": 5,
            "bytes_out": 5,
            "request_id": answer["X-Request-ID"],
            "user": "user",
            "client_address": "127.0.0.1",
            "aborted": False,
        }.items() <= event.items()
        assert event["duration_seconds"] >= 0
        assert "secret" not in repr({key: value for key, value in event.items() if not key.startswith("log_")})
        assert self.metrics.requests == [("PUT", "/v1/files/{path}", 200)]
        assert (self.metrics.received, self.metrics.sent, self.metrics.under_way) == (5, 5, 0)

    async def test_labels_are_bounded(self) -> None:
        """An unknown method and an unknown URL don't become labels."""
        await self.serve(hello)
        await self.get("/some/thing", method="BREW")
        assert self.metrics.requests == [("OTHER", "(none)", 404)]

    async def test_forwarded_address(self) -> None:
        """The client's address is that behind a trusted proxy, in the request and in the event."""
        await self.serve(hello, SiteSettings(trusted_proxies=TrustedProxies(["127.0.0.0/8"])))
        await self.get("/v1/files/x", {"X-Forwarded-For": "192.0.2.7"})
        assert self.ended()[0]["client_address"] == "192.0.2.7"
