"""The database file: who may use it, what is in it, and how connections to it behave."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from importlib import resources
from pathlib import Path
from urllib.parse import quote

from callfs.identifiers import TokenBytes, new_store_id
from callfs.metadata.interfaces import StoreUnusable
from callfs.metadata.sqlite_errors import is_contended, is_damaged
from callfs.writeahead import first_lost_frame

APPLICATION_ID = 0x43414C46
"""``CALF``, in the header of every database of CallFS."""

OLDEST_SQLITE = (3, 38, 0)
"""STRICT tables, JSON functions, FILTER."""

_MAGIC = b"SQLite format 3\0"
_CHECKED_UP_TO_BYTES = 16 * 1024 * 1024
_WRITER_CACHE_KIBIBYTES = 16 * 1024
"""Ids are random, so a transaction of many commands needs pages from everywhere in their index."""
_WAL_KEPT_BYTES = 64 * 1024 * 1024


def migrations() -> list[tuple[int, str]]:
    """The numbered scripts in the package, in order: version and SQL."""
    folder = resources.files("callfs.metadata") / "schema"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [(int(name.partition("_")[0]), (folder / name).read_text("utf-8")) for name in names]


class FileLock:
    """
    The right of one process to be the daemon on a database file, held until :meth:`release` or the process's end.

    A ``flock`` on a file beside it: unlike POSIX record locks it isn't lost when some other descriptor of the
    file is closed, and SQLite's own locks on the database stay apart from it.
    """

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(database.name + "-lock")
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """
        Take the lock, or fail at once.

        :raises StoreUnusable: another process holds it, or the file can't be made.
        """
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnusable(f"can't create the lock file {self._path}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise StoreUnusable(
                f"the lock {self._path} is held: another CallFS daemon is running on this database. "
                "Stop it, or give this one a metadata_store.sqlite_path of its own"
            ) from error
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back; the file stays, so that nobody locks one that is about to go."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class DatabaseFile:
    """
    A database file and its connections.

    :param path: of the database.
    :param read_only: no connection writes, not even a checkpoint; the file must exist.
    :param busy_seconds: how long a connection waits when another is in the way, where it may wait at all.
    """

    def __init__(self, path: Path, read_only: bool, busy_seconds: float) -> None:
        self.path = path
        self.read_only = read_only
        self._busy_seconds = busy_seconds

    def writer(self, busy_seconds: float) -> sqlite3.Connection:
        """The connection that alone writes and checkpoints; durable with every commit."""
        connection = self._connect("rw", busy_seconds)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA cache_size = -{_WRITER_CACHE_KIBIBYTES}")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_KEPT_BYTES}")
        return connection

    def reader(self, may_wait: bool) -> sqlite3.Connection:
        """A connection that can't write; one that may not wait fails at once when another is in the way."""
        connection = self._connect("ro" if self.read_only else "rw", self._busy_seconds if may_wait else 0)
        connection.execute("PRAGMA query_only = ON")
        return connection

    def _connect(self, mode: str, busy_seconds: float) -> sqlite3.Connection:
        """Used by one thread at a time, which needn't be the one that made it; transactions are by hand."""
        connection = sqlite3.connect(
            f"file:{quote(str(self.path.absolute()))}?mode={mode}",
            uri=True,
            timeout=busy_seconds,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        return connection

    def prepare(self, token_bytes: TokenBytes) -> None:
        """
        Make sure that a database of this version is there: made, upgraded, or recognised.

        :param token_bytes: makes the identity of a new store.
        :raises StoreUnusable: as the message says.
        """
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            wanted = ".".join(map(str, OLDEST_SQLITE))
            raise StoreUnusable(f"SQLite {wanted} or newer is needed; this is {sqlite3.sqlite_version}")
        self.check_place()
        try:
            self._prepare(token_bytes)
        except sqlite3.Error as error:
            raise StoreUnusable(self._explained(error)) from error

    def check_place(self) -> None:
        """
        Look at the folder and the file, which is made if missing.

        :raises StoreUnusable: what SQLite itself would only call "unable to open database file".
        """
        folder = self.path.absolute().parent
        if not folder.is_dir():
            raise StoreUnusable(f"the folder {folder} of the database doesn't exist: create it")
        try:
            flags = (os.O_RDONLY if self.read_only else os.O_RDWR | os.O_CREAT) | os.O_CLOEXEC
            descriptor = os.open(self.path, flags, 0o600)
        except FileNotFoundError as error:
            raise StoreUnusable(f"there is no database at {self.path}") from error
        except OSError as error:
            raise StoreUnusable(f"can't open the database {self.path}: {error.strerror}") from error
        with os.fdopen(descriptor, "rb") as file:
            start = file.read(len(_MAGIC))
        if start not in (_MAGIC, b""):
            raise StoreUnusable(f"{self.path} isn't an SQLite database: is metadata_store.sqlite_path right?")
        if start == b"" and self.read_only:
            raise StoreUnusable(f"the database {self.path} is empty: start the daemon once")
        if not self.read_only and not os.access(folder, os.W_OK):
            raise StoreUnusable(f"the folder {folder} of the database can't be written to")

    def check_write_ahead_log(self) -> None:
        """
        Make sure that SQLite won't drop durable commits without a word; before anybody opens the database.

        :raises StoreUnusable: something in its write-ahead log has gone bad, and commits follow.
        """
        try:
            lost = first_lost_frame(self.path)
        except OSError as error:
            raise StoreUnusable(f"can't read the write-ahead log of {self.path}: {error.strerror}") from error
        if lost is not None:
            raise StoreUnusable(
                f"the write-ahead log {self.path}-wal is damaged (frame {lost}), and acknowledged changes follow "
                "the damage, which SQLite would drop. Keep a copy of both files, then restore a backup of both; or "
                "remove the log, which gives up all changes in it, and run 'callfs fsck'"
            )

    def _prepare(self, token_bytes: TokenBytes) -> None:
        connection = self.reader(may_wait=True) if self.read_only else self.writer(self._busy_seconds)
        try:
            version = self._recognised(connection)
            self._check_soundness(connection)
            if not self.read_only:
                self._upgrade(connection, version, token_bytes)
        finally:
            connection.close()

    def _recognised(self, connection: sqlite3.Connection) -> int:
        """The version of the schema; 0 for an empty file."""
        version = int(connection.execute("PRAGMA user_version").fetchall()[0][0])
        application = connection.execute("PRAGMA application_id").fetchall()[0][0]
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()[0][0]
        if application != APPLICATION_ID and (application or version or tables):
            raise StoreUnusable(f"{self.path} is the database of another program")
        latest = migrations()[-1][0]
        if version > latest:
            raise StoreUnusable(
                f"the database {self.path} has schema {version}, made by a newer CallFS; this one knows {latest}: "
                "install the newer version again"
            )
        if self.read_only and version < latest:
            raise StoreUnusable(
                f"the database {self.path} has the older schema {version}: start the daemon once to upgrade it"
            )
        return version

    def _check_soundness(self, connection: sqlite3.Connection) -> None:
        """A quick look where it is quick; the whole check belongs to ``fsck``."""
        if self.path.stat().st_size > _CHECKED_UP_TO_BYTES:
            return
        finding = connection.execute("PRAGMA quick_check(1)").fetchall()[0][0]
        if finding != "ok":
            raise StoreUnusable(self._damaged(finding))

    def _upgrade(self, connection: sqlite3.Connection, version: int, token_bytes: TokenBytes) -> None:
        """Bring an empty or older database up to date, each step whole or not at all."""
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchall()[0][0]
        if mode != "wal":
            raise StoreUnusable(
                f"the file system of {self.path} can't carry SQLite's write-ahead log (a network file system?): "
                "put the database on a local disk"
            )
        for number, script in migrations():
            if number > version:
                connection.executescript(
                    f"BEGIN IMMEDIATE;\n{script}\n{_first_rows(number, token_bytes)}"
                    f"PRAGMA application_id = {APPLICATION_ID};\nPRAGMA user_version = {number};\nCOMMIT;"
                )

    def _explained(self, error: sqlite3.Error) -> str:
        if is_damaged(error):
            return self._damaged(str(error))
        if is_contended(error):
            return f"the database {self.path} is locked by another process: stop what uses it and start again"
        return f"can't use the database {self.path}: {error}"

    def _damaged(self, finding: str) -> str:
        return (
            f"the database {self.path} is damaged ({finding}). Keep a copy of it, then restore a backup, or try "
            "sqlite3's .recover"
        )


def _first_rows(number: int, token_bytes: TokenBytes) -> str:
    """What only a new store needs: its identity."""
    return f"INSERT INTO store (id) VALUES ('{new_store_id(token_bytes)}');\n" if number == 1 else ""  # noqa: S608 -- hex digits
