"""Files whose bytes other nodes hold: reading, replacing, removing and linking them through any node."""

from __future__ import annotations

from twisted.internet.defer import CancelledError

from callfs.backends.interfaces import BlobMissing
from callfs.engine.alone import Alone
from callfs.engine.filesystem import OpenFile
from callfs.errors import (
    Conflict,
    FileAlreadyExists,
    InsufficientStorage,
    LinkNotFound,
    LinkUsed,
    MetadataUnavailable,
    PeerUnavailable,
    PreconditionFailed,
)
from callfs.model import Preconditions
from tests.support.engine import (
    ADMIN,
    ALICE,
    NODE,
    Feed,
    chunks,
    outcome,
    read_all,
    settled,
    started,
    turns,
    upload,
)
from tests.support.nodes import NODES, S3, SECOND, THIRD, NodesCase


class TestReading(NodesCase):
    async def test_from_everywhere(self) -> None:
        """A file is read through every node, wherever its bytes are, whole and in parts."""
        for name in NODES:
            await self.put_at(name, f"/{name}", name.encode() * 100_000)
        await self.put_at(NODE, "/s3", b"on s3", backend="s3")
        for name in NODES:
            assert await self.read_at(name, "/s3") == b"on s3"
            for holder in NODES:
                assert await self.read_at(name, f"/{holder}") == holder.encode() * 100_000
                opened = await self.nodes[name].open(ALICE, f"/{holder}")
                assert await opened.reader.read(3, 5) == b"e-" + holder[-1:].encode() + b"no"
                opened.reader.close()
        await self.all_named()

    async def test_holder_is_down(self) -> None:
        """While its holder is down a file can be looked up, not read, and nothing is called lost."""
        await self.put_at(SECOND, "/f")
        self.network.down.add(SECOND)
        assert (await self.filesystem.stat(ALICE, "/f")).size == 7
        await self.refused(PeerUnavailable, self.filesystem.open(ALICE, "/f"))
        assert self.metrics.of["error", "engine", "blob_missing"] == 0
        assert await self.read_at(SECOND, "/f") == b"content"

    async def test_holder_is_silent(self) -> None:
        """A node that doesn't answer is waited for no longer than file_op_timeout."""
        await self.put_at(SECOND, "/f")
        self.disks[SECOND].steps.hold("open")
        opening = started(self.filesystem.open(ALICE, "/f"))
        self.advance(9.9)
        assert not opening.called
        self.advance(0.2)
        await self.refused(PeerUnavailable, opening)
        self.disks[SECOND].steps.release("open")
        await settled(lambda: not self.disks[SECOND].readers)

    async def test_holder_breaks_off(self) -> None:
        """Bytes that stop in mid-stream are an error, never a short file."""
        await self.put_at(SECOND, "/f", b"content")
        opened = await self.filesystem.open(ALICE, "/f")
        assert await opened.reader.read(0, 3) == b"con"
        self.network.down.add(SECOND)
        await self.refused(PeerUnavailable, opened.reader.read(3, 4))
        opened.reader.close()

    async def test_without_s3(self) -> None:
        """A node without S3 doesn't reach what is there, and says so."""
        await self.put_at(NODE, "/f", b"content", backend="s3")
        self.nodes[SECOND] = self.make_node(SECOND, backends={"localfs": self.disks[SECOND]})
        await self.refused(PeerUnavailable, self.read_at(SECOND, "/f"))
        await self.refused(PeerUnavailable, self.put_at(SECOND, "/f", b"new"))

    async def test_alone(self) -> None:
        """A node that is alone knows nobody but itself."""
        peers = Alone(NODE, "https://here")
        assert await peers.known() == {NODE: "https://here"}
        await self.refused(PeerUnavailable, peers.blobs(SECOND))
        await peers.close()

    async def test_endpoints(self) -> None:
        """Where a node is reached is what its peers know."""
        assert await self.filesystem.api_endpoint(SECOND) == f"https://{SECOND}.example"
        assert await self.filesystem.api_endpoint("node-9") is None


