"""Moves that bring the bytes elsewhere: files and trees, between nodes and S3, and what can go wrong."""

from __future__ import annotations

from pathlib import Path
from tempfile import mkdtemp

from twisted.internet import reactor
from twisted.internet.defer import CancelledError

from callfs.backends.interfaces import IBlobBackend
from callfs.backends.localfs import LocalBackend
from callfs.errors import (
    BadRequest,
    Conflict,
    DirectoryNotEmpty,
    FileAlreadyExists,
    FileNotFound,
    InsufficientStorage,
    InvalidPath,
    MetadataUnavailable,
    NotADirectory,
    OutcomeUnknown,
    PeerUnavailable,
    PermissionDenied,
    PreconditionFailed,
)
from callfs.metadata.commands import AttributeChanges
from callfs.model import Preconditions
from tests.support.engine import ADMIN, ALICE, BOB, NODE, outcome, settled, started
from tests.support.nodes import NODES, S3, SECOND, THIRD, NodesCase


class Crash(BaseException):
    """The process ends here."""


class TestFile(NodesCase):
    async def test_between_nodes_and_s3(self) -> None:
        """Through any node, from anywhere to anywhere: content and tag stay, the old copy becomes garbage."""
        first = await self.put_at(NODE, "/f", b"content")
        places = [(SECOND, "localfs"), (None, "s3"), (THIRD, None), (NODE, "localfs")]
        for through in NODES:
            for instance, backend in places:
                moved = await self.move_at(through, "/f", "/f", instance=instance, backend=backend)
                assert await self.places_of("/f") == [S3 if instance is None else self.on(instance)]
                assert (moved.etag, moved.mtime, moved.ctime) == (first.etag, first.mtime, first.ctime)
                for reader in NODES:
                    assert await self.read_at(reader, "/f") == b"content"
        assert (await self.store.statistics()).garbage == len(NODES) * len(places)
        await self.all_named()

    async def test_with_a_rename(self) -> None:
        """The bytes travel first, then the name changes; attributes along with it."""
        await self.put_at(NODE, "/f", b"content")
        moved = await self.move_at(
            SECOND, "/f", "/d/g", instance=THIRD, create_parents=True, attributes=AttributeChanges(mode=0o600)
        )
        assert (moved.path, moved.mode) == ("/d/g", 0o600)
        assert await self.places_of("/d/g") == [self.on(THIRD)]
        assert await self.read_at(NODE, "/d/g") == b"content"
        assert self.kicks

    async def test_in_place_with_attributes(self) -> None:
        """The path may stay the same while bytes and attributes change."""
        await self.put_at(NODE, "/f", b"content")
        moved = await self.move_at(NODE, "/f", "/f", backend="s3", attributes=AttributeChanges(mode=0o600))
        assert (moved.mode, await self.places_of("/f")) == (0o600, [S3])

    async def test_any_local_disk(self) -> None:
        """Asked for local disk alone: from S3 to the node that is asked; from another's disk nowhere."""
        await self.put_at(NODE, "/f", b"content", backend="s3")
        await self.move_at(SECOND, "/f", "/g", backend="localfs")
        assert await self.places_of("/g") == [self.on(SECOND)]
        await self.move_at(THIRD, "/g", "/h", backend="localfs")
        assert await self.places_of("/h") == [self.on(SECOND)]

    async def test_s3_is_at_every_instance(self) -> None:
        """With the backend S3 every known instance is right."""
        await self.put_at(NODE, "/f", b"content")
        await self.move_at(NODE, "/f", "/g", backend="s3", instance=SECOND)
        await self.move_at(THIRD, "/g", "/h", backend="s3", instance=NODE)
        assert await self.places_of("/h") == [S3]

    async def test_large_and_empty(self) -> None:
        """Content of many pieces, and of none."""
        large = bytes(range(256)) * 10_000
        await self.put_at(NODE, "/large", large)
        await self.put_at(NODE, "/empty", b"")
        for path in ("/large", "/empty"):
            await self.move_at(SECOND, path, path, instance=SECOND)
        assert await self.read_at(THIRD, "/large") == large
        assert await self.read_at(THIRD, "/empty") == b""
        await self.all_named()

    async def test_nothing_to_relocate(self) -> None:
        """The path and the place that it has already: a mistake, as without a place."""
        await self.put_at(NODE, "/f")
        await self.refused(BadRequest, self.move_at(SECOND, "/f", "/f", instance=NODE))
        await self.move_at(NODE, "/f", "/f", backend="s3")
        await self.refused(BadRequest, self.move_at(SECOND, "/f", "/f", backend="s3"))

    async def test_counted(self) -> None:
        """A relocation in its place counts as a move to where the bytes are."""
        await self.put_at(NODE, "/f")
        await self.move_at(NODE, "/f", "/f", backend="s3")
        assert self.metrics.of["file", "move", "s3"] == 1


