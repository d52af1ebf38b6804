"""
A WebSocket client within the reactor, frame by frame, and a real site for it over the file system of a test.
"""

from __future__ import annotations

import base64
import secrets
import struct
import time
from collections.abc import Mapping
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.logger import LogEvent, Logger

from callfs.metrics import Metrics
from callfs.web.auth import ApiKeys, Authenticator
from callfs.web.context import SiteSettings
from callfs.web.files import FileResource
from callfs.web.placements import Placements
from callfs.web.site import CallFSSite
from callfs.web.websocket import WebSocketTransfers
from callfs.web.websocket_connection import ConnectionLimits
from tests.support.engine import NODE, EngineCase
from tests.support.websocket import BINARY, CLOSE, PING, TEXT, Frame, frame, websocket_target

ALICE_KEY = "alice-has-this-key-1"
BOB_KEY = "bob-has-this-key-123"
MAX_UPLOAD_BYTES = 4 * 1024 * 1024

LIMITS = ConnectionLimits(read_timeout_seconds=30.0, write_timeout_seconds=20.0, linger_seconds=2.0)


class RawWebSocket(Protocol):
    """The client's end; what is received waits until it is asked for."""

    transport: Any

    def __init__(self) -> None:
        self.data = b""
        self.over = False
        self.reason = ""
        self._waiting: Deferred[None] | None = None

    def dataReceived(self, data: bytes) -> None:
        """For Twisted."""
        self.data += data
        self._wake()

    def connectionLost(self, reason: object = None) -> None:
        """For Twisted."""
        self.over = True
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    async def _more(self) -> None:
        if self.over:
            raise EOFError
        self._waiting = Deferred()
        await self._waiting

    async def take(self, size: int) -> bytes:
        """The next bytes; EOFError when the connection is over."""
        while len(self.data) < size:
            await self._more()
        taken, self.data = self.data[:size], self.data[size:]
        return taken

    async def take_head(self) -> bytes:
        """A response's head."""
        while b"\r\n\r\n" not in self.data:
            await self._more()
        head, self.data = self.data.split(b"\r\n\r\n", 1)
        return head

    async def ended(self) -> bytes:
        """Wait for the end of the connection; what was left to read."""
        while not self.over:
            await self._more()
        return self.data

    def send(self, payload: bytes, opcode: int = BINARY, *, final: bool = True, masked: bool = True) -> None:
        """Send a frame."""
        self.transport.write(frame(payload, opcode, final=final, masked=masked))

    def send_text(self, text: str) -> None:
        """Send a text message."""
        self.send(text.encode(), TEXT)

    def ping(self, payload: bytes) -> None:
        """Send a ping."""
        self.send(payload, PING)

    def close(self, code: int | None = 1000, reason: bytes = b"") -> None:
        """Send a close frame."""
        self.send(b"" if code is None else struct.pack(">H", code) + reason, CLOSE)

    async def receive(self) -> Frame:
        """The next frame; EOFError when the connection is over."""
        first, second = await self.take(2)
        assert not first & 0x70, "reserved bits"
        assert not second & 0x80, "a server masks nothing"
        size = second & 0x7F
        if size == 126:
            size = struct.unpack(">H", await self.take(2))[0]
        elif size == 127:
            size = struct.unpack(">Q", await self.take(8))[0]
        return Frame(first & 0x0F, await self.take(size), bool(first & 0x80))

    async def close_code(self, *, answer: bool = True) -> int:
        """The code of the close frame, which has to be the next; it is answered, and the connection ends."""
        received = await self.receive()
        assert received.close_code is not None, received
        if answer:
            self.send(received.payload[:2], CLOSE)
            assert await self.ended() == b""
        self.reason = received.payload[2:].decode()
        return received.close_code


class WebSocketCase(EngineCase):
    """A test with a real site on 127.0.0.1; the limits of WebSockets follow ``clock``."""

    async def setUp(self) -> None:
        await super().setUp()
        keys = ApiKeys(secrets.token_bytes(32), {"alice": [ALICE_KEY], "bob": [BOB_KEY]})
        self.counted = Metrics()
        self.events: list[LogEvent] = []
        self.transfers = WebSocketTransfers(
            self.filesystem,
            max_upload_bytes=MAX_UPLOAD_BYTES,
            limits=LIMITS,
            clock=self.clock,
            metrics=self.counted,
        )
        placements = Placements(instance_id=NODE, backends=("localfs",))
        self.site = CallFSSite(
            [FileResource(self.filesystem, placements, MAX_UPLOAD_BYTES)],
            settings=SiteSettings(),
            authenticate=Authenticator(keys).authenticate,
            metrics=self.counted,
            reactor=reactor,
            now=lambda: time.time_ns() // 1000,
            pool=None,
            token_bytes=secrets.token_bytes,
            upgrade=self.transfers,
            log=Logger(namespace="access", observer=self.events.append),
        )
        self.site.ready = True
        self.port = reactor.listenTCP(0, self.site, interface="127.0.0.1")  # type: ignore[attr-defined]
        self.clients: list[RawWebSocket] = []
        self.addCleanup(self._stop)

    async def _stop(self) -> None:
        await self.port.stopListening()
        for client in self.clients:
            if not client.over:
                client.transport.abortConnection()
                await client.ended()
        await self.site.stop(10.0)
        await self.transfers.stop()

    async def connect(self) -> RawWebSocket:
        """A connection on which nothing was sent."""
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port.getHost().port)
        client: RawWebSocket = await connectProtocol(endpoint, RawWebSocket())
        client.transport.setTcpNoDelay(True)
        self.clients.append(client)
        return client

    async def shake_hands(
        self, path: str, query: str = "", headers: Mapping[str, str | None] | None = None, then: bytes = b""
    ) -> tuple[RawWebSocket, str]:
        """
        Send a handshake; the connection and the head of the answer.

        :param headers: others than usual; ``None`` leaves one out.
        :param then: what is sent in the same packet.
        """
        client = await self.connect()
        fields: dict[str, str | None] = {
            "Host": f"127.0.0.1:{self.port.getHost().port}",
            "Upgrade": "websocket",
            "Connection": "keep-alive, Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
            "Authorization": f"Bearer {ALICE_KEY}",
            **(headers or {}),
        }
        lines = [f"GET {websocket_target(path, query)} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in fields.items() if value is not None]
        client.transport.write("\r\n".join([*lines, "", ""]).encode() + then)
        return client, (await client.take_head()).decode()

    async def open(
        self, path: str, query: str = "", headers: Mapping[str, str | None] | None = None
    ) -> RawWebSocket:
        """A WebSocket whose handshake was accepted."""
        client, head = await self.shake_hands(path, query, headers)
        assert head.startswith("HTTP/1.1 101 "), head
        return client

    async def upload(self, path: str, query: str = "") -> RawWebSocket:
        """A WebSocket for an upload."""
        return await self.open(path, "mode=upload" + (f"&{query}" if query else ""))
