"""
One try to apply a command, and the way to learn later how a try ended whose answer was lost.

Each try has an id that nobody else has, and its transaction writes that id down together with the result. When the
connection breaks after the COMMIT was sent, another connection puts a row with the same id in place:

- it finds the row there: the transaction was committed, and the row has the result;
- it puts the row in: the transaction wasn't committed and never can be, because its own row would be the second;
- it waits, because the transaction is still under way: the server is asked until there is one of the two answers.

The rows are forgotten after an hour. A process that stood still for so long (SIGSTOP, a suspended machine) could
take what was forgotten for what never happened. Its own clocks may have stood still with it, so it is the server's
clock that tells.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Callable
from typing import Any

import msgspec
import psycopg

from callfs.errors import CallFSError
from callfs.metadata.commands import Command
from callfs.metadata.postgres_pool import Attempt
from callfs.metadata.postgres_queries import Connection
from callfs.metadata.postgres_statements import Statement, carry_out
from callfs.metadata.postgres_transaction import NamesLock, NeedsAllNames, decide, names_lock

COMMAND_ID_BYTES = 16

_NOTE = "INSERT INTO applied_commands (id, result) VALUES (%s, %s)"
_REFUSE = "INSERT INTO applied_commands (id) VALUES (%s) ON CONFLICT (id) DO NOTHING"
_SERVER_SECONDS = "extract(epoch FROM now())::float8"
_RESULT = "SELECT result, extract(epoch FROM now())::float8 FROM applied_commands WHERE id = %s"
_FORGET = """DELETE FROM applied_commands WHERE id IN (
    SELECT id FROM applied_commands WHERE at < now() - interval '1 hour' ORDER BY at LIMIT %s)"""
_NAMES_LOCK_CLASS = 0x43414C46
_REMEMBERED_SECONDS = 1800.0
"""Half as long as the rows are there."""


class Forgotten(Exception):
    """The server doesn't know of a try that is so old that it may have forgotten it."""


class Try(msgspec.Struct, frozen=True):
    """
    What one try needs to know.

    :param command_id: its own, random.
    :param names_key: which lock is the one on all names of this store.
    :param seconds_left: for each of its statements.
    :param reached: called at named steps.
    """

    command: Command[Any]
    command_id: bytes
    names_key: int
    seconds_left: float
    reached: Callable[[str], None]


def apply_command(connection: Connection, attempt: Attempt, given: Try) -> Any:
    """
    Apply the command in a transaction of its own; on a thread of the pool.

    :return: what the command says it returns; it is durable.
    :raises callfs.errors.CallFSError: the command's refusals; nothing was written then.
    :raises psycopg.Error: as the server says; where ``attempt`` isn't committing, nothing was written.
    """
    try:
        return _apply(connection, attempt, given, names_lock(given.command))
    except NeedsAllNames:
        connection.execute("ROLLBACK")
        return _apply(connection, attempt, given, NamesLock.ALONE)


def _apply(connection: Connection, attempt: Attempt, given: Try, lock: NamesLock) -> Any:
    attempt.server_began = _last_number(connection.execute(_begin(given, lock)))
    try:
        change = decide(connection, given.command, lock)
    except CallFSError:
        connection.execute("ROLLBACK")
        raise
    note = Statement(_NOTE, (given.command_id, msgspec.msgpack.encode(change.result)), blind=True)
    carry_out(connection, (*change.statements, note))
    attempt.begin_commit()
    given.reached("metadata.before_commit")
    connection.execute("COMMIT")
    given.reached("metadata.after_commit")
    return change.result


def _begin(given: Try, lock: NamesLock) -> str:
    """
    One round trip, but a statement for each: those after the lock see all that the lock waited for. The last one
    says when the transaction began.
    """
    milliseconds = max(1, math.ceil(given.seconds_left * 1000))
    begin = f"BEGIN; SET LOCAL statement_timeout = {milliseconds}; SET LOCAL lock_timeout = {milliseconds}"
    if lock is NamesLock.NONE:
        return f"{begin}; SELECT {_SERVER_SECONDS}"
    return f"{begin}; SELECT {_SERVER_SECONDS}, {lock.value}({_NAMES_LOCK_CLASS}, {given.names_key})"


def _last_number(cursor: psycopg.Cursor[tuple[Any, ...]]) -> float:
    """The first column of the last of several statements."""
    while cursor.nextset():
        pass
    row = cursor.fetchone()
    assert row is not None
    return float(row[0])


def settle(connection: Connection, command_id: bytes, server_began: float) -> bytes | None:
    """
    Learn how a try ended; on a thread of the pool.

    :param server_began: see :class:`callfs.metadata.postgres_pool.Attempt`.
    :return: the encoded result, or ``None`` when it is certain that it wasn't applied and never will be.
    :raises Forgotten: the server may have known and forgotten it.
    """
    connection.execute(_REFUSE, (command_id,))
    row = connection.execute(_RESULT, (command_id,)).fetchone()
    if row is None:
        raise Forgotten
    result: bytes | None = row[0]
    if result is None and row[1] - server_began >= _REMEMBERED_SECONDS:
        raise Forgotten
    return result


def decoded(command: Command[Any], result: bytes) -> Any:
    """A result as it was before it was written down."""
    return msgspec.msgpack.decode(result, type=_result_type(type(command)))


def _result_type(command: type[Command[Any]]) -> Any:
    """``Written`` of ``class CreateFile(Command[Written])``."""
    (base,) = typing.cast("Any", command).__orig_bases__
    return typing.get_args(base)[0]


def forget_applied(connection: Connection, limit: int) -> int:
    """
    Forget what was applied more than an hour ago, at most so much at once.

    :return: how much there was.
    """
    return connection.execute(_FORGET, (limit,)).rowcount
