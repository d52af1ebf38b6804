"""A blocking WebSocket client (RFC 6455) on a plain socket, frame by frame."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from tests.support.http import Answer, Client, Wire, quoted

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@dataclass(frozen=True)
class Frame:
    """A frame as received."""

    opcode: int
    payload: bytes
    final: bool = True

    @property
    def close_code(self) -> int | None:
        """The code of a close frame; 1005 stands for none."""
        if self.opcode != CLOSE:
            return None
        return int(struct.unpack(">H", self.payload[:2])[0]) if self.payload else 1005


def websocket_target(path: str, query: str = "") -> str:
    """The request target of a file's WebSocket."""
    return "/v1/files/ws" + quoted(path) + (f"?{query}" if query else "")


class WebSocket:
    """
    A connection whose handshake has been sent and answered.

    :param client: whose address and key are used.
    :param target: the request target.
    :param headers: more headers; an empty value leaves the header out.
    :param receive_buffer_bytes: a small one makes a slow reader felt soon.
    """

    def __init__(
        self,
        client: Client,
        target: str,
        headers: Mapping[str, str] | None = None,
        *,
        receive_buffer_bytes: int | None = None,
    ) -> None:
        self.wire: Wire = client.connect(receive_buffer_bytes=receive_buffer_bytes)
        key = base64.b64encode(os.urandom(16))
        fields = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": key.decode(),
            **client.authorization(),
            **(headers or {}),
        }
        self.wire.send_request("GET", target, {name: value for name, value in fields.items() if value})
        head = self.wire.read_head()
        body = b"" if head.status == 101 else self.wire.read_body(head)
        self.answer = Answer(head.version, head.status, head.reason, head.headers, body)
        if head.status == 101:
            accept = base64.b64encode(hashlib.sha1(key + _GUID).digest()).decode()
            assert head["Sec-WebSocket-Accept"] == accept

    def __enter__(self) -> WebSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.wire.close()

    @property
    def open(self) -> bool:
        """Whether the server agreed to the upgrade."""
        return self.answer.status == 101

    def send(self, payload: bytes, opcode: int = BINARY, *, final: bool = True, masked: bool = True) -> None:
        """Send a frame."""
        self.wire.send(frame(payload, opcode, final=final, masked=masked))

    def close(self, code: int | None = 1000, reason: bytes = b"") -> None:
        """Send a close frame."""
        self.send(b"" if code is None else struct.pack(">H", code) + reason, CLOSE)

    def receive(self) -> Frame:
        """The next frame; EOFError when the connection is over."""
        assert self.open, f"no WebSocket: {self.answer!r}"
        first, second = self.wire.read_exactly(2)
        assert not first & 0x70, "reserved bits"
        assert not second & 0x80, "a server masks nothing"
        size = second & 0x7F
        if size == 126:
            size = struct.unpack(">H", self.wire.read_exactly(2))[0]
        elif size == 127:
            size = struct.unpack(">Q", self.wire.read_exactly(8))[0]
        return Frame(first & 0x0F, self.wire.read_exactly(size), bool(first & 0x80))

    def receive_all(self) -> tuple[list[Frame], int]:
        """Every frame up to the close frame, which is answered, and its code."""
        frames = []
        while (received := self.receive()).opcode != CLOSE:
            frames.append(received)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.wire.send(frame(received.payload[:2], CLOSE))
        code = received.close_code
        assert code is not None
        return frames, code


def frame(payload: bytes, opcode: int = BINARY, *, final: bool = True, masked: bool = True) -> bytes:
    """A client's frame as bytes."""
    head = bytearray([(0x80 if final else 0) | opcode])
    bit = 0x80 if masked else 0
    if len(payload) < 126:
        head.append(bit | len(payload))
    elif len(payload) < 1 << 16:
        head += struct.pack(">BH", bit | 126, len(payload))
    else:
        head += struct.pack(">BQ", bit | 127, len(payload))
    if not masked:
        return bytes(head) + payload
    mask = os.urandom(4)
    repeated = (mask * (len(payload) // 4 + 1))[: len(payload)]
    mixed = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return bytes(head) + mask + mixed.to_bytes(len(payload), "big")
