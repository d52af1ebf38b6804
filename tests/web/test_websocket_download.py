"""Downloads over real WebSockets, and handshakes that are refused."""

from __future__ import annotations

import base64
import json
import os
import struct

from callfs.errors import PeerUnavailable
from callfs.web.websocket import STOP_CHECK_SECONDS
from callfs.web.websocket_download import MESSAGE_BYTES
from tests.support.engine import settled, turns
from tests.support.rawwebsocket import ALICE_KEY, LIMITS, RawWebSocket, WebSocketCase
from tests.support.websocket import BINARY, CLOSE, PONG, TEXT, frame

MIB = 1024 * 1024


class DownloadCase(WebSocketCase):
    async def messages(self, client: RawWebSocket) -> tuple[list[bytes], int]:
        """Every message up to the close frame, which is answered, and its code."""
        messages = []
        while (received := await client.receive()).close_code is None:
            assert received.opcode == BINARY
            assert received.final
            messages.append(received.payload)
        client.send(received.payload[:2], CLOSE)
        assert await client.ended() == b""
        client.reason = received.payload[2:].decode()
        return messages, received.close_code

    async def all_ended(self) -> None:
        """Wait until no transfer is left, and nothing of one."""
        await settled(lambda: self.transfers.open_transfers == 0)
        await self.nothing_left()

    async def unread(self, path: str) -> RawWebSocket:
        """A download of something large that the client doesn't read, stuck."""
        await self.put(path, bytes(32 * MIB))
        client = await self.open(path)
        client.transport.pauseProducing()
        reads = -1
        while reads != self.backend.steps.passed["read"]:
            reads = self.backend.steps.passed["read"]
            await turns(10)
        return client


class TestDownload(DownloadCase):
    async def test_messages(self) -> None:
        """The file comes in binary messages of 64 KiB, the last perhaps shorter; then a close with 1000."""
        content = os.urandom(10 * MESSAGE_BYTES + 1)
        await self.put("/dir/f", content)
        messages, code = await self.messages(await self.open("/dir/f", "mode=download"))
        assert b"".join(messages) == content
        assert [len(message) for message in messages] == [MESSAGE_BYTES] * 10 + [1]
        assert code == 1000
        await self.all_ended()

    async def test_large(self) -> None:
        """A file larger than any buffer comes whole, however the client reads."""
        content = os.urandom(MIB) * 24
        await self.put("/f", content)
        client = await self.open("/f")
        client.transport.pauseProducing()
        await turns(20)
        client.transport.resumeProducing()
        messages, code = await self.messages(client)
        assert (b"".join(messages) == content, code) == (True, 1000)
        await self.all_ended()

    async def test_empty(self) -> None:
        """Of an empty file there is no message."""
        await self.put("/f", b"")
        assert await self.messages(await self.open("/f")) == ([], 1000)
        await self.all_ended()

    async def test_offset(self) -> None:
        """An offset skips bytes; at the very end nothing is left, beyond it is refused with 1008."""
        content = os.urandom(2 * MESSAGE_BYTES)
        await self.put("/f", content)
        messages, code = await self.messages(await self.open("/f", f"offset={MESSAGE_BYTES - 1}"))
        assert (b"".join(messages), code) == (content[MESSAGE_BYTES - 1 :], 1000)
        assert await self.messages(await self.open("/f", f"offset={len(content)}")) == ([], 1000)
        client = await self.open("/f", f"offset={len(content) + 1}")
        assert await self.messages(client) == ([], 1008)
        assert client.reason.startswith("RANGE_NOT_SATISFIABLE: ")
        await self.all_ended()

    async def test_missing(self) -> None:
        """What doesn't exist is 1008."""
        client = await self.open("/f")
        assert await client.close_code() == 1008
        assert client.reason.startswith("FILE_NOT_FOUND: ")

    async def test_directory(self) -> None:
        """A directory is 1003."""
        await self.put("/dir/f")
        assert await (await self.open("/dir")).close_code() == 1003

    async def test_unreadable(self) -> None:
        """Bytes that can't be read just now are 1011, at the beginning or in the middle."""
        await self.put("/f", bytes(MIB))
        self.backend.steps.fail("read", None, PeerUnavailable("the disk is slow to answer"))
        messages, code = await self.messages(await self.open("/f"))
        assert len(b"".join(messages)) < MIB
        assert code == 1011
        await self.all_ended()

    async def test_fault(self) -> None:
        """A fault of the server is 1011 without its cause, which is in the log."""
        await self.put("/f")
        self.backend.steps.fail("read", ZeroDivisionError("secret cause"))
        client = await self.open("/f")
        assert await client.close_code() == 1011
        assert "secret" not in client.reason
        assert len(self.flushLoggedErrors(ZeroDivisionError)) == 1
        await self.all_ended()

    async def test_old_content(self) -> None:
        """A reader that has begun finishes on the content it began with."""
        old = os.urandom(8 * MIB)
        await self.put("/f", old)
        client = await self.open("/f")
        first = await client.receive()
        client.transport.pauseProducing()
        await self.put("/f", b"new")
        client.transport.resumeProducing()
        messages, code = await self.messages(client)
        assert (first.payload + b"".join(messages) == old, code) == (True, 1000)

    async def test_half_closed(self) -> None:
        """A client that ends its side and reads on gets all of the file, as fast as it reads, and the end of it."""
        client = await self.unread("/f")
        reads = self.backend.steps.passed["read"]
        client.transport.loseWriteConnection()
        await turns(50)
        assert self.backend.steps.passed["read"] == reads, "nothing is read that the client has no room for"
        client.transport.resumeProducing()
        size = 0
        while (received := await client.receive()).close_code is None:
            size += len(received.payload)
        assert (size, received.close_code) == (32 * MIB, 1000)
        assert await client.ended() == b""
        await self.all_ended()

    async def test_client_closes(self) -> None:
        """The client's close frame is answered, and ends the transfer."""
        self.backend.steps.hold("read")
        arrival = self.backend.steps.arrival("read")
        await self.put("/f")
        client = await self.open("/f")
        await arrival
        client.close(1001)
        assert await client.close_code(answer=False) == 1000
        assert await client.ended() == b""
        await self.all_ended()

    async def test_client_sends(self) -> None:
        """Messages of the client are ignored; its pings are answered."""
        self.backend.steps.hold("read")
        await self.put("/f", b"content")
        client = await self.open("/f")
        client.send(b"not asked for")
        client.send(b"nor this", TEXT)
        client.ping(b"?")
        pong = await client.receive()
        assert (pong.opcode, pong.payload) == (PONG, b"?")
        self.backend.steps.release("read")
        assert await self.messages(client) == ([b"content"], 1000)

    async def test_client_vanishes(self) -> None:
        """A client that vanishes leaves nothing open, whatever the server was waiting for."""
        for step in ("open", "read"):
            await self.put("/f")
            self.backend.steps.hold(step)
            arrival = self.backend.steps.arrival(step)
            client = await self.open("/f")
            await arrival
            client.transport.abortConnection()
            await settled(lambda: self.site.connections == 0)
            self.backend.steps.release(step)
            await self.all_ended()


