"""What goes wrong with another node, and what a caller then gets."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPullProducer
from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from callfs.backends.interfaces import IBlobBackend, IStagedBlob
from callfs.deferreds import returns_deferred
from callfs.errors import InsufficientStorage, PeerUnavailable
from callfs.web.context import SiteSettings
from tests.backends.peersupport import (
    HERE,
    THERE,
    Holder,
    Log,
    Observed,
    Script,
    ScriptedPeer,
    make_peers,
    moment,
    unused_port,
)
from tests.backends.support import make_local, new_folder
from tests.contract.backends import MIB, content, get, listed, new_id, put

SILENCE_SECONDS = 0.3


@returns_deferred
async def write_on(staged: IStagedBlob) -> None:
    """Write far more than the kernel would buffer."""
    for _ in range(200):
        await staged.write(content(MIB))
        await moment()


def kernel_buffers() -> int:
    """How much of one connection's bytes Linux keeps at most, on both of its sides."""
    limits = [Path(f"/proc/sys/net/ipv4/tcp_{way}mem").read_text().split() for way in "rw"]
    return sum(int(largest) for _, _, largest in limits)


class PeerFaultCase(TestCase):
    """Reaches a node that isn't as it should be."""

    timeout = 60

    def setUp(self) -> None:
        self.observed = Observed()

    async def blobs_of(self, url: str, **options: Any) -> IBlobBackend:
        """The blobs of the node at ``url``, which is waited for but shortly."""
        peers = make_peers(
            self, {THERE: url}, observer=self.observed, **{"timeout_seconds": SILENCE_SECONDS, **options}
        )
        blobs: IBlobBackend = await peers.blobs(THERE)
        return blobs

    async def scripted(self, script: Any) -> IBlobBackend:
        """The blobs of a node that follows a script."""
        self.peer = ScriptedPeer(self, script)
        return await self.blobs_of(self.peer.url)

    def reasons(self) -> list[str]:
        """What failed, in the words of the metrics."""
        return [reason for _, reason in self.observed.failures]


