"""The sender beside the transport, on sockets of its own."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from typing import Any

import pytest
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.threads import deferToThread
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import TestCase

from callfs.web.progress import acknowledged
from callfs.web.sendfile import FileFlow, send_file
from callfs.web.zerocopy import Sender, Stop, plain_tcp_socket

CONTENT = os.urandom(1 << 20) * 24


class SenderTests(TestCase):
    """``send_file``."""

    def setUp(self) -> None:
        """A connection, a file, and a sender."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.client = socket.create_connection(listener.getsockname())
        self.server, _ = listener.accept()
        listener.close()
        self.server.setblocking(False)
        self.file = tempfile.TemporaryFile()  # noqa: SIM115
        self.file.write(CONTENT)
        self.file.flush()
        self.pool = ThreadPool(0, 2)
        self.pool.start()
        self.addCleanup(self.pool.stop)
        for closable in (self.client, self.server, self.file):
            self.addCleanup(closable.close)
        self.sent: list[int] = []
        self.waiting: list[bool] = []

    def send(self, start: int, length: int) -> Deferred[int]:
        """Begin to send."""
        reactor: Any = global_reactor
        sender = Sender(reactor, self.pool, self.sent.append, self.waiting.append)
        return Deferred.fromCoroutine(send_file(sender, self.server.fileno(), self.file.fileno(), start, length))

    def receive(self, size: int) -> Deferred[bytes]:
        """Receive in a thread."""

        def run() -> bytes:
            received = bytearray()
            while len(received) < size:
                received += self.client.recv(1 << 16)
            return bytes(received)

        return deferToThread(run)

    async def until_waiting(self) -> None:
        """Until the sender waits for the client."""
        while not self.waiting or not self.waiting[-1]:
            await self.moment()

    def moment(self) -> Deferred[None]:
        """A little later."""
        later: Deferred[None] = Deferred()
        global_reactor.callLater(0.01, later.callback, None)  # type: ignore[attr-defined]
        return later

    async def test_a_stretch(self) -> None:
        """The stretch arrives byte for byte, and what was sent is told as it goes."""
        sending = self.send(5, 20_000_000)
        assert await self.receive(20_000_000) == CONTENT[5:20_000_005]
        assert await sending == 20_000_000
        assert sum(self.sent) == 20_000_000

    async def test_end_of_the_file(self) -> None:
        """Where the file ends before the stretch, fewer bytes are sent, and that is told."""
        sending = self.send(len(CONTENT) - 10, 100)
        assert await self.receive(10) == CONTENT[-10:]
        assert await sending == 10

    async def test_waits_for_the_client(self) -> None:
        """While the client doesn't read, the reactor waits; then it goes on."""
        sending = self.send(0, len(CONTENT))
        await self.until_waiting()
        assert not sending.called
        assert await self.receive(len(CONTENT)) == CONTENT
        await sending
        assert self.waiting[-1] is False

    async def test_descriptors_closed_meanwhile(self) -> None:
        """Who gave the descriptors may close them at once: what was begun goes on, on duplicates."""
        sending = self.send(0, len(CONTENT))
        self.file.close()
        self.server.close()
        assert await self.receive(len(CONTENT)) == CONTENT
        assert await sending == len(CONTENT)

    async def test_cancelled(self) -> None:
        """A cancelled sender stops, and its duplicates are closed."""
        await self.moment()  # a reactor that runs has descriptors of its own
        before = len(os.listdir("/proc/self/fd"))
        sending = self.send(0, len(CONTENT))
        await self.until_waiting()
        sending.cancel()
        try:
            await sending
        except CancelledError:
            pass
        else:
            raise AssertionError("it wasn't cancelled")
        assert len(os.listdir("/proc/self/fd")) == before

    async def test_connection_gone(self) -> None:
        """A connection that ends is an error of the connection."""
        sending = self.send(0, len(CONTENT))
        await self.until_waiting()
        self.client.close()
        try:
            await sending
        except ConnectionError:
            pass
        else:
            raise AssertionError("it went on")

    def test_acknowledged(self) -> None:
        """What the peer took can be seen to grow, also while the socket's buffer stays full."""
        flow = FileFlow(self.server.fileno(), self.file.fileno(), 0)
        sent, stop = flow.move(len(CONTENT))
        flow.ends.give_up()
        assert stop is Stop.NOTHING_TAKEN
        before = acknowledged(self.server)
        self.client.recv(sent // 2, socket.MSG_WAITALL)
        assert acknowledged(self.server) != before
        self.server.close()
        assert acknowledged(self.server) is None


def test_progress_on_other_sockets() -> None:
    """On a UNIX socket what waits in the kernel tells of progress."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.send(b"x" * 1000)
        before = acknowledged(ours)
        theirs.recv(1000)
        assert acknowledged(ours) != before


def test_only_plain_tcp() -> None:
    """A transport that isn't TCP has no socket for sendfile."""
    assert plain_tcp_socket(object()) is None


def test_bad_source() -> None:
    """A source that can't be read is an error of its own, not of the connection."""
    ours, theirs = socket.socketpair()
    with ours, theirs, open("/proc/self/mem", "rb") as source:
        flow = FileFlow(ours.fileno(), source.fileno(), 0)
        with pytest.raises(OSError, match=r"error|argument") as caught:
            flow.move(10)
        flow.ends.give_up()
        assert caught.value.errno in (errno.EIO, errno.EINVAL)
