"""Uploads over real WebSockets: what is stored, what isn't, and what the client is told."""

from __future__ import annotations

import struct

from twisted.internet.defer import Deferred

from callfs.errors import InsufficientStorage, OutcomeUnknown
from callfs.web.websocket import STOP_CHECK_SECONDS
from callfs.web.websocket_connection import MAX_MESSAGE_BYTES
from tests.support.engine import ALICE, BOB, outcome, settled, started, turns
from tests.support.rawwebsocket import LIMITS, MAX_UPLOAD_BYTES, RawWebSocket, WebSocketCase
from tests.support.websocket import BINARY, CLOSE, CONTINUATION, PONG, TEXT, frame

MIB = 1024 * 1024


class UploadCase(WebSocketCase):
    async def asked(self) -> None:
        """Wait until the server waits for the client."""
        await settled(lambda: bool(self.clock.getDelayedCalls()))

    async def stored_nothing(self, path: str = "/f") -> None:
        """Check that there is nothing at ``path``, and nothing left of an attempt."""
        await settled(lambda: self.transfers.open_transfers == 0)
        assert "nothing at" in str(await outcome(self.filesystem.stat(ALICE, path)))
        await self.nothing_left()
        assert await self.blob_ids() == []

    async def stored(self, content: bytes, path: str = "/f") -> None:
        """Check what is at ``path``, and that nothing is left over."""
        assert await self.content(path) == content
        await settled(lambda: self.transfers.open_transfers == 0)
        await self.nothing_left()


class TestUntilClose(UploadCase):
    async def test_messages(self) -> None:
        """Messages of both kinds, whole or in fragments, are the content; the close frame is answered with 1000."""
        client = await self.upload("/dir/f")
        client.send(b"one ")
        client.send_text("zwölf ")
        client.send(b"th", final=False)
        client.ping(b"?")
        client.send(b"", CONTINUATION, final=False)
        client.send(b"ree", CONTINUATION)
        client.send(b"")
        client.close(1000)
        pong = await client.receive()
        assert (pong.opcode, pong.payload) == (PONG, b"?")
        assert await client.close_code(answer=False) == 1000
        assert await client.ended() == b""
        await self.stored("one zwölf three".encode(), "/dir/f")

    async def test_empty(self) -> None:
        """A close with 1000 and nothing before it makes an empty file."""
        client = await self.upload("/f")
        client.close(1000, b"bye")
        assert await client.close_code(answer=False) == 1000
        await self.stored(b"")

    async def test_replace(self) -> None:
        """What is there is replaced."""
        await self.put("/f", b"old")
        client = await self.upload("/f")
        client.send(b"new")
        client.close(1000)
        assert await client.close_code(answer=False) == 1000
        assert await self.content("/f") == b"new"

    async def test_answered_after_commit(self) -> None:
        """The close frame is answered when the content is durable, however long that takes, and not before."""
        self.store.steps.hold("PutFile")
        arrival = self.store.steps.arrival("PutFile")
        client = await self.upload("/f")
        client.send(b"content")
        client.close(1000)
        await arrival
        self.advance(10 * LIMITS.read_timeout_seconds)
        await turns()
        assert client.data == b""
        assert not client.over
        self.store.steps.release("PutFile")
        assert await client.close_code(answer=False) == 1000
        await self.stored(b"content")

    async def test_half_closed_after_close(self) -> None:
        """A client that ends its side after its close frame is answered as any other, after the commit."""
        self.backend.steps.hold("commit")
        arrival = self.backend.steps.arrival("commit")
        client = await self.upload("/f")
        client.send(b"content")
        client.close(1000)
        client.transport.loseWriteConnection()
        await arrival
        await turns(20)
        assert client.data == b""
        assert not client.over
        self.backend.steps.release("commit")
        assert await client.close_code(answer=False) == 1000
        assert await client.ended() == b""
        await self.stored(b"content")

    async def test_half_closed_before_close(self) -> None:
        """A client that ends its side before its close frame completes nothing, and is told so at once."""
        client = await self.upload("/f")
        client.send(b"content")
        client.transport.loseWriteConnection()
        assert await client.close_code(answer=False) == 1011
        assert await client.ended() == b""
        await self.stored_nothing()

    async def test_gone_after_close(self) -> None:
        """What was closed with 1000 is stored, also when the client doesn't wait for the answer."""
        self.backend.steps.hold("commit")
        arrival = self.backend.steps.arrival("commit")
        client = await self.upload("/f")
        client.send(b"content")
        client.close(1000)
        await arrival
        client.transport.abortConnection()
        await settled(lambda: self.site.connections == 0)
        assert self.transfers.open_transfers == 1
        self.backend.steps.release("commit")
        await settled(lambda: self.transfers.open_transfers == 0)
        await self.stored(b"content")

    async def test_after_close(self) -> None:
        """Bytes after the close frame are of no account."""
        client = await self.upload("/f")
        close = frame(struct.pack(">H", 1000), CLOSE)
        client.transport.write(frame(b"content") + close + frame(b"more") + b"\xff\xff\xff")
        assert await client.close_code(answer=False) == 1000
        await self.stored(b"content")

    async def test_other_codes(self) -> None:
        """Any other close than with 1000 stores nothing, and is told so with 1011."""
        for code in (1001, 1011, 3000, 4999, None):
            client = await self.upload("/f")
            client.send(b"content")
            client.close(code)
            assert await client.close_code(answer=False) == 1011
            await self.stored_nothing()

    async def test_close_in_message(self) -> None:
        """A close frame between the fragments of a message stores nothing."""
        client = await self.upload("/f")
        client.send(b"half", final=False)
        client.close(1000)
        assert await client.close_code(answer=False) == 1011
        await self.stored_nothing()

    async def test_drop(self) -> None:
        """A connection that ends without a close frame stores nothing, however it ends."""
        ends = (
            lambda transport: transport.abortConnection(),
            lambda transport: transport.loseConnection(),
            lambda transport: transport.loseWriteConnection(),
        )
        for end in ends:
            client = await self.upload("/f")
            client.send(b"content")
            await self.asked()
            end(client.transport)
            await client.ended()
            await self.stored_nothing()

    async def test_drop_in_frame(self) -> None:
        """A connection that ends within a frame stores nothing."""
        client = await self.upload("/f")
        client.transport.write(frame(b"content")[:-1])
        client.transport.loseConnection()
        await client.ended()
        await self.stored_nothing()


