"""When what is sent to a peer leaves."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from callfs.cluster.connections import PeerConnection
from callfs.cluster.frames import framed
from callfs.cluster.wire import Frame, Ping, Pong, encode

reactor: Any = global_reactor


class Pinging(PeerConnection):
    """Says a word when it is told to."""

    def __init__(self) -> None:
        super().__init__(reactor, idle_seconds=100)
        self.lost: Deferred[None] = Deferred()

    def ping(self, frame: Frame) -> None:
        """Say it."""
        self._send(frame)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The end."""
        super().connectionLost(reason)
        self.lost.callback(None)


class TestSending(TestCase):
    """A connection to a socket that is read by hand."""

    async def setUp(self) -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", listening.getsockname()[1])
        self.connection: Pinging = await connectProtocol(endpoint, Pinging())
        self.peer, _ = listening.accept()
        self.addCleanup(self.peer.close)
        self.peer.settimeout(10)

    async def tearDown(self) -> None:
        self.connection.transport.abortConnection()
        await self.connection.lost

    async def test_at_once(self) -> None:
        """A frame leaves with the call, though the reactor doesn't get a turn; so does the next, behind it."""
        expected = framed(encode(Ping())) + framed(encode(Pong()))
        self.connection.ping(Ping())
        self.connection.ping(Pong())
        assert self.peer.recv(len(expected), socket.MSG_WAITALL) == expected

    async def test_a_connection_that_is_gone(self) -> None:
        """A frame for a peer that has gone is no fault of whoever sends it: the end is reported as ever."""
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.peer.close()
        for _ in range(3):
            self.connection.ping(Ping())
        await self.connection.lost
        self.connection.ping(Ping())

    async def test_a_connection_that_is_dropped(self) -> None:
        """Nothing is sent any more on a connection that was dropped."""
        self.connection.drop(ValueError("dropped"))
        self.connection.ping(Ping())
        await self.connection.lost
        with pytest.raises(ConnectionResetError):
            self.peer.recv(1)
