"""How a command in the log is carried out on a node's copy of the replicated state."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from typing import Protocol

from callfs.cluster.interfaces import Outcome, Step
from callfs.errors import CallFSError, InternalError
from callfs.metadata.replicated_codec import (
    COMMAND_VERSION,
    UnknownCommand,
    decode_command,
    encode_refusal,
    encode_result,
)
from callfs.metadata.replicated_sessions import Sessions
from callfs.metadata.sqlite_errors import primary_code
from callfs.metadata.sqlite_transaction import apply_command

METADATA = b"m"
"""The first byte of a metadata command; a part of the state has another one."""

_FOLLOWS_FROM_STATE = frozenset(
    [
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_RANGE,
        sqlite3.SQLITE_TOOBIG,
    ]
)
"""What a statement fails with because of what it says and what there is, and nothing else."""


class Halted(Exception):
    """The state can't go on."""


class StatePart(Protocol):
    """
    Something else that is replicated along with the metadata.

    :ivar schema: SQL that makes its tables where they aren't, and changes nothing where they are.
    :ivar unknown: what :meth:`apply` raises for bytes that aren't a command of this part.
    """

    schema: str
    unknown: type[Exception]

    def begun(self) -> None:
        """On a thread: a transaction begins; what was applied and not reported as committed never happened."""

    def apply(self, connection: sqlite3.Connection, index: int, command: bytes) -> bytes:
        """
        Apply a command in a transaction, on a thread; reads no clock and makes no chance.

        :param index: of its entry in the log.
        :return: the result.
        :raises sqlite3.Error: as it comes.
        :raises Exception: of the class :attr:`unknown`: it isn't a command of this part.
        """

    def committed(self) -> None:
        """On the reactor's thread: everything applied since the last call is in the state now."""

    def replaced(self, connection: sqlite3.Connection) -> None:
        """On a thread: another state is in force, or this one was opened. :meth:`committed` follows."""


class Execution:
    """
    :param parts: what else is replicated than metadata, by the first byte of its commands.
    :param failed: told of a fault of the program, on whatever thread, in an ``except`` clause.
    """

    def __init__(self, parts: Mapping[bytes, StatePart], failed: Callable[[], None]) -> None:
        self._parts = parts
        self._failed = failed

    def outcome(self, connection: sqlite3.Connection, sessions: Sessions, step: Step) -> Outcome:
        """
        Carry out a step in the transaction that is open.

        :raises Halted: this version of CallFS doesn't know the command.
        :raises sqlite3.Error: the disk failed, or is full.
        """
        request = step.request
        if request is None:
            return None
        if request.version > COMMAND_VERSION:
            raise Halted(
                f"entry {step.index} of the log is of version {request.version}, and this CallFS knows "
                f"{COMMAND_VERSION}: install the version that the other nodes have"
            )
        return sessions.once(step.index, request, lambda: self._executed(connection, step.index, request.command))

    def _executed(self, connection: sqlite3.Connection, index: int, data: bytes) -> bytes:
        """Carry a command out under a savepoint of its own; a refusal is a result."""
        connection.execute("SAVEPOINT command")
        try:
            result = self._carried_out(connection, index, data)
        except CallFSError as refusal:
            result = encode_refusal(refusal)
        except UnknownCommand as error:
            raise Halted(
                f"entry {index} of the log has a command that this CallFS doesn't know ({error}): install the "
                "version that the other nodes have"
            ) from error
        except Exception as error:
            if not _follows_from_state(error):
                raise
            self._failed()
            result = encode_refusal(InternalError("the metadata store couldn't apply this; nothing was changed"))
        else:
            connection.execute("RELEASE command")
            return result
        connection.execute("ROLLBACK TO command")
        connection.execute("RELEASE command")
        return result

    def _carried_out(self, connection: sqlite3.Connection, index: int, data: bytes) -> bytes:
        kind, payload = data[:1], data[1:]
        if kind == METADATA:
            return encode_result(apply_command(connection, decode_command(payload)))
        part = self._parts.get(kind)
        if part is None:
            raise UnknownCommand(f"kind {kind!r}")
        try:
            return part.apply(connection, index, payload)
        except part.unknown as error:
            raise UnknownCommand(str(error)) from None


def _follows_from_state(error: Exception) -> bool:
    """Whether every node meets the same error, so that it is the command's result; otherwise this node halts."""
    if isinstance(error, sqlite3.Error):
        return primary_code(error) in _FOLLOWS_FROM_STATE
    return not isinstance(error, (MemoryError, OSError, RecursionError))