class TestCopies(NodesCase):
    """Reading a file with a second copy: /f is on the second node and on S3."""

    options = {"replica_backend": "s3", "require_replica_success": True}

    async def setUp(self) -> None:
        await super().setUp()
        await self.put_at(SECOND, "/f", b"content")

    async def test_first_copy_first(self) -> None:
        """The first copy is read as long as it can be."""
        assert await self.read_at(THIRD, "/f") == b"content"
        assert self.s3.steps.passed["open"] == 0

    async def test_own_copy_first(self) -> None:
        """A node that has a copy on its own disk reads that."""
        await self.move_at(THIRD, "/f", "/f", backend="s3")
        self.nodes[THIRD] = self.make_node(
            THIRD, settings=self.settings(THIRD, replica_backend="localfs", require_replica_success=True)
        )
        await self.put_at(THIRD, "/f", b"newer")
        assert await self.places_of("/f") == [S3, self.on(THIRD)]
        before = self.s3.steps.passed["open"]
        assert await self.read_at(THIRD, "/f") == b"newer"
        assert self.s3.steps.passed["open"] == before

    async def test_replica_when_the_holder_is_down(self) -> None:
        """While the holder is down its file is read from the second copy through every node, at once."""
        self.network.down.add(SECOND)
        for name in (NODE, THIRD):
            assert await self.read_at(name, "/f") == b"content"
        assert self.metrics.of["error", "engine", "blob_missing"] == 0

    async def test_replica_when_the_holder_is_silent(self) -> None:
        """A silent holder is given up early enough that the second copy comes within file_op_timeout."""
        self.disks[SECOND].steps.hold("open")
        opening = started(self.filesystem.open(ALICE, "/f"))
        self.advance(5.1)
        assert await read_all(await opening) == b"content"
        self.disks[SECOND].steps.release("open")
        await settled(lambda: not self.disks[SECOND].readers)

    async def test_replica_that_goes_elsewhere_meanwhile(self) -> None:
        """A second copy that is relocated just before it is opened is found where it is by then."""
        replica_on_disk = self.settings(SECOND, replica_backend="localfs", require_replica_success=True)
        self.nodes[SECOND] = self.make_node(SECOND, settings=replica_on_disk)
        await self.put_at(SECOND, "/g", b"content", backend="s3")
        await self.filesystem.remove(ALICE, "/f")
        self.s3.steps.fail("open", PeerUnavailable("gone"))
        self.disks[SECOND].steps.hold("open")
        arrived = self.disks[SECOND].steps.arrival("open")
        opening = started(self.filesystem.open(ALICE, "/g"))
        await arrived
        await self.nodes[THIRD].drain_batch(SECOND, self.on(THIRD), "", 10)
        assert await self.places_of("/g") == [S3, self.on(THIRD)]
        self.s3.steps.fail("open", PeerUnavailable("gone"))
        self.disks[SECOND].steps.fail("open", BlobMissing("deleted"))
        self.disks[SECOND].steps.release("open")
        assert await read_all(await opening) == b"content"

    async def test_all_silent(self) -> None:
        """With all copies silent it is file_op_timeout in all, not for each."""
        self.disks[SECOND].steps.hold("open")
        self.s3.steps.hold("open")
        opening = started(self.filesystem.open(ALICE, "/f"))
        self.advance(5.1)
        self.advance(5.0)
        await self.refused(PeerUnavailable, opening)

    async def test_before_the_first_byte_and_after(self) -> None:
        """A holder that dies before the first byte, or in mid-stream: the second copy takes over at that byte."""
        for already in (0, 3):
            opened = await self.filesystem.open(ALICE, "/f")
            assert await opened.reader.read(0, already) == b"content"[:already]
            self.network.down.add(SECOND)
            assert await opened.reader.read(already, 10) == b"content"[already:]
            opened.reader.close()
            self.network.down.clear()
        assert self.metrics.of["error", "engine", "copy_changed"] == 2
        await self.all_named()

    async def test_all_fail_in_mid_stream(self) -> None:
        """When the last copy fails, too, the read fails."""
        opened = await self.filesystem.open(ALICE, "/f")
        self.network.down.add(SECOND)
        self.s3.steps.fail("open", PeerUnavailable("s3 is down"))
        await self.refused(PeerUnavailable, opened.reader.read(0, 10))
        opened.reader.close()
        await self.all_named()

    async def test_reads_side_by_side_fail_over_once(self) -> None:
        """Reads under way at once go over to one and the same copy."""
        opened = await self.filesystem.open(ALICE, "/f")
        self.network.down.add(SECOND)
        self.s3.steps.hold("open")
        reads = [opened.reader.read(offset, 2) for offset in (0, 2, 4)]
        self.s3.steps.release("open")
        assert [await read for read in reads] == [b"co", b"nt", b"en"]
        assert self.s3.steps.passed["open"] == 1
        opened.reader.close()
        await self.all_named()

    async def test_closed_while_going_over(self) -> None:
        """A reader that is closed meanwhile leaves nothing open."""
        opened = await self.filesystem.open(ALICE, "/f")
        self.network.down.add(SECOND)
        self.s3.steps.hold("open")
        reading = opened.reader.read(0, 2)
        opened.reader.close()
        self.s3.steps.release("open")
        await self.refused(PeerUnavailable, reading)
        await self.all_named()

    async def test_one_copy_lost(self) -> None:
        """A missing copy isn't a missing file."""
        first, second = (await self.blob_of("/f")).copies()
        await self.disks[SECOND].inner.delete(first.id)
        assert await self.read_at(NODE, "/f") == b"content"
        await self.s3.inner.delete(second.id)
        await self.refused(PeerUnavailable, self.filesystem.open(ALICE, "/f"))
        assert self.metrics.of["error", "engine", "blob_missing"] == 1

    async def test_deleted_while_the_holder_is_down(self) -> None:
        """While the holder is down its file can be removed; the copy on S3 becomes garbage along with the first."""
        self.network.down.add(SECOND)
        await self.filesystem.remove(ALICE, "/f")
        assert (await self.store.statistics()).garbage == 2

    async def test_copied_on_the_server(self) -> None:
        """A copy is made from whichever copy can be read."""
        self.network.down.add(SECOND)
        await self.filesystem.copy_file(ALICE, "/f", "/g")
        assert await self.read_at(THIRD, "/g") == b"content"
        assert await self.places_of("/g") == [self.on(NODE), S3]