class UnreachableTests(PeerFaultCase):
    """A node that doesn't answer."""

    async def test_refused_connection(self: Any) -> None:
        """A node that isn't running: every call says so."""
        blobs = await self.blobs_of(f"http://127.0.0.1:{unused_port()}")
        await self.assertFailure(blobs.open(new_id()), PeerUnavailable)
        await self.assertFailure(blobs.stat(new_id()), PeerUnavailable)
        await self.assertFailure(blobs.stage(new_id()), PeerUnavailable)
        assert self.reasons() == ["connection"] * 3

    async def test_silence(self: Any) -> None:
        """A node that accepts and never answers is given up within the time limit, and its connection ended."""
        blobs = await self.scripted(lambda script: None)
        await self.assertFailure(blobs.open(new_id()), PeerUnavailable)
        assert self.reasons() == ["timeout"]
        while not self.peer.connections[0].lost:
            await moment()

    async def test_garbage(self: Any) -> None:
        """A node that doesn't speak HTTP."""
        blobs = await self.scripted(lambda script: script.wire.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"))
        await self.assertFailure(blobs.open(new_id()), PeerUnavailable)

    async def test_a_caller_that_leaves(self: Any) -> None:
        """A cancelled call ends its connection and is no failure of the node."""
        blobs = await self.scripted(lambda script: None)
        opening = blobs.open(new_id())
        while not (self.peer.connections and self.peer.connections[0].received):
            await moment()
        opening.cancel()
        await self.assertFailure(opening, CancelledError)
        while not self.peer.connections[0].lost:
            await moment()
        assert self.reasons() == []

    async def test_a_kept_connection_that_is_gone(self) -> None:
        """A node that was restarted is reached over a new connection."""
        backend = make_local(self)
        first = Holder(self, backend)
        blobs = await self.blobs_of(first.url, timeout_seconds=5.0)
        blob_id = await put(blobs, b"data")
        assert await get(blobs, blob_id) == b"data"
        await first.stop()
        Holder(self, backend, port=first.port)
        assert await get(blobs, blob_id) == b"data"
        assert await get(blobs, await put(blobs, b"more")) == b"more"
        assert self.reasons() == []


class WrongAnswerTests(PeerFaultCase):
    """A node that answers, but not as it should."""

    def setUp(self) -> None:
        super().setUp()
        self.log = Log(self)

    async def test_wrong_secret(self: Any) -> None:
        """A refused secret is the operators' affair: the client hears that the node can't be reached."""
        holder = Holder(self, make_local(self), secret="another-secret-altogether")
        blobs = await self.blobs_of(holder.url)
        await self.assertFailure(blobs.open(new_id()), PeerUnavailable)
        (event,) = self.log.named("peer_refuses_secret")
        assert event["log_level"] is LogLevel.critical
        assert "auth.internal_proxy_secret" in event["log_format"]
        assert self.reasons() == ["credentials"]

    async def test_another_node(self: Any) -> None:
        """A mistyped endpoint is noticed whatever is asked, and nothing happens to the other node's blobs."""
        backend = make_local(self)
        kept = await put(backend, b"kept")
        holder = Holder(self, backend, instance_id="node-3")
        blobs = await self.blobs_of(holder.url)
        for call in (blobs.open(kept), blobs.open(new_id()), blobs.stat(kept), blobs.delete(kept)):
            await self.assertFailure(call, PeerUnavailable)
        staged = await blobs.stage(new_id())
        await staged.write(b"lost")
        await self.assertFailure(staged.commit(), PeerUnavailable)
        assert await listed(backend) == [kept]
        assert self.log.named("peer_is_another")[0]["log_level"] is LogLevel.critical
        assert set(self.reasons()) == {"identity"}

    async def test_this_node_itself(self: Any) -> None:
        """A node isn't its own peer."""
        peers = make_peers(self)
        await self.assertFailure(peers.blobs(HERE), PeerUnavailable)

    async def test_something_else_answers(self: Any) -> None:
        """A 404 of a server that isn't a node doesn't mean that a blob is missing."""

        def script(script: Script) -> None:
            script.wire.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nnginx")

        blobs = await self.scripted(script)
        await self.assertFailure(blobs.open(new_id()), PeerUnavailable)
        assert self.reasons() == ["answer"]

    async def test_a_redirection(self: Any) -> None:
        """The secret isn't sent where a node points to."""
        elsewhere = ScriptedPeer(self, lambda script: None)
        blobs = await self.scripted(
            lambda script: script.answer("302 Found", {"Location": f"{elsewhere.url}/v1/internal/blobs/x"})
        )
        await self.assertFailure(blobs.open(new_id()), PeerUnavailable)
        assert elsewhere.connections == []

    async def test_a_starting_node(self: Any) -> None:
        """A node that isn't ready yet."""
        holder = Holder(self, make_local(self))
        holder.site.ready = False
        await self.assertFailure((await self.blobs_of(holder.url)).open(new_id()), PeerUnavailable)

    async def test_a_node_without_a_disk(self: Any) -> None:
        """A node that keeps no blobs."""
        holder = Holder(self, None)
        await self.assertFailure((await self.blobs_of(holder.url)).open(new_id()), PeerUnavailable)

    async def test_a_fault_of_its_own(self: Any) -> None:
        """A node that answers 500 has answered: it isn't spared."""
        blobs = await self.scripted(lambda script: (script.answer("500 Oops", body=b"{}"), script.again()))
        for _ in range(5):
            await self.assertFailure(blobs.open(new_id()), PeerUnavailable)
        assert self.reasons() == ["answer"] * 5

    async def test_complaints_are_few(self: Any) -> None:
        """The same fault again and again is logged once in a while."""
        holder = Holder(self, make_local(self), secret="another-secret-altogether")
        blobs = await self.blobs_of(holder.url)
        for _ in range(5):
            await self.assertFailure(blobs.open(new_id()), PeerUnavailable)
        assert len(self.log.named("peer_refuses_secret")) == 1


class ReadingTests(PeerFaultCase):
    """A blob whose bytes stop coming."""

    def cut(self, end: Any) -> Any:
        """A script that sends half of 200,000 bytes and then does ``end``."""

        def script(script: Script) -> None:
            script.answer("200 OK", {"Content-Length": "200000"}, b"x" * 100_000)
            end(script)

        return script

    async def assert_cut(self: Any, end: Any, reason: str) -> None:
        """The half that came is read, and the rest fails."""
        blobs = await self.scripted(self.cut(end))
        reader = await blobs.open(new_id())
        assert reader.size == 200_000
        assert await reader.read(0, 100_000) == b"x" * 100_000
        await self.assertFailure(reader.read(100_000, 10), PeerUnavailable)
        reader.close()
        reader = await blobs.open(new_id())
        await self.assertFailure(reader.read(0, 200_000), PeerUnavailable)
        reader.close()
        assert self.reasons() == [reason] * 2

    async def test_cut(self) -> None:
        """A body that ends too early fails the read that would be short."""
        await self.assert_cut(lambda script: script.wire.loseConnection(), "cut")

    async def test_reset(self: Any) -> None:
        """So does a connection that is reset, also with bytes before the reset that were never read."""

        def reset_soon(script: Script) -> None:
            moment(0.05).addCallback(lambda _: script.wire.abortConnection())

        blobs = await self.scripted(self.cut(reset_soon))
        reader = await blobs.open(new_id())
        await self.assertFailure(reader.read(0, 200_000), PeerUnavailable)
        reader.close()

    async def test_silence_in_the_middle(self) -> None:
        """A node that falls silent in the middle is given up within the time limit."""
        await self.assert_cut(lambda script: None, "timeout")

    async def test_wrong_length(self: Any) -> None:
        """An answer to a range that is of another length, or another range, isn't taken."""
        size = 8 * MIB

        def script(script: Script) -> None:
            if b"Range:" not in script.received:
                script.answer("200 OK", {"Content-Length": str(size)}, b"x" * 1000)
            else:
                script.answer(*self.wrong)

        good = f"bytes {4 * MIB}-{size - 1}/{size}"
        for status, headers, body in (
            ("206 Partial Content", {"Content-Range": good}, b"short"),
            ("206 Partial Content", {"Content-Range": f"bytes 0-4/{size}"}, b"short"),
            ("206 Partial Content", {}, b"short"),
            ("200 OK", {"Content-Length": str(size)}, b"x"),
            ("200 OK", {"Content-Length": str(4 * MIB)}, b"x"),
        ):
            self.wrong = (status, headers, body)
            blobs = await self.scripted(script)
            reader = await blobs.open(new_id())
            await self.assertFailure(reader.read(4 * MIB, 5), PeerUnavailable)
            reader.close()

    async def test_unknown_length(self: Any) -> None:
        """An answer that doesn't say how long the blob is can't be taken."""

        def script(script: Script) -> None:
            script.wire.write(
                b"HTTP/1.1 200 OK\r\nX-CallFS-Instance-ID: node-2\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
            )

        await self.assertFailure((await self.scripted(script)).open(new_id()), PeerUnavailable)

    async def test_stat_without_a_size(self: Any) -> None:
        """Nor one that should tell the size and doesn't."""
        blobs = await self.scripted(lambda script: script.answer("200 OK"))
        await self.assertFailure(blobs.stat(new_id()), PeerUnavailable)

    async def test_a_slow_reader_slows_the_node_down(self) -> None:
        """What isn't read stays at the node: little more than the kernel's buffers is under way."""
        size = 256 * MIB

        @implementer(IPullProducer)
        class Source:
            sent = 0

            def __init__(self, script: Script) -> None:
                self.script = script
                script.answer("200 OK", {"Content-Length": str(size)})
                script.wire.registerProducer(self, False)

            def resumeProducing(self) -> None:
                if self.sent < size:
                    self.sent += MIB
                    self.script.wire.write(b"x" * MIB)

            def stopProducing(self) -> None:
                """The test is over."""

        sources: list[Source] = []
        blobs = await self.scripted(lambda script: sources.append(Source(script)))
        reader = await blobs.open(new_id())
        seen = []
        for step in range(4):
            await reader.read(step * 8 * MIB, 8 * MIB)
            await moment(0.2)
            seen.append(sources[0].sent)
        for step, sent in enumerate(seen, 1):
            assert step * 8 * MIB <= sent <= step * 8 * MIB + kernel_buffers() + 8 * MIB
        reader.close()

    async def test_a_reader_that_kept_the_node_waiting(self) -> None:
        """A node that lost its patience with a slow reader is asked for the rest of the blob."""
        data = content(64 * MIB)
        backend = make_local(self)
        blob_id = await put(backend, data)
        holder = Holder(self, backend, settings=SiteSettings(write_timeout_seconds=0.2))
        clock = Clock()
        blobs = await self.blobs_of(holder.url, clock=clock)
        reader = await blobs.open(blob_id)
        assert await reader.read(0, MIB) == data[:MIB]
        while not holder.ended():
            await moment()
        clock.advance(10)
        for offset in range(MIB, len(data), 8 * MIB):
            assert await reader.read(offset, 8 * MIB) == data[offset : offset + 8 * MIB]
        reader.close()
        assert self.reasons() == []
        assert self.observed.requests[-1] == (THERE, "read")

    async def test_deleted_and_far_back(self: Any) -> None:
        """A blob that was deleted meanwhile can't be read from the beginning again: that is a fault, not a gap."""
        data = content(12 * MIB)
        holder = Holder(self, make_local(self))
        blobs = await self.blobs_of(holder.url, timeout_seconds=5.0)
        blob_id = await put(blobs, data)
        reader = await blobs.open(blob_id)
        assert await reader.read(0, 3 * MIB) == data[: 3 * MIB]
        await blobs.delete(blob_id)
        await self.assertFailure(reader.read(0, 10), PeerUnavailable)
        reader.close()


class WritingTests(PeerFaultCase):
    """A blob that doesn't arrive."""

    async def test_full_disk(self: Any) -> None:
        """A node without room refuses while the bytes are on their way."""
        holder = Holder(self, make_local(self, min_free_bytes=1 << 60))
        blobs = await self.blobs_of(holder.url)
        for declared_size in (None, 1 << 40):
            staged = await blobs.stage(new_id(), declared_size)
            await self.assertFailure(write_on(staged), InsufficientStorage)
            await staged.abort()
        staged = await blobs.stage(new_id())
        await staged.write(b"a little")
        await self.assertFailure(staged.commit(), InsufficientStorage)
        assert set(self.reasons()) == {"storage"}

    async def test_abort(self) -> None:
        """An aborted blob leaves nothing on the node, neither stored nor staged."""
        root = new_folder(self)
        holder = Holder(self, make_local(self, root))
        blobs = await self.blobs_of(holder.url, timeout_seconds=5.0)
        staged = await blobs.stage(new_id())
        await staged.write(content(3 * MIB))
        await staged.abort()
        while not holder.ended():
            await moment()
        assert [path for path in root.rglob("*") if path.is_file()] == []
        assert self.reasons() == []

    async def test_given_up_at_the_beginning(self) -> None:
        """
        Who gives up an upload at the very moment at which it has its connection leaves none behind: the node would
        wait for the rest, as long as it waits for a client.
        """
        blobs = await self.scripted(lambda script: None)
        await blobs.stage(new_id()).addCallback(lambda staged: staged.abort())
        while not self.peer.connections or not self.peer.connections[0].lost:
            await moment()
        assert self.reasons() == []

    async def test_cut(self: Any) -> None:
        """A connection that ends under the upload fails it."""
        blobs = await self.scripted(lambda script: script.wire.abortConnection())
        staged = await blobs.stage(new_id())
        await self.assertFailure(write_on(staged), PeerUnavailable)
        await staged.abort()
        assert self.reasons() == ["cut"]

    async def test_back_pressure(self: Any) -> None:
        """A node that reads slowly is written to slowly, and goes on to the end."""
        blobs = await self.scripted(lambda script: script.wire.pauseProducing())
        staged = await blobs.stage(new_id())
        size = 0
        writing: Deferred[None] = staged.write(content(MIB))
        while True:
            for _ in range(5):
                if not writing.called:
                    await moment()
            if not writing.called:
                break
            size += MIB
            assert size < 64 * MIB
            writing = staged.write(content(MIB))
        self.peer.connections[0].wire.resumeProducing()
        await writing
        await staged.abort()

    async def test_a_node_that_takes_nothing(self: Any) -> None:
        """A node that reads nothing for too long is given up."""
        blobs = await self.scripted(lambda script: script.wire.pauseProducing())
        staged = await blobs.stage(new_id())
        await self.assertFailure(write_on(staged), PeerUnavailable)
        await self.assertFailure(staged.write(b"more"), PeerUnavailable)
        await staged.abort()
        assert self.reasons() == ["timeout"]

    async def test_a_commit_without_an_answer(self: Any) -> None:
        """A node that takes all and never says that it is stored."""
        blobs = await self.scripted(lambda script: None)
        staged = await blobs.stage(new_id())
        await staged.write(b"data")
        await self.assertFailure(staged.commit(), PeerUnavailable)
        assert self.reasons() == ["timeout"]

    async def test_other_bytes_were_stored(self: Any) -> None:
        """What the node says that it stored is compared; if it is something else it is deleted again."""
        other = json.dumps({"size": 4, "sha256": hashlib.sha256(b"DATA").hexdigest()}).encode()

        def script(script: Script) -> None:
            if script.received.startswith(b"DELETE"):
                script.answer("204 No Content")
                return
            script.again()
            moment(0.05).addCallback(lambda _: script.answer("201 Created", body=other))

        blobs = await self.scripted(script)
        staged = await blobs.stage(new_id())
        await staged.write(b"data")
        await self.assertFailure(staged.commit(), PeerUnavailable)
        assert any(each.received.startswith(b"DELETE") for each in self.peer.connections)

    async def test_an_answer_that_says_nothing(self: Any) -> None:
        """A node that doesn't say what it stored isn't believed."""
        blobs = await self.scripted(
            lambda script: moment(0.05).addCallback(lambda _: script.answer("201 Created", body=b"fine"))
        )
        staged = await blobs.stage(new_id())
        await self.assertFailure(staged.commit(), PeerUnavailable)

    async def test_a_taken_id(self: Any) -> None:
        """A blob is never written over."""
        backend = make_local(self)
        blobs = await self.blobs_of(Holder(self, backend).url)
        blob_id = await put(blobs, b"first")
        staged = await blobs.stage(blob_id)
        await staged.write(b"second")
        await self.assertFailure(staged.commit(), ValueError)
        assert await get(backend, blob_id) == b"first"
