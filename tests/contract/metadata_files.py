"""The contract of metadata stores: creating, replacing and removing single files and directories."""

from __future__ import annotations

from callfs.errors import (
    BadRequest,
    Conflict,
    ContentMoved,
    DirectoryNotEmpty,
    FileAlreadyExists,
    FileNotFound,
    NotADirectory,
    NotAFile,
    ParentNotADirectory,
    PermissionDenied,
    PreconditionFailed,
)
from callfs.metadata.commands import Condemn
from callfs.model import LocalPlacement, Preconditions, Principal, S3Placement
from tests.contract.metadata_base import StoreTests
from tests.support.commands import ADMIN, NODE

ANYTHING = Preconditions(if_match=("*",))
NOTHING = Preconditions(if_none_match=("*",))
STALE = Preconditions(if_match=('"0123"',))


class CreationContract(StoreTests):
    """``CreateFile`` and ``CreateDirectory``."""

    async def test_a_new_store_has_the_root_alone(self) -> None:
        """An empty store has the root directory, which belongs to root, and says that it was empty."""
        root = await self.existing("/")
        assert root.is_directory
        assert root.owner == "root"
        assert root.parent_id == root.id
        assert await self.listed_paths() == []
        assert self.store.was_empty
        assert len(self.store.store_id) == 32

    async def test_a_created_file_is_what_the_command_says(self) -> None:
        """A new file has the command's ids, instants and content, mode 0644, and belongs to the principal."""
        command = self.make.create("/report.txt", "bob")
        written = await self.apply(command)
        inode = await self.existing("/report.txt")
        assert written.created
        assert written.inode == inode
        assert (inode.id, inode.content_id, inode.blob) == (command.inode_id, command.content_id, command.blob)
        assert (inode.mtime, inode.ctime, inode.created_at) == (command.at,) * 3
        assert (inode.owner, inode.mode, inode.generation) == ("bob", 0o644, 1)
        assert inode.content_type == "text/plain"
        assert inode.parent_id == (await self.existing("/")).id
        assert await self.store.get_by_id(inode.id) == inode

    async def test_a_file_without_content_type_has_none(self) -> None:
        """A missing content type stays missing."""
        await self.apply(self.make.create("/f", content_type=None))
        assert (await self.existing("/f")).content_type is None

    async def test_a_blob_comes_back_with_its_replicas(self) -> None:
        """Replicas keep their ids, places and order."""
        blob = self.make.replicated_blob(S3Placement(), LocalPlacement("b"), LocalPlacement("a"))
        await self.apply(self.make.create("/f", blob=blob))
        assert (await self.existing("/f")).blob == blob

    async def test_missing_parents_are_made_as_the_principals(self) -> None:
        """Parents that don't exist come to be, mode 0755, owned by whoever creates the file."""
        await self.apply(self.make.make_directory("/a", "carol"))
        command = self.make.create("/a/b/c/f", "bob")
        await self.apply(command)
        chain = await self.store.get_chain("/a/b/c/f")
        assert [inode.path for inode in chain] == ["/", "/a", "/a/b", "/a/b/c", "/a/b/c/f"]
        assert [inode.owner for inode in chain] == ["root", "carol", "bob", "bob", "bob"]
        assert [inode.id for inode in chain[2:4]] == list(command.parent_ids[:2])
        assert [inode.parent_id for inode in chain[1:]] == [inode.id for inode in chain[:-1]]
        assert {(inode.mode, inode.mtime) for inode in chain[2:4]} == {(0o755, command.at)}

    async def test_anybody_may_add_to_anothers_directory(self) -> None:
        """A directory takes new children from everybody."""
        await self.apply(self.make.make_directory("/a", "carol"))
        written = await self.apply(self.make.create("/a/f", "bob"))
        assert written.inode.owner == "bob"

    async def test_a_new_child_changes_its_directory(self) -> None:
        """A directory's mtime, ctime and generation change with a new child, nothing else of it."""
        made = await self.apply(self.make.make_directory("/a", "carol"))
        command = self.make.create("/a/f")
        await self.apply(command)
        directory = await self.existing("/a")
        assert (directory.mtime, directory.ctime, directory.generation) == (command.at, command.at, 2)
        assert (directory.created_at, directory.owner) == (made.inode.created_at, "carol")

    async def test_a_taken_path_refuses_a_new_file(self) -> None:
        """What is there stays, whoever asks, and the refusal says what and where it is."""
        await self.apply(self.make.create("/f", "bob"))
        await self.apply(self.make.make_directory("/d", "bob"))
        refusal = await self.refused(self.make.create("/f", "bob"), FileAlreadyExists)
        assert refusal.details["existing_path"] == "/f"
        assert refusal.details["instance_id"] == "node-1"
        assert refusal.details["backend_type"] == "localfs"
        await self.refused(self.make.create("/f", "alice", preconditions=NOTHING), FileAlreadyExists)
        await self.refused(self.make.create("/d", principal=ADMIN), FileAlreadyExists)
        await self.refused(self.make.create("/"), FileAlreadyExists)

    async def test_nothing_can_be_below_a_file(self) -> None:
        """An ancestor that is a file refuses files and directories, near and deep."""
        await self.apply(self.make.create("/f"))
        await self.refused(self.make.create("/f/x"), ParentNotADirectory)
        await self.refused(self.make.create("/f/x/y"), ParentNotADirectory)
        await self.refused(self.make.put("/f/x"), ParentNotADirectory)
        await self.refused(self.make.make_directory("/f/x/y"), ParentNotADirectory)

    async def test_a_refused_creation_makes_no_parents(self) -> None:
        """A precondition that fails leaves not even the parents."""
        await self.refused(self.make.create("/a/b/f", preconditions=ANYTHING), PreconditionFailed)
        await self.refused(self.make.put("/a/b/f", preconditions=STALE), PreconditionFailed)
        await self.refused(self.make.make_directory("/a/b", preconditions=ANYTHING), PreconditionFailed)

    async def test_a_condemned_blob_gets_no_name(self) -> None:
        """A file whose blob, or a replica of it, is condemned is refused."""
        blob = self.make.replicated_blob(NODE, S3Placement())
        for condemned in blob.copies():
            await self.apply(Condemn(at=self.make.tick(), blob_ids=(condemned.id,)))
            await self.refused(self.make.create("/f", blob=blob), Conflict)
            await self.refused(self.make.put("/f", blob=blob), Conflict)

    async def test_a_directory_is_made_once(self) -> None:
        """A directory that is there already stays as it is, whoever asks."""
        first = await self.apply(self.make.make_directory("/a/b", "bob"))
        second = await self.apply(self.make.make_directory("/a/b", "carol"))
        assert first.created
        assert not second.created
        assert second.inode == first.inode
        assert not (await self.apply(self.make.make_directory("/"))).created

    async def test_a_directory_is_not_made_over_a_file(self) -> None:
        """A file in its place refuses a directory."""
        await self.apply(self.make.create("/f"))
        await self.refused(self.make.make_directory("/f"), FileAlreadyExists)

    async def test_a_directory_has_conditions_too(self) -> None:
        """``If-None-Match: *`` refuses a directory that is there."""
        await self.apply(self.make.make_directory("/d", preconditions=NOTHING))
        await self.refused(self.make.make_directory("/d", preconditions=NOTHING), PreconditionFailed)