class TestAnnouncedSize(UploadCase):
    async def test_commit(self) -> None:
        """With the last byte the file is stored, the size told, and the connection closed with 1000."""
        client = await self.upload("/f", "size=10")
        client.send(b"01234")
        client.send(b"56789")
        ok = await client.receive()
        assert (ok.opcode, ok.payload) == (TEXT, b"ok:10")
        assert await client.close_code() == 1000
        await self.stored(b"0123456789")

    async def test_nothing(self) -> None:
        """Of no bytes all are there at once."""
        client = await self.upload("/f", "size=0")
        assert (await client.receive()).payload == b"ok:0"
        assert await client.close_code() == 1000
        await self.stored(b"")

    async def test_end_of_message(self) -> None:
        """The last byte counts when its message is complete."""
        client = await self.upload("/f", "size=4")
        client.send(b"full", final=False)
        await self.asked()
        await turns()
        assert client.data == b""
        client.send(b"", CONTINUATION)
        assert (await client.receive()).payload == b"ok:4"

    async def test_closed_before_ok(self) -> None:
        """After the client's close frame nothing is sent but the answer to it."""
        client = await self.upload("/f", "size=4")
        client.transport.write(frame(b"full") + frame(struct.pack(">H", 1000), CLOSE))
        assert await client.close_code(answer=False) == 1000
        await self.stored(b"full")

    async def test_complete_and_gone(self) -> None:
        """When all is there the client's leaving changes nothing."""
        self.backend.steps.hold("commit")
        arrival = self.backend.steps.arrival("commit")
        client = await self.upload("/f", "size=4")
        client.send(b"full")
        await arrival
        client.close(1001)
        await turns()
        self.backend.steps.release("commit")
        assert await client.close_code(answer=False) == 1000
        await self.stored(b"full")

    async def test_too_few(self) -> None:
        """A close before the last byte stores nothing: 1011."""
        client = await self.upload("/f", "size=5")
        client.send(b"0123")
        client.close(1000)
        assert await client.close_code(answer=False) == 1011
        await self.stored_nothing()

    async def test_too_many(self) -> None:
        """A message that goes beyond the last byte stores nothing: 1009."""
        client = await self.upload("/f", "size=5")
        client.send(b"0123")
        client.send(b"45")
        assert await client.close_code() == 1009
        await self.stored_nothing()

    async def test_over_limit(self) -> None:
        """An announced size over the limit is refused before any of it came: 1009."""
        client = await self.upload("/f", f"size={MAX_UPLOAD_BYTES + 1}")
        assert await client.close_code() == 1009
        assert self.backend.steps.passed["stage"] == 0
        await self.stored_nothing()


