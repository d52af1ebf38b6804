"""The changes that a command makes in the PostgreSQL store, sent to the server in one round trip."""

# ruff: noqa: S608 -- statements are put together from constants alone

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import msgspec
import psycopg

from callfs.metadata.postgres_errors import Overtaken
from callfs.metadata.postgres_queries import Connection

_NO_RESULT = -1
_MOST_TOGETHER = 6


class Statement(msgspec.Struct, frozen=True):
    """
    One change.

    :param rows: how many rows it has to find; otherwise the decision was overtaken. ``None``: any number.
    :param blind: it is the same change whether or not the others of its command are made before it, but for the
        constraints, which are checked at the end of a statement. It has no ``RETURNING``.
    """

    text: str
    parameters: tuple[Any, ...]
    rows: int | None = None
    blind: bool = False


def carry_out(connection: Connection, statements: Sequence[Statement]) -> None:
    """
    Make the changes, one after the other.

    :raises Overtaken: one of them didn't find what the decision was taken upon.
    """
    if 0 < len(statements) <= _MOST_TOGETHER and all(statement.blind for statement in statements):
        _as_one(connection, statements)
    else:
        _in_a_pipeline(connection, statements)


def _as_one(connection: Connection, statements: Sequence[Statement]) -> None:
    """A few make one statement, which costs both sides far less than as many in a pipeline."""
    text = together(tuple(statement.text for statement in statements))
    parameters = [value for statement in statements for value in statement.parameters]
    found = connection.execute(text, parameters).fetchall()[0]
    for statement, count in zip(statements, found, strict=True):
        if statement.rows not in (None, count):
            raise Overtaken


@functools.lru_cache(64)
def together(texts: tuple[str, ...]) -> str:
    """
    One statement for several: it returns how many rows each of them found.

    They are carried out when their counts are asked for, so in this order, which is that of the locks.
    """
    changes = ", ".join(f"c{number} AS ({text} RETURNING 1)" for number, text in enumerate(texts))
    counts = ", ".join(f"(SELECT count(*) FROM c{number})" for number in range(len(texts)))
    return f"WITH {changes} SELECT {counts}"


def _in_a_pipeline(connection: Connection, statements: Sequence[Statement]) -> None:
    cursors = [connection.cursor() for _ in statements]
    refused: psycopg.Error | None = None
    try:
        with connection.pipeline():
            try:
                for statement, cursor in zip(statements, cursors, strict=True):
                    cursor.execute(statement.text, statement.parameters)
            except psycopg.Error as error:
                refused = error  # kept from the pipeline's end, which would log that the rest was aborted
    except psycopg.Error as error:
        refused = refused or error
    # A condition that didn't hold comes first: what was refused after it was refused because of it.
    for statement, cursor in zip(statements, cursors, strict=True):
        if statement.rows is not None and cursor.rowcount not in (statement.rows, _NO_RESULT):
            raise Overtaken
    if refused is not None:
        raise refused
