"""Response bodies on their way to clients that are fast, slow, stalled, or gone."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from callfs.errors import PeerUnavailable
from callfs.model import ByteRange
from callfs.web.messages import BlobBody, Request, Response
from tests.support.http import Answer, Wire
from tests.support.site import KEY, SWIFT, FileReader, SiteCase, hello

MIB = 1 << 20
CONTENT = os.urandom(MIB) * 20


class BlobCase(SiteCase):
    """Serves one blob."""

    sendfile = True

    async def blob(self, reader: FileReader, *pieces: bytes | ByteRange, settings: object = None) -> None:
        """Serve these pieces of the blob, or all of it."""

        async def behaviour(request: Request) -> Response:
            return Response(body=BlobBody(reader, pieces) if pieces else reader.whole(), sent=self.sent.append)

        self.sent: list[bool] = []
        await self.serve(behaviour, settings, sendfile=self.sendfile)  # type: ignore[arg-type]

    async def check_gone(self, reader: FileReader) -> None:
        """The client is gone: the reader is closed once, and the event says that the transfer was cut."""
        await self.settled()
        assert reader.closed == 1
        assert self.sent == [False]
        assert self.ended()[0]["aborted"] is True
        assert not self.faults()


class DownloadTests(BlobCase):
    """By sendfile."""

    async def test_whole(self) -> None:
        """A blob arrives byte for byte, several on one connection, and each reader is closed once."""
        readers = []

        async def behaviour(request: Request) -> Response:
            readers.append(FileReader(CONTENT[: int(request.path[1:])]))
            return Response(body=readers[-1].whole())

        await self.serve(behaviour, sendfile=self.sendfile)
        sizes = (0, 1, 1024, 64 * 1024, 64 * 1024 + 1, MIB, 20 * MIB, 5)

        def client(wire: Wire) -> list[bytes]:
            bodies = []
            for size in sizes:
                wire.send_request("GET", f"/v1/files/{size}", KEY)
                bodies.append(wire.read_answer().body)
            return bodies

        assert await self.talk(client) == [CONTENT[:size] for size in sizes]
        assert [reader.closed for reader in readers] == [1] * len(sizes)
        assert [event["bytes_out"] for event in self.ended()] == list(sizes)
        assert not any(event["aborted"] for event in self.ended())

    async def test_pieces(self) -> None:
        """Ranges with literal bytes between them, large and small, arrive in order."""
        reader = FileReader(CONTENT)
        pieces = (b"head", ByteRange(5, 2 * MIB), ByteRange(0, 3 * MIB), b"x" * 100_000, ByteRange(7, 9), b"tail")
        await self.blob(reader, *pieces)
        expected = b"".join(
            piece if isinstance(piece, bytes) else CONTENT[piece.start : piece.end] for piece in pieces
        )
        assert (await self.get("/v1/files/x")).body == expected
        assert reader.closed == 1
        assert self.sent == [True]

    async def test_slow_reader(self) -> None:
        """A client that reads slowly, with pauses shorter than the limit, gets everything."""
        reader = FileReader(CONTENT)
        await self.blob(reader, settings=SWIFT)

        def client(wire: Wire) -> bytes:
            wire.send_request("GET", "/v1/files/x", KEY)
            head = wire.read_head()
            received = bytearray()
            while len(received) < int(head["Content-Length"]):
                received += wire.read_exactly(min(MIB, len(CONTENT) - len(received)))
                time.sleep(0.1)
            return bytes(received)

        assert await self.talk(client, receive_buffer_bytes=65536) == CONTENT

    async def test_stalled_reader(self) -> None:
        """A client that stops reading is cut off after the limit."""
        reader = FileReader(CONTENT * 4)
        await self.blob(reader, settings=SWIFT)
        wire = Wire(self.address, receive_buffer_bytes=65536)
        wire.send_request("GET", "/v1/files/x", KEY)
        began = time.monotonic()
        await self.moment(0.1)
        await self.check_gone(reader)
        assert 0.3 < time.monotonic() - began < 5
        wire.close()

    async def test_vanishing_reader(self) -> None:
        """A client that vanishes in the midst of a download ends it: no fault, the reader closed once."""
        for how in ("reset", "close"):
            reader = FileReader(CONTENT * 4)
            await self.blob(reader)
            wire = Wire(self.address, receive_buffer_bytes=65536)
            wire.send_request("GET", "/v1/files/x", KEY)
            await self.moment(0.1)
            wire.reset() if how == "reset" else wire.close()
            await self.check_gone(reader)
            self.events.clear()

    async def test_short_source(self) -> None:
        """A blob that is shorter than its size cuts the connection: a response is never silently short."""
        reader = FileReader(CONTENT, size=len(CONTENT) + MIB)
        await self.blob(reader)

        def client(wire: Wire) -> tuple[int, int]:
            wire.send_request("GET", "/v1/files/x", KEY)
            head = wire.read_head()
            return int(head["Content-Length"]), len(wire.read_to_end())

        announced, received = await self.talk(client)
        assert received < announced
        await self.settled()
        assert reader.closed == 1
        assert self.sent == [False]
        assert len(self.faults()) == 1

    async def test_goes_on_afterwards(self) -> None:
        """After a large download small responses on the same connection are right."""
        reader = FileReader(CONTENT)
        await self.blob(reader)

        def client(wire: Wire) -> list[Answer]:
            wire.send_request("GET", "/v1/files/x", KEY)
            wire.send_request("GET", "/health")
            return [wire.read_answer(), wire.read_answer()]

        first, second = await self.talk(client)
        assert first.body == CONTENT
        assert second.body == b'{"status":"ok"}'

    async def test_descriptors_are_given_back(self) -> None:
        """Downloads, whole or broken off, leave no descriptor behind."""

        async def behaviour(request: Request) -> Response:
            return Response(body=FileReader(CONTENT).whole())

        await self.serve(behaviour, sendfile=self.sendfile)
        before = -1
        for _ in range(5):
            await self.get("/v1/files/x")
            with Wire(self.address, receive_buffer_bytes=65536) as wire:
                wire.send_request("GET", "/v1/files/x", KEY)
                await self.moment(0.05)
                wire.reset()
            await self.settled()
            now = len(os.listdir("/proc/self/fd"))
            before = now if before < 0 else before
        assert now == before


class CopiedDownloadTests(DownloadTests):
    """Through this process, where sendfile can't be used."""

    sendfile = False


