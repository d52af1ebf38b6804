"""
The files of a node's copy of the replicated state.

The state is one SQLite database in the folder ``state``; the file ``current`` has its name. Another state is never
written over it: it comes in beside it, complete and durable, and then the name changes, atomically.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import msgspec

from callfs.cluster.interfaces import SnapshotMeta, StateUnusable
from callfs.identifiers import TokenBytes
from callfs.metadata.interfaces import StoreUnusable
from callfs.metadata.sqlite_errors import is_damaged, is_environmental
from callfs.metadata.sqlite_file import DatabaseFile, FileLock
from callfs.raft.membership import NOBODY, Membership

STATE_FOLDER = "state"
_POINTER = "current"
_STATE = "SELECT applied_index, applied_term, membership FROM raft_state"
_FIRST_ROW = "INSERT INTO raft_state (one, applied_index, applied_term, membership, log_at) VALUES (1, 0, 0, ?, 0)"


def state_schema() -> str:
    """The tables that a state has besides those of the metadata."""
    return (resources.files("callfs.metadata") / "schema/replicated/state.sql").read_text("utf-8")


def store_id_of(cluster_id: str) -> str:
    """The identity of the store that a cluster keeps, 32 hex digits."""
    return hashlib.sha256(b"callfs store of " + cluster_id.encode()).hexdigest()[:32]


def recorded(connection: sqlite3.Connection) -> SnapshotMeta:
    """
    How far the state on a connection goes.

    :raises StateUnusable: it doesn't say so.
    """
    try:
        ((index, term, membership),) = connection.execute(_STATE).fetchall()
        return SnapshotMeta(index, term, msgspec.msgpack.decode(membership, type=Membership))
    except (ValueError, TypeError, msgspec.DecodeError) as error:
        raise StateUnusable(
            "the replicated metadata of this node doesn't say how far it goes: remove the node from the cluster, "
            "empty its raft.data_dir, and join it again"
        ) from error


def record(connection: sqlite3.Connection, meta: SnapshotMeta, log_at: int) -> None:
    """Write down how far the state goes, in the transaction that is open."""
    connection.execute(
        "UPDATE raft_state SET applied_index = ?, applied_term = ?, membership = ?, log_at = ?",
        (meta.index, meta.term, msgspec.msgpack.encode(meta.membership), log_at),
    )


def synchronised(path: Path) -> None:
    """Bring a file, or the names in a folder, to stable storage."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def current_state(data_dir: Path) -> Path | None:
    """
    The database that is the state in ``raft.data_dir``; ``None`` when there is none.

    It may be replaced while a daemon runs.
    """
    folder = data_dir / STATE_FOLDER
    try:
        return folder / (folder / _POINTER).read_text("ascii").strip()
    except FileNotFoundError:
        return None


def made_durably(folder: Path) -> None:
    """Make a folder, and those that it is in, so that a power failure doesn't take it away."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in missing:
        synchronised(path.parent)


class SwitchFailed(StateUnusable):
    """It isn't known which of two states is in force after a restart."""


