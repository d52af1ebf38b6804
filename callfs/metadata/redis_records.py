"""
Records of the Redis store and the frozen values that they stand for.

A record has a head that the Lua scripts read and change in place, then what they only carry: see ``parse`` and
``copies_of`` in ``schema/redis/common.lua``. Numbers are big-endian, a text has its length before it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import msgspec

from callfs import paths
from callfs.model import (
    BlobRef,
    Garbage,
    Inode,
    InodeType,
    Instance,
    Link,
    LocalPlacement,
    Placement,
    ReplicaOrder,
    Replication,
    S3Placement,
)

_HEAD = struct.Struct(">qqqIB")
_BLOB = struct.Struct(">q")
_LINK = struct.Struct(">qqq")
_INSTANT = struct.Struct(">q")
_INSTANTS = struct.Struct(">qq")
_REPLICATION = struct.Struct(">Iq16s")
_LENGTH = struct.Struct(">H")
_NEVER = -(1 << 63)

_LOCAL = "localfs:"
_S3 = "s3"


class _Rest(msgspec.Struct, frozen=True, array_like=True):
    """What no script looks at."""

    mode: int
    created_at: int
    content_type: str | None
    content_id: str | None


_pack_rest = msgspec.msgpack.Encoder().encode
_read_rest = msgspec.msgpack.Decoder(_Rest).decode


def unframed(reply: bytes) -> list[bytes]:
    """The parts of a script's reply, see ``frame`` in ``common.lua``."""
    count = int.from_bytes(reply[:4])
    at = 4 + 4 * count
    parts = []
    for length in struct.unpack_from(f">{count}I", reply, 4):
        parts.append(reply[at : at + length])
        at += length
    return parts


def _text(value: bytes) -> bytes:
    return _LENGTH.pack(len(value)) + value


def _read_text(record: bytes, at: int) -> tuple[bytes, int]:
    start = at + 2
    end = start + int.from_bytes(record[at:start])
    return record[start:end], end


def place_text(placement: Placement) -> str:
    """Where a blob is, in a word: also the name of its garbage queue."""
    return _LOCAL + placement.instance_id if isinstance(placement, LocalPlacement) else _S3


def place_of(kind: str, instance_id: str | None) -> str:
    """The name of the garbage queue for blobs of this kind of placement, on this node."""
    return kind if instance_id is None else f"{kind}:{instance_id}"


def _placement(text: str) -> Placement:
    if text.startswith(_LOCAL):
        return LocalPlacement(text.removeprefix(_LOCAL))
    if text == _S3:
        return S3Placement()
    raise ValueError(f"unknown placement {text!r}")


def packed_instants(mtime: int, ctime: int) -> bytes:
    """The beginning of a record."""
    return _INSTANTS.pack(mtime, ctime)


def packed_instant(at: int) -> bytes:
    """An instant inside a record."""
    return _INSTANT.pack(at)


def inode_head(inode: Inode) -> bytes:
    """An inode's record without its blob."""
    head = _HEAD.pack(inode.mtime, inode.ctime, inode.generation, 0, inode.is_directory)
    rest = _pack_rest(_Rest(inode.mode, inode.created_at, inode.content_type, inode.content_id))
    texts = (inode.parent_id.encode(), paths.name(inode.path).encode(), inode.owner.encode(), rest)
    return head + b"".join(map(_text, texts))


def inode_record(inode: Inode) -> bytes:
    """An inode's whole record."""
    return inode_head(inode) + (b"" if inode.blob is None else blob_record(inode.blob))


def blob_record(blob: BlobRef) -> bytes:
    """The end of a file's record: size, digest, and the place and id of each copy."""
    copies = blob.copies()
    texts = [text.encode() for copy in copies for text in (place_text(copy.placement), copy.id)]
    return _BLOB.pack(blob.size) + _text(blob.sha256) + bytes([len(copies)]) + b"".join(map(_text, texts))


def inode_from(inode_id: str, path: str, record: bytes) -> Inode:
    """The inode in a record."""
    mtime, ctime, generation, _, is_directory = _HEAD.unpack_from(record)
    parent_id, at = _read_text(record, _HEAD.size)
    _, at = _read_text(record, at)
    owner, at = _read_text(record, at)
    packed, at = _read_text(record, at)
    rest = _read_rest(packed)
    return Inode(
        id=inode_id,
        path=path,
        parent_id=parent_id.decode(),
        type=InodeType.DIRECTORY if is_directory else InodeType.FILE,
        mode=rest.mode,
        owner=owner.decode(),
        mtime=mtime,
        ctime=ctime,
        created_at=rest.created_at,
        generation=generation,
        content_type=rest.content_type,
        content_id=rest.content_id,
        blob=blob_from(record[at:]) if at < len(record) else None,
    )