class TestPace(DownloadCase):
    async def test_back_pressure(self) -> None:
        """Of a file whose reader stands still no more is read than the sockets' buffers take."""
        client = await self.unread("/f")
        client.transport.abortConnection()
        await self.all_ended()
        await settled(lambda: len(self.events) == 1)
        assert self.events[0]["bytes_out"] < 24 * MIB

    async def test_stalled(self) -> None:
        """A reader that stands still for the write timeout is cut."""
        client = await self.unread("/f")
        for _ in range(6):
            self.advance(LIMITS.write_timeout_seconds / 4)
        await self.all_ended()
        assert self.site.connections == 0
        client.transport.resumeProducing()
        await client.ended()

    async def test_slow(self) -> None:
        """A reader that takes something now and then isn't cut, however long it needs."""
        client = await self.unread("/f")
        for _ in range(10):
            client.data = b""
            client.transport.resumeProducing()
            await settled(lambda: len(client.data) > 0)
            client.transport.pauseProducing()
            await turns(2)
            self.advance(LIMITS.write_timeout_seconds / 2)
            assert self.transfers.open_transfers == 1
            assert not client.over

    async def test_close_unanswered(self) -> None:
        """A client that doesn't answer the close frame is left after the write timeout, without a reset."""
        await self.put("/f", b"content")
        client = await self.open("/f")
        assert (await client.receive()).payload == b"content"
        assert await client.close_code(answer=False) == 1000
        self.advance(LIMITS.write_timeout_seconds / 2)
        await turns()
        assert not client.over
        for _ in range(8):
            self.advance(LIMITS.write_timeout_seconds / 4)
            await turns()
        assert await client.ended() == b""
        await self.all_ended()

    async def test_stop(self) -> None:
        """When the server stops, a reader that stands still is told 1001, one that reads may finish."""
        client = await self.unread("/f")
        await self.put("/g", b"content")
        self.backend.steps.hold("read")
        moving = await self.open("/g")
        stopped = self.transfers.stop()
        self.advance(STOP_CHECK_SECONDS)
        self.backend.steps.release("read")
        assert await self.messages(moving) == ([b"content"], 1000)
        client.transport.resumeProducing()
        messages, code = await self.messages(client)
        assert len(b"".join(messages)) < 32 * MIB
        assert code == 1001
        await stopped


