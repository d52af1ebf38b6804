"""
The frozen values that everything else speaks of.

An *instant* is a whole number of microseconds since 1970-01-01T00:00:00Z, a plain ``int`` whose name ends in
``_at`` or is one of the POSIX names ``mtime`` and ``ctime``. Sizes are bytes.
"""

from __future__ import annotations

import enum

import msgspec

ROOT_USER = "root"
INTERNAL_USER = "internal-proxy"

DEFAULT_CONTENT_TYPE = "application/octet-stream"
FILE_MODE = 0o644
DIRECTORY_MODE = 0o755


class InodeType(enum.Enum):
    """What stands at a path."""

    FILE = "file"
    DIRECTORY = "directory"


class LocalPlacement(msgspec.Struct, frozen=True, tag="localfs", tag_field="kind"):
    """On the local disk of one instance."""

    instance_id: str


class S3Placement(msgspec.Struct, frozen=True, tag="s3", tag_field="kind"):
    """In the bucket that all instances share."""


Placement = LocalPlacement | S3Placement


class BlobRef(msgspec.Struct, frozen=True):
    """
    One immutable piece of content and where it is.

    :param id: 26 characters, see ``callfs.identifiers``; names one copy in one place, never used again.
    :param size: bytes.
    :param sha256: the digest of the content, 32 bytes.
    :param placement: where the first copy is.
    :param replicas: further copies, each with an id of its own and no replicas.
    """

    id: str
    size: int
    sha256: bytes
    placement: Placement
    replicas: tuple[BlobRef, ...] = ()

    def copies(self) -> tuple[BlobRef, ...]:
        """This blob and its replicas: all that has to go when the content goes."""
        return (self, *self.replicas)


class Inode(msgspec.Struct, frozen=True, kw_only=True):
    """
    A file or a directory.

    :param id: 32 hex digits; stays through renames.
    :param path: canonical and unique.
    :param parent_id: the inode of the directory that holds it; of the root, itself.
    :param generation: grows by one with every change of this inode.
    :param content_id: of a file: new with every new content, kept by renames, moves and relocation; the ETag.
    :param blob: of a file: its content.
    """

    id: str
    path: str
    parent_id: str
    type: InodeType
    mode: int
    owner: str
    mtime: int
    ctime: int
    created_at: int
    generation: int = 1
    content_type: str | None = None
    content_id: str | None = None
    blob: BlobRef | None = None

    @property
    def is_directory(self) -> bool:
        """Whether this is a directory."""
        return self.type is InodeType.DIRECTORY

    @property
    def size(self) -> int:
        """Bytes of content; 0 for a directory."""
        return 0 if self.blob is None else self.blob.size

    @property
    def etag(self) -> str | None:
        """The strong entity tag, quotes included; ``None`` for a directory."""
        return None if self.content_id is None else f'"{self.content_id}"'


ROOT_INODE_ID = "0" * 32
ROOT_INODE = Inode(
    id=ROOT_INODE_ID,
    path="/",
    parent_id=ROOT_INODE_ID,
    type=InodeType.DIRECTORY,
    mode=DIRECTORY_MODE,
    owner=ROOT_USER,
    mtime=0,
    ctime=0,
    created_at=0,
)


class Principal(msgspec.Struct, frozen=True):
    """
    Who asks, as authenticated at the edge.

    :param is_admin: may do everything (``root``, ``internal-proxy``, and the users in ``auth.admins``).
    """

    user: str
    is_admin: bool = False


class Preconditions(msgspec.Struct, frozen=True):
    """
    What must hold of the resource for a change to happen (RFC 9110, section 13), entity tags only.

    :param if_match: tags of which one must be current (strong comparison); ``("*",)`` any; ``None`` no condition.
    :param if_none_match: tags of which none may be current; ``("*",)`` nothing may be there.
    :param if_unmodified_since: an instant; the mtime, in whole seconds, may not be later.
    """

    if_match: tuple[str, ...] | None = None
    if_none_match: tuple[str, ...] | None = None
    if_unmodified_since: int | None = None


NO_PRECONDITIONS = Preconditions()


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """
    A single-use download link as it is stored.

    :param token_hash: SHA-256 of the token, 32 bytes; the token itself is never stored.
    :param inode_id: the file; the link follows it through renames.
    :param used_at: when it was redeemed, ``None`` as long as it wasn't.
    """

    token_hash: bytes
    inode_id: str
    created_by: str
    created_at: int
    expires_at: int
    used_at: int | None = None


class Garbage(msgspec.Struct, frozen=True):
    """A blob that nothing names any more, to be deleted from where it is, not before ``not_before_at``."""

    id: int
    blob: BlobRef
    not_before_at: int


class ReplicaOrder(msgspec.Struct, frozen=True):
    """
    That a second copy of some content is to be made.

    :param target: where it shall be.
    :param by: the node that shall make it.
    """

    target: Placement
    by: str


class Replication(msgspec.Struct, frozen=True):
    """
    An entry of the replication queue: of this blob, a file's first copy, there shall be one more copy.

    :param blob_id: names the entry, too: a blob is queued once at most, and as long as it is a file's first copy.
    :param due_at: not to be tried before.
    :param attempts: how often it failed.
    """

    blob_id: str
    inode_id: str
    order: ReplicaOrder
    queued_at: int
    due_at: int
    attempts: int = 0


class Instance(msgspec.Struct, frozen=True):
    """
    A node as the metadata store knows it.

    :param root_id: the random identity of its local root folder; ``None`` without a local backend.
    :param api_endpoint: base URL at which its peers reach it.
    """

    id: str
    root_id: str | None
    api_endpoint: str
    last_seen_at: int


class ByteRange(msgspec.Struct, frozen=True):
    """Bytes ``start`` to ``end``, the end exclusive."""

    start: int
    end: int

    @property
    def length(self) -> int:
        """How many bytes."""
        return self.end - self.start
