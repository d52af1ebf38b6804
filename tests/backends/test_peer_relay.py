"""A large blob of another node on its way through this one to a client."""

from __future__ import annotations

import os
import re
import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from callfs.backends.interfaces import HandedOver
from callfs.backends.peer import PeerBlobs
from tests.backends.peersupport import (
    BEARER,
    HERE,
    THERE,
    Holder,
    Observed,
    Script,
    ScriptedPeer,
    make_peers,
    moment,
)
from tests.backends.support import make_local
from tests.contract.backends import MIB, content, new_id, put

SIZE = 24 * MIB
DATA = content(SIZE)
_RANGE = re.compile(rb"range: *bytes=(\d+)-", re.IGNORECASE)


def get(address: tuple[str, int], blob_id: str, more: str = "") -> Deferred[tuple[bytes, bytes]]:
    """The head of an answer, and as much of its body as comes."""

    def run() -> tuple[bytes, bytes]:
        with socket.create_connection(address, timeout=30) as connection:
            lines = f"Host: x\r\nConnection: close\r\nAuthorization: {BEARER['Authorization']}\r\n{more}"
            connection.sendall(f"GET /v1/internal/blobs/{blob_id} HTTP/1.1\r\n{lines}\r\n".encode())
            pieces = []
            try:
                while piece := connection.recv(1 << 18):
                    pieces.append(piece)
            except ConnectionResetError:
                pass
        head, _, body = b"".join(pieces).partition(b"\r\n\r\n")
        return head, body

    return deferToThread(run)


def descriptors() -> int:
    """How many this process has."""
    return len(os.listdir("/proc/self/fd"))


class _Case(TestCase):
    timeout = 60

    async def through(self, url: str, timeout_seconds: float = 5.0) -> tuple[str, int]:
        """The address of a node that has the blobs of the one at ``url``."""
        self.observed = Observed()
        self.peers = make_peers(self, {THERE: url}, observer=self.observed, timeout_seconds=timeout_seconds)
        blobs: Any = await self.peers.blobs(THERE)
        assert isinstance(blobs, PeerBlobs)
        self.front = Holder(self, blobs, instance_id=HERE)
        return self.front.address


class RelayTests(_Case):
    """From a real node."""

    async def start(self) -> tuple[str, tuple[str, int]]:
        """A blob, and where to get it."""
        backend = make_local(self)
        self.holder = Holder(self, backend)
        return await put(backend, DATA), await self.through(self.holder.url)

    async def test_whole(self) -> None:
        """It arrives byte for byte, and nothing stays open behind it."""
        blob_id, address = await self.start()
        await get(address, blob_id)
        before = descriptors()
        for _ in range(3):
            head, body = await get(address, blob_id)
            assert head.startswith(b"HTTP/1.1 200 ")
            assert body == DATA
        while descriptors() > before:
            await moment()
        assert self.observed.failures == []

    async def test_ranges(self) -> None:
        """So does any large range of it, and several in one answer."""
        blob_id, address = await self.start()
        for start, end in ((0, 5 * MIB), (1, SIZE - 1), (7 * MIB + 3, SIZE), (SIZE - 4 * MIB, SIZE)):
            head, body = await get(address, blob_id, f"Range: bytes={start}-{end - 1}\r\n")
            assert head.startswith(b"HTTP/1.1 206 ")
            assert body == DATA[start:end]
        last = SIZE - 5 * MIB
        _, body = await get(address, blob_id, f"Range: bytes=0-{5 * MIB - 1},{last}-\r\n")
        assert DATA[: 5 * MIB] in body
        assert DATA[last:] in body
        assert self.observed.failures == []

    async def test_many_at_once(self) -> None:
        """Many at the same time don't get into each other's way."""
        blob_id, address = await self.start()
        for answer in [get(address, blob_id) for _ in range(6)]:
            assert (await answer)[1] == DATA

    async def test_a_client_that_goes_away(self) -> None:
        """When the client goes in the middle, the transfer from the other node ends, too."""
        blob_id, address = await self.start()
        before = descriptors()
        with socket.create_connection(address) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            lines = f"Host: x\r\nAuthorization: {BEARER['Authorization']}\r\n"
            connection.sendall(f"GET /v1/internal/blobs/{blob_id} HTTP/1.1\r\n{lines}\r\n".encode())
            await deferToThread(connection.recv, 100_000)
            await moment(0.1)
        while len(self.holder.ended()) < 2 or not self.front.ended():
            await moment()
        while descriptors() > before + 2:  # what is kept for the next request, at either end
            await moment()

    async def test_a_reader_alone(self) -> None:
        """What is handed over goes on where the reads ended; a read afterwards begins anew."""
        blob_id, _ = await self.start()
        blobs: Any = await self.peers.blobs(THERE)
        reader = await blobs.open(blob_id)
        assert reader.hand_over(5, 1000) is None
        assert await reader.read(0, 1000) == DATA[:1000]
        handed = reader.hand_over(1000, SIZE - 1000)
        assert isinstance(handed, HandedOver)
        position = 1000 + len(handed.first)
        assert handed.first == DATA[1000:position]
        duplicate = socket.socket(fileno=os.dup(handed.descriptor))
        duplicate.setblocking(True)
        following = await deferToThread(duplicate.recv, 1000)
        duplicate.close()
        assert following == DATA[position : position + len(following)]
        assert reader.hand_over(position, 1000) is None
        assert await reader.read(2 * MIB, 1000) == DATA[2 * MIB : 2 * MIB + 1000]
        reader.close()
        assert reader.hand_over(0, 1000) is None