class ReplacementContract(StoreTests):
    """``PutFile``."""

    async def test_put_makes_a_new_file(self) -> None:
        """Where nothing is, a put is a creation with parents."""
        command = self.make.put("/a/f", preconditions=NOTHING)
        written = await self.apply(command)
        assert written.created
        assert await self.existing("/a/f") == written.inode
        assert written.inode.id == command.inode_id

    async def test_put_replaces_content_and_keeps_the_file(self) -> None:
        """Id, owner, mode and age stay; content, its id and type, and the instants are new."""
        old = (await self.apply(self.make.create("/f", "bob"))).inode
        await self.apply(self.make.change("/f", "bob", mode=0o600))
        command = self.make.put("/f", "bob", content_type="image/png")
        written = await self.apply(command)
        new = await self.existing("/f")
        assert not written.created
        assert written.inode == new
        assert (new.id, new.owner, new.mode, new.created_at) == (old.id, "bob", 0o600, old.created_at)
        assert (new.content_id, new.blob, new.content_type) == (command.content_id, command.blob, "image/png")
        assert (new.mtime, new.ctime, new.generation) == (command.at, command.at, 3)

    async def test_new_content_does_not_change_the_directory(self) -> None:
        """A directory holds names; new content of a child leaves it alone."""
        await self.apply(self.make.create("/a/f"))
        before = await self.existing("/a")
        await self.apply(self.make.put("/a/f"))
        assert await self.existing("/a") == before

    async def test_replaced_bytes_become_garbage(self) -> None:
        """The old blob and its replicas are queued: local ones at once, others not before the command says."""
        blob = self.make.replicated_blob(NODE, S3Placement())
        await self.apply(self.make.create("/f", blob=blob))
        command = self.make.put("/f")
        await self.apply(command)
        (local,) = await self.store.garbage(command.at, "localfs", "node-1")
        assert (local.blob.id, local.not_before_at) == (blob.id, command.at)
        assert (local.blob.size, local.blob.sha256, local.blob.placement) == (7, blob.sha256, NODE)
        assert await self.store.garbage(command.garbage_not_before_at - 1, "s3", None) == []
        (remote,) = await self.store.garbage(command.garbage_not_before_at, "s3", None)
        assert remote.blob.id == blob.replicas[0].id

    async def test_only_owner_and_administrators_replace(self) -> None:
        """Another's file is refused, before preconditions are looked at."""
        await self.apply(self.make.create("/f", "bob"))
        await self.refused(self.make.put("/f", "alice", preconditions=STALE), PermissionDenied)
        written = await self.apply(self.make.put("/f", principal=ADMIN))
        assert written.inode.owner == "bob"

    async def test_a_directory_has_no_content(self) -> None:
        """A put on a directory is refused, on the root too."""
        await self.apply(self.make.make_directory("/d"))
        await self.refused(self.make.put("/d"), NotAFile)
        await self.refused(self.make.put("/"), NotAFile)

    async def test_preconditions_are_decided_in_the_transaction(self) -> None:
        """Of two puts that expect the same content, the second finds it changed."""
        old = (await self.apply(self.make.create("/f"))).inode
        assert old.etag is not None
        expected = Preconditions(if_match=('"other"', old.etag))
        await self.apply(self.make.put("/f", preconditions=expected))
        await self.refused(self.make.put("/f", preconditions=expected), PreconditionFailed)
        await self.refused(self.make.put("/f", preconditions=NOTHING), PreconditionFailed)
        await self.refused(self.make.put("/new", preconditions=ANYTHING), PreconditionFailed)
        await self.apply(self.make.put("/f", preconditions=ANYTHING))

    async def test_bytes_elsewhere_are_a_conflict(self) -> None:
        """New content goes where the file is: another node or backend is refused, to be tried there."""
        await self.apply(self.make.create("/f"))
        for place in (LocalPlacement("node-2"), S3Placement()):
            await self.refused(self.make.put("/f", blob=self.make.blob(3, place)), ContentMoved)


