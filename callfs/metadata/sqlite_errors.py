"""What an error of SQLite means to whoever asked (https://www.sqlite.org/rescode.html)."""

from __future__ import annotations

import sqlite3

from callfs.errors import CallFSError, InsufficientStorage, MetadataUnavailable

_CONTENDED = frozenset([sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED])
_DAMAGED = frozenset([sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB])
_FAILED = frozenset(
    [
        *_CONTENDED,
        *_DAMAGED,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    ]
)


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; -1 for an error of Python's module itself."""
    code: int = getattr(error, "sqlite_errorcode", -1)
    return code & 0xFF if code >= 0 else -1


def is_contended(error: sqlite3.Error) -> bool:
    """Whether another connection was in the way, and waiting may help."""
    return primary_code(error) in _CONTENDED


def is_damaged(error: sqlite3.Error) -> bool:
    """Whether the file is corrupt."""
    return primary_code(error) in _DAMAGED


def is_full(error: sqlite3.Error) -> bool:
    """Whether the disk is full."""
    return primary_code(error) == sqlite3.SQLITE_FULL


def is_environmental(error: sqlite3.Error) -> bool:
    """Whether disk, locks or memory failed, rather than a statement being wrong."""
    return primary_code(error) in _FAILED


def stopped_short(error: sqlite3.Error) -> bool:
    """
    Whether a COMMIT failed while it wrote to the log: the frame that says "committed" is the last one, so it isn't
    there. Only after a later failure, of the fsync above all, can it be.
    """
    code: int = getattr(error, "sqlite_errorcode", -1)
    return is_full(error) or code == sqlite3.SQLITE_IOERR_WRITE


def translated(error: sqlite3.Error) -> CallFSError:
    """
    The error for the caller, when it is certain that nothing was changed.

    :return: ``InsufficientStorage`` for a full disk, else ``MetadataUnavailable``; no SQL and no path in it.
    """
    if is_full(error):
        return InsufficientStorage("the disk of the metadata store is full; nothing was changed")
    if is_contended(error):
        return MetadataUnavailable("the metadata store is locked by another process; nothing was changed")
    if is_damaged(error):
        return MetadataUnavailable("the metadata store is damaged; its operator has to act", retry_after_seconds=60)
    return MetadataUnavailable("the metadata store can't reach its disk just now; nothing was changed")