class BrokenRelayTests(_Case):
    """From a node that fails in the middle."""

    def script(self, end: Any, times: int) -> Any:
        """Answers with 10 MiB, and then does ``end``; so many times, then as it should."""
        self.asked = 0

        def script(script: Script) -> None:
            if script.received.startswith(b"HEAD"):
                script.again()
                script.answer(
                    "200 OK",
                    {
                        "Content-Length": str(SIZE),
                        "X-CallFS-Size": str(SIZE),
                        "X-CallFS-MTime": "2026-01-01T00:00:00Z",
                    },
                )
                return
            self.asked += 1
            found = _RANGE.search(script.received)
            start = int(found[1]) if found else 0
            headers = {"Content-Length": str(SIZE - start)}
            if found:
                headers["Content-Range"] = f"bytes {start}-{SIZE - 1}/{SIZE}"
            breaks = self.asked <= times
            body = DATA[start : start + 10 * MIB if breaks else SIZE]
            script.answer("206 Partial Content" if found else "200 OK", headers, body)
            if breaks:
                end(script)

        return script

    async def answered(self, end: Any, times: int) -> tuple[bytes, bytes]:
        """What a client gets."""
        peer = ScriptedPeer(self, self.script(end, times))
        return await get(await self.through(peer.url, timeout_seconds=0.5), new_id())

    async def test_cut_once(self) -> None:
        """When the connection is cut, the rest is asked for once, and the client gets all."""
        for end in (lambda script: script.wire.loseConnection(), lambda script: None):
            _, body = await self.answered(end, 1)
            assert body == DATA
            assert self.asked == 2
            assert self.observed.failures == [(THERE, "cut")]

    async def test_cut_again(self) -> None:
        """When it is cut again, so is the client's answer: it is shorter than announced, and says nothing wrong."""
        head, body = await self.answered(lambda script: script.wire.loseConnection(), 2)
        assert f"Content-Length: {SIZE}".encode() in head
        assert 10 * MIB <= len(body) < SIZE
        assert DATA.startswith(body)
        assert self.asked == 2

    async def test_silent_for_good(self) -> None:
        """A node that falls silent twice cuts the answer within twice the time limit."""
        _, body = await self.answered(lambda script: None, 2)
        assert len(body) < SIZE
        assert DATA.startswith(body)
        assert self.observed.failures == [(THERE, "cut"), (THERE, "timeout")]