class TestRefusals(UploadCase):
    async def test_too_large(self) -> None:
        """More than the limit allows ends with 1009, and nothing is stored."""
        client = await self.upload("/f")
        for _ in range(MAX_UPLOAD_BYTES // MIB):
            client.send(bytes(MIB))
        client.send(b"!")
        assert await client.close_code() == 1009
        await self.stored_nothing()

    async def test_all_that_is_allowed(self) -> None:
        """As much as the limit allows, in messages as long as they may be, is stored."""
        client = await self.upload("/f")
        for number in range(MAX_UPLOAD_BYTES // MAX_MESSAGE_BYTES):
            client.send(bytes([number]) * MAX_MESSAGE_BYTES)
        client.close(1000)
        assert await client.close_code(answer=False) == 1000
        await self.stored(b"".join(bytes([number]) * MIB for number in range(4)))

    async def test_long_message(self) -> None:
        """A message over 1 MiB ends with 1009 at its first bytes, in one frame or in many."""
        client = await self.upload("/f")
        client.transport.write(frame(bytes(MAX_MESSAGE_BYTES + 1))[:20])
        assert await client.close_code(answer=False) == 1009
        client.transport.abortConnection()
        await self.stored_nothing()
        client = await self.upload("/f")
        client.send(bytes(MAX_MESSAGE_BYTES), final=False)
        client.send(b"!", CONTINUATION)
        assert await client.close_code() == 1009
        await self.stored_nothing()

    async def test_permission(self) -> None:
        """Another user's file is refused with 1008 before the first message, and stays as it is."""
        await self.put("/f", b"mine", BOB)
        client = await self.upload("/f")
        assert await client.close_code() == 1008
        assert client.reason.startswith("PERMISSION_DENIED: ")
        assert await self.content("/f") == b"mine"
        await self.nothing_left()

    async def test_directory(self) -> None:
        """A directory is refused with 1003."""
        await self.put("/dir/f")
        client = await self.upload("/dir")
        assert await client.close_code() == 1003

    async def test_below_file(self) -> None:
        """A file in the place of a parent is refused with 1008."""
        await self.put("/f")
        client = await self.upload("/f/below")
        assert await client.close_code() == 1008
        assert client.reason.startswith("PARENT_NOT_A_DIRECTORY: ")

    async def test_refused_while_sending(self) -> None:
        """A client that sends on after a refusal gets the close frame all the same, then the connection ends."""
        await self.put("/f", b"mine", BOB)
        client = await self.upload("/f")
        for _ in range(8):
            client.send(bytes(MIB))
        assert await client.close_code(answer=False) == 1008
        client.close(1000)
        await client.ended()

    async def test_refusal_unanswered(self) -> None:
        """A client that doesn't answer the close frame is left after the linger time."""
        client = await self.upload("/f", f"size={MAX_UPLOAD_BYTES + 1}")
        assert await client.close_code(answer=False) == 1009
        for _ in range(8):
            await turns()
            self.advance(LIMITS.linger_seconds / 4)
        await client.ended()

    async def test_disk_full(self) -> None:
        """A disk that fills up ends with 1011, and nothing is stored."""
        self.backend.steps.fail("write", None, InsufficientStorage("no room"))
        client = await self.upload("/f")
        client.send(b"fits")
        await settled(lambda: self.backend.steps.passed["write"] == 1)
        client.send(b"doesn't")
        assert await client.close_code() == 1011
        assert client.reason == "INSUFFICIENT_STORAGE: no room"
        await self.stored_nothing()

    async def test_commit_fails(self) -> None:
        """A commit that fails is told with 1011, to a client that closed and to one that waits for its ok."""
        for query in ("", "size=7"):
            self.backend.steps.fail("commit", InsufficientStorage("no room"))
            client = await self.upload("/f", query)
            client.send(b"content")
            if not query:
                client.close(1000)
            assert await client.close_code(answer=bool(query)) == 1011
            await self.stored_nothing()

    async def test_outcome_unknown(self) -> None:
        """When it isn't known whether the file is stored, the client is told that, with 1011."""
        self.store.steps.fail("applied PutFile", OutcomeUnknown("perhaps"))
        client = await self.upload("/f", "size=7")
        client.send(b"content")
        assert await client.close_code() == 1011
        assert client.reason == "OUTCOME_UNKNOWN: perhaps"

    async def test_fault(self) -> None:
        """A fault of the server is 1011 without its cause, which is in the log."""
        self.backend.steps.fail("stage", ZeroDivisionError("secret cause"))
        client = await self.upload("/f")
        assert await client.close_code() == 1011
        assert "secret" not in client.reason
        assert len(self.flushLoggedErrors(ZeroDivisionError)) == 1
        await self.stored_nothing()


class TestViolations(UploadCase):
    async def violated(self, data: bytes, code: int) -> None:
        """Send part of an upload, then ``data``: the close code, and nothing is stored."""
        client = await self.upload("/f")
        client.transport.write(frame(b"content") + data)
        assert await client.close_code(answer=False) == code
        client.transport.write(frame(struct.pack(">H", 1000), CLOSE))
        client.transport.loseConnection()
        await self.stored_nothing()

    async def test_violations(self) -> None:
        """What RFC 6455 forbids ends with 1002."""
        close = frame(struct.pack(">H", 1000), CLOSE)
        for data in (
            frame(b"unmasked", masked=False),
            b"\xc2" + frame(b"reserved bit")[1:],
            b"\x83" + frame(b"reserved opcode")[1:],
            b"\x8b" + frame(b"reserved control")[1:],
            frame(b"nothing to continue", CONTINUATION),
            frame(b"a", final=False) + frame(b"b", BINARY),
            frame(b"x" * 126, CLOSE),
            frame(b"fragment", 0x9, final=False),
            frame(b"x", CLOSE),
            frame(struct.pack(">H", 999), CLOSE),
            frame(struct.pack(">H", 1005), CLOSE),
            frame(struct.pack(">H", 5000), CLOSE),
        ):
            await self.violated(data, 1002)
            await self.violated(data + close, 1002)

    async def test_text(self) -> None:
        """Text that is no UTF-8, or ends within a character, and such a reason, end with 1007."""
        await self.violated(frame(b"\xff\xff", TEXT), 1007)
        await self.violated(frame("ä".encode()[:1], TEXT), 1007)
        await self.violated(frame(b"\xed\xa0\x80", TEXT), 1007)
        await self.violated(frame(struct.pack(">H", 1000) + b"\xff", CLOSE), 1007)

    async def test_split_character(self) -> None:
        """A character may lie across fragments."""
        first, second = "ä".encode()[:1], "ä".encode()[1:]
        client = await self.upload("/f")
        client.send(first, TEXT, final=False)
        client.send(second, CONTINUATION)
        client.close(1000)
        assert await client.close_code(answer=False) == 1000
        await self.stored("ä".encode())


class TestPace(UploadCase):
    async def test_silence(self) -> None:
        """A client that is silent for the read timeout is told so, and nothing is stored."""
        client = await self.upload("/f")
        client.send(b"content")
        await settled(lambda: self.backend.steps.passed["write"] == 1)
        self.advance(LIMITS.read_timeout_seconds)
        assert await client.close_code() == 1011
        assert client.reason.startswith("REQUEST_TIMEOUT: ")
        await self.stored_nothing()

    async def test_moving(self) -> None:
        """A client that sends something within each read timeout goes on as long as it likes."""
        client = await self.upload("/f")
        for count in range(1, 6):
            client.send(b".")
            await settled(lambda count=count: self.backend.steps.passed["write"] == count)
            self.advance(LIMITS.read_timeout_seconds - 1)
        client.close(1000)
        assert await client.close_code(answer=False) == 1000
        await self.stored(b".....")

    async def test_slow_server(self) -> None:
        """The time that the server itself needs isn't the client's."""
        self.backend.steps.hold("write")
        arrival = self.backend.steps.arrival("write")
        client = await self.upload("/f")
        client.send(b"content")
        await arrival
        self.advance(10 * LIMITS.read_timeout_seconds)
        self.backend.steps.release("write")
        client.close(1000)
        assert await client.close_code(answer=False) == 1000
        await self.stored(b"content")

    async def test_back_pressure(self) -> None:
        """While the stage is slow the client isn't read from: no more than 2 MiB are taken in."""
        self.backend.steps.hold("write")
        arrival = self.backend.steps.arrival("write")
        client = await self.upload("/f")
        client.send(b"first")
        await arrival
        for _ in range(3):
            client.send(bytes(MIB))
        await turns(20)
        client.transport.abortConnection()
        await client.ended()
        self.backend.steps.release("write")
        await self.stored_nothing()
        assert self.events[-1]["bytes_in"] < 2 * MIB

    async def test_goes_on_after_pressure(self) -> None:
        """A client that was held up goes on when there is room."""
        self.backend.steps.hold("write")
        arrival = self.backend.steps.arrival("write")
        client = await self.upload("/f")
        client.send(b"first")
        await arrival
        for _ in range(3):
            client.send(bytes(MIB))
        client.close(1000)
        await turns(20)
        self.backend.steps.release("write")
        assert await client.close_code(answer=False) == 1000
        await self.stored(b"first" + bytes(3 * MIB))

    async def test_pings_unread(self) -> None:
        """Pings from a client that doesn't read are answered in the end, but answers don't pile up."""
        client = await self.upload("/f")
        client.transport.pauseProducing()
        payload = bytes(125)
        for _ in range(400):
            client.transport.write(frame(payload, 0x9) * 200)
            await turns(1)
        client.ping(b"last")
        client.send(b"content")
        await settled(lambda: self.backend.steps.passed["write"] == 1)
        client.transport.resumeProducing()
        payloads = [(await client.receive()).payload]
        while payloads[-1] != b"last":
            payloads.append((await client.receive()).payload)
        assert len(payloads) < 400 * 200 + 1
        client.close(1000)
        assert await client.close_code(answer=False) == 1000


class TestStop(UploadCase):
    async def test_idle(self) -> None:
        """When the server stops, a client that is waited for and sends nothing is left with 1001."""
        client = await self.upload("/f")
        client.send(b"content")
        await settled(lambda: self.backend.steps.passed["write"] == 1)
        stopped = self.transfers.stop()
        assert not client.over
        self.advance(STOP_CHECK_SECONDS)
        assert await client.close_code() == 1001
        await stopped
        await self.stored_nothing()

    async def test_moving(self) -> None:
        """A transfer that moves may finish; a new one isn't begun."""
        client = await self.upload("/f")
        stopped = self.transfers.stop()
        for count in range(1, 4):
            client.send(b".")
            await settled(lambda count=count: self.backend.steps.passed["write"] == count)
            self.advance(STOP_CHECK_SECONDS)
        _, head = await self.shake_hands("/g", "mode=upload")
        assert head.startswith("HTTP/1.1 503 ")
        client.close(1000)
        assert await client.close_code(answer=False) == 1000
        await stopped
        await self.stored(b"...")

    async def test_commit_under_way(self) -> None:
        """Stopping is over when what was complete is stored, even where the connection was cut meanwhile."""
        self.backend.steps.hold("commit")
        arrival = self.backend.steps.arrival("commit")
        client = await self.upload("/f", "size=7")
        client.send(b"content")
        await arrival
        stopped: Deferred[None] = self.transfers.stop()
        self.advance(STOP_CHECK_SECONDS)
        self.advance(STOP_CHECK_SECONDS)
        self.transfers.cut()
        await client.ended()
        assert not stopped.called
        self.backend.steps.release("commit")
        await stopped
        await self.stored(b"content")


class TestCounting(UploadCase):
    async def test_event(self) -> None:
        """One access event tells of the whole transfer; the gauge counts it while it is open."""
        client = await self.upload("/f", "size=7")
        assert self.counted.registry.get_sample_value("callfs_open_websockets") == 1
        client.send(b"content")
        await client.receive()
        await client.close_code()
        await settled(lambda: self.transfers.open_transfers == 0)
        (event,) = self.events
        assert event["status"] == 101
        assert event["route"] == "/v1/files/ws/{path}"
        assert event["user"] == "alice"
        assert (event["bytes_in"], event["bytes_out"]) == (7, 4)
        assert self.counted.registry.get_sample_value("callfs_open_websockets") == 0

    async def test_many(self) -> None:
        """Two uploads to one path at once both end well, and one of them is what stays."""
        clients = [await self.upload("/f", "size=3") for _ in range(4)]
        for number, client in enumerate(clients):
            client.send(b"%03d" % number)
        codes = [started(self._ok(client)) for client in clients]
        for code in codes:
            assert await code == 1000
        assert await self.content("/f") in [b"%03d" % number for number in range(4)]

    async def _ok(self, client: RawWebSocket) -> int:
        assert (await client.receive()).payload == b"ok:3"
        return await client.close_code()
