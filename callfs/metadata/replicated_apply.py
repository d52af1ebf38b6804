"""How a command in the log is carried out on a node's copy of the replicated state."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from callfs.cluster.interfaces import Outcome, Step
from callfs.errors import CallFSError, InternalError
from callfs.metadata.commands import Command
from callfs.metadata.replicated_codec import (
    COMMAND_VERSION,
    UnknownCommand,
    decode_command,
    encode_refusal,
    encode_result,
)
from callfs.metadata.replicated_sessions import Sessions
from callfs.metadata.sqlite_errors import primary_code
from callfs.metadata.sqlite_transaction import Transaction

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
    Steps that are carried out in one transaction.

    :param connection: with the transaction open; what was raised here ends it.
    :param parts: what else is replicated than metadata, by the first byte of its commands.
    :param failed: told of a fault of the program, on whatever thread, in an ``except`` clause.
    :param one_by_one: give each command a savepoint. It is quicker without, but then a command that fails otherwise
        than by being refused ends the transaction.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        parts: Mapping[bytes, StatePart],
        failed: Callable[[], None],
        one_by_one: bool,
    ) -> None:
        self._connection = connection
        self._parts = parts
        self._failed = failed
        self._one_by_one = one_by_one
        self._transaction = Transaction(connection)
        self._decoded: dict[bytes, Command[Any]] = {}

    def expect(self, steps: Sequence[Step]) -> None:
        """Look up together what steps to come will ask for."""
        if self._one_by_one or len(steps) == 1:
            return
        for step in steps:
            data = b"" if step.request is None else step.request.command
            if data[:1] == METADATA:
                # Whether it is carried out at all isn't decided yet.
                with suppress(UnknownCommand):
                    self._decoded[data] = decode_command(data[1:])
        self._transaction.expect(self._decoded.values())

    def outcome(self, sessions: Sessions, step: Step) -> Outcome:
        """
        Carry out the next step.

        :raises Halted: this version of CallFS doesn't know the command.
        :raises sqlite3.Error: the disk failed, or is full.
        :raises Exception: without savepoints, whatever went wrong in carrying the command out.
        """
        request = step.request
        if request is None:
            return None
        if request.version > COMMAND_VERSION:
            raise Halted(
                f"entry {step.index} of the log is of version {request.version}, and this CallFS knows "
                f"{COMMAND_VERSION}: install the version that the other nodes have"
            )
        return sessions.once(step.index, request, self._executed)

    def settle(self) -> None:
        """Write what was put off, before the transaction is committed."""
        self._transaction.settle()

    def _executed(self, index: int, data: bytes) -> bytes:
        try:
            return self._alone(index, data) if self._one_by_one else self._with_others(index, data)
        except UnknownCommand as error:
            raise Halted(
                f"entry {index} of the log has a command that this CallFS doesn't know ({error}): install the "
                "version that the other nodes have"
            ) from error

    def _with_others(self, index: int, data: bytes) -> bytes:
        """Carry a command out; a refusal is a result, and has written nothing."""
        if data[:1] != METADATA:
            return self._by_part(index, data)
        command = self._decoded.get(data) or decode_command(data[1:])
        try:
            result = self._transaction.apply(command)
        except CallFSError as refusal:
            return encode_refusal(refusal)
        return encode_result(result)

    def _alone(self, index: int, data: bytes) -> bytes:
        """Carry a command out under a savepoint of its own; a fault of the program is a result as well."""
        self._connection.execute("SAVEPOINT command")
        try:
            if data[:1] == METADATA:
                transaction = Transaction(self._connection)
                result = encode_result(transaction.apply(decode_command(data[1:])))
                transaction.settle()
            else:
                result = self._by_part(index, data)
        except CallFSError as refusal:
            result = encode_refusal(refusal)
        except Exception as error:
            if isinstance(error, UnknownCommand) or not follows_from_state(error):
                raise
            self._failed()
            result = encode_refusal(InternalError("the metadata store couldn't apply this; nothing was changed"))
        else:
            self._connection.execute("RELEASE command")
            return result
        self._connection.execute("ROLLBACK TO command")
        self._connection.execute("RELEASE command")
        return result

    def _by_part(self, index: int, data: bytes) -> bytes:
        part = self._parts.get(data[:1])
        if part is None:
            raise UnknownCommand(f"kind {data[:1]!r}")
        try:
            return part.apply(self._connection, index, data[1:])
        except part.unknown as error:
            raise UnknownCommand(str(error)) from None


def follows_from_state(error: Exception) -> bool:
    """Whether every node meets the same error, so that it is the command's result; otherwise this node halts."""
    if isinstance(error, sqlite3.Error):
        return primary_code(error) in _FOLLOWS_FROM_STATE
    return not isinstance(error, (MemoryError, OSError, RecursionError, Halted))
