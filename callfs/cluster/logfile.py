"""
The file of a node's log: SQLite in WAL mode, durable with every commit, a checksum in each row.

::

    facts     identity (of the node and its disk), hard_state, point (where the log was cut), cluster
    runs      the log after the point: what was written together, in one row, with one checksum

SQLite heals a torn end of its own write-ahead log. What it can't heal, what it would take for such an end although
more follows, and rows whose checksum is wrong, make the file unusable: a node that goes on with a log that isn't
its own may vote twice or lose what was acknowledged.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import zlib
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from callfs.cluster.unusable import CannotTakePart
from callfs.identifiers import TokenBytes, new_store_id
from callfs.raft.boundary import HardState, Saved, SnapshotMeta, Write
from callfs.raft.durability import UNLIMITED
from callfs.raft.membership import NOBODY
from callfs.raft.messages import Entry
from callfs.writeahead import first_lost_frame

FILE_NAME = "log.sqlite3"
APPLICATION_ID = 0x4341524C
"""``CARL``, in the header of every log of CallFS."""

VERSION = 2
"""No release ever wrote version 1, which had a row for each entry."""

_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE facts (name TEXT PRIMARY KEY, value BLOB NOT NULL, checksum BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE runs (
    last INTEGER PRIMARY KEY, first INTEGER NOT NULL, entries BLOB NOT NULL, checksum INTEGER NOT NULL
) STRICT;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
COMMIT;
"""
_WAL_KEPT_BYTES = 64 * 1024 * 1024
_CHECKSUM_BYTES = 8
_PAGE_BYTES = 4096

T = TypeVar("T")

_encode = msgspec.msgpack.Encoder().encode
_RUN: msgspec.msgpack.Decoder[tuple[Entry, ...]] = msgspec.msgpack.Decoder(tuple[Entry, ...])


class LogUnusable(CannotTakePart):
    """The log can't be used; the message is for the operator: what is wrong and what to do."""


class DiskIdentity(msgspec.Struct, frozen=True, array_like=True):
    """
    Whose log it is.

    :param disk_id: random, made with the file.
    """

    node_id: str
    disk_id: str


class StoredLog(msgspec.Struct, frozen=True):
    """
    What the file says.

    :param cluster_id: of the cluster whose words the node has listened to; empty for none so far.
    """

    identity: DiskIdentity
    cluster_id: str
    saved: Saved


def is_full(error: sqlite3.Error) -> bool:
    """Whether the disk has no room, so that trying again later makes sense."""
    code: int = getattr(error, "sqlite_errorcode", -1)
    return code & 0xFF == sqlite3.SQLITE_FULL


def _checksum(*parts: bytes) -> bytes:
    return hashlib.blake2b(b"".join(parts), digest_size=_CHECKSUM_BYTES).digest()


def _run_checksum(first: int, last: int, data: bytes) -> int:
    """CRC-32, which takes a fifth of the time: runs are long, and this is against decay, not against people."""
    return zlib.crc32(data, zlib.crc32(b"%d %d " % (first, last)))


