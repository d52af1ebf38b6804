"""What the metadata commands mean, on plain dicts, written to be read rather than to be fast."""

from __future__ import annotations

from typing import Any

import msgspec

from callfs import errors, paths
from callfs.metadata.commands import (
    Command,
    Condemn,
    Condemned,
    ConsumeLink,
    CreateDirectory,
    CreateFile,
    IssueLink,
    Move,
    Moved,
    PostponeReplication,
    Purged,
    PutFile,
    Relocate,
    Relocated,
    Remove,
    Removed,
    Written,
)
from callfs.model import (
    ROOT_INODE,
    Inode,
    InodeType,
    Link,
    LocalPlacement,
    Preconditions,
    Principal,
    ReplicaOrder,
    Replication,
)


def check(condition: bool, error: type[errors.CallFSError]) -> None:
    """Refuse unless the condition holds."""
    if not condition:
        raise error("refused")


class MetadataModel:
    """
    Inodes by path, links by hash, the garbage queue as blob id → not before, and the replication queue by blob id.

    Every refusal comes before the first change.
    """

    def __init__(self) -> None:
        self.inodes: dict[str, Inode] = {"/": ROOT_INODE}
        self.links: dict[bytes, Link] = {}
        self.garbage: dict[str, int] = {}
        self.condemned: set[str] = set()
        self.replications: dict[str, Replication] = {}

    def apply(self, command: Command[Any]) -> Any:
        """The result of a command, or its refusal."""
        return getattr(self, str(command.__struct_config__.tag))(command)

    def sorted_inodes(self) -> list[Inode]:
        """All inodes by path, bytewise."""
        return [self.inodes[path] for path in sorted(self.inodes, key=str.encode)]

    def named(self) -> set[str]:
        """The ids of all blobs that a file has."""
        return {copy.id for inode in self.inodes.values() if inode.blob for copy in inode.blob.copies()}

    def create_file(self, command: CreateFile) -> Written:
        """A new file."""
        self.check_parents(command.path)
        check(command.path not in self.inodes, errors.FileAlreadyExists)
        return self.new_file(command)

    def put_file(self, command: PutFile) -> Written:
        """A new file or new content."""
        self.check_parents(command.path)
        old = self.inodes.get(command.path)
        if old is None:
            return self.new_file(command)
        check(not old.is_directory, errors.NotAFile)
        self.check_owner(command.principal, old)
        self.check_conditions(old, command.preconditions)
        assert old.blob is not None
        check(old.blob.placement == command.blob.placement, errors.ContentMoved)
        check(command.blob.id not in self.condemned, errors.Conflict)
        self.bury(old, command)
        new = self.changed(
            old,
            command.at,
            mtime=command.at,
            blob=command.blob,
            content_id=command.content_id,
            content_type=command.content_type,
        )
        self.queue(new, command.replicate, command.at)
        return Written(new, created=False)

    def new_file(self, command: CreateFile | PutFile) -> Written:
        """A file where nothing was."""
        self.check_conditions(None, command.preconditions)
        check(command.blob.id not in self.condemned, errors.Conflict)
        inode = self.add(command, InodeType.FILE, 0o644)
        inode = self.inodes[inode.path] = msgspec.structs.replace(
            inode, blob=command.blob, content_id=command.content_id, content_type=command.content_type
        )
        self.queue(inode, command.replicate, command.at)
        return Written(inode, created=True)

    def create_directory(self, command: CreateDirectory) -> Written:
        """A directory."""
        self.check_parents(command.path)
        old = self.inodes.get(command.path)
        if old is not None:
            check(old.is_directory, errors.FileAlreadyExists)
            self.check_conditions(old, command.preconditions)
            return Written(old, created=False)
        self.check_conditions(None, command.preconditions)
        return Written(self.add(command, InodeType.DIRECTORY, 0o755), created=True)

    def remove(self, command: Remove) -> Removed:
        """The end of something."""
        check(command.path != "/", errors.BadRequest)
        inode = self.existing(command.path, command.directory_expected)
        self.check_owner(command.principal, inode)
        below = self.below(command.path)
        check(command.recursive or not below, errors.DirectoryNotEmpty)
        for child in below:
            self.check_owner(command.principal, child)
        self.check_conditions(inode, command.preconditions)
        for gone in (inode, *below):
            self.forget(gone, command)
        self.touch(paths.parent(command.path), command.at)
        return Removed(1 + len(below))

    def move(self, command: Move) -> Moved:
        """A rename, or new attributes."""
        source, destination, wanted = command.source, command.destination, command.attributes
        check("/" not in (source, destination), errors.BadRequest)
        check(source != destination or wanted.any(), errors.BadRequest)
        inode = self.existing(source, command.directory_expected)
        self.check_owner(command.principal, inode)
        check(wanted.owner is None or command.principal.is_admin, errors.PermissionDenied)
        attributes = {name: value for name, value in msgspec.structs.asdict(wanted).items() if value is not None}
        if source == destination:
            self.check_conditions(inode, command.preconditions)
            return Moved(self.changed(inode, command.at, **attributes))
        self.check_destination(command, inode)
        self.check_conditions(inode, command.preconditions)
        if destination in self.inodes:
            self.forget(self.inodes[destination], command)
        nearest = [path for path in paths.ancestors(destination) if path in self.inodes][-1]
        self.make_parents(destination, command)
        self.touch(nearest, command.at)
        if paths.parent(source) != nearest:
            self.touch(paths.parent(source), command.at)
        for child in self.below(source):
            del self.inodes[child.path]
            path = paths.moved(child.path, source, destination)
            self.inodes[path] = msgspec.structs.replace(child, path=path)
        del self.inodes[source]
        parent_id = self.inodes[paths.parent(destination)].id
        return Moved(self.changed(inode, command.at, path=destination, parent_id=parent_id, **attributes))

    def check_destination(self, command: Move, inode: Inode) -> None:
        """All that can be wrong with where a move leads."""
        destination = command.destination
        check(not (inode.is_directory and destination.startswith(inode.path + "/")), errors.BadRequest)
        self.check_parents(destination)
        check(command.create_parents or paths.parent(destination) in self.inodes, errors.BadRequest)
        taken = self.inodes.get(destination)
        if taken is not None:
            check(command.overwrite and taken.type is inode.type, errors.FileAlreadyExists)
            self.check_owner(command.principal, taken)
            check(not self.below(destination), errors.DirectoryNotEmpty)

    def relocate(self, command: Relocate) -> Relocated:
        """Other copies."""
        found = [inode for inode in self.inodes.values() if inode.id == command.inode_id and inode.blob]
        check(bool(found), errors.FileNotFound)
        (inode,) = found
        self.check_owner(command.principal, inode)
        assert inode.blob is not None
        old, new = inode.blob.copies(), {copy.id: copy for copy in command.blob.copies()}
        check(tuple(copy.id for copy in old) == command.expected_blob_ids, errors.Conflict)
        check(all(copy.sha256 == inode.blob.sha256 for copy in new.values()), errors.Conflict)
        check(not self.condemned & new.keys(), errors.Conflict)
        for copy in old:
            if copy.id not in new:
                local = isinstance(copy.placement, LocalPlacement)
                self.garbage[copy.id] = command.at if local else command.garbage_not_before_at
        self.replications.pop(inode.blob.id, None)
        relocated = self.inodes[inode.path] = msgspec.structs.replace(
            inode, generation=inode.generation + 1, blob=command.blob
        )
        self.queue(relocated, command.replicate, command.at)
        return Relocated(relocated)

    def postpone_replication(self, command: PostponeReplication) -> Purged:
        """An entry comes later, and maybe to another."""
        entry = self.replications.get(command.blob_id)
        if entry is None:
            return Purged(0)
        order = ReplicaOrder(entry.order.target, command.by or entry.order.by)
        self.replications[entry.blob_id] = msgspec.structs.replace(
            entry, order=order, due_at=command.due_at, attempts=entry.attempts + 1
        )
        return Purged(1)

    def queue(self, inode: Inode, order: ReplicaOrder | None, at: int) -> None:
        """Have a copy made."""
        if order is not None and inode.blob is not None:
            self.replications[inode.blob.id] = Replication(inode.blob.id, inode.id, order, at, at)

    def issue_link(self, command: IssueLink) -> Link:
        """A new link."""
        inode = self.existing(command.path, False)
        check(not inode.is_directory, errors.NotAFile)
        link = self.links[command.token_hash] = Link(
            token_hash=command.token_hash,
            inode_id=inode.id,
            created_by=command.principal.user,
            created_at=command.at,
            expires_at=command.expires_at,
        )
        return link

    def consume_link(self, command: ConsumeLink) -> Link:
        """The use of a link."""
        link = self.links[command.token_hash]
        check(command.at < link.expires_at, errors.LinkExpired)
        check(link.used_at is None, errors.LinkUsed)
        used = self.links[command.token_hash] = msgspec.structs.replace(link, used_at=command.at)
        return used

    def condemn(self, command: Condemn) -> Condemned:
        """Blobs that nobody names are condemned."""
        ids = tuple(name for name in command.blob_ids if name not in self.named() | self.garbage.keys())
        self.condemned |= set(ids)
        return Condemned(ids)

    def existing(self, path: str, directory_expected: bool) -> Inode:
        """What is at a path."""
        check(path in self.inodes, errors.FileNotFound)
        check(self.inodes[path].is_directory or not directory_expected, errors.NotADirectory)
        return self.inodes[path]

    def below(self, path: str) -> list[Inode]:
        """What is below a path."""
        return [inode for inode in self.inodes.values() if inode.path.startswith(path + "/")]

    def check_parents(self, path: str) -> None:
        """No ancestor is a file."""
        for ancestor in paths.ancestors(path):
            check(ancestor not in self.inodes or self.inodes[ancestor].is_directory, errors.ParentNotADirectory)

    def check_owner(self, principal: Principal, inode: Inode) -> None:
        """The principal has an owner's rights."""
        check(principal.is_admin or principal.user == inode.owner, errors.PermissionDenied)

    def check_conditions(self, inode: Inode | None, conditions: Preconditions) -> None:
        """Preconditions with one tag or a star."""
        if conditions.if_match is not None:
            (tag,) = conditions.if_match
            check(inode is not None and tag in ("*", inode.etag), errors.PreconditionFailed)
        if conditions.if_none_match is not None and inode is not None:
            (tag,) = conditions.if_none_match
            check(tag not in ("*", inode.etag), errors.PreconditionFailed)

    def add(self, command: CreateFile | PutFile | CreateDirectory, kind: InodeType, mode: int) -> Inode:
        """A new inode with its missing parents."""
        nearest = [path for path in paths.ancestors(command.path) if path in self.inodes][-1]
        self.touch(nearest, command.at)
        self.make_parents(command.path, command)
        return self.insert(command.path, command.inode_id, kind, mode, command.principal, command.at)

    def make_parents(self, path: str, command: CreateFile | PutFile | CreateDirectory | Move) -> None:
        """The missing ancestors."""
        ids = iter(command.parent_ids)
        for ancestor in paths.ancestors(path):
            if ancestor not in self.inodes:
                self.insert(ancestor, next(ids), InodeType.DIRECTORY, 0o755, command.principal, command.at)

    def insert(self, path: str, inode_id: str, kind: InodeType, mode: int, principal: Principal, at: int) -> Inode:
        """One inode."""
        inode = self.inodes[path] = Inode(
            id=inode_id,
            path=path,
            parent_id=self.inodes[paths.parent(path)].id,
            type=kind,
            mode=mode,
            owner=principal.user,
            mtime=at,
            ctime=at,
            created_at=at,
        )
        return inode

    def changed(self, inode: Inode, at: int, **fields: Any) -> Inode:
        """An inode with changes, one generation later."""
        new = msgspec.structs.replace(inode, ctime=at, generation=inode.generation + 1, **fields)
        self.inodes[new.path] = new
        return new

    def touch(self, path: str, at: int) -> None:
        """A directory whose children changed."""
        self.changed(self.inodes[path], at, mtime=at)

    def bury(self, inode: Inode, command: PutFile | Remove | Move) -> None:
        """The copies of a file's blob become garbage, and none is made of it any more."""
        if inode.blob is not None:
            self.replications.pop(inode.blob.id, None)
        for copy in () if inode.blob is None else inode.blob.copies():
            local = isinstance(copy.placement, LocalPlacement)
            self.garbage[copy.id] = command.at if local else command.garbage_not_before_at

    def forget(self, inode: Inode, command: Remove | Move) -> None:
        """An inode goes with its links."""
        self.bury(inode, command)
        del self.inodes[inode.path]
        self.links = {name: link for name, link in self.links.items() if link.inode_id != inode.id}
