"""When what is asked of a Redis server leaves."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from callfs.redis_connection import Connection, Connections
from callfs.redis_errors import Unanswered

reactor: Any = global_reactor


class RedisTests(TestCase):
    """A connection to a socket that is read by hand."""

    async def setUp(self) -> None:
        self.lost: Deferred[None] = Deferred()
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", listening.getsockname()[1])
        self.connection: Any = await endpoint.connect(
            Connections(reactor, lambda _: None, lambda _: self.lost.callback(None))
        )
        assert isinstance(self.connection, Connection)
        self.server, _ = listening.accept()
        self.addCleanup(self.server.close)
        self.server.settimeout(10)

    async def tearDown(self) -> None:
        self.connection.transport.abortConnection()
        await self.lost

    async def test_a_request_alone(self) -> None:
        """It leaves with the call, though the reactor doesn't get a turn: before whatever is answered next."""
        reply = self.connection.ask(("PING",), 10.0)
        assert self.server.recv(100) == b"*1\r\n$4\r\nPING\r\n"
        self.server.sendall(b"+PONG\r\n")
        assert await reply == "PONG"

    async def test_requests_together(self) -> None:
        """Those that come while one is on its way share a packet, after it."""
        replies = [self.connection.ask(("ECHO", number), 10.0) for number in range(3)]
        assert self.server.recv(100) == b"*2\r\n$4\r\nECHO\r\n$1\r\n0\r\n"
        self.server.sendall(b"+0\r\n")
        assert await replies[0] == "0"
        packet = await deferToThread(self.server.recv, 100)
        assert packet == b"".join(b"*2\r\n$4\r\nECHO\r\n$1\r\n%d\r\n" % number for number in (1, 2))
        self.server.sendall(b"+1\r\n+2\r\n")
        assert [await reply for reply in replies[1:]] == ["1", "2"]

    async def test_a_connection_that_is_over(self) -> None:
        """Its end is found by the reactor, as ever."""
        self.server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.server.close()
        asked = self.connection.ask(("PING",), 10.0)
        await self.assertFailure(asked, Unanswered)
