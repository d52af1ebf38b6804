"""Makes metadata commands with fresh ids and instants of their own, the same ones in every run."""

from __future__ import annotations

import random
from typing import Any

from callfs import paths
from callfs.identifiers import new_blob_id, new_content_id, new_inode_id
from callfs.metadata.commands import (
    AttributeChanges,
    ConsumeLink,
    CreateDirectory,
    CreateFile,
    IssueLink,
    Move,
    PutFile,
    Relocate,
    Remove,
)
from callfs.model import BlobRef, Inode, LocalPlacement, Placement, Principal, ReplicaOrder, S3Placement

NODE = LocalPlacement("node-1")
ADMIN = Principal("operator", is_admin=True)
HOUR = 3_600_000_000
TO_S3 = ReplicaOrder(S3Placement(), "node-1")
"""A second copy, made by the node that has the first."""


class Commands:
    """
    Each call takes the next instant.

    :ivar now: the instant of the last command, with microseconds that a rounding store would lose.
    """

    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self.now = 1_700_000_000_123_457

    def token_bytes(self, count: int) -> bytes:
        """Chance, the same in every run."""
        return self._random.randbytes(count)

    def tick(self) -> int:
        """The next instant."""
        self.now += 1_000_003
        return self.now

    def blob(self, size: int = 3, placement: Placement = NODE, replicas: tuple[BlobRef, ...] = ()) -> BlobRef:
        """A blob that nobody named before."""
        return BlobRef(new_blob_id(self.now, self.token_bytes), size, self.token_bytes(32), placement, replicas)

    def replicated_blob(self, placement: Placement, *places: Placement) -> BlobRef:
        """A blob with a replica in each of ``places``."""
        blob = self.blob(7, placement)
        replicas = tuple(
            BlobRef(new_blob_id(self.now, self.token_bytes), 7, blob.sha256, place) for place in places
        )
        return BlobRef(blob.id, 7, blob.sha256, placement, replicas)

    def parent_ids(self, path: str) -> tuple[str, ...]:
        """An id for each ancestor."""
        return tuple(new_inode_id(self.token_bytes) for _ in paths.ancestors(path))

    def create(self, path: str, user: str = "alice", **fields: Any) -> CreateFile:
        """A new file."""
        return CreateFile(**(self._new_file(path, user) | fields))

    def put(self, path: str, user: str = "alice", **fields: Any) -> PutFile:
        """A new file or new content."""
        later = {"garbage_not_before_at": self.now + HOUR}
        return PutFile(**(self._new_file(path, user) | later | fields))

    def _new_file(self, path: str, user: str) -> dict[str, Any]:
        return {
            "at": self.tick(),
            "principal": Principal(user),
            "path": path,
            "inode_id": new_inode_id(self.token_bytes),
            "content_id": new_content_id(self.token_bytes),
            "blob": self.blob(),
            "content_type": "text/plain",
            "parent_ids": self.parent_ids(path),
        }

    def make_directory(self, path: str, user: str = "alice", **fields: Any) -> CreateDirectory:
        """A directory."""
        values: dict[str, Any] = {
            "at": self.tick(),
            "principal": Principal(user),
            "path": path,
            "inode_id": new_inode_id(self.token_bytes),
            "parent_ids": self.parent_ids(path),
        }
        return CreateDirectory(**(values | fields))

    def remove(self, path: str, user: str = "alice", **fields: Any) -> Remove:
        """The end of a file or directory."""
        values: dict[str, Any] = {
            "at": self.tick(),
            "principal": Principal(user),
            "path": path,
            "garbage_not_before_at": self.now + HOUR,
        }
        return Remove(**(values | fields))

    def move(self, source: str, destination: str, user: str = "alice", **fields: Any) -> Move:
        """A rename or move."""
        values: dict[str, Any] = {
            "at": self.tick(),
            "principal": Principal(user),
            "source": source,
            "destination": destination,
            "parent_ids": self.parent_ids(destination),
            "garbage_not_before_at": self.now + HOUR,
        }
        return Move(**(values | fields))

    def change(self, path: str, principal: Principal | str = "alice", **attributes: Any) -> Move:
        """New attributes in place."""
        who = Principal(principal) if isinstance(principal, str) else principal
        return self.move(path, path, principal=who, attributes=AttributeChanges(**attributes))

    def copy_of(self, blob: BlobRef, placement: Placement, replicas: tuple[BlobRef, ...] = ()) -> BlobRef:
        """The same content, at a place of its own."""
        return BlobRef(new_blob_id(self.now, self.token_bytes), blob.size, blob.sha256, placement, replicas)

    def relocate(self, inode: Inode, blob: BlobRef, principal: Principal = ADMIN, **fields: Any) -> Relocate:
        """Other copies for a file as it is now."""
        assert inode.blob is not None
        values: dict[str, Any] = {
            "at": self.tick(),
            "principal": principal,
            "inode_id": inode.id,
            "expected_blob_ids": tuple(copy.id for copy in inode.blob.copies()),
            "blob": blob,
            "garbage_not_before_at": self.now + HOUR,
        }
        return Relocate(**(values | fields))

    def issue_link(self, inode: Inode, user: str = "alice", **fields: Any) -> IssueLink:
        """A link for a file, good for an hour."""
        values: dict[str, Any] = {
            "at": self.tick(),
            "principal": Principal(user),
            "path": inode.path,
            "inode_id": inode.id,
            "token_hash": self.token_bytes(32),
            "expires_at": self.now + HOUR,
        }
        return IssueLink(**(values | fields))

    def consume_link(self, token_hash: bytes, **fields: Any) -> ConsumeLink:
        """The use of a link."""
        return ConsumeLink(**({"at": self.tick(), "token_hash": token_hash} | fields))
