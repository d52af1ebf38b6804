"""Copying, making directories, moving, removing, listing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import CancelledError

from callfs.engine.filesystem import MoveRequest
from callfs.errors import (
    BadRequest,
    DirectoryNotEmpty,
    FileAlreadyExists,
    FileNotFound,
    MetadataUnavailable,
    NotADirectory,
    NotAFile,
    ParentNotADirectory,
    PeerUnavailable,
    PermissionDenied,
    PreconditionFailed,
    ResourceLocked,
)
from callfs.metadata.commands import AttributeChanges
from callfs.model import Preconditions
from tests.support.engine import ADMIN, ALICE, BOB, EngineCase, outcome, settled, started, turns


class TestCopy(EngineCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.data = bytes(range(256)) * 10_000
        await self.put("/source", self.data, content_type="image/png")

    async def test_copy(self) -> None:
        """A new file of the caller's, with content, type and entity tag of the source, and bytes of its own."""
        written = await self.filesystem.copy_file(BOB, "/source", "/d/copy")
        source = await self.filesystem.stat(ALICE, "/source")
        assert written.created
        assert written.inode.owner == "bob"
        assert written.inode.content_type == "image/png"
        assert written.inode.etag == source.etag
        assert written.inode.blob.sha256 == source.blob.sha256
        assert written.inode.blob.id != source.blob.id
        await self.filesystem.remove(ALICE, "/source")
        await self.backend.inner.delete(source.blob.id)
        assert await self.content("/d/copy") == self.data
        assert self.backend.readers == set()

    async def test_empty(self) -> None:
        """An empty file can be copied."""
        await self.put("/empty", b"")
        await self.filesystem.copy_file(ALICE, "/empty", "/copy")
        assert await self.content("/copy") == b""

    async def test_refusals(self) -> None:
        """No source, a directory, something there already, an unknown backend, a condition that fails."""
        copy = self.filesystem.copy_file
        await self.refused(FileNotFound, copy(ALICE, "/x", "/copy"))
        await self.refused(NotAFile, copy(ALICE, "/", "/copy"))
        await self.refused(FileAlreadyExists, copy(ALICE, "/source", "/source"))
        await self.refused(ParentNotADirectory, copy(ALICE, "/source", "/source/x"))
        await self.refused(BadRequest, copy(ALICE, "/source", "/copy", backend="s3"))
        failing = Preconditions(if_match=("*",))
        await self.refused(PreconditionFailed, copy(ALICE, "/source", "/copy", preconditions=failing))
        await self.nothing_left()

    async def test_snapshot(self) -> None:
        """The copy is what the source was when it was opened, whatever is written meanwhile."""
        self.backend.steps.hold("read")
        arrival = self.backend.steps.arrival("read")
        copy = started(self.filesystem.copy_file(ALICE, "/source", "/copy"))
        await arrival
        await self.put("/source", b"new")
        self.backend.steps.release("read")
        await copy
        assert await self.content("/copy") == self.data

    async def test_rotten_source(self) -> None:
        """Bytes that aren't what was stored are not copied; the log and a metric say so."""
        original = (await self.filesystem.stat(ALICE, "/source")).blob.id
        await self.backend.inner.delete(original)
        staged = await self.backend.inner.stage(original)
        await staged.write(b"?" * len(self.data))
        await staged.commit()
        await self.refused(PeerUnavailable, self.filesystem.copy_file(ALICE, "/source", "/copy"))
        assert self.metrics.of["error", "engine", "blob_checksum_mismatch"] == 1
        await self.nothing_left()

    async def test_read_fails(self) -> None:
        """A read that fails half-way leaves nothing."""
        self.backend.steps.fail("read", None, PeerUnavailable("input/output error"))
        await self.refused(PeerUnavailable, self.filesystem.copy_file(ALICE, "/source", "/copy"))
        await self.nothing_left()

    async def test_client_gone(self) -> None:
        """A client that goes during the copying leaves nothing."""
        self.backend.steps.hold("read")
        arrival = self.backend.steps.arrival("read")
        copy = started(self.filesystem.copy_file(ALICE, "/source", "/copy"))
        await arrival
        copy.cancel()
        await self.refused(CancelledError, copy)
        await self.nothing_left()