def blob_from(record: bytes) -> BlobRef:
    """The blob at the end of a file's record, its replicas with it."""
    (size,) = _BLOB.unpack_from(record)
    sha256, at = _read_text(record, _BLOB.size)
    copies = []
    count = record[at]
    at += 1
    for _ in range(count):
        place, at = _read_text(record, at)
        blob_id, at = _read_text(record, at)
        copies.append(BlobRef(blob_id.decode(), size, sha256, _placement(place.decode())))
    first, *replicas = copies
    return msgspec.structs.replace(first, replicas=tuple(replicas)) if replicas else first


def inodes_from_members(parts: Sequence[bytes], directory: str | None = None) -> Iterator[Inode]:
    """
    The inodes in a reply of members and records in turn.

    :param directory: where members begin with the name rather than the path: the path of what holds them.
    """
    for member, record in zip(parts[::2], parts[1::2], strict=True):
        text, _, inode_id = member.decode().partition("\0")
        yield inode_from(inode_id, text if directory is None else paths.join(directory, text), record)


def link_record(link: Link) -> bytes:
    """A link's record; its hash is the key."""
    used_at = _NEVER if link.used_at is None else link.used_at
    instants = _LINK.pack(link.created_at, link.expires_at, used_at)
    return instants + _text(link.inode_id.encode()) + _text(link.created_by.encode())


def link_from(token_hash: bytes, record: bytes) -> Link:
    """The link in a record."""
    created_at, expires_at, used_at = _LINK.unpack_from(record)
    inode_id, at = _read_text(record, _LINK.size)
    created_by, _ = _read_text(record, at)
    return Link(
        token_hash=token_hash,
        inode_id=inode_id.decode(),
        created_by=created_by.decode(),
        created_at=created_at,
        expires_at=expires_at,
        used_at=None if used_at == _NEVER else used_at,
    )


def garbage_from(number: bytes, record: bytes) -> Garbage:
    """The entry of the garbage queue in a record that a script made."""
    at_text, at = _read_text(record, 0)
    place, at = _read_text(record, at)
    blob_id, at = _read_text(record, at)
    (size,) = _BLOB.unpack_from(record, at)
    sha256, _ = _read_text(record, at + _BLOB.size)
    return Garbage(int(number), BlobRef(blob_id.decode(), size, sha256, _placement(place.decode())), int(at_text))


def garbage_number(entry_id: int) -> str:
    """A number of the garbage queue as the scripts write it, so that numbers sort as texts."""
    return f"{entry_id:016d}"


def replication_record(entry: Replication) -> bytes:
    """An entry of the replication queue; its blob is the key."""
    texts = (entry.inode_id, entry.order.by, place_text(entry.order.target))
    head = _REPLICATION.pack(entry.attempts, entry.due_at, _sorting(entry.queued_at))
    return head + b"".join(_text(text.encode()) for text in texts)


def replication_from(blob_id: bytes, record: bytes) -> Replication:
    """The entry in a record."""
    attempts, due_at, queued = _REPLICATION.unpack_from(record)
    inode_id, at = _read_text(record, _REPLICATION.size)
    by, at = _read_text(record, at)
    place, _ = _read_text(record, at)
    order = ReplicaOrder(_placement(place.decode()), by.decode())
    return Replication(blob_id.decode(), inode_id.decode(), order, unsorted(queued), due_at, attempts)


def _sorting(at: int) -> bytes:
    """An instant as a text that sorts like it."""
    return b"%016x" % (at - _NEVER)


def unsorted(text: bytes) -> int:
    """The instant in a text that sorts like it."""
    return int(text, 16) + _NEVER


def instance_record(instance: Instance) -> bytes:
    """A node's record; its id is the key."""
    return msgspec.msgpack.encode((instance.root_id, instance.api_endpoint, instance.last_seen_at))


def instance_from(instance_id: str, record: bytes) -> Instance:
    """The node in a record."""
    root_id, api_endpoint, last_seen_at = msgspec.msgpack.decode(record, type=tuple[str | None, str, int])
    return Instance(instance_id, root_id, api_endpoint, last_seen_at)
