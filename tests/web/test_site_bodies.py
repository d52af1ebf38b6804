"""Request bodies: streamed, asked for, left unread, cut off, stalled."""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Iterator

from twisted.internet.defer import CancelledError, Deferred

from callfs.errors import BadRequest, PermissionDenied
from callfs.web.messages import Request, Response
from tests.support.http import Answer, Wire, as_chunks
from tests.support.site import KEY, SWIFT, SiteCase, echo, hello

MIB = 1 << 20


async def refuse(request: Request) -> Response:
    """Answer without the body."""
    raise PermissionDenied("not yours")


def put(wire: Wire, target: str = "/v1/files/x", **headers: object) -> None:
    """Send the head of an upload."""
    wire.send_request(
        "PUT", target, {**KEY, **{key.replace("_", "-"): str(value) for key, value in headers.items()}}
    )


def pieces(size: int, count: int) -> Iterator[bytes]:
    """Different pieces."""
    return (bytes([number % 251]) * size for number in range(count))


class StreamingTests(SiteCase):
    """Bodies that arrive whole."""

    async def test_large_bodies(self) -> None:
        """A large body arrives byte for byte, declared or chunked, in pieces of at most 1 MiB."""
        sizes = []

        async def digest(request: Request) -> Response:
            digest = hashlib.sha256()
            async for piece in request.body:
                sizes.append(len(piece))
                digest.update(piece)
                await self.moment(0.001)
            return Response(body=digest.hexdigest().encode())

        def client(wire: Wire) -> list[bytes]:
            answers = []
            for chunked in (False, True):
                if chunked:
                    put(wire, Transfer_Encoding="chunked")
                else:
                    put(wire, Content_Length=24 * MIB)
                for piece in as_chunks(pieces(MIB, 24)) if chunked else pieces(MIB, 24):
                    wire.send(piece)
                answers.append(wire.read_answer().body)
            return answers

        await self.serve(digest)
        expected = hashlib.sha256(b"".join(pieces(MIB, 24))).hexdigest().encode()
        assert await self.talk(client) == [expected, expected]
        assert 0 < max(sizes) <= MIB

    async def test_starts_with_the_headers(self) -> None:
        """A route begins when the headers are there, and gets each piece as it arrives."""
        seen: list[bytes] = []

        async def behaviour(request: Request) -> Response:
            seen.append(b"begun")
            async for piece in request.body:
                seen.append(piece)
            return Response()

        await self.serve(behaviour)
        wire = Wire(self.address)
        put(wire, Content_Length=6)
        for expected, following in ((b"begun", b"abc"), (b"abc", b"def"), (b"def", b"")):
            while not seen or seen[-1] != expected:
                await self.moment()
            wire.send(following)
        wire.close()

    async def test_back_pressure(self) -> None:
        """A route that doesn't read stops the client: little more than 1 MiB waits in the server."""
        begun: Deferred[Request] = Deferred()
        go_on: Deferred[None] = Deferred()

        async def behaviour(request: Request) -> Response:
            begun.callback(request)
            await go_on
            size = 0
            async for piece in request.body:
                size += len(piece)
            return Response(body=str(size).encode())

        def client(wire: Wire) -> Answer:
            put(wire, Content_Length=64 * MIB)
            for piece in pieces(MIB, 64):
                wire.send(piece)
            return wire.read_answer()

        await self.serve(behaviour)
        answer = self.talk(client)
        request = await begun
        received, before = 0, -1
        while received != before or received == 0:
            before = received
            await self.moment(0.1)
            received = request.body.bytes_received  # type: ignore[attr-defined]
        assert received <= 2 * MIB
        go_on.callback(None)
        assert (await answer).body == str(64 * MIB).encode()

    async def test_tiny_pieces(self) -> None:
        """A body in chunks of one byte arrives whole."""
        await self.serve(echo)
        content = bytes(range(256)) * 40

        def client(wire: Wire) -> Answer:
            put(wire, Transfer_Encoding="chunked")
            wire.send(b"".join(as_chunks(bytes([byte]) for byte in content)))
            return wire.read_answer()

        assert (await self.talk(client)).body == content

    async def test_forms_are_no_forms(self) -> None:
        """The type of a body isn't looked at."""
        await self.serve(echo)

        def client(wire: Wire) -> Answer:
            put(wire, Content_Length=3, Content_Type="multipart/form-data; boundary=x")
            wire.send(b"a=b")
            return wire.read_answer()

        assert (await self.talk(client)).body == b"a=b"

    async def test_limit_of_small_bodies(self) -> None:
        """A small body that is too long is 413: at once if declared, else when it is."""

        async def small(request: Request) -> Response:
            return Response(body=await request.body.read(4))

        await self.serve(small)
        head = b"PUT /v1/files/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer user\r\n"
        (await self.ask(head + b"Content-Length: 5\r\n\r\n")).refused(413, "PAYLOAD_TOO_LARGE")
        (await self.ask(head + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")).refused(
            413, "PAYLOAD_TOO_LARGE"
        )
        assert (await self.ask(head + b"Content-Length: 4\r\n\r\nfour")).body == b"four"


class AtHandTests(SiteCase):
    """Bodies that are complete when their route is called."""

    async def look(self) -> list[bytes | None]:
        """Serve a route that takes what is there and answers the rest; what it has taken."""
        seen: list[bytes | None] = []

        async def behaviour(request: Request) -> Response:
            seen.append(request.body.at_hand(1000))
            return await echo(request)

        await self.serve(behaviour)
        return seen

    async def test_with_the_headers(self) -> None:
        """A body in one packet with its headers is handed out at once and whole, and only once."""
        seen = await self.look()
        head = b"PUT /v1/files/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer user\r\n"
        for rest, content in (
            (b"Content-Length: 5\r\n\r\nhello", b"hello"),
            (b"Content-Length: 1000\r\n\r\n" + bytes(1000), bytes(1000)),
            (b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", b"hello"),
            (b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
            (b"Content-Length: 0\r\n\r\n", b""),
        ):
            answer = await self.ask(head + rest)
            assert (answer.status, answer.body) == (200, b"")
            assert seen.pop() == content

    async def test_too_long(self) -> None:
        """A longer body stays where it is."""
        seen = await self.look()
        head = b"PUT /v1/files/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer user\r\n"
        answer = await self.ask(head + b"Content-Length: 1001\r\n\r\n" + bytes(1001))
        assert answer.body == bytes(1001)
        assert seen == [None]

    async def test_on_its_way(self) -> None:
        """Of a body that isn't complete nothing is handed out, and a client that waits is told to go on."""
        seen = await self.look()

        def client(wire: Wire) -> Answer:
            put(wire, Content_Length=5, Expect="100-continue")
            assert wire.read_head().status == 100
            wire.send(b"hello")
            return wire.read_answer()

        assert (await self.talk(client)).body == b"hello"
        assert seen == [None]


class ContinueTests(SiteCase):
    """``Expect: 100-continue`` (RFC 9110, section 10.1.1)."""

    async def test_asked_for(self) -> None:
        """100 Continue is sent when the route takes its first step into the body, and not before."""
        go_on: Deferred[None] = Deferred()

        async def behaviour(request: Request) -> Response:
            await go_on
            return await echo(request)

        await self.serve(behaviour)
        wire = Wire(self.address)
        put(wire, Content_Length=5, Expect="100-continue")
        await self.moment(0.2)
        assert not wire.readable(0)
        go_on.callback(None)

        def client(_: Wire) -> Answer:
            assert wire.read_head().status == 100
            wire.send(b"hello")
            return wire.read_answer()

        assert (await self.talk(client)).body == b"hello"
        wire.close()

    async def test_not_asked_for(self) -> None:
        """A refusal comes alone, without 100 Continue, and the connection ends."""
        await self.serve(refuse)

        def client(wire: Wire) -> Answer:
            put(wire, Content_Length=5, Expect="100-continue")
            answer = wire.read_head()
            wire.read_body(answer)
            assert wire.ends()
            return answer

        answer = await self.talk(client)
        assert answer.status == 403
        assert answer.closes

    async def test_body_is_there(self) -> None:
        """A client that didn't wait isn't asked any more."""
        await self.serve(echo)
        head = b"PUT /v1/files/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer user\r\nExpect: 100-continue\r\n"

        def client(wire: Wire) -> Answer:
            wire.send(head + b"Content-Length: 5\r\n\r\nhello")
            return wire.read_head()

        assert (await self.talk(client)).status == 200


class UnreadTests(SiteCase):
    """Answers before the body."""

    async def test_closes(self) -> None:
        """An answer before the body says that the connection ends, and it does."""
        await self.serve(refuse)

        def client(wire: Wire) -> Answer:
            put(wire, Content_Length=100)
            answer = wire.read_answer()
            assert wire.ends()
            return answer

        answer = await self.talk(client)
        answer.refused(403, "PERMISSION_DENIED")
        assert answer.closes

    async def test_not_lost_to_a_reset(self) -> None:
        """What a client goes on sending is thrown away, so that it can read the answer in its own time."""
        await self.serve(refuse)

        def client(wire: Wire) -> Answer:
            put(wire, Content_Length=100 * MIB)
            for piece in pieces(MIB, 8):
                wire.send(piece)
            return wire.read_answer()

        (await self.talk(client)).refused(403, "PERMISSION_DENIED")

    async def test_thrown_away_for_a_while(self) -> None:
        """A client that never stops is cut off when the time for that is over."""
        await self.serve(refuse, SWIFT)

        def client(wire: Wire) -> float:
            put(wire, Content_Length=1 << 40)
            began = time.monotonic()
            try:
                while time.monotonic() - began < 8:
                    wire.send(bytes(MIB))
            except OSError:
                pass
            return time.monotonic() - began

        assert 0.2 < await self.talk(client) < 5

    async def test_never_the_next_request(self) -> None:
        """An unread body is never taken for a request, whether it comes with the head or after the answer."""
        await self.serve(refuse)
        smuggled = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 2

        def client(wire: Wire, at_once: bool) -> bytes:
            head = b"PUT /v1/files/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer user\r\n"
            head += b"Content-Length: %d\r\n\r\n" % (len(smuggled) + 1)
            wire.send(head + smuggled if at_once else head)
            if not at_once:
                assert wire.readable(5)
                wire.send(smuggled)
            return wire.read_to_end()

        for at_once in (True, False):
            received = await self.talk(lambda wire, at_once=at_once: client(wire, at_once))  # type: ignore[misc]
            assert received.count(b"HTTP/1.1 ") == 1

    async def test_body_is_there(self) -> None:
        """When all of the unread body is there already, the connection goes on with the next request."""
        await self.serve(refuse)
        head = (
            b"PUT /v1/files/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer user\r\nContent-Length: 5\r\n\r\nhello"
        )

        def client(wire: Wire) -> list[int]:
            wire.send(head + b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            return [wire.read_answer().status, wire.read_answer().status]

        assert await self.talk(client) == [403, 200]

    async def test_unread_by_a_successful_route(self) -> None:
        """A route that succeeds without reading the body ends the connection all the same."""
        await self.serve(hello)

        def client(wire: Wire) -> Answer:
            put(wire, Content_Length=100)
            answer = wire.read_answer()
            assert wire.ends()
            return answer

        assert (await self.talk(client)).closes


class PipeliningTests(SiteCase):
    """Several requests on one connection."""

    async def test_order(self) -> None:
        """Pipelined requests are answered one at a time, in order, each with its own body."""
        under_way = []

        async def slow(request: Request) -> Response:
            assert not under_way
            under_way.append(request)
            await self.moment()
            body = await request.body.read(100)
            under_way.clear()
            return Response(body=request.path.encode() + body)

        await self.serve(slow)

        def client(wire: Wire) -> list[bytes]:
            for number in range(20):
                put(wire, f"/v1/files/{number}", Content_Length=2)
                wire.send(b"%02d" % number)
            return [wire.read_answer().body for _ in range(20)]

        assert await self.talk(client) == [b"/%d%02d" % (number, number) for number in range(20)]

    async def test_all_in_one_packet(self) -> None:
        """Requests that come in one packet, one chunked among them, don't leak into one another."""
        await self.serve(echo)
        key = b"Host: x\r\nAuthorization: Bearer user\r\n"

        def client(wire: Wire) -> list[bytes]:
            wire.send(
                b"PUT /v1/files/a HTTP/1.1\r\n%bContent-Length: 3\r\n\r\none"
                b"PUT /v1/files/b HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n"
                b"\r\nGET /v1/files/c HTTP/1.1\r\n%b\r\n"
                b"PUT /v1/files/d HTTP/1.1\r\n%bContent-Length: 4\r\n\r\nfour" % (key, key, key, key)
            )
            return [wire.read_answer().body for _ in range(4)]

        assert await self.talk(client) == [b"one", b"two", b"", b"four"]

    async def test_bounded(self) -> None:
        """A client that pipelines without end is stopped while its first request is under way."""
        go_on: Deferred[None] = Deferred()

        async def behaviour(request: Request) -> Response:
            await go_on
            return Response(headers={"Connection": "close"})

        await self.serve(behaviour)
        wire = Wire(self.address)
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        wire.socket.setblocking(False)
        wire.socket.send(b"GET /v1/files/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer user\r\n\r\n")
        sent, stuck = 0, 0
        while stuck < 20:
            try:
                sent += wire.socket.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
                stuck = 0
            except BlockingIOError:
                stuck += 1
            await self.moment()
        assert sent < 64 * MIB
        go_on.callback(None)
        wire.reset()
        await self.settled()

    async def test_after_the_last(self) -> None:
        """Nothing is taken for a request after one that said Connection: close."""
        await self.serve(hello)

        def client(wire: Wire) -> bytes:
            wire.send(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" * 2)
            return wire.read_to_end()

        assert (await self.talk(client)).count(b"HTTP/1.1 ") == 1


class CutOffTests(SiteCase):
    """Clients that vanish."""

    async def reading(self, how: str) -> tuple[list[BaseException], dict[str, object]]:
        """What a route that reads the body meets when the client vanishes in the midst of it."""
        met: list[BaseException] = []
        begun: Deferred[None] = Deferred()

        async def behaviour(request: Request) -> Response:
            try:
                async for _ in request.body:
                    if not begun.called:
                        begun.callback(None)
            except BaseException as error:
                met.append(error)
                raise
            return Response()

        await self.serve(behaviour)
        wire = Wire(self.address)
        put(wire, Content_Length=1000)
        wire.send(b"some")
        await begun
        wire.reset() if how == "reset" else wire.close()
        await self.settled()
        return met, self.ended()[0]

    async def test_while_it_is_read(self) -> None:
        """A route that waits for the body is told that the client went away; no fault is logged."""
        for how in ("close", "reset"):
            met, event = await self.reading(how)
            assert [type(error) for error in met] == [BadRequest]
            assert event["aborted"] is True
        assert not self.faults()

    async def test_while_the_route_does_something_else(self) -> None:
        """A route that does something else is cancelled, and finds no body after that."""
        met: list[object] = []
        begun: Deferred[None] = Deferred()

        async def behaviour(request: Request) -> Response:
            begun.callback(None)
            try:
                await Deferred()
            except CancelledError:
                met.append("cancelled")
            try:
                await request.body.read(1000)
            except BadRequest:
                met.append("no body")
            raise CancelledError

        await self.serve(behaviour)
        wire = Wire(self.address)
        put(wire, Content_Length=1000)
        await begun
        wire.reset()
        await self.settled()
        assert met == ["cancelled", "no body"]
        (event,) = self.ended()
        assert (event["status"], event["aborted"]) == (499, True)
        assert not self.faults()

    async def test_body_complete(self) -> None:
        """When the body is complete, what the route shields goes on, and its result is in the access event."""
        begun: Deferred[None] = Deferred()
        go_on: Deferred[None] = Deferred()
        sent: list[bool] = []

        async def behaviour(request: Request) -> Response:
            await request.body.read(10)
            begun.callback(None)
            try:
                await Deferred()
            except CancelledError:
                await go_on
            return Response(status=201, sent=sent.append)

        await self.serve(behaviour)
        wire = Wire(self.address)
        put(wire, Content_Length=5)
        wire.send(b"hello")
        await begun
        wire.reset()
        await self.settled()
        go_on.callback(None)
        (event,) = self.ended()
        assert (event["status"], event["aborted"]) == (201, True)
        assert sent == [False]

    async def test_half_closed_in_the_midst(self) -> None:
        """A client that ends its side too early, but still reads, is told so."""
        await self.serve(echo)

        def client(wire: Wire) -> Answer:
            put(wire, Content_Length=10)
            wire.send(b"hello")
            wire.half_close()
            return wire.read_answer()

        (await self.talk(client)).refused(400, "BAD_REQUEST")

    async def test_half_closed_before_it_is_wanted(self) -> None:
        """So is one whose route is busy with something else just then; it finds out when it comes to the body."""
        begun: Deferred[None] = Deferred()
        go_on: Deferred[None] = Deferred()

        async def slow(request: Request) -> Response:
            begun.callback(None)
            await go_on
            return await echo(request)

        await self.serve(slow)

        def client(wire: Wire) -> Answer:
            put(wire, Content_Length=10)
            wire.send(b"hello")
            wire.half_close()
            return wire.read_answer()

        answer = self.talk(client)
        await begun
        await self.moment(0.05)
        go_on.callback(None)
        (await answer).refused(400, "BAD_REQUEST")

    async def test_half_closed_and_not_wanted(self) -> None:
        """A route that has no use for the body isn't held up by its missing end."""

        async def slow(request: Request) -> Response:
            await self.moment(0.05)
            return await hello(request)

        await self.serve(slow)

        def client(wire: Wire) -> Answer:
            put(wire, Content_Length=10)
            wire.half_close()
            return wire.read_answer()

        assert (await self.talk(client)).body == b"hello"

    async def test_half_closed_after_the_request(self) -> None:
        """A client that ends its side after its requests gets all the answers."""

        async def slow(request: Request) -> Response:
            await self.moment(0.05)
            return await echo(request)

        await self.serve(slow)

        def client(wire: Wire) -> list[bytes]:
            for body in (b"one", b"two"):
                put(wire, Content_Length=3)
                wire.send(body)
            wire.half_close()
            answers = [wire.read_answer().body for _ in range(2)]
            assert wire.ends()
            return answers

        assert await self.talk(client) == [b"one", b"two"]


class StallTests(SiteCase):
    """The idle limit of reading."""

    async def test_stalled_body(self) -> None:
        """A body that stops coming is 408, and the connection ends."""
        await self.serve(echo, SWIFT)

        def client(wire: Wire) -> Answer:
            put(wire, Content_Length=10)
            wire.send(b"hello")
            answer = wire.read_answer()
            assert wire.ends()
            return answer

        answer = await self.talk(client)
        answer.refused(408, "REQUEST_TIMEOUT")
        assert answer.closes

    async def test_slow_body(self) -> None:
        """A body that keeps coming may take as long as it likes."""
        await self.serve(echo, SWIFT)
        wire = Wire(self.address)
        put(wire, Content_Length=10)
        for _ in range(10):
            wire.send(b"x")
            await self.moment(0.15)
        assert (await self.talk(lambda _: wire.read_answer())).body == b"x" * 10
        wire.close()

    async def test_slow_route(self) -> None:
        """While the server does something else the client isn't waited for, however long that takes."""

        async def slow(request: Request) -> Response:
            await self.moment(1.0)
            return await echo(request)

        await self.serve(slow, SWIFT)

        def client(wire: Wire) -> Answer:
            put(wire, Content_Length=5, Expect="100-continue")
            assert wire.read_head().status == 100
            wire.send(b"hello")
            return wire.read_answer()

        assert (await self.talk(client)).body == b"hello"
        assert (await self.get("/v1/files/x")).status == 200