class TestDirectories(EngineCase):
    async def test_make(self) -> None:
        """A directory with its parents; one that is there stays."""
        made = await self.filesystem.create_directory(ALICE, "/a/b")
        again = await self.filesystem.create_directory(BOB, "/a/b")
        assert (made.created, again.created) == (True, False)
        assert again.inode == made.inode
        assert self.metrics.of["file", "create", "metadata"] == 1

    async def test_refusals(self) -> None:
        """A file is there, or above."""
        await self.put("/f")
        await self.refused(FileAlreadyExists, self.filesystem.create_directory(ALICE, "/f"))
        await self.refused(ParentNotADirectory, self.filesystem.create_directory(ALICE, "/f/d"))
        assert self.locks.held == []

    async def test_root(self) -> None:
        """The root is always there."""
        assert not (await self.filesystem.create_directory(ALICE, "/")).created


class TestRemove(EngineCase):
    async def test_file(self) -> None:
        """A file goes, its blob is garbage, the janitor is told."""
        await self.put("/f")
        await self.filesystem.remove(ALICE, "/f")
        await self.refused(FileNotFound, self.filesystem.stat(ALICE, "/f"))
        assert self.kicks == 1
        assert self.metrics.of["file", "delete", "localfs"] == 1

    async def test_tree(self) -> None:
        """A tree goes when that is said."""
        await self.put("/d/e/f")
        await self.refused(DirectoryNotEmpty, self.filesystem.remove(ALICE, "/d"))
        await self.filesystem.remove(ALICE, "/d", recursive=True)
        await self.refused(FileNotFound, self.filesystem.stat(ALICE, "/d/e/f"))

    async def test_refusals(self) -> None:
        """Nothing there, the root, another's, a file with a slash, a condition that fails; nothing is removed."""
        await self.put("/f")
        remove = self.filesystem.remove
        await self.refused(FileNotFound, remove(ALICE, "/x"))
        await self.refused(BadRequest, remove(ADMIN, "/", recursive=True))
        await self.refused(PermissionDenied, remove(BOB, "/f"))
        await self.refused(NotADirectory, remove(ALICE, "/f", directory_expected=True))
        failing = Preconditions(if_match=('"x"',))
        await self.refused(PreconditionFailed, remove(ALICE, "/f", preconditions=failing))
        assert self.kicks == 0
        assert await self.content("/f") == b"content"
        assert self.locks.held == []


