"""Another node, or what is on the way to it, that answers what no node answers; and the end of all connections."""

from __future__ import annotations

import re
from typing import Any

from twisted.logger import LogLevel

from callfs.errors import PeerUnavailable
from tests.backends.peersupport import THERE, Log, Script, ScriptedPeer, make_peers, moment
from tests.backends.test_peer_faults import PeerFaultCase
from tests.contract.backends import MIB, new_id


class StrangeAnswerTests(PeerFaultCase):
    """Answers that nobody should get."""

    async def until_lost(self: Any) -> None:
        """Until every connection to the node has ended."""
        while not all(connection.lost for connection in self.peer.connections):
            await moment()

    async def test_a_name_that_is_no_text(self: Any) -> None:
        """A header that isn't UTF-8 is another node's name, not an internal error."""

        def script(script: Script) -> None:
            script.wire.write(b"HTTP/1.1 200 OK\r\nX-CallFS-Instance-ID: \xff\xfe\r\nContent-Length: 1\r\n\r\nx")

        blobs = await self.scripted(script)
        await self.assertFailure(blobs.open(new_id()), PeerUnavailable)
        assert self.reasons() == ["identity"]

    async def test_not_ready(self: Any) -> None:
        """What a node says that still starts, or a proxy whose node is down, is worth a warning, and passes."""
        for status, level in (("503 Busy", LogLevel.warn), ("502 Bad", LogLevel.warn), ("500 Odd", LogLevel.error)):

            def script(script: Script, status: str = status) -> None:
                script.wire.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())

            log = Log(self)
            blobs = await self.scripted(script)
            await self.assertFailure(blobs.open(new_id()), PeerUnavailable)
            (event,) = log.named("peer_answer_unusable")
            assert event["log_level"] is level
        assert self.reasons() == ["answer"] * 3

    async def test_bodies_that_nobody_wants(self: Any) -> None:
        """An answer whose body is of no use, and never ends, costs its connection within the time limit."""
        for status, headers in (
            ("401 Unauthorized", {}),
            ("200 OK", {"X-CallFS-Instance-ID": "node-9"}),
            ("206 Partial Content", {}),
        ):
            script = lambda script: script.answer(status, {"Content-Length": "1000", **headers})  # noqa: B023, E731
            blobs = await self.scripted(script)
            await self.assertFailure(blobs.open(new_id()), PeerUnavailable)
            await self.until_lost()

    async def test_long_bodies_that_nobody_wants(self: Any) -> None:
        """Nor is a long one taken in."""
        headers = {"Content-Length": str(64 * MIB)}
        blobs = await self.scripted(lambda script: script.answer("401 Unauthorized", headers, b"x" * MIB))
        await self.assertFailure(blobs.open(new_id()), PeerUnavailable)
        await self.until_lost()

    async def test_neither_cookies_nor_compression(self: Any) -> None:
        """Bytes are asked for as they are, and a cookie that something on the way has set is forgotten."""
        heads: list[bytes] = []

        def script(script: Script) -> None:
            heads.append(script.received.lower())
            script.again()
            script.answer("404 Not Found", {"Set-Cookie": "tracked=1; Path=/"}, b"{}")

        blobs = await self.scripted(script)
        for _ in range(2):
            await blobs.delete(new_id())
        assert [re.findall(rb"accept-encoding: *([^\r]*)", head) for head in heads] == [[b"identity"]] * 2
        assert not any(b"cookie" in head for head in heads)


class ClosingTests(PeerFaultCase):
    """When a node stops."""

    async def test_what_is_under_way(self: Any) -> None:
        """Every connection ends, also one that is read from, or is waited for; what waits fails."""

        def script(script: Script) -> None:
            if b"GET" in script.received and len(self.peer.connections) == 1:
                script.answer("200 OK", {"Content-Length": str(64 * MIB)}, b"x" * MIB)

        self.peer = ScriptedPeer(self, script)
        peers = make_peers(self, {THERE: self.peer.url}, observer=self.observed, timeout_seconds=30.0)
        blobs = await peers.blobs(THERE)
        reader = await blobs.open(new_id())
        await reader.read(0, 1000)
        staged = await blobs.stage(new_id())
        asked = blobs.stat(new_id())
        while len(self.peer.connections) < 3:
            await moment()
        await peers.close()
        await self.assertFailure(asked, PeerUnavailable)
        await self.assertFailure(reader.read(2 * MIB, 1000), PeerUnavailable)
        reader.close()
        await staged.abort()
        while not all(connection.lost for connection in self.peer.connections):
            await moment()