class SourceTests(SiteCase):
    """Bodies whose source fails."""

    async def test_blob_fails_before_the_first_byte(self) -> None:
        """A small blob that can't be read is an ordinary error."""

        class Failing(FileReader):
            def read(self, offset: int, length: int) -> Deferred[bytes]:
                return fail(Failure(PeerUnavailable("the disk is gone")))

        reader = Failing(b"x" * 100)

        async def behaviour(request: Request) -> Response:
            return Response(body=reader.whole())

        await self.serve(behaviour)
        (await self.get("/v1/files/x")).refused(503, "PEER_UNAVAILABLE")
        assert reader.closed == 1
        assert self.ended()[0]["status"] == 503

    async def test_iterator_fails(self) -> None:
        """An iterator that fails in the midst cuts the connection before the last chunk; the fault is logged."""

        async def lines() -> AsyncIterator[bytes]:
            yield b"one\n"
            await self.moment()
            raise RuntimeError("broken")

        async def behaviour(request: Request) -> Response:
            return Response(body=lines())

        await self.serve(behaviour)

        def client(wire: Wire) -> bytes:
            wire.send_request("GET", "/v1/files/x", KEY)
            return wire.read_to_end()

        assert b"0\r\n\r\n" not in await self.talk(client)
        await self.settled()
        assert len(self.faults()) == 1
        assert self.ended()[0]["aborted"] is True

    async def test_iterator_is_closed(self) -> None:
        """An iterator whose client vanished is ended where it stands, and held back before that."""
        state = []

        async def endless() -> AsyncIterator[bytes]:
            try:
                while True:
                    state.append("more")
                    yield b"x" * 65536
            finally:
                state.append("closed")

        async def behaviour(request: Request) -> Response:
            return Response(body=endless())

        await self.serve(behaviour)
        wire = Wire(self.address, receive_buffer_bytes=65536)
        wire.send_request("GET", "/v1/files/x", KEY)
        await self.moment(0.2)
        held = len(state)
        await self.moment(0.2)
        assert len(state) == held
        wire.reset()
        await self.settled()
        assert state[-1] == "closed"
        assert not self.faults()

    async def test_wrong_length(self) -> None:
        """An iterator that doesn't keep to the length its route announced cuts the connection."""

        async def lines() -> AsyncIterator[bytes]:
            yield b"one\n"

        async def behaviour(request: Request) -> Response:
            return Response(body=lines(), content_length=int(request.path[1:]))

        await self.serve(behaviour)

        def client(wire: Wire, length: int) -> bytes:
            wire.send_request("GET", f"/v1/files/{length}", {**KEY, "Connection": "close"})
            return wire.read_to_end().partition(b"\r\n\r\n")[2]

        assert await self.talk(lambda wire: client(wire, 4)) == b"one\n"
        assert len(await self.talk(lambda wire: client(wire, 5))) < 5

    async def test_large_bytes_to_a_stalled_client(self) -> None:
        """A client that doesn't take a large answer is cut off, and doesn't get the next one meanwhile."""

        async def large(request: Request) -> Response:
            return Response(body=bytes(32 * MIB))

        await self.serve(large, SWIFT)
        wire = Wire(self.address, receive_buffer_bytes=65536)
        for _ in range(3):
            wire.send_request("GET", "/v1/files/x", KEY)
        while not self.ended():
            await self.moment()
        await self.settled()
        assert [event["aborted"] for event in self.ended()] == [True]
        wire.close()

    async def test_sent(self) -> None:
        """A route that asks is told when its response was sent."""
        sent: list[bool] = []

        async def behaviour(request: Request) -> Response:
            return Response(body=b"x", sent=sent.append)

        await self.serve(behaviour)
        await self.get("/v1/files/x")
        assert sent == [True]

    async def test_small_response_is_one_packet(self) -> None:
        """Headers and a small body are written together."""
        await self.serve(hello)

        def client(wire: Wire) -> bytes:
            wire.send_request("GET", "/v1/files/x", KEY)
            return wire.read_some()

        assert (await self.talk(client)).endswith(b"\r\n\r\nhello")