class TestMove(EngineCase):
    async def move(self, source: str, destination: str, principal: Any = ALICE, **options: Any) -> Any:
        """Move something."""
        request = MoveRequest(source=source, destination=destination, **options)
        return await self.filesystem.move(principal, request)

    async def test_file(self) -> None:
        """A file moves; identity, entity tag and blob stay, no byte travels."""
        before = (await self.put("/f")).inode
        after = await self.move("/f", "/g")
        assert (after.path, after.id, after.etag, after.blob) == ("/g", before.id, before.etag, before.blob)
        assert self.metrics.of["file", "move", "localfs"] == 1
        assert self.kicks == 0

    async def test_tree(self) -> None:
        """A tree moves whole."""
        await self.put("/a/b/c")
        await self.move("/a", "/x/y", create_parents=True)
        assert await self.content("/x/y/b/c") == b"content"

    async def test_overwrite(self) -> None:
        """What is overwritten becomes garbage, and the janitor is told."""
        await self.put("/f", b"one")
        await self.put("/g", b"two")
        await self.refused(FileAlreadyExists, self.move("/f", "/g"))
        await self.move("/f", "/g", overwrite=True)
        assert await self.content("/g") == b"one"
        assert self.kicks == 1

    async def test_attributes(self) -> None:
        """Attributes change in place."""
        await self.put("/f")
        inode = await self.move("/f", "/f", attributes=AttributeChanges(mode=0o600, content_type="text/plain"))
        assert (inode.mode, inode.content_type) == (0o600, "text/plain")
        assert self.metrics.of["file", "update", "localfs"] == 1

    async def test_where_it_is_already(self) -> None:
        """Backend and instance that the bytes have already are no obstacle, for a file or a tree."""
        await self.put("/d/f")
        await self.move("/d/f", "/d/g", backend="localfs")
        await self.move("/d", "/e", backend="localfs", instance="node-1")
        assert await self.content("/e/g") == b"content"

    async def test_nothing_to_do(self) -> None:
        """The same place with nothing to relocate is refused."""
        await self.put("/f")
        await self.refused(BadRequest, self.move("/f", "/f"))
        await self.refused(BadRequest, self.move("/f", "/f", backend="localfs"))

    async def test_refusals(self) -> None:
        """No source, unknown backend or instance, another's, a missing parent; nothing is held or changed."""
        await self.put("/f")
        await self.refused(FileNotFound, self.move("/x", "/y"))
        await self.refused(FileNotFound, self.move("/x", "/y", backend="localfs"))
        await self.refused(BadRequest, self.move("/f", "/g", backend="s3"))
        await self.refused(BadRequest, self.move("/f", "/g", instance="node-9"))
        await self.refused(PermissionDenied, self.move("/f", "/g", principal=BOB))
        await self.refused(BadRequest, self.move("/f", "/d/g"))
        assert self.locks.held == []
        assert await self.content("/f") == b"content"


class TestChangesOfNames(EngineCase):
    """What holds for every change that has no body."""

    def changes(self) -> dict[str, Callable[[], Awaitable[Any]]]:
        """By command."""
        filesystem = self.filesystem
        return {
            "CreateDirectory": lambda: filesystem.create_directory(ALICE, "/d/new"),
            "Remove": lambda: filesystem.remove(ALICE, "/d/f"),
            "Move": lambda: filesystem.move(ALICE, MoveRequest(source="/d/f", destination="/d/moved")),
        }

    async def test_locked(self) -> None:
        """A path in use refuses after the time limit; nothing is held then."""
        await self.put("/d/f")
        leases = await self.locks.inner.acquire(("/d/f", "/d/new", "/d/moved"), 0)
        for change in self.changes().values():
            attempt = started(change())
            await turns(1)
            self.advance(10.1)
            await self.refused(ResourceLocked, attempt)
        for lease in leases:
            await lease.release()
        assert self.locks.held == []

    async def test_store_down(self) -> None:
        """Without a store nothing changes, and no lock stays."""
        await self.put("/d/f")
        for name, change in self.changes().items():
            self.store.steps.fail(name, MetadataUnavailable("down"))
            await self.refused(MetadataUnavailable, change())
        assert self.locks.held == []
        assert await self.content("/d/f") == b"content"

    async def test_silent_lock_service(self) -> None:
        """A change is answered although its lock can't be given back just now; the node's end waits for that."""
        self.locks.steps.hold("release")
        for change in self.changes().values():
            await self.put("/d/f")
            await change()
        ended = started(self.filesystem.settled())
        assert not ended.called
        self.locks.steps.release("release")
        await ended

    async def test_client_gone(self) -> None:
        """A change that has begun goes on to its end, and no lock stays."""
        for name, change in self.changes().items():
            await self.put("/d/f")
            self.store.steps.hold(name)
            arrival = self.store.steps.arrival(name)
            attempt = started(change())
            await arrival
            attempt.cancel()
            await self.refused(CancelledError, attempt)
            self.store.steps.release(name)
            done = f"applied {name}"
            await settled(lambda done=done: self.store.steps.passed[done] == 1 and not self.locks.held)

    async def test_client_gone_while_waiting_for_the_lock(self) -> None:
        """A wait for a lock that nobody needs any more doesn't keep the lock."""
        await self.put("/d/f")
        for change in self.changes().values():
            self.locks.steps.hold("acquire")
            attempt = started(change())
            await settled(lambda: self.locks.steps.passed["acquire"] > 0)
            attempt.cancel()
            await self.refused(CancelledError, attempt)
            self.locks.steps.release("acquire")
            await settled(lambda: not self.locks.held)