class TestRefusedBeforeBytesTravel(NodesCase):
    async def setUp(self) -> None:
        await super().setUp()
        await self.put_at(NODE, "/d/f", b"content")
        await self.put_at(NODE, "/mine", b"mine")
        await self.put_at(NODE, "/bobs", b"bob's", principal=BOB)
        await self.put_at(NODE, "/full/x", b"x")
        await self.filesystem.create_directory(BOB, "/bobs-empty")

    async def check(self, error: type[Exception], source: str, destination: str, **options: object) -> None:
        """Refused, and not one byte was read."""
        options = {"backend": "s3", **options}
        await self.refused(error, self.move_at(SECOND, source, destination, **options))
        assert await self.ids_at(self.s3) == []
        assert self.s3.steps.passed["stage"] == 0
        await self.all_named()

    async def test_unknown_places(self) -> None:
        """A backend or an instance that nobody knows."""
        await self.check(BadRequest, "/d/f", "/g", backend="tape")
        await self.check(BadRequest, "/d/f", "/g", backend=None, instance="node-9")
        await self.check(BadRequest, "/d/f", "/g", backend="s3", instance="node-9")

    async def test_a_backend_that_the_node_lacks(self) -> None:
        """A node without S3, or without a disk of its own, can't take bytes there."""
        without = self.make_node(SECOND, backends={"localfs": self.disks[SECOND]})
        self.nodes[SECOND] = without
        await self.check(BadRequest, "/d/f", "/g", backend="s3")
        self.nodes[SECOND] = self.make_node(SECOND, backends={"s3": self.s3})
        await self.check(BadRequest, "/d/f", "/g", backend=None, instance=SECOND)
        await self.check(BadRequest, "/d/f", "/g", backend="localfs", instance=None)

    async def test_the_source(self) -> None:
        """Nothing there; another's; a file where a directory was said; a condition that fails."""
        await self.check(FileNotFound, "/x", "/g")
        await self.check(PermissionDenied, "/bobs", "/g")
        await self.check(PermissionDenied, "/bobs", "/bobs")
        await self.check(NotADirectory, "/mine", "/g", directory_expected=True)
        await self.check(NotADirectory, "/mine", "/mine", directory_expected=True)
        for destination in ("/g", "/mine"):
            wrong = Preconditions(if_match=('"wrong"',))
            await self.check(PreconditionFailed, "/mine", destination, preconditions=wrong)

    async def test_another_s_file_in_the_tree(self) -> None:
        """A tree with bytes of others isn't relocated, however deep they are; administrators may."""
        await self.put_at(NODE, "/d/deep/bobs", b"bob's", principal=BOB)
        await self.check(PermissionDenied, "/d", "/e")
        await self.move_at(SECOND, "/d", "/e", principal=ADMIN, backend="s3")
        assert await self.places_of("/e/deep/bobs") == [S3]

    async def test_the_destination(self) -> None:
        """All that the move itself would be refused with: taken, another's, another kind, full, no parent, long."""
        await self.check(FileAlreadyExists, "/mine", "/d/f")
        await self.check(PermissionDenied, "/mine", "/bobs", overwrite=True)
        await self.check(FileAlreadyExists, "/mine", "/d", overwrite=True)
        await self.check(DirectoryNotEmpty, "/d", "/full", overwrite=True)
        await self.check(PermissionDenied, "/d", "/bobs-empty", overwrite=True)
        await self.check(BadRequest, "/mine", "/none/g")
        await self.check(BadRequest, "/d", "/d/e")
        await self.check(InvalidPath, "/d", "/" + "/".join(["x" * 250] * 8) + "/y" * 20, create_parents=True)

    async def test_the_owner(self) -> None:
        """Only administrators give files away."""
        await self.check(PermissionDenied, "/mine", "/g", attributes=AttributeChanges(owner="bob"))