class RemovalContract(StoreTests):
    """``Remove`` of single things."""

    async def test_a_removed_file_is_gone(self) -> None:
        """A removed file leaves garbage and a changed directory."""
        inode = (await self.apply(self.make.create("/a/f"))).inode
        command = self.make.remove("/a/f")
        removed = await self.apply(command)
        assert removed.count == 1
        assert await self.store.get("/a/f") is None
        assert await self.store.get_by_id(inode.id) is None
        assert inode.blob is not None
        assert await self.garbage_ids() == {inode.blob.id}
        directory = await self.existing("/a")
        assert (directory.mtime, directory.ctime, directory.generation) == (command.at, command.at, 2)

    async def test_an_empty_directory_can_be_removed(self) -> None:
        """An empty directory goes, with or without ``recursive``, one with children only with it."""
        await self.apply(self.make.make_directory("/a/b"))
        await self.refused(self.make.remove("/a"), DirectoryNotEmpty)
        await self.apply(self.make.remove("/a/b", directory_expected=True))
        await self.apply(self.make.remove("/a", recursive=True))
        assert await self.listed_paths() == []

    async def test_what_is_not_there_can_not_be_removed(self) -> None:
        """Missing, below a file, or the root: refused."""
        await self.apply(self.make.create("/f"))
        await self.refused(self.make.remove("/g", preconditions=ANYTHING), FileNotFound)
        await self.refused(self.make.remove("/f/x"), FileNotFound)
        await self.refused(self.make.remove("/", principal=ADMIN, recursive=True), BadRequest)

    async def test_a_file_is_no_directory(self) -> None:
        """Somebody who says directory doesn't remove a file."""
        await self.apply(self.make.create("/f", "bob"))
        await self.refused(self.make.remove("/f", directory_expected=True), NotADirectory)

    async def test_only_owner_and_administrators_remove(self) -> None:
        """Another's file or directory is refused."""
        await self.apply(self.make.create("/f", "bob"))
        await self.apply(self.make.make_directory("/d", "bob"))
        await self.refused(self.make.remove("/f", preconditions=STALE), PermissionDenied)
        await self.refused(self.make.remove("/d"), PermissionDenied)
        await self.apply(self.make.remove("/f", principal=ADMIN))
        await self.apply(self.make.remove("/d", principal=Principal("bob")))

    async def test_removal_has_conditions(self) -> None:
        """``If-Match`` with another tag is refused, with the current one it isn't."""
        inode = (await self.apply(self.make.create("/f"))).inode
        await self.refused(self.make.remove("/f", preconditions=STALE), PreconditionFailed)
        assert inode.etag is not None
        await self.apply(self.make.remove("/f", preconditions=Preconditions(if_match=(inode.etag,))))