class LogFile:
    """
    The file and its one connection, for one thread at a time. It belongs to one process from :meth:`open` on.

    :param folder: ``raft.data_dir``; made when it isn't there.
    :param node_id: this node; a log of another one is refused.
    """

    def __init__(self, folder: Path, node_id: str) -> None:
        self.path = folder / FILE_NAME
        self._node_id = node_id
        self._connection: sqlite3.Connection | None = None
        self.written_bytes = 0
        """What was written in all, about, in whole pages."""
        # Nothing is stored beyond it, whatever was rolled back.
        self._furthest = UNLIMITED

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection."""
        assert self._connection is not None
        return self._connection

    def open(self, token_bytes: TokenBytes) -> StoredLog:
        """
        Open the file, or make one; it blocks.

        :param token_bytes: makes the disk's id.
        :raises LogUnusable: it is damaged, another node's or program's, in use, or can't be made.
        """
        try:
            self._prepare_folder()
            self._check_write_ahead_log()
            self._connection = self._connect()
            self._settle()
            self._recognise(token_bytes)
            return self._load()
        except sqlite3.Error as error:
            self.close()
            raise self._explained(error) from error
        except OSError as error:
            self.close()
            raise LogUnusable(f"can't use the raft log {self.path}: {error.strerror}") from error
        except LogUnusable:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def carry_out(self, write: Write) -> None:
        """
        Do one write inside a transaction, in the order that :class:`callfs.raft.boundary.Write` asks for.

        :raises sqlite3.Error: nothing of the transaction may be committed.
        """
        if write.discard_log:
            self.connection.execute("DELETE FROM runs")
        if write.point is not None:
            self.put_fact("point", write.point)
            self.connection.execute("DELETE FROM runs WHERE last <= ?", (write.point.index,))
        if write.entries:
            if write.entries[0].index <= self._furthest:
                self._make_way(write.entries[0].index)
            self._put_run(write.entries)
            self._furthest = max(self._furthest, write.entries[-1].index)
        if write.hard_state is not None:
            self.put_fact("hard_state", write.hard_state)

    def _make_way(self, index: int) -> None:
        """Stored entries from there on go; a run that has others as well keeps those."""
        overlapping = "SELECT first, last, entries, checksum FROM runs WHERE last >= ? ORDER BY last LIMIT 1"
        for row in self.connection.execute(overlapping, (index,)).fetchall():
            kept = tuple(entry for entry in self._run(*row) if entry.index < index)
            self.connection.execute("DELETE FROM runs WHERE last >= ?", (index,))
            if kept:
                self._put_run(kept)

    def _put_run(self, entries: tuple[Entry, ...]) -> None:
        first, last, data = entries[0].index, entries[-1].index, _encode(entries)
        self.written_bytes += len(data) + _PAGE_BYTES
        self.connection.execute(
            "INSERT INTO runs (last, first, entries, checksum) VALUES (?, ?, ?, ?)",
            (last, first, data, _run_checksum(first, last, data)),
        )

    def put_fact(self, name: str, value: Any) -> None:
        """Store one of the single values."""
        data = msgspec.msgpack.encode(value)
        self.written_bytes += _PAGE_BYTES
        self.connection.execute(
            "INSERT INTO facts (name, value, checksum) VALUES (?1, ?2, ?3) "
            "ON CONFLICT (name) DO UPDATE SET value = ?2, checksum = ?3",
            (name, data, _checksum(name.encode(), data)),
        )

    def _prepare_folder(self) -> None:
        folder = self.path.absolute().parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.close(descriptor)
        # The name of the file is to be there after a crash, and of the folder, too.
        for each in (folder, folder.parent):
            descriptor = os.open(each, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _check_write_ahead_log(self) -> None:
        lost = first_lost_frame(self.path)
        if lost is not None:
            raise self._damaged(f"frame {lost} of its write-ahead log is bad, and durable commits follow")

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{quote(str(self.path.absolute()))}?mode=rw",
            uri=True,
            timeout=0,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            # One connection of one process: the lock is taken once and held, and no shared memory is needed.
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchall()[0][0]
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute(f"PRAGMA journal_size_limit = {_WAL_KEPT_BYTES}")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("COMMIT")
        except sqlite3.Error:
            connection.close()
            raise
        if mode != "wal":
            connection.close()
            raise LogUnusable(
                f"the file system of {self.path} can't carry SQLite's write-ahead log: use a local disk"
            )
        return connection

    def _settle(self) -> None:
        """
        Make durable what is there.

        A process that was killed in the midst of a commit may have left one that is whole, but in the memory of the
        operating system only. This node is about to promise what it finds, so a power failure mustn't take it back.
        """
        try:
            self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            # The write-ahead log is synchronised before anything is brought from it into the database.
            if not is_full(error):
                raise

    def _recognise(self, token_bytes: TokenBytes) -> None:
        version = self.connection.execute("PRAGMA user_version").fetchall()[0][0]
        application = self.connection.execute("PRAGMA application_id").fetchall()[0][0]
        tables = self.connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()[0][0]
        if application == 0 and version == 0 and tables == 0:
            self.connection.executescript(_SCHEMA)
        elif application != APPLICATION_ID:
            raise LogUnusable(f"{self.path} is the database of another program")
        elif version > VERSION:
            raise LogUnusable(f"the raft log {self.path} was made by a newer CallFS: install that version again")
        elif version < VERSION:
            raise self._damaged("it was made before the first release of CallFS")
        found = self.connection.execute("PRAGMA quick_check(1)").fetchall()[0][0]
        if found != "ok":
            raise self._damaged(str(found))
        if not self.connection.execute("SELECT count(*) FROM facts WHERE name = 'identity'").fetchall()[0][0]:
            self._make_identity(token_bytes)

    def _make_identity(self, token_bytes: TokenBytes) -> None:
        # A crash may have come between the schema and this; but nothing else is ever stored without an identity.
        others = self.connection.execute(
            "SELECT (SELECT count(*) FROM facts) + (SELECT count(*) FROM runs)"
        ).fetchall()[0][0]
        if others:
            raise self._damaged("it has no identity")
        self.connection.execute("BEGIN IMMEDIATE")
        self.put_fact("identity", DiskIdentity(self._node_id, new_store_id(token_bytes)))
        self.connection.execute("COMMIT")

    def _load(self) -> StoredLog:
        identity = self._fact("identity", DiskIdentity, None)
        assert identity is not None
        if identity.node_id != self._node_id:
            raise LogUnusable(
                f"the raft log {self.path} belongs to node {identity.node_id!r}, this node is {self._node_id!r}: "
                "is raft.data_dir or raft.node_id right?"
            )
        point = self._fact("point", SnapshotMeta, SnapshotMeta(0, 0, NOBODY))
        hard_state = self._fact("hard_state", HardState, HardState(0, None, 0))
        saved = Saved(hard_state=hard_state, point=point, entries=self._entries(point.index), applied=point.index)
        self._furthest = saved.entries[-1].index if saved.entries else point.index
        return StoredLog(identity, self._fact("cluster", str, ""), saved)

    def _fact(self, name: str, kind: type[T], default: Any) -> T:
        rows = self.connection.execute("SELECT value, checksum FROM facts WHERE name = ?", (name,)).fetchall()
        if not rows:
            value: T = default
            return value
        data, checksum = rows[0]
        if checksum != _checksum(name.encode(), data):
            raise self._damaged(f"bad checksum of {name}")
        try:
            return msgspec.msgpack.decode(data, type=kind)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise self._damaged(f"{name} can't be read") from error

    def _entries(self, cut_at: int) -> tuple[Entry, ...]:
        entries: list[Entry] = []
        for row in self.connection.execute("SELECT first, last, entries, checksum FROM runs ORDER BY last"):
            # The cut may have gone through the first run.
            run = [entry for entry in self._run(*row) if entry.index > cut_at]
            expected = cut_at + len(entries) + 1
            if run and run[0].index != expected:
                raise self._damaged(f"entry {expected} is missing")
            entries += run
        return tuple(entries)

    def _run(self, first: int, last: int, data: bytes, checksum: int) -> tuple[Entry, ...]:
        if checksum != _run_checksum(first, last, data):
            raise self._damaged(f"bad checksum of entries {first} to {last}")
        try:
            run = _RUN.decode(data)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise self._damaged(f"entries {first} to {last} can't be read: {error}") from error
        if [entry.index for entry in run] != list(range(first, last + 1)):
            raise self._damaged(f"entries {first} to {last} aren't in their row")
        return run

    def _explained(self, error: sqlite3.Error) -> LogUnusable:
        code: int = getattr(error, "sqlite_errorcode", -1) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return LogUnusable(
                f"the raft log {self.path} is in use by another process: stop it, or give this node a "
                "raft.data_dir of its own"
            )
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return self._damaged(str(error))
        return LogUnusable(f"can't use the raft log {self.path}: {error}")

    def _damaged(self, finding: str) -> LogUnusable:
        return LogUnusable(
            f"the raft log {self.path} is damaged ({finding}), so this node can't take part with it. Remove the "
            f"node from the cluster ('callfs cluster remove {self._node_id}', on another node), move the folder "
            f"{self.path.parent} away, start the node with an empty one, and let it join again "
            "('callfs cluster join')"
        )
