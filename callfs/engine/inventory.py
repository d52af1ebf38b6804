"""
What should be in a backend, checked against its own list instead of asking for each blob.

The two lists have different orders, and neither need fit into memory: what is named is written to a temporary
database, and every page of the backend's list strikes out what is there as it should be.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from callfs.backends.interfaces import BlobStat
from callfs.errors import InsufficientStorage
from callfs.model import BlobRef

CACHE_KIB = 32 * 1024


class Inventory:
    """
    The blobs that haven't been seen yet. It works where it is called, and on the disk for temporary files (about 45
    bytes for each blob) when it is large: not for a busy reactor.

    :param cache_kib: so much memory it takes, in KiB.
    """

    def __init__(self, cache_kib: int = CACHE_KIB) -> None:
        self._awaited = 0
        # Without a name it is a temporary file of SQLite's own: in memory while it is small, gone with the process.
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute(f"PRAGMA cache_size = -{cache_kib}")
        self._database.execute("CREATE TABLE awaited (id TEXT PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID")

    def __len__(self) -> int:
        return self._awaited

    def expect(self, blobs: Iterable[BlobRef]) -> None:
        """
        These should be there.

        :raises callfs.errors.InsufficientStorage: there is no room for temporary files.
        """
        self._awaited += self._many("INSERT OR IGNORE INTO awaited VALUES (?, ?)", [(b.id, b.size) for b in blobs])

    def strike(self, listed: Iterable[BlobStat]) -> int:
        """
        These are there; one of another size stays awaited.

        :return: how many of them were awaited.
        :raises callfs.errors.InsufficientStorage: there is no room for temporary files.
        """
        struck = self._many("DELETE FROM awaited WHERE id = ? AND size = ?", [(b.id, b.size) for b in listed])
        self._awaited -= struck
        return struck

    def missing(self, after: str, limit: int) -> Sequence[str]:
        """A page of the ids that are awaited still, in their order, those behind ``after``."""
        rows = self._database.execute("SELECT id FROM awaited WHERE id > ? ORDER BY id LIMIT ?", (after, limit))
        return [blob_id for (blob_id,) in rows]

    def close(self) -> None:
        """Forget all."""
        self._database.close()

    def _many(self, statement: str, rows: Sequence[tuple[str, int]]) -> int:
        with _room():
            self._database.execute("BEGIN")
            changed = self._database.executemany(statement, rows).rowcount
            self._database.execute("COMMIT")
        return changed


@contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise InsufficientStorage(
            f"what should be in the bucket doesn't fit into a temporary file ({error}); TMPDIR names another folder"
        ) from error