class TestHandshake(DownloadCase):
    async def refused_with(self, status: int, code: str, path: str = "/f", query: str = "", **headers: str) -> str:
        """Send a handshake that is refused as any other request; the head of the answer."""
        fields = {name.replace("_", "-"): value or None for name, value in headers.items()}
        client, head = await self.shake_hands(path, query, fields)
        assert head.startswith(f"HTTP/1.1 {status} "), head
        for name in ("X-Request-ID: ", "X-Content-Type-Options: nosniff", "Content-Type: application/json"):
            assert name in head
        size = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
        assert json.loads(await client.take(size))["code"] == code
        return head

    async def test_headers(self) -> None:
        """The 101 has the headers of every response, and of the subprotocols only ``callfs``."""
        await self.put("/f")
        bearer = "callfs.bearer." + base64.urlsafe_b64encode(ALICE_KEY.encode()).decode().rstrip("=")
        headers = {"Authorization": None, "Sec-WebSocket-Protocol": f"callfs, {bearer}"}
        client, head = await self.shake_hands("/f", "", headers)
        assert head.startswith("HTTP/1.1 101 Switching Protocols\r\n")
        lines = head.split("\r\n")
        # RFC 6455, section 4.2.2: the accept value of a key of 16 zero bytes.
        assert "Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=" in lines
        assert [line for line in lines if line.startswith("Sec-WebSocket-Protocol")] == [
            "Sec-WebSocket-Protocol: callfs"
        ]
        for name in (
            "X-Request-ID",
            "Content-Security-Policy",
            "X-Content-Type-Options",
            "X-Frame-Options",
            "Referrer-Policy",
            "Permissions-Policy",
            "Cross-Origin-Opener-Policy",
            "Cross-Origin-Embedder-Policy",
        ):
            assert sum(line.startswith(f"{name}: ") for line in lines) == 1, name
        assert "Strict-Transport-Security" not in head
        assert "Sec-WebSocket-Extensions" not in head
        assert await self.messages(client) == ([b"content"], 1000)

    async def test_compression(self) -> None:
        """Compression is offered in vain."""
        await self.put("/f")
        offer = "permessage-deflate; client_max_window_bits"
        _, head = await self.shake_hands("/f", "", {"Sec-WebSocket-Extensions": offer})
        assert head.startswith("HTTP/1.1 101 ")
        assert "Extensions" not in head

    async def test_credentials(self) -> None:
        """Without valid credentials it is 401 before anything else is looked at."""
        await self.refused_with(401, "AUTHENTICATION_FAILED", Authorization="")
        head = await self.refused_with(401, "AUTHENTICATION_FAILED", query="mode=x", Authorization="Bearer unknown")
        assert "WWW-Authenticate: Bearer" in head
        await self.refused_with(
            401, "AUTHENTICATION_FAILED", Authorization="", Sec_WebSocket_Protocol="callfs, callfs.bearer.bm9ib2R5"
        )

    async def test_bad_request(self) -> None:
        """A bad mode, offset or size, a trailing slash, and another version are 400."""
        for query in ("mode=append", "offset=x", "mode=upload&size=-1", "size=1"):
            await self.refused_with(400, "BAD_REQUEST", query=query)
        await self.refused_with(400, "BAD_REQUEST", path="/dir/")
        await self.refused_with(400, "BAD_REQUEST", path="/")
        await self.refused_with(400, "INVALID_PATH", path="/../f")
        await self.refused_with(400, "BAD_REQUEST", Sec_WebSocket_Version="8")
        await self.refused_with(400, "BAD_REQUEST", Sec_WebSocket_Key="")

    async def test_origin(self) -> None:
        """A page of another host is refused with 403; one of this host isn't."""
        await self.refused_with(403, "PERMISSION_DENIED", Origin="https://evil.example")
        await self.put("/f")
        client = await self.open("/f", "", {"Origin": f"http://127.0.0.1:{self.port.getHost().port}"})
        assert await self.messages(client) == ([b"content"], 1000)

    async def test_ordinary_file(self) -> None:
        """Without an upgrade, or with a body, a path under ``ws/`` is that of an ordinary file."""
        await self.put("/ws/f", b"ordinary")
        for headers in ({"Upgrade": None}, {"Connection": "close"}, {"Upgrade": "h2c"}, {"Content-Length": "3"}):
            client, head = await self.shake_hands("/f", "", headers)
            assert head.startswith("HTTP/1.1 200 ")
            assert await client.take(8) == b"ordinary"

    async def test_frames_with_handshake(self) -> None:
        """Frames in the same packet as the handshake count; nothing of its head is taken for one."""
        message = b"GET / HTTP/1.1\r\n\r\n"
        frames = frame(message) + frame(struct.pack(">H", 1000), CLOSE)
        client, head = await self.shake_hands("/up", "mode=upload", then=frames)
        assert head.startswith("HTTP/1.1 101 ")
        assert await client.close_code(answer=False) == 1000
        assert await self.content("/up") == message