class TestWriting(NodesCase):
    async def test_new_files_stay_where_they_come(self) -> None:
        """A new file goes to the disk of the node that got it, or to S3 when that is asked for."""
        await self.put_at(SECOND, "/a")
        await self.put_at(SECOND, "/b", backend="s3")
        assert await self.places_of("/a") == [self.on(SECOND)]
        assert await self.places_of("/b") == [S3]

    async def test_default_backend(self) -> None:
        """default_backend decides where nothing else is said."""
        self.nodes[SECOND] = self.make_node(SECOND, settings=self.settings(SECOND, default_backend="s3"))
        await self.put_at(SECOND, "/a")
        await self.put_at(SECOND, "/b", backend="localfs")
        assert await self.places_of("/a") == [S3]
        assert await self.places_of("/b") == [self.on(SECOND)]

    async def test_replaced_where_they_are(self) -> None:
        """New content goes where the old is, whichever node gets it; the others read it at once."""
        for number, (holder, backend) in enumerate([(SECOND, "localfs"), (NODE, "s3")]):
            await self.put_at(holder, "/f", b"old", backend=backend)
            places = await self.places_of("/f")
            for name in NODES:
                content = f"{number} {name}".encode()
                await self.put_at(name, "/f", content, backend="localfs")
                assert await self.places_of("/f") == places
                for reader in NODES:
                    assert await self.read_at(reader, "/f") == content
            await self.filesystem.remove(ALICE, "/f")
        await self.all_named()

    async def test_small_bodies_at_hand(self) -> None:
        """A body that is in memory already goes where the old content is, too."""
        await self.put_at(SECOND, "/f", b"old")
        await self.filesystem.put_file(ALICE, "/f", upload(chunks(b"new")))
        body = upload(b"")
        await self.filesystem.put_file(ALICE, "/f", type(body)(body=b"at hand", max_size=100))
        assert await self.places_of("/f") == [self.on(SECOND)]
        assert await self.read_at(THIRD, "/f") == b"at hand"
        await self.all_named()

    async def test_the_owner_stays(self) -> None:
        """Whoever writes through whichever node: the file keeps its owner."""
        await self.put_at(SECOND, "/f")
        inode = await self.put_at(THIRD, "/f", b"new", principal=ADMIN)
        assert inode.owner == "alice"

    async def test_holder_is_down(self) -> None:
        """What is on a node that is down can't be replaced; the refusal comes before the body."""
        await self.put_at(SECOND, "/f")
        self.network.down.add(SECOND)
        body = Feed()
        await self.refused(PeerUnavailable, self.filesystem.put_file(ALICE, "/f", upload(body)))
        assert body.asked == 0
        await self.put_at(SECOND, "/f", b"through the node itself")

    async def test_holder_is_silent(self) -> None:
        """A node that doesn't answer is waited for no longer than file_op_timeout, and keeps no stage."""
        await self.put_at(SECOND, "/f")
        self.disks[SECOND].steps.hold("stage")
        write = started(self.put_at(NODE, "/f", b"new"))
        self.advance(10.1)
        await self.refused(PeerUnavailable, write)
        self.disks[SECOND].steps.release("stage")
        await settled(lambda: not self.disks[SECOND].stages)
        assert await self.read_at(NODE, "/f") == b"content"

    async def test_another_node_created_it_first(self) -> None:
        """A creation whose path another node has filled meanwhile is refused as such, and leaves nothing."""
        self.disks[NODE].steps.hold("commit")
        arrival = self.disks[NODE].steps.arrival("commit")
        creation = started(self.filesystem.create_file(ALICE, "/n", upload(b"late")))
        await arrival
        await self.put_at(SECOND, "/n", b"first")
        self.disks[NODE].steps.release("commit")
        await self.refused(FileAlreadyExists, creation)
        assert await self.read_at(NODE, "/n") == b"first"
        await self.all_named()

    async def fails(self, error: type[Exception], body: object = b"new", **options: object) -> None:
        """A replacement through another node fails, the old content stays, nothing else remains there."""
        await self.refused(error, self.filesystem.put_file(ALICE, "/f", upload(body, **options)))
        assert await self.read_at(THIRD, "/f") == b"content"
        await self.all_named()

    async def test_faults(self) -> None:
        """A body that breaks off, a holder that fails at any step, a refused command: nothing remains anywhere."""
        await self.put_at(SECOND, "/f")
        await self.fails(ConnectionError, chunks(b"half", ConnectionError("gone")))
        await self.fails(PreconditionFailed, preconditions=Preconditions(if_match=('"x"',)))
        for step in ("stage", "write", "commit"):
            self.disks[SECOND].steps.fail(step, InsufficientStorage("full"))
            await self.fails(InsufficientStorage)
        for refusal in (MetadataUnavailable("down"), Conflict("condemned")):
            self.store.steps.fail("PutFile", refusal)
            await self.fails(type(refusal))

    async def test_holder_dies_in_mid_stream(self) -> None:
        """A holder that dies during the body, or at the commit, fails the write."""
        await self.put_at(SECOND, "/f")
        for written in (b"half", None):
            body = Feed()
            write = started(self.filesystem.put_file(ALICE, "/f", upload(body)))
            body.give(b"first")
            self.network.down.add(SECOND)
            body.give(written)
            await self.refused(PeerUnavailable, write)
            self.network.down.clear()
            assert await self.read_at(THIRD, "/f") == b"content"
            await self.all_named()

    async def test_client_gone(self) -> None:
        """A client that goes during its body leaves nothing at the other node."""
        await self.put_at(SECOND, "/f")
        body = Feed()
        write = started(self.filesystem.put_file(ALICE, "/f", upload(body)))
        body.give(b"half")
        write.cancel()
        await self.refused(CancelledError, write)
        await turns()
        await self.all_named()

    async def test_moved_meanwhile(self) -> None:
        """Bytes that moved elsewhere during the body: the new ones follow, and none stay where they came."""
        await self.put_at(SECOND, "/f")
        await self.moving_write(THIRD)
        assert await self.places_of("/f") == [self.on(THIRD)]
        assert await self.read_at(NODE, "/f") == b"new"
        await self.all_named()

    async def moving_write(self, target: str) -> None:
        """Replace /f through the first node, and relocate it while the body is on its way."""
        body = Feed()
        write = started(self.filesystem.put_file(ALICE, "/f", upload(body)))
        body.give(b"new")
        await self.move_at(SECOND, "/f", "/f", instance=target)
        body.give(None)
        await write

    async def test_moved_to_where_it_fails(self) -> None:
        """New bytes that can't follow are taken back, and the old content stays."""
        await self.put_at(SECOND, "/f")
        for error in (InsufficientStorage("full"), PeerUnavailable("gone")):
            self.disks[THIRD].steps.fail("commit", None, error)
            await self.refused(type(error), self.moving_write(THIRD))
            assert await self.read_at(NODE, "/f") == b"content"
            await self.all_named()
            await self.move_at(SECOND, "/f", "/f", instance=SECOND)

    def moved_at_each_attempt(self, times: int) -> None:
        """From now on /f goes to another node just before its new bytes would get their name, so many times."""
        targets = [THIRD, SECOND] * (times // 2)

        def relocate(point: str) -> None:
            if point == "write.before_command" and targets:
                started(self.move_at(NODE, "/f", "/f", instance=targets.pop(0)))

        self.at_point = relocate

    async def test_moved_without_pause(self) -> None:
        """A file that goes to and fro without pause is written all the same, and its bytes are never sent twice."""
        await self.put_at(SECOND, "/f")
        self.moved_at_each_attempt(40)
        copied = {name: self.disks[name].steps.passed["commit"] for name in NODES}
        await self.filesystem.put_file(ALICE, "/f", upload(b"new"))
        commits = {name: self.disks[name].steps.passed["commit"] - copied[name] for name in NODES}
        assert commits == {NODE: 0, SECOND: 20 + 1, THIRD: 20 + 1}  # the moves of the old content, and the new
        assert await self.read_at(NODE, "/f") == b"new"
        await self.all_named()

    async def test_always_elsewhere(self) -> None:
        """A file that moves whenever it would be written is given up at last, and the new bytes are taken back."""
        await self.put_at(SECOND, "/f")
        self.moved_at_each_attempt(1000)
        refusal = await self.refused(Conflict, self.filesystem.put_file(ALICE, "/f", upload(b"new")))
        assert "faster than new content can follow" in refusal.message
        self.at_point = lambda _: None
        assert await self.read_at(NODE, "/f") == b"content"
        await self.all_named()

    async def test_new_through_all_at_once(self) -> None:
        """Simultaneous PUTs of a new file through three nodes all succeed, whichever of them makes it."""
        bodies = [Feed() for _ in NODES]
        writes = [
            started(self.nodes[name].put_file(ALICE, "/new", upload(body)))
            for name, body in zip(NODES, bodies, strict=True)
        ]
        for name, body in zip(NODES, bodies, strict=True):
            body.give(name.encode())
            body.give(None)
        outcomes = [await write for write in writes]
        assert [written.created for written in outcomes].count(True) == 1
        (content,) = {await self.read_at(name, "/new") for name in NODES}
        assert content in {name.encode() for name in NODES}
        await self.all_named()

    async def test_a_condition_holds_wherever(self) -> None:
        """Of simultaneous PUTs that are to be the first, one is, whatever place it is in."""
        only_new = Preconditions(if_none_match=("*",))
        bodies = [Feed() for _ in NODES]
        writes = [
            started(self.nodes[name].put_file(ALICE, "/new", upload(body, preconditions=only_new)))
            for name, body in zip(NODES, bodies, strict=True)
        ]
        for body in bodies:
            body.give(b"x")
            body.give(None)
        outcomes = [await outcome(write) for write in writes]
        assert [type(each) for each in outcomes].count(PreconditionFailed) == 2
        await self.all_named()

    async def test_at_once_through_all(self) -> None:
        """Simultaneous replacements through three nodes all succeed; one content is there, the same everywhere."""
        await self.put_at(SECOND, "/f")
        bodies = [Feed() for _ in NODES]
        writes = [
            started(self.nodes[name].put_file(ALICE, "/f", upload(body)))
            for name, body in zip(NODES, bodies, strict=True)
        ]
        for name, body in zip(NODES, bodies, strict=True):
            body.give(name.encode())
        for body in bodies:
            body.give(None)
        for write in writes:
            assert not (await write).created
        assert {await self.read_at(name, "/f") for name in NODES} == {THIRD.encode()}
        await self.all_named()

    async def test_copied_on_the_server(self) -> None:
        """copy_from: the source may be anywhere, the copy is a new file."""
        await self.put_at(SECOND, "/f")
        await self.filesystem.copy_file(ALICE, "/f", "/g")
        await self.nodes[THIRD].copy_file(ALICE, "/g", "/h", backend="s3")
        assert [await self.places_of(path) for path in ("/g", "/h")] == [[self.on(NODE)], [S3]]
        assert await self.read_at(SECOND, "/h") == b"content"


class TestLinks(NodesCase):
    async def redeem(self, name: str, token: str) -> OpenFile:
        """Open the file of a link through a node."""
        return await self.nodes[name].redeem_link(token)

    async def test_one_winner(self) -> None:
        """A link made on one node and redeemed on all at once has one winner."""
        await self.put_at(SECOND, "/f")
        link = await self.filesystem.issue_link(ALICE, "/f", 60)
        outcomes = [await outcome(work) for work in [started(self.redeem(name, link.token)) for name in NODES * 5]]
        winners = [each for each in outcomes if isinstance(each, OpenFile)]
        assert [type(each) for each in outcomes if not isinstance(each, OpenFile)] == [LinkUsed] * 14
        assert [await read_all(winner) for winner in winners] == [b"content"]
        await self.all_named()

    async def test_holder_is_down(self) -> None:
        """A link to a file that can't be read just now isn't used up."""
        await self.put_at(SECOND, "/f")
        link = await self.filesystem.issue_link(ALICE, "/f", 60)
        self.network.down.add(SECOND)
        await self.refused(PeerUnavailable, self.redeem(THIRD, link.token))
        self.network.down.clear()
        await self.move_at(NODE, "/f", "/g", backend="s3")
        assert await read_all(await self.redeem(THIRD, link.token)) == b"content"
        await self.refused(LinkUsed, self.redeem(THIRD, link.token))
        await self.filesystem.remove(ALICE, "/g")
        await self.refused(LinkNotFound, self.redeem(THIRD, link.token))
