"""Reading the lines of an export: what isn't whole, or no store could have given out, is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from callfs import paths
from callfs.errors import InvalidPath
from callfs.identifiers import is_blob_id
from callfs.metadata.transfer import (
    FORMAT,
    GROUPS,
    OLDEST_VERSION,
    VERSION,
    CondemnedRecord,
    End,
    GarbageRecord,
    Header,
    InodeRecord,
    InstanceRecord,
    LinkRecord,
    Record,
    ReplicationRecord,
    Tally,
)
from callfs.model import ROOT_INODE_ID, BlobRef, Inode, LocalPlacement

MAX_LINE_BYTES = 1 << 20
"""More than a record can need: what has longer lines is something else."""

_MAX_INTEGER = (1 << 63) - 1
_MAX_ATTEMPTS = (1 << 31) - 1
_SHA256_BYTES = 32

_decode = msgspec.json.Decoder(Header | Record | End).decode


class Unreadable(Exception):
    """The lines are no whole export that this version can read; the message is for the operator."""


class Reading:
    """
    Takes the lines of an export and checks all that can be told from them.

    :ivar tally: of the records so far.
    """

    def __init__(self) -> None:
        self._header: Header | None = None
        self._hash = hashlib.sha256()
        self._number = 0
        self._ended = False
        self._group = 0
        self._path = ""
        # The directories that the last path begins with; what begins with any other has all been there.
        self._directories: list[Inode] = []
        self.tally = Tally()

    @property
    def header(self) -> Header:
        """The first line; only once it was read."""
        if self._header is None:
            raise Unreadable("it is empty")
        return self._header

    def line(self, line: bytes) -> Record | None:
        """
        Take the next line, its line end included.

        :return: the record in it; ``None`` for the first and the last line.
        :raises Unreadable: it can't be what it should be.
        """
        self._number += 1
        if self._ended:
            raise self._wrong("something follows the end")
        if not line.endswith(b"\n"):
            raise self._wrong("it is cut off" if len(line) < MAX_LINE_BYTES else "it is too long")
        if self._header is None:
            self._header = self._first(line)
            self._hash.update(line)
            return None
        value = self._decoded(line)
        if isinstance(value, Header):
            raise self._wrong("a second header")
        if isinstance(value, End):
            self._check_end(value)
            return None
        self._hash.update(line)
        self._check(value)
        self.tally.add([value])
        return value

    def end(self) -> None:
        """
        There are no more lines.

        :raises Unreadable: the last one is missing.
        """
        if self._number == 0:
            raise Unreadable("it is empty")
        if not self._ended:
            raise Unreadable(f"it was cut off: the line that ends it is missing after line {self._number}")

    def _first(self, line: bytes) -> Header:
        try:
            promised = msgspec.json.decode(line, type=_Promise)
        except msgspec.DecodeError:
            promised = _Promise()
        if promised.format != FORMAT:
            raise Unreadable("it isn't an export of CallFS metadata")
        if not OLDEST_VERSION <= promised.version <= VERSION:
            raise Unreadable(
                f"it has version {promised.version} of the format, this program knows {OLDEST_VERSION} to "
                f"{VERSION}: use the version of CallFS that wrote it"
            )
        value = self._decoded(line)
        if not isinstance(value, Header) or not _is_id(value.store_id):
            raise self._wrong("it is no header")
        return value

    def _decoded(self, line: bytes) -> Header | Record | End:
        try:
            value: Header | Record | End = _decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._wrong(f"it is damaged ({error})") from error
        return value

    def _check(self, record: Record) -> None:
        group = GROUPS.index(type(record))
        if group < self._group:
            raise self._wrong("it is out of order")
        self._group = group
        problem = _PROBLEMS[type(record)](record)
        if problem is not None:
            raise self._wrong(problem)
        if isinstance(record, InodeRecord):
            self._check_place(record.inode)

    def _check_place(self, inode: Inode) -> None:
        """Paths ascend, bytewise, which for UTF-8 is by code points; so the root, if any, is the first."""
        if inode.path <= self._path:
            raise self._wrong("it is out of order")
        self._path = inode.path
        while self._directories and not inode.path.startswith(self._directories[-1].path):
            self._directories.pop()
        if inode.path != paths.ROOT:
            above = paths.parent(inode.path)
            parents = [directory.id for directory in self._directories if directory.path == above]
            if parents != [inode.parent_id]:
                raise self._wrong("the directory that it is in isn't there")
        if inode.is_directory:
            self._directories.append(inode)

    def _check_end(self, end: End) -> None:
        if end.counts != self.tally.counts or end.sha256 != self._hash.hexdigest():
            raise Unreadable("it is damaged: its checksum doesn't match")
        if self._path == "":
            raise Unreadable("the root directory isn't in it")
        self._ended = True

    def _wrong(self, what: str) -> Unreadable:
        return Unreadable(f"line {self._number}: {what}")


class _Promise(msgspec.Struct, frozen=True):
    """What any version's first line says."""

    format: str = ""
    version: int = 0


