"""The contract of metadata stores: moves, attributes, and removal of trees."""

from __future__ import annotations

from callfs import paths
from callfs.errors import (
    BadRequest,
    DirectoryNotEmpty,
    FileAlreadyExists,
    FileNotFound,
    InvalidPath,
    NotADirectory,
    ParentNotADirectory,
    PermissionDenied,
    PreconditionFailed,
)
from callfs.metadata.commands import AttributeChanges
from callfs.model import Preconditions, S3Placement
from tests.contract.metadata_base import StoreTests
from tests.support.commands import ADMIN

STALE = Preconditions(if_match=('"0123"',))


class MoveContract(StoreTests):
    """``Move``."""

    async def test_a_file_is_renamed(self) -> None:
        """The file keeps everything but its path, ctime and generation; the old path is free."""
        old = (await self.apply(self.make.create("/a"))).inode
        command = self.make.move("/a", "/b")
        moved = (await self.apply(command)).inode
        assert moved == await self.existing("/b")
        assert await self.store.get("/a") is None
        assert (moved.id, moved.content_id, moved.blob) == (old.id, old.content_id, old.blob)
        assert (moved.mtime, moved.created_at) == (old.mtime, old.created_at)
        assert (moved.ctime, moved.generation) == (command.at, 2)
        await self.apply(self.make.create("/a"))

    async def test_both_directories_change(self) -> None:
        """A move changes the directory that it leaves and the one that it enters, each once."""
        await self.apply(self.make.create("/a/f"))
        await self.apply(self.make.make_directory("/b"))
        generations = [(await self.existing(path)).generation for path in ("/a", "/b", "/")]
        command = self.make.move("/a/f", "/b/f")
        await self.apply(command)
        left, entered, root = [await self.existing(path) for path in ("/a", "/b", "/")]
        assert [left.generation, entered.generation, root.generation] == [
            generations[0] + 1,
            generations[1] + 1,
            generations[2],
        ]
        assert left.mtime == left.ctime == entered.mtime == entered.ctime == command.at
        command = self.make.move("/b/f", "/b/g")
        await self.apply(command)
        assert (await self.existing("/b")).generation == generations[1] + 2

    async def test_a_tree_moves_as_a_whole(self) -> None:
        """All that is inside goes along, keeps its owners and itself, and can be listed at its new depth."""
        for path, user in (("/a/x/1", "alice"), ("/a/x/2", "bob"), ("/a/y", "carol"), ("/a.txt", "bob")):
            await self.apply(self.make.create(path, user))
        inside = await self.store.walk("/a")
        await self.apply(self.make.move("/a", "/deep/er/b", create_parents=True))
        moved = await self.store.walk("/deep/er/b")
        assert [inode.path for inode in moved] == [f"/deep/er/b{path}" for path in ("/x", "/x/1", "/x/2", "/y")]
        assert [inode.id for inode in moved] == [inode.id for inode in inside]
        assert [inode.owner for inode in moved] == ["alice", "alice", "bob", "carol"]
        assert [inode.generation for inode in moved] == [inode.generation for inode in inside]
        children = await self.store.walk("/deep/er/b", max_depth=0)
        assert [inode.path for inode in children] == ["/deep/er/b/x", "/deep/er/b/y"]
        assert await self.store.walk("/a") == []
        assert await self.store.get("/a.txt") is not None
        assert await self.store.verify() == []

    async def test_neighbours_with_alike_names_stay(self) -> None:
        """A move takes what is below the directory, not what merely begins with its name."""
        alike = ["/docs-old/f", "/docs.txt", "/docs0", "/docs!", "/Docs/f", "/doc", "/docsé"]
        for path in ("/docs/f", *alike):
            await self.apply(self.make.create(path))
        await self.apply(self.make.move("/docs", "/%"))
        assert set(await self.listed_paths()) == {*alike, "/docs-old", "/Docs", "/%", "/%/f"}

    async def test_a_directory_moves_up_and_down(self) -> None:
        """A tree can move next to its parent, and into a sibling."""
        await self.apply(self.make.create("/a/b/c/f"))
        await self.apply(self.make.move("/a/b", "/b"))
        assert await self.listed_paths() == ["/a", "/b", "/b/c", "/b/c/f"]
        await self.apply(self.make.move("/b", "/a/b"))
        assert await self.listed_paths() == ["/a", "/a/b", "/a/b/c", "/a/b/c/f"]
        assert await self.store.verify() == []

    async def test_names_of_many_bytes_move_whole(self) -> None:
        """The cut between the moved path and its rest counts characters, not bytes."""
        await self.apply(self.make.create("/é😀/ü/ß😀.txt"))
        await self.apply(self.make.move("/é😀", "/x"))
        assert await self.listed_paths() == ["/x", "/x/ü", "/x/ü/ß😀.txt"]

    async def test_missing_parents_are_made_when_asked(self) -> None:
        """Without ``create_parents`` a missing parent is refused, with it made as the principal's."""
        await self.apply(self.make.create("/f"))
        await self.refused(self.make.move("/f", "/x/y/f"), BadRequest)
        await self.apply(self.make.move("/f", "/x/y/f", create_parents=True))
        assert [(await self.existing(path)).owner for path in ("/x", "/x/y")] == ["alice", "alice"]

    async def test_requests_that_make_no_sense(self) -> None:
        """The root, nothing to change, a directory into itself, a content type for a directory: refused."""
        await self.apply(self.make.create("/a/f"))
        await self.refused(self.make.move("/", "/b", principal=ADMIN), BadRequest)
        await self.refused(self.make.move("/a", "/", overwrite=True), BadRequest)
        await self.refused(self.make.change("/", principal=ADMIN, mode=0o700), BadRequest)
        await self.refused(self.make.move("/a", "/a"), BadRequest)
        await self.refused(self.make.move("/a", "/a/b"), BadRequest)
        await self.refused(self.make.move("/a", "/a/b/c", create_parents=True), BadRequest)
        await self.refused(self.make.change("/a", content_type="text/plain"), BadRequest)

    async def test_a_file_can_not_hold_what_is_moved(self) -> None:
        """An ancestor of the destination that is a file, be it the source itself, refuses the move."""
        await self.apply(self.make.create("/f"))
        await self.apply(self.make.create("/g"))
        await self.refused(self.make.move("/f", "/g/x"), ParentNotADirectory)
        await self.refused(self.make.move("/f", "/g/x/y", create_parents=True), ParentNotADirectory)
        await self.refused(self.make.move("/f", "/f/x"), ParentNotADirectory)

    async def test_a_missing_source(self) -> None:
        """What isn't there can't move, also below a file."""
        await self.apply(self.make.create("/f"))
        await self.refused(self.make.move("/x", "/y"), FileNotFound)
        await self.refused(self.make.move("/f/x", "/y"), FileNotFound)
        await self.refused(self.make.move("/f", "/y", directory_expected=True), NotADirectory)

    async def test_only_owner_and_administrators_move(self) -> None:
        """Another's source is refused; what belongs to others inside one's own directory goes along."""
        await self.apply(self.make.create("/f", "bob"))
        await self.apply(self.make.create("/d/f", "bob"))
        await self.refused(self.make.move("/f", "/g", preconditions=STALE), PermissionDenied)
        await self.refused(self.make.change("/f", mode=0o600), PermissionDenied)
        moved = await self.apply(self.make.move("/f", "/g", principal=ADMIN))
        assert moved.inode.owner == "bob"
        await self.apply(self.make.make_directory("/mine"))
        await self.apply(self.make.create("/mine/f", "bob"))
        await self.apply(self.make.move("/mine", "/d/mine"))
        assert (await self.existing("/d/mine/f")).owner == "bob"

    async def test_a_taken_destination(self) -> None:
        """Without ``overwrite``, or of the other type, what is there stays."""
        await self.apply(self.make.create("/f"))
        await self.apply(self.make.create("/g"))
        await self.apply(self.make.make_directory("/d"))
        await self.refused(self.make.move("/f", "/g"), FileAlreadyExists)
        await self.refused(self.make.move("/f", "/d"), FileAlreadyExists)
        await self.refused(self.make.move("/f", "/d", overwrite=True), FileAlreadyExists)
        await self.refused(self.make.move("/d", "/f", overwrite=True), FileAlreadyExists)

    async def test_overwriting_a_file(self) -> None:
        """The overwritten file is gone with its links, its bytes are garbage, the moved one is what it was."""
        source = (await self.apply(self.make.create("/f"))).inode
        taken = (await self.apply(self.make.create("/g"))).inode
        link = await self.apply(self.make.issue_link(taken))
        await self.apply(self.make.move("/f", "/g", overwrite=True))
        assert (await self.existing("/g")).id == source.id
        assert await self.store.get_by_id(taken.id) is None
        assert await self.store.get_link(link.token_hash) is None
        assert taken.blob is not None
        assert await self.garbage_ids() == {taken.blob.id}

    async def test_overwriting_anothers_file(self) -> None:
        """Who may not delete it may not overwrite it."""
        await self.apply(self.make.create("/f"))
        await self.apply(self.make.create("/g", "bob"))
        await self.refused(self.make.move("/f", "/g", overwrite=True), PermissionDenied)
        await self.apply(self.make.move("/f", "/g", overwrite=True, principal=ADMIN))

    async def test_overwriting_a_directory(self) -> None:
        """An empty directory can be overwritten by a directory, one with children can't."""
        await self.apply(self.make.create("/a/f"))
        await self.apply(self.make.create("/b/f"))
        await self.apply(self.make.make_directory("/c"))
        await self.refused(self.make.move("/a", "/b", overwrite=True), DirectoryNotEmpty)
        await self.apply(self.make.move("/a", "/c", overwrite=True))
        assert await self.listed_paths() == ["/b", "/b/f", "/c", "/c/f"]
        await self.refused(self.make.move("/c", "/b", overwrite=True), DirectoryNotEmpty)

    async def test_overwriting_an_ancestor(self) -> None:
        """A directory can't take the place of one that holds it."""
        await self.apply(self.make.make_directory("/a/b/c"))
        await self.refused(self.make.move("/a/b/c", "/a", overwrite=True), DirectoryNotEmpty)
        assert await self.listed_paths() == ["/a", "/a/b", "/a/b/c"]

    async def test_no_path_in_the_tree_becomes_too_long(self) -> None:
        """A move is refused when any path below would be longer than allowed, and done when none is."""
        name = "n" * 200
        deep = "/d" + "".join(f"/{name}" for _ in range(9)) + "/é"
        await self.apply(self.make.create(deep))
        room = paths.MAX_PATH_BYTES - len(deep.encode()) + len(b"/d")
        destination = "/" + "x" * (room - 1)
        await self.refused(self.make.move("/d", destination + "x"), InvalidPath)
        await self.apply(self.make.move("/d", destination))
        assert max(len(path.encode()) for path in await self.listed_paths()) == paths.MAX_PATH_BYTES

    async def test_a_move_has_conditions(self) -> None:
        """Preconditions are about the source."""
        inode = (await self.apply(self.make.create("/f"))).inode
        await self.refused(self.make.move("/f", "/g", preconditions=STALE), PreconditionFailed)
        await self.refused(
            self.make.move("/f", "/f", preconditions=STALE, attributes=AttributeChanges(mode=1)), PreconditionFailed
        )
        assert inode.etag is not None
        await self.apply(self.make.move("/f", "/g", preconditions=Preconditions(if_match=(inode.etag,))))

    async def test_attributes_change_in_place(self) -> None:
        """Mode, mtime and content type are set; path, content and the directory stay."""
        old = (await self.apply(self.make.create("/a/f"))).inode
        directory = await self.existing("/a")
        command = self.make.change("/a/f", mode=0o600, mtime=42, content_type="a/b")
        new = (await self.apply(command)).inode
        assert new == await self.existing("/a/f")
        assert (new.mode, new.mtime, new.content_type) == (0o600, 42, "a/b")
        assert (new.ctime, new.generation, new.etag) == (command.at, 2, old.etag)
        assert await self.existing("/a") == directory

    async def test_attributes_change_with_a_move(self) -> None:
        """Path and attributes change in one step, and one generation."""
        await self.apply(self.make.create("/f"))
        moved = await self.apply(self.make.move("/f", "/g", attributes=AttributeChanges(mode=0o640)))
        assert (moved.inode.path, moved.inode.mode, moved.inode.generation) == ("/g", 0o640, 2)

    async def test_only_administrators_give_away(self) -> None:
        """The owner is changed by administrators, not by the owner."""
        await self.apply(self.make.create("/f"))
        await self.refused(self.make.change("/f", owner="bob"), PermissionDenied)
        assert (await self.apply(self.make.change("/f", principal=ADMIN, owner="bob"))).inode.owner == "bob"
        await self.refused(self.make.put("/f"), PermissionDenied)


