"""A large blob of another node on its way through this one to a client."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import socket
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from callfs.backends.breaker import BreakerSettings
from callfs.backends.interfaces import BlobStat, HandedOver, IBlobBackend, IBlobReader, IHandingReader
from callfs.backends.memory import MemoryBackend
from callfs.backends.peer import PeerBlobs
from callfs.deferreds import returns_deferred
from callfs.engine.opening import open_blob
from callfs.engine.ports import Storage
from callfs.engine.settings import EngineSettings
from callfs.model import BlobRef, LocalPlacement, S3Placement
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
from tests.backends.s3_support import wall_clock
from tests.backends.support import make_local
from tests.contract.backends import MIB, content, new_id, put
from tests.support.engine import Counts

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

    async def through(
        self, url: str, timeout_seconds: float = 5.0, breaker: BreakerSettings | None = None
    ) -> tuple[str, int]:
        """The address of a node that has the blobs of the one at ``url``."""
        self.observed = Observed()
        self.peers = make_peers(
            self, {THERE: url}, observer=self.observed, timeout_seconds=timeout_seconds, breaker=breaker
        )
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


class _BrokenCase(_Case):
    """A node that fails in the middle."""

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


class BrokenRelayTests(_BrokenCase):
    """From a node that fails in the middle."""

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

    async def test_not_held_against_the_node(self) -> None:
        """
        A cut may be the doing of a client that reads slowly: also where one failure is enough to spare a node the
        rest is asked for.
        """
        peer = ScriptedPeer(self, self.script(lambda script: script.wire.loseConnection(), 1))
        breaker = BreakerSettings(threshold=1, first_delay_seconds=60.0)
        _, body = await get(await self.through(peer.url, timeout_seconds=0.5, breaker=breaker), new_id())
        assert body == DATA

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


@implementer(IBlobBackend)
class Copies:
    """A blob with a copy on another node and, behind that, one in memory; as the engine opens it."""

    name = "localfs"

    def __init__(self, peers: Any) -> None:
        self.second = MemoryBackend(now=wall_clock, name="s3")
        self.metrics = Counts()
        self._storage = Storage(
            metadata=cast(Any, None),
            backends={"s3": self.second},
            peers=peers,
            settings=EngineSettings(instance_id=HERE, file_op_timeout_seconds=5.0),
            now=wall_clock,
            clock=cast(Any, reactor),
            token_bytes=secrets.token_bytes,
            metrics=self.metrics,
        )

    @returns_deferred
    async def open(self, blob_id: str) -> IBlobReader:
        """See :meth:`IBlobBackend.open`."""
        sha256 = hashlib.sha256(DATA).digest()
        (second,) = await self.second.list_blobs()
        replica = BlobRef(second.id, SIZE, sha256, S3Placement())
        blob = BlobRef(blob_id, SIZE, sha256, LocalPlacement(THERE), replicas=(replica,))
        return await open_blob(self._storage, "/f", blob)

    def stat(self, blob_id: str) -> Deferred[BlobStat]:
        """See :meth:`IBlobBackend.stat`."""
        return succeed(BlobStat(blob_id, SIZE, 0))


class SecondCopyTests(_BrokenCase):
    """Of a file that has a second copy."""

    async def copies(self, url: str) -> Copies:
        """A node at which the first copy is at ``url``."""
        await self.through(url, timeout_seconds=0.5)
        copies = Copies(self.peers)
        await put(copies.second, DATA)
        self.front = Holder(self, copies, instance_id=HERE)
        return copies

    async def test_handed_over(self) -> None:
        """It is passed on by the kernel as well."""
        backend = make_local(self)
        blob_id = await put(backend, DATA)
        copies = await self.copies(Holder(self, backend).url)
        reader = await copies.open(blob_id)
        assert IHandingReader.providedBy(reader)
        await reader.read(0, 1000)
        assert isinstance(cast(Any, reader).hand_over(1000, SIZE - 1000), HandedOver)
        reader.close()
        assert (await get(self.front.address, blob_id))[1] == DATA
        assert copies.metrics.of["error", "engine", "copy_changed"] == 0

    async def test_cut_for_good(self) -> None:
        """When its node is gone in the middle, the second copy goes on with the very next byte."""
        for end in (lambda script: script.wire.loseConnection(), lambda script: None):
            copies = await self.copies(ScriptedPeer(self, self.script(end, 99)).url)
            _, body = await get(self.front.address, new_id())
            assert body == DATA
            assert copies.metrics.of["error", "engine", "copy_changed"] == 1
            # Once more at that byte, and not from the beginning.
            assert self.asked == 2