def _is_id(text: str) -> bool:
    return len(text) == 32 and set(text) <= set("0123456789abcdef")


def _bad_text(*texts: str | None) -> bool:
    return any(text is not None and "\0" in text for text in texts)


def _bad_number(*numbers: int | None) -> bool:
    return any(number is not None and abs(number) > _MAX_INTEGER for number in numbers)


def _inode_problem(record: InodeRecord) -> str | None:
    inode = record.inode
    try:
        if paths.canonical(inode.path) != inode.path:
            return "its path isn't canonical"
    except InvalidPath as error:
        return str(error)
    if not _is_id(inode.id) or not _is_id(inode.parent_id):
        return "an inode's id has 32 hex digits"
    if (inode.path == paths.ROOT) != (inode.id == ROOT_INODE_ID) or (
        inode.path == paths.ROOT and (inode.parent_id != inode.id or not inode.is_directory)
    ):
        return "it isn't the root that every store has"
    if inode.is_directory != (inode.blob is None) or inode.is_directory != (inode.content_id is None):
        return "a file has content, and a directory none"
    if _bad_text(inode.owner, inode.content_type, inode.content_id):
        return "it has a text with a NUL"
    if _bad_number(inode.mode, inode.mtime, inode.ctime, inode.created_at, inode.generation):
        return "it has a number beyond 64 bits"
    return None if inode.blob is None else _blob_problem(inode.blob)


def _blob_problem(blob: BlobRef) -> str | None:
    for copy in blob.copies():
        if not is_blob_id(copy.id) or len(copy.sha256) != _SHA256_BYTES or not 0 <= copy.size <= _MAX_INTEGER:
            return "its blob has a wrong id, size or digest"
        if (copy.size, copy.sha256) != (blob.size, blob.sha256) or (copy is not blob and copy.replicas):
            return "a replica isn't what it is a replica of"
    return None


def _link_problem(record: LinkRecord) -> str | None:
    link = record.link
    if len(link.token_hash) != _SHA256_BYTES or not _is_id(link.inode_id) or _bad_text(link.created_by):
        return "it is no link"
    if _bad_number(link.created_at, link.expires_at, link.used_at):
        return "it has a number beyond 64 bits"
    return None


def _garbage_problem(record: GarbageRecord) -> str | None:
    if record.blob.replicas or _bad_number(record.not_before_at):
        return "it is no entry of the garbage queue"
    return _blob_problem(record.blob)


def _condemned_problem(record: CondemnedRecord) -> str | None:
    if not is_blob_id(record.blob_id) or _bad_number(record.condemned_at):
        return "it is no condemned blob"
    return None


def _instance_problem(record: InstanceRecord) -> str | None:
    node = record.instance
    if not node.id or _bad_text(node.id, node.root_id, node.api_endpoint) or _bad_number(node.last_seen_at):
        return "it is no node"
    return None


def _replication_problem(record: ReplicationRecord) -> str | None:
    entry = record.replication
    target = entry.order.target
    node = target.instance_id if isinstance(target, LocalPlacement) else None
    if not is_blob_id(entry.blob_id) or not _is_id(entry.inode_id) or entry.attempts < 0:
        return "it is no entry of the replication queue"
    if not entry.order.by or node == "" or _bad_text(entry.order.by, node):
        return "an entry of the replication queue has its nodes"
    if _bad_number(entry.queued_at, entry.due_at) or entry.attempts > _MAX_ATTEMPTS:
        return "it has a number beyond what a store holds"
    return None


_PROBLEMS: Mapping[type[Any], Callable[[Any], str | None]] = MappingProxyType(
    {
        InodeRecord: _inode_problem,
        LinkRecord: _link_problem,
        GarbageRecord: _garbage_problem,
        CondemnedRecord: _condemned_problem,
        InstanceRecord: _instance_problem,
        ReplicationRecord: _replication_problem,
    }
)
