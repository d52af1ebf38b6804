"""What passes from one connection to another through the kernel."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import struct
from collections.abc import Iterator
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import TestCase

from callfs.web.splicing import send_socket
from callfs.web.zerocopy import Sender

CONTENT = os.urandom(1 << 20) * 24
reactor: Any = global_reactor


def pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    return near, far


def descriptors() -> int:
    """How many this process has."""
    return len(os.listdir("/proc/self/fd"))


def reset(connection: socket.socket) -> None:
    """End a connection with RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class SendSocketTests(TestCase):
    """``send_socket``, between a holder's connection and a client's."""

    timeout = 60

    async def setUp(self) -> None:  # type: ignore[override]
        """Two connections."""
        await deferToThread(lambda: None)  # what the reactor itself opens once is open
        self.holder, self.source = pair()
        self.client, self.target = pair()
        for closable in (self.holder, self.source, self.client, self.target):
            self.addCleanup(closable.close)
        self.source.setblocking(False)
        self.target.setblocking(False)
        self.pool = ThreadPool(0, 4)
        self.pool.start()
        self.addCleanup(self.pool.stop)
        self.sent: list[int] = []
        self.waiting: list[bool] = []

    def send(self, length: int, timeout_seconds: float = 20.0) -> Deferred[int]:
        """Begin to send."""
        sender = Sender(reactor, self.pool, self.sent.append, self.waiting.append)
        return Deferred.fromCoroutine(
            send_socket(sender, self.target.fileno(), self.source.fileno(), length, timeout_seconds)
        )

    def give(self, data: bytes) -> Deferred[None]:
        """The holder sends."""
        return deferToThread(self.holder.sendall, data)

    def receive(self, size: int) -> Deferred[bytes]:
        """The client receives so much, or all there is."""

        def run() -> bytes:
            received = bytearray()
            while len(received) < size and (piece := self.client.recv(min(1 << 16, size - len(received)))):
                received += piece
            return bytes(received)

        return deferToThread(run)

    def moment(self) -> Deferred[None]:
        """A little later."""
        return deferLater(reactor, 0.01, lambda: None)

    async def test_a_stretch(self) -> None:
        """As much as was asked for passes, byte for byte; what comes behind it stays where it is."""
        before = descriptors()
        sending = self.send(20_000_000)
        giving = self.give(CONTENT[:20_000_000] + b"behind")
        assert await self.receive(20_000_000) == CONTENT[:20_000_000]
        assert await sending == 20_000_000
        await giving
        assert sum(self.sent) == 20_000_000
        assert self.source.recv(100) == b"behind"
        assert descriptors() == before

    async def test_in_drops(self) -> None:
        """What comes piece by piece, with pauses, goes out piece by piece."""
        sending = self.send(50)
        for _ in range(10):
            await self.give(b"12345")
            assert await self.receive(5) == b"12345"
            await self.moment()
            await self.moment()
        assert await sending == 50

    async def test_a_slow_client(self) -> None:
        """A client that doesn't read is waited for, and that is told; meanwhile nothing more is taken in."""
        sending = self.send(len(CONTENT))
        giving = self.give(CONTENT)
        while not self.waiting or not self.waiting[-1]:
            await self.moment()
        assert not giving.called
        assert await self.receive(len(CONTENT)) == CONTENT
        assert await sending == len(CONTENT)
        assert not self.waiting[-1]

    async def test_an_end_too_early(self) -> None:
        """When the holder's connection ends, it is told how much was sent, and the client's stays open."""
        sending = self.send(len(CONTENT))
        await self.give(b"x" * 100_000)
        self.holder.close()
        assert await self.receive(100_000) == b"x" * 100_000
        assert await sending == 100_000
        self.target.send(b"more")
        assert await self.receive(4) == b"more"

    async def test_a_reset(self) -> None:
        """So it is when the connection is reset."""
        sending = self.send(len(CONTENT))
        await self.give(b"x")
        assert await self.receive(1) == b"x"
        reset(self.holder)
        assert await sending == 1

    async def test_silence(self) -> None:
        """A holder that is silent for too long isn't waited for any more."""
        sending = self.send(len(CONTENT), timeout_seconds=0.1)
        await self.give(b"x")
        assert await sending == 1

    async def test_a_client_that_goes_away(self: Any) -> None:
        """Nothing is sent to nobody, and nothing stays open."""
        before = descriptors()
        sending = self.send(len(CONTENT))
        giving = self.give(CONTENT)
        await self.receive(1000)
        reset(self.client)
        await self.assertFailure(sending, ConnectionError)
        self.source.close()
        await self.assertFailure(giving, ConnectionError)
        assert descriptors() == before - 2

    async def test_cancelled(self: Any) -> None:
        """A cancelled transfer frees what it had, whichever side it was waiting for."""
        before = descriptors()
        for bytes_given in (0, len(CONTENT)):
            sending = self.send(2 * len(CONTENT))
            giving = self.give(CONTENT[:bytes_given])
            for _ in range(10):
                await self.moment()
            sending.cancel()
            await self.assertFailure(sending, CancelledError)
            while descriptors() > before:
                await self.moment()
            giving.addErrback(lambda failure: failure.trap(ConnectionError))
        self.source.close()
        await giving

    async def test_no_descriptors_left(self) -> None:
        """Where there are none left nothing is sent, and nothing taken in."""
        await self.give(b"data")
        for spare in range(4):
            with _at_most_more(spare):
                assert await self.send(4) == 0
        assert self.source.recv(100) == b"data"


@contextlib.contextmanager
def _at_most_more(count: int) -> Iterator[None]:
    """Only so many descriptors more can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.dup(0) for _ in range(count + 1)]
    for descriptor in taken:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[-1], hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
