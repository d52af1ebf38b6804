"""
The metadata of a whole store as lines of JSON, from any store to any other.

The first line is a header, then comes one record a line, in groups in the order of :data:`Record`, and the last
line is the end: how many records there are, and the SHA-256 of all lines before it. So a file that was cut off or
damaged is noticed. Inodes come by their paths, bytewise, so that every directory comes before what is in it. Bytes
are in base64, instants are microseconds since 1970. Numbers in the garbage queue are a store's own and stay behind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from callfs.model import BlobRef, Inode, Instance, Link, Replication

FORMAT = "callfs-metadata"
VERSION = 2
OLDEST_VERSION = 1
"""Without a replication queue; such files can still be read."""


class _Line(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", forbid_unknown_fields=True):
    """Base of what a line can be."""


class Header(_Line, frozen=True, kw_only=True, tag="header"):
    """
    The first line.

    :param store_id: the identity of the store, which goes with its records: root folders know it.
    :param at: when the export began.
    """

    format: str = FORMAT
    version: int = VERSION
    store_id: str
    at: int


class InodeRecord(_Line, frozen=True, kw_only=True, tag="inode"):
    """A file or a directory, the root included."""

    inode: Inode


class LinkRecord(_Line, frozen=True, kw_only=True, tag="link"):
    """A link, of which only the hash of its token is known."""

    link: Link


class GarbageRecord(_Line, frozen=True, kw_only=True, tag="garbage"):
    """A blob in the garbage queue."""

    blob: BlobRef
    not_before_at: int


class CondemnedRecord(_Line, frozen=True, kw_only=True, tag="condemned"):
    """A condemned blob."""

    blob_id: str
    condemned_at: int


class InstanceRecord(_Line, frozen=True, kw_only=True, tag="instance"):
    """A node."""

    instance: Instance


class ReplicationRecord(_Line, frozen=True, kw_only=True, tag="replication"):
    """An entry of the replication queue; since version 2."""

    replication: Replication


Record = InodeRecord | LinkRecord | GarbageRecord | CondemnedRecord | InstanceRecord | ReplicationRecord

GROUPS: tuple[type[Any], ...] = (
    InodeRecord,
    LinkRecord,
    GarbageRecord,
    CondemnedRecord,
    InstanceRecord,
    ReplicationRecord,
)


class Counts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many records of each kind."""

    inodes: int = 0
    links: int = 0
    garbage: int = 0
    condemned: int = 0
    instances: int = 0
    replications: int = 0

    @property
    def all(self) -> int:
        """How many in all."""
        return sum(msgspec.structs.astuple(self))


class End(_Line, frozen=True, kw_only=True, tag="end"):
    """
    The last line.

    :param sha256: of all lines before it with their line ends, in hexadecimal.
    """

    counts: Counts
    sha256: str


class Tally:
    """
    What has been seen, whatever its order: two stores hold the same when their tallies are equal.

    :ivar fingerprint: the sum, modulo 2^256, of the SHA-256 of every record.
    """

    def __init__(self) -> None:
        self._counts = [0] * len(GROUPS)
        self.fingerprint = 0

    def add(self, records: Iterable[Record]) -> None:
        """Count some more."""
        for record in records:
            self._counts[GROUPS.index(type(record))] += 1
            digest = hashlib.sha256(_encode(record)).digest()
            self.fingerprint = (self.fingerprint + int.from_bytes(digest)) % (1 << 256)

    @property
    def counts(self) -> Counts:
        """How many of each kind there were."""
        return Counts(*self._counts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tally) and self._counts == other._counts and self.fingerprint == other.fingerprint

    __hash__ = None  # type: ignore[assignment]


_encode = msgspec.json.Encoder().encode


class Writing:
    """
    Makes the lines of an export, in this order: :meth:`begin`, :meth:`records` as often as needed, :meth:`end`.

    :ivar tally: of the records so far.
    """

    def __init__(self, header: Header) -> None:
        self._header = header
        self._hash = hashlib.sha256()
        self.tally = Tally()

    def begin(self) -> bytes:
        """The first line."""
        return self._lines([self._header])

    def records(self, records: Sequence[Record]) -> bytes:
        """A line for each record."""
        self.tally.add(records)
        return self._lines(records)

    def end(self) -> bytes:
        """The last line."""
        return _encode(End(counts=self.tally.counts, sha256=self._hash.hexdigest())) + b"\n"

    def _lines(self, values: Iterable[Any]) -> bytes:
        lines = b"".join(_encode(value) + b"\n" for value in values)
        self._hash.update(lines)
        return lines