class TreeRemovalContract(StoreTests):
    """``Remove`` with ``recursive``."""

    async def test_a_tree_goes_with_all_bytes_and_links(self) -> None:
        """Every inode is gone, every blob and replica is garbage, neighbours stay."""
        names = [self.make.replicated_blob(S3Placement(), S3Placement()) for _ in range(3)]
        for number, blob in enumerate(names):
            await self.apply(self.make.create(f"/a/{number}/f", blob=blob))
        await self.apply(self.make.create("/a.txt"))
        link = await self.apply(self.make.issue_link(await self.existing("/a/1/f")))
        removed = await self.apply(self.make.remove("/a", recursive=True))
        assert removed.count == 7
        assert await self.listed_paths() == ["/a.txt"]
        assert await self.store.get_link(link.token_hash) is None
        assert await self.garbage_ids("s3", None) == {copy.id for blob in names for copy in blob.copies()}
        assert await self.store.verify() == []

    async def test_anothers_file_inside_refuses_all(self) -> None:
        """One foreign inode, however deep, and nothing is removed; an administrator may."""
        await self.apply(self.make.create("/a/b/f"))
        await self.apply(self.make.create("/a/b/c/theirs", "bob"))
        await self.refused(self.make.remove("/a", recursive=True), PermissionDenied)
        assert (await self.apply(self.make.remove("/a", recursive=True, principal=ADMIN))).count == 5

    async def test_a_failed_condition_removes_nothing(self) -> None:
        """``If-Match`` with a tag never matches a directory."""
        await self.apply(self.make.create("/a/f"))
        await self.refused(self.make.remove("/a", recursive=True, preconditions=STALE), PreconditionFailed)