def flat(pages: list[list[str]]) -> list[str]:
    """All entries of some pages."""
    return [entry for page in pages for entry in page]


class TestListing(EngineCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.names = ["/a", "/a.b", "/a/x", "/a/y/z", "/b", "/é", "/😀"]
        for name in ("/a/x", "/a/y/z", "/a.b", "/b", "/é", "/😀"):
            await self.put(name)

    async def pages(self, path: str, limit: int, **options: Any) -> list[list[str]]:
        """All pages of a listing."""
        found, after = [], ""
        while True:
            page = await self.filesystem.list_page(BOB, path, after=after, limit=limit, **options)
            assert page.directory.path == path
            found.append([inode.path for inode in page.entries])
            if page.after is None:
                return found
            after = page.after

    async def test_children(self) -> None:
        """A directory's own entries, bytewise, the same whatever the size of the pages."""
        expected = ["/a", "/a.b", "/b", "/é", "/😀"]
        for limit in (1, 2, 4, 5, 6, 1000):
            pages = await self.pages("/", limit)
            assert flat(pages) == expected
            assert all(len(page) == limit for page in pages[:-1])
        assert len(await self.pages("/", 5)) == 1

    async def test_walk(self) -> None:
        """The whole tree by path, bytewise, the same whatever the size of the pages."""
        expected = sorted(["/a", "/a.b", "/a/x", "/a/y", "/a/y/z", "/b", "/é", "/😀"], key=str.encode)
        for limit in (1, 3, 8, 1000):
            assert flat(await self.pages("/", limit, recursive=True)) == expected

    async def test_depth(self) -> None:
        """The depth counts from the directory's own children."""
        assert flat(await self.pages("/a", 1, recursive=True, max_depth=0)) == ["/a/x", "/a/y"]
        assert flat(await self.pages("/a", 1, recursive=True, max_depth=1)) == ["/a/x", "/a/y", "/a/y/z"]

    async def test_empty(self) -> None:
        """An empty directory is one empty page."""
        await self.filesystem.create_directory(ALICE, "/empty")
        assert await self.pages("/empty", 10) == [[]]

    async def test_refusals(self) -> None:
        """Nothing there, or a file."""
        await self.refused(FileNotFound, self.filesystem.list_page(ALICE, "/x"))
        await self.refused(NotADirectory, self.filesystem.list_page(ALICE, "/b"))

    async def test_moved_while_it_is_read(self) -> None:
        """A directory that is moved away while its page is read isn't there: it never looks empty."""
        for step, recursive in (("list_children", False), ("walk", True)):
            self.store.steps.hold(step)
            arrival = self.store.steps.arrival(step)
            listing = started(self.filesystem.list_page(BOB, "/a", recursive=recursive))
            await arrival
            await self.filesystem.move(ALICE, MoveRequest(source="/a", destination="/moved"))
            self.store.steps.release(step)
            assert isinstance(await outcome(listing), FileNotFound)
            await self.filesystem.move(ALICE, MoveRequest(source="/moved", destination="/a"))

    async def test_replaced_while_it_is_read(self) -> None:
        """A directory in whose place another comes while its page is read is listed as the new one."""
        self.store.steps.hold("walk")
        arrival = self.store.steps.arrival("walk")
        listing = started(self.filesystem.list_page(BOB, "/a", recursive=True))
        await arrival
        await self.filesystem.remove(ALICE, "/a", recursive=True)
        await self.put("/a/new")
        self.store.steps.release("walk")
        page = await listing
        assert [inode.path for inode in page.entries] == ["/a/new"]
        assert page.directory == await self.filesystem.stat(ALICE, "/a")