class TestTree(NodesCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.paths = [f"/d/{number}/{name}" for number in range(5) for name in ("a", "b")]
        for index, path in enumerate(self.paths):
            await self.put_at(NODES[index % 3], path, path.encode())

    async def all_at(self, top: str, *places: object) -> None:
        """Every file is readable below ``top`` through every node, and its copies are there."""
        for path in self.paths:
            there = top + path.removeprefix("/d")
            assert await self.places_of(there) == list(places)
            for name in NODES:
                assert await self.read_at(name, there) == path.encode()

    async def test_whole(self) -> None:
        """All files of a tree go, wherever they were, and the tree moves as one."""
        await self.move_at(SECOND, "/d", "/e", instance=THIRD)
        await self.all_at("/e", self.on(THIRD))
        assert await self.store.get("/d") is None
        await self.all_named()

    async def test_in_its_place(self) -> None:
        """A tree can stay where it is while its bytes go."""
        await self.move_at(SECOND, "/d", "/d", backend="s3")
        await self.all_at("/d", S3)
        await self.refused(BadRequest, self.move_at(SECOND, "/d", "/d", backend="s3"))

    async def test_resumed(self) -> None:
        """A relocation that failed half-way goes on where it was: what was copied isn't copied again."""
        self.s3.steps.fail("commit", None, None, None, None, None, InsufficientStorage("full"))
        await self.refused(InsufficientStorage, self.move_at(NODE, "/d", "/e", backend="s3"))
        assert await self.store.get("/e") is None
        done = len(await self.ids_at(self.s3))
        assert 0 < done < len(self.paths)
        for path in self.paths:
            assert await self.read_at(THIRD, path) == path.encode()
        before = self.s3.steps.passed["stage"]
        await self.move_at(NODE, "/d", "/e", backend="s3")
        assert self.s3.steps.passed["stage"] - before == len(self.paths) - done
        await self.all_at("/e", S3)
        await self.all_named()

    async def test_files_that_come_meanwhile(self) -> None:
        """A file that is added behind the look at the tree is relocated as well."""
        self.s3.steps.hold("stage")
        arrival = self.s3.steps.arrival("stage")
        moving = started(self.move_at(NODE, "/d", "/e", backend="s3"))
        await arrival
        await self.put_at(NODE, "/d/0/added", b"added")
        self.s3.steps.release("stage")
        await moving
        assert await self.places_of("/e/0/added") == [S3]

    async def test_a_file_removed_meanwhile(self) -> None:
        """A file that is removed while it is copied is left out, and leaves nothing."""
        self.s3.steps.hold("commit")
        arrival = self.s3.steps.arrival("commit")
        moving = started(self.move_at(NODE, "/d", "/e", backend="s3"))
        await arrival
        await self.filesystem.remove(ADMIN, self.paths[0])
        self.s3.steps.release("commit")
        await moving
        assert await self.store.get("/e/0/a") is None
        self.paths = self.paths[1:]
        await self.all_at("/e", S3)
        await self.all_named()

    async def test_removed_whole_meanwhile(self) -> None:
        """A tree that goes while it is relocated isn't there."""
        self.s3.steps.hold("commit")
        arrival = self.s3.steps.arrival("commit")
        moving = started(self.move_at(NODE, "/d", "/d", backend="s3"))
        await arrival
        await self.filesystem.remove(ADMIN, "/d", recursive=True)
        self.s3.steps.release("commit")
        await self.refused(FileNotFound, moving)
        assert await self.ids_at(self.s3) == []

    async def test_directories_alone(self) -> None:
        """A tree without files is moved, whatever place is asked for."""
        await self.filesystem.create_directory(ALICE, "/x/y")
        await self.move_at(NODE, "/x", "/z", instance=THIRD)
        assert await self.store.get("/z/y") is not None


class TestFaults(NodesCase):
    async def setUp(self) -> None:
        await super().setUp()
        await self.put_at(NODE, "/f", b"the content of the file")

    async def unchanged(self) -> None:
        """The file is where it was, whole, and nothing else is anywhere."""
        assert await self.places_of("/f") == [self.on(NODE)]
        assert await self.read_at(NODE, "/f") == b"the content of the file"
        assert await self.ids_at(self.s3) == []
        await self.all_named()

    def move(self, **options: object) -> object:
        """The move of these tests."""
        return self.move_at(NODE, "/f", "/g", **{"backend": "s3", **options})

    async def test_target_fails(self) -> None:
        """A target that is full, or breaks at any step: the move fails with that, and leaves nothing."""
        for step in ("stage", "write", "commit"):
            for error in (InsufficientStorage("full"), PeerUnavailable("gone")):
                self.s3.steps.fail(step, error)
                await self.refused(type(error), self.move())
                await self.unchanged()

    async def test_target_is_down(self) -> None:
        """A node that is down can't take bytes, one that is silent neither; both are said in time."""
        self.network.down.add(SECOND)
        await self.refused(PeerUnavailable, self.move(backend=None, instance=SECOND))
        await self.unchanged()
        self.network.down.clear()
        self.disks[SECOND].steps.hold("stage")
        moving = started(self.move(backend=None, instance=SECOND))
        self.advance(10.1)
        await self.refused(PeerUnavailable, moving)
        self.disks[SECOND].steps.release("stage")
        await settled(lambda: not self.disks[SECOND].stages)
        await self.unchanged()

    async def test_source_is_down(self) -> None:
        """Bytes on a node that is down can't be relocated through another."""
        self.network.down.add(NODE)
        await self.refused(PeerUnavailable, self.move_at(SECOND, "/f", "/f", backend="s3"))
        self.network.down.clear()
        await self.unchanged()

    async def test_source_breaks_off(self) -> None:
        """A source that ends in mid-stream: nothing is committed."""
        self.backend.steps.fail("read", PeerUnavailable("gone"))
        await self.refused(PeerUnavailable, self.move())
        await self.unchanged()

    async def test_source_has_changed(self) -> None:
        """Bytes that aren't what was stored are never spread: the digest tells, loudly."""
        blob = await self.blob_of("/f")
        await self.damage(self.backend, blob.id, b"the CONTENT of the file")
        await self.refused(PeerUnavailable, self.move())
        assert self.metrics.of["error", "engine", "blob_checksum_mismatch"] == 1
        assert await self.places_of("/f") == [self.on(NODE)]
        await self.all_named()

    async def test_content_replaced_meanwhile(self) -> None:
        """Content that is replaced during the copy is copied in turn; the stale copy goes."""
        self.s3.steps.hold("commit")
        arrival = self.s3.steps.arrival("commit")
        moving = started(self.move())
        await arrival
        await self.put_at(SECOND, "/f", b"newer")
        self.s3.steps.release("commit")
        await moving
        assert await self.places_of("/g") == [S3]
        assert await self.read_at(THIRD, "/g") == b"newer"
        assert len(await self.ids_at(self.s3)) == 1
        await self.all_named()

    async def test_replaced_before_it_is_read(self) -> None:
        """Content that is replaced, and gone from its disk, before the copy begins is no fault: the new goes."""
        arrival = self.backend.steps.arrival("open")
        self.backend.steps.hold("open")
        moving = started(self.move())
        await arrival
        old = await self.blob_of("/f")
        await self.put_at(SECOND, "/f", b"newer")
        await self.backend.delete(old.id)
        self.backend.steps.release("open")
        await moving
        assert await self.places_of("/g") == [S3]
        assert await self.read_at(THIRD, "/g") == b"newer"
        await self.all_named()

    async def test_replaced_without_end(self) -> None:
        """A file that changes during each copy is given up, not chased for ever."""

        def replace(point: str) -> None:
            if point == "relocate.copied":
                changes.append(started(self.put_at(NODE, "/f", b"again")))

        changes: list[object] = []
        self.at_point = replace
        await self.refused(Conflict, self.move())
        self.at_point = lambda _: None
        assert await self.read_at(NODE, "/f") == b"again"
        assert await self.ids_at(self.s3) == []
        await self.all_named()

    async def test_given_away_meanwhile(self) -> None:
        """A file that has become another's during the copy isn't relocated."""
        self.s3.steps.hold("commit")
        arrival = self.s3.steps.arrival("commit")
        moving = started(self.move())
        await arrival
        await self.move_at(NODE, "/f", "/f", principal=ADMIN, attributes=AttributeChanges(owner="bob"))
        self.s3.steps.release("commit")
        await self.refused(PermissionDenied, moving)
        await self.unchanged()

    async def test_renamed_meanwhile(self) -> None:
        """A file that is renamed during the copy is relocated where it is, and then isn't found where it was."""
        self.s3.steps.hold("commit")
        arrival = self.s3.steps.arrival("commit")
        moving = started(self.move())
        await arrival
        await self.move_at(SECOND, "/f", "/elsewhere")
        self.s3.steps.release("commit")
        await self.refused(FileNotFound, moving)
        assert await self.places_of("/elsewhere") == [S3]
        await self.all_named()

    async def test_store_down(self) -> None:
        """Without a store nothing is switched, and nothing remains."""
        self.store.steps.fail("Relocate", MetadataUnavailable("down"))
        await self.refused(MetadataUnavailable, self.move())
        await self.unchanged()

    async def test_outcome_unknown(self) -> None:
        """Where nobody knows whether the switch happened no byte is touched, and the repetition finds out."""
        for step in ("Relocate", "applied Relocate"):
            self.store.steps.fail(step, OutcomeUnknown("lost"))
            await self.refused(OutcomeUnknown, self.move())
            for name in NODES:
                assert await self.read_at(name, "/f") == b"the content of the file"
            assert len(await self.ids_at(self.s3)) >= 1
        await self.move()
        assert await self.read_at(THIRD, "/g") == b"the content of the file"

    async def dies_at(self, last_point: str) -> None:
        """The node gets as far as there."""

        def crash(point: str) -> None:
            if point == last_point:
                raise Crash

        self.at_point = crash
        dying = started(self.move())
        dying.addErrback(lambda failure: failure.trap(Crash))
        await dying
        self.at_point = lambda _: None

    async def test_crash_between_copy_and_switch(self) -> None:
        """A node that dies between the copy and its name leaves the file as it was; the repetition copies anew."""
        await self.dies_at("relocate.copied")
        assert await self.places_of("/f") == [self.on(NODE)]
        assert len(await self.ids_at(self.s3)) == 1
        await self.move_at(SECOND, "/f", "/g", backend="s3")
        assert await self.read_at(THIRD, "/g") == b"the content of the file"
        assert len(await self.ids_at(self.s3)) == 2

    async def test_crash_after_the_switch(self) -> None:
        """A node that dies between the switch and the rename has relocated; the repetition renames."""
        await self.dies_at("relocate.switched")
        assert await self.places_of("/f") == [S3]
        await self.move_at(SECOND, "/f", "/g", backend="s3")
        assert len(await self.ids_at(self.s3)) == 1
        assert await self.read_at(THIRD, "/g") == b"the content of the file"

    async def test_client_gone(self) -> None:
        """A client that goes during the copy, the commit or the switch: nothing, or the switched file, remains."""
        for step in ("write", "commit"):
            self.s3.steps.hold(step)
            arrival = self.s3.steps.arrival(step)
            moving = started(self.move())
            await arrival
            moving.cancel()
            assert isinstance(await outcome(moving), CancelledError)
            self.s3.steps.release(step)
            await self.filesystem.settled()
            await self.unchanged()
        self.store.steps.hold("Relocate")
        arrival = self.store.steps.arrival("Relocate")
        moving = started(self.move())
        await arrival
        moving.cancel()
        await self.refused(CancelledError, moving)
        self.store.steps.release("Relocate")
        await self.filesystem.settled()
        assert await self.places_of("/f") == [S3]
        await self.all_named()

    async def test_refused_copy_that_cannot_be_deleted(self) -> None:
        """A refused copy that can't be deleted is counted and left to the sweep; the refusal is the answer."""
        self.store.steps.fail("Relocate", MetadataUnavailable("down"))
        self.s3.steps.fail("delete", OSError(5, "input/output error"))
        await self.refused(MetadataUnavailable, self.move())
        self.flushLoggedErrors(OSError)
        assert self.metrics.of["error", "engine", "discard_failed"] == 1


class TestOnRealDisks(TestTree):
    """The same trees where each node has a folder on a disk."""

    async def make_backend(self) -> IBlobBackend:
        folder = Path(mkdtemp(dir=self.folder))
        return LocalBackend(folder, reactor=reactor, pool=self.pool, now=self.now, min_free_bytes=0)