class StateFolder:
    """
    The folder of the state.

    :param folder: ``state`` in ``raft.data_dir``; made if missing.
    :param token_bytes: makes names, and the identity that a fresh database has until it belongs to a cluster.
    :param busy_seconds: how long a connection waits when another is in the way, where it may wait at all.
    :param schemas: further tables, as SQL that changes nothing where they are.
    :param reached: called at the named steps of a replacement.
    """

    def __init__(
        self,
        folder: Path,
        token_bytes: TokenBytes,
        busy_seconds: float,
        schemas: tuple[str, ...] = (),
        reached: Callable[[str], None] = lambda step: None,
    ) -> None:
        self.folder = folder
        self._token_bytes = token_bytes
        self._busy_seconds = busy_seconds
        self._schemas = schemas
        self._reached = reached
        self._beside = folder / f"{_POINTER}.new"
        self._lock = FileLock(folder / "state")

    def open(self) -> DatabaseFile:
        """
        Take the folder, and make or recognise its database.

        :raises StateUnusable: what is there can't be used.
        :raises OSError: the disk failed, or is full.
        """
        made_durably(self.folder)
        try:
            self._lock.acquire()
            name = self._current()
            if name is None:
                name = self._new_name()
                self._prepared(self.folder / name)
                self._prepare_pointer(name)
                self._switch_pointer()
            file = self._prepared(self.folder / name)
        except StoreUnusable as error:
            self.close()
            raise StateUnusable(str(error)) from error
        except BaseException:
            self.close()
            raise
        self._remove_others(name)
        return file

    def close(self) -> None:
        """Let go of the folder."""
        self._lock.release()

    def replace(self, arrived: Path, meta: SnapshotMeta) -> DatabaseFile:
        """
        Make a complete database the state, durably; the old one's files stay until :meth:`forget`.

        :raises SwitchFailed: the disk failed, and the old state is in force or the new one.
        :raises StateUnusable: it isn't one, or doesn't contain what ``meta`` says; nothing has changed.
        :raises sqlite3.Error: the disk failed, or is full; nothing has changed.
        :raises OSError: the same.
        """
        name = self._new_name()
        path = self.folder / name
        try:
            os.replace(arrived, path)
            self._reached("arrived")
            file = self._recognised(path, meta)
            synchronised(path)
            self._reached("recognised")
            self._prepare_pointer(name)
            self._reached("prepared")
        except BaseException:
            _remove(path)
            raise
        try:
            self._switch_pointer()
        except OSError as error:
            raise SwitchFailed(
                f"the disk of the replicated metadata failed while another state was put in place: {error}"
            ) from error
        self._reached("switched")
        return file

    def _recognised(self, path: Path, meta: SnapshotMeta) -> DatabaseFile:
        try:
            file = self._prepared(path)
            connection = file.reader(may_wait=True)
            try:
                found = recorded(connection)
            finally:
                connection.close()
        except (StoreUnusable, StateUnusable, sqlite3.Error) as error:
            fault = error if isinstance(error, sqlite3.Error) else error.__cause__
            if isinstance(fault, sqlite3.Error) and is_environmental(fault) and not is_damaged(fault):
                raise fault from error
            raise StateUnusable(f"what a peer sent isn't a state of CallFS: {error}") from error
        if found != meta:
            raise StateUnusable(f"a peer sent the state up to {found.index} where {meta.index} was announced")
        return file

    def forget(self, file: DatabaseFile) -> None:
        """Remove the files of a database that isn't the state any more and has no connections."""
        _remove(file.path)
        self._reached("forgotten")

    def _prepared(self, path: Path) -> DatabaseFile:
        """A database with all tables, new or as it is."""
        file = DatabaseFile(path, read_only=False, busy_seconds=self._busy_seconds)
        file.prepare(self._token_bytes)
        connection = file.writer(self._busy_seconds)
        try:
            self._add_tables(connection)
        finally:
            connection.close()
        return file

    def _add_tables(self, connection: sqlite3.Connection) -> None:
        is_state = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'raft_state'").fetchall()
        schemas = self._schemas if is_state else (state_schema(), *self._schemas)
        connection.executescript("BEGIN IMMEDIATE;\n" + "\n".join(schemas))
        if not is_state:
            connection.execute(_FIRST_ROW, (msgspec.msgpack.encode(NOBODY),))
        connection.execute("COMMIT")

    def _current(self) -> str | None:
        try:
            name = (self.folder / _POINTER).read_text("ascii").strip()
        except FileNotFoundError:
            return None
        if not (self.folder / name).is_file():
            raise StateUnusable(
                f"the state {self.folder / name} is missing although {self.folder / _POINTER} names it: restore "
                "it, or remove this node from the cluster, empty its raft.data_dir, and join it again"
            )
        return name

    def _prepare_pointer(self, name: str) -> None:
        self._beside.write_text(name + "\n", "ascii")
        synchronised(self._beside)

    def _switch_pointer(self) -> None:
        os.replace(self._beside, self.folder / _POINTER)
        synchronised(self.folder)

    def _new_name(self) -> str:
        return f"state-{self._token_bytes(8).hex()}.sqlite3"

    def _remove_others(self, name: str) -> None:
        """What a crash in the midst of a replacement left behind."""
        for path in self.folder.glob("state-*.sqlite3*"):
            if not path.name.startswith(name):
                path.unlink(missing_ok=True)


def _remove(database: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
