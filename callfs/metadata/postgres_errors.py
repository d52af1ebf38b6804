"""What an error of PostgreSQL means (https://www.postgresql.org/docs/current/errcodes-appendix.html)."""

from __future__ import annotations

import psycopg

from callfs.errors import CallFSError, InsufficientStorage, InternalError, MetadataUnavailable

_RACES = frozenset({"inodes_path", "inodes_name", "links_hash", "instances_id"})
"""Unique constraints that two commands at the same time can run into: the decision is to be taken again."""

_UNIQUE_VIOLATION = "23505"
_FOREIGN_KEY_VIOLATION = "23503"
_SERIALIZATION_FAILURE = "40001"
_DEADLOCK = "40P01"
_DISK_FULL = "53100"
_LOCK_NOT_AVAILABLE = "55P03"
_READ_ONLY = "25006"
_CANCELLED = "57014"
_DAMAGED = frozenset({"XX001", "XX002"})
_GOING_AWAY = frozenset({"57P01", "57P02", "57P03", "57P05", "25P03", "25P04"})
_ENVIRONMENT = ("08", "53", "54", "55", "57", "58", "28", "3D", "42501", "25")
"""Classes in which the server's state or set-up is at fault, and no statement of ours."""


_FINAL = ("FATAL", "SSL", "invalid")
_PASSING = (
    "starting up",
    "system is not yet accepting connections",
    "system is not accepting connections",
    "shutting down",
    "recovery mode",
    "too many clients",
    "too many connections",
    "connection slots",
    "terminating connection",
    "authentication due to timeout",
)
"""What a server says while it starts, recovers after a crash, stops, or has too much to do."""


class NotPrimary(psycopg.OperationalError):
    """The server is a standby: what it shows may be old."""


class Overtaken(Exception):
    """What the decision was taken upon has changed since: decide again."""


class Withdrawn(Exception):
    """Nobody waits for this any more, and it was given up before its commit."""


def lost_connection(error: BaseException) -> bool:
    """Whether the connection broke or couldn't be made, so that another attempt may reach the server."""
    if not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return False
    code = error.sqlstate
    return code is None or code in _GOING_AWAY or code.startswith("08")


def may_come_up(reason: str) -> bool:
    """
    Whether a connection that couldn't be made may be made later, with nobody's help.

    libpq has no code for it (the SQLSTATE of a failed connection isn't kept), so its text has to tell: a server
    that answered with FATAL refuses this database, user or password, unless it is starting, stopping or crowded.
    """
    if any(word in reason for word in _PASSING):
        return True
    return not any(word in reason for word in _FINAL)


def overtaken(error: BaseException) -> bool:
    """Whether a simultaneous change was in the way, and a fresh decision is right."""
    if isinstance(error, Overtaken):
        return True
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate == _UNIQUE_VIOLATION:
        return error.diag.constraint_name in _RACES
    return error.sqlstate in (_FOREIGN_KEY_VIOLATION, _SERIALIZATION_FAILURE, _DEADLOCK)


def is_damaged(error: BaseException) -> bool:
    """Whether the server found its files corrupt."""
    return isinstance(error, psycopg.Error) and error.sqlstate in _DAMAGED


def makes_connection_useless(error: BaseException) -> bool:
    """Whether another connection may be better though this one works: it leads to a server that doesn't write."""
    return isinstance(error, NotPrimary) or (isinstance(error, psycopg.Error) and error.sqlstate == _READ_ONLY)


def name_of(error: BaseException) -> str:
    """What metrics call it: the SQLSTATE where there is one."""
    code = error.sqlstate if isinstance(error, psycopg.Error) else None
    return code or type(error).__name__


def text_of(error: BaseException) -> str:
    """For the log: the server's own sentence, never the detail, which may hold names of files."""
    primary = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    return primary or str(error)


def translated(error: BaseException) -> CallFSError:
    """
    The error for the caller, when it is certain that nothing was changed; no SQL and no address in it.

    :return: ``InsufficientStorage`` for a full disk, ``MetadataUnavailable`` for what may pass, else
        ``InternalError``.
    """
    if isinstance(error, CallFSError):
        return error
    if isinstance(error, NotPrimary):
        return MetadataUnavailable("the metadata store is a standby just now; nothing was changed")
    if overtaken(error):
        return MetadataUnavailable("too many simultaneous changes were in the way; nothing was changed")
    if lost_connection(error):
        return MetadataUnavailable("the metadata store can't be reached just now; nothing was changed")
    code = error.sqlstate if isinstance(error, psycopg.Error) else None
    if code is None:
        return InternalError("the metadata store couldn't do this; nothing was changed")
    return _by_code(code)


def _by_code(code: str) -> CallFSError:
    if code == _DISK_FULL:
        return InsufficientStorage("the disk of the metadata store is full; nothing was changed")
    if code == _READ_ONLY:
        return MetadataUnavailable("the metadata store takes no changes just now; nothing was changed")
    if code in (_CANCELLED, _LOCK_NOT_AVAILABLE):
        return MetadataUnavailable("the metadata store didn't get to this in time; nothing was changed")
    if code in _DAMAGED:
        return MetadataUnavailable("the metadata store is damaged; its operator has to act", retry_after_seconds=60)
    if code.startswith(_ENVIRONMENT):
        return MetadataUnavailable("the metadata store can't do this just now; nothing was changed")
    return InternalError("the metadata store couldn't do this; nothing was changed")
