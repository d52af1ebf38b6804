"""The changes of a command, sent to PostgreSQL together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from callfs.metadata.postgres_errors import Overtaken
from callfs.metadata.postgres_statements import Statement, carry_out
from tests.support.postgres import shared_server

TABLES = """
    CREATE TABLE parents (id int PRIMARY KEY, touched int NOT NULL DEFAULT 0);
    CREATE TABLE children (id int PRIMARY KEY, parent_id int NOT NULL REFERENCES parents (id));
    CREATE TABLE notes (id int PRIMARY KEY);
    CREATE TABLE made (number serial, place text);
    CREATE FUNCTION note_down() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO made (place) VALUES (TG_TABLE_NAME); RETURN NEW; END $$;
    INSERT INTO parents (id) VALUES (1);
    CREATE TRIGGER a BEFORE UPDATE OR INSERT ON parents FOR EACH ROW EXECUTE FUNCTION note_down();
    CREATE TRIGGER a BEFORE INSERT ON children FOR EACH ROW EXECUTE FUNCTION note_down();
    CREATE TRIGGER a BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION note_down();
"""


@pytest.fixture(name="connection")
def make_connection() -> Iterator[psycopg.Connection[Any]]:
    """A parent, and tables that note down in which order they are changed."""
    with psycopg.connect(shared_server().new_schema(), autocommit=True) as connection:
        connection.execute(TABLES)
        yield connection


def add_child(child_id: int, parent_id: int = 1, *, blind: bool) -> Statement:
    """A new child."""
    return Statement("INSERT INTO children (id, parent_id) VALUES (%s, %s)", (child_id, parent_id), blind=blind)


def touch(parent_id: int = 1, *, blind: bool) -> Statement:
    """A change of something that has to be there."""
    return Statement("UPDATE parents SET touched = touched + 1 WHERE id = %s", (parent_id,), rows=1, blind=blind)


def note(*, blind: bool) -> Statement:
    """What comes last."""
    return Statement("INSERT INTO notes (id) VALUES (%s)", (7,), blind=blind)


def counts(connection: psycopg.Connection[Any]) -> tuple[int, ...]:
    """How many children, touches and notes there are."""
    query = (
        "SELECT (SELECT count(*) FROM children), (SELECT sum(touched) FROM parents), (SELECT count(*) FROM notes)"
    )
    return tuple(connection.execute(query).fetchall()[0])


@pytest.mark.parametrize("blind", [True, False])
def test_all_are_made_in_their_order(connection: psycopg.Connection[Any], blind: bool) -> None:
    """Locks are taken in the order of the statements, as one statement and in a pipeline."""
    changes = [add_child(1, blind=blind), add_child(2, blind=blind), touch(blind=blind), note(blind=blind)]
    carry_out(connection, changes)
    assert counts(connection) == (2, 1, 1)
    places = [place for (place,) in connection.execute("SELECT place FROM made ORDER BY number").fetchall()]
    assert places == ["children", "children", "parents", "notes"]


@pytest.mark.parametrize("blind", [True, False])
def test_what_is_not_found_was_overtaken(connection: psycopg.Connection[Any], blind: bool) -> None:
    """A condition that doesn't hold is told, whatever comes after it; the transaction is the caller's to end."""
    connection.execute("BEGIN")
    with pytest.raises(Overtaken):
        carry_out(connection, [touch(2, blind=blind), note(blind=blind)])
    connection.execute("ROLLBACK")
    assert counts(connection) == (0, 0, 0)


@pytest.mark.parametrize("blind", [True, False])
def test_constraints_hold(connection: psycopg.Connection[Any], blind: bool) -> None:
    """What a constraint refuses is refused as that, and nothing of the rest is kept."""
    connection.execute("BEGIN")
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        carry_out(connection, [add_child(1, 2, blind=blind), touch(blind=blind), note(blind=blind)])
    connection.execute("ROLLBACK")
    connection.execute("BEGIN")
    with pytest.raises(psycopg.errors.UniqueViolation):
        carry_out(connection, [add_child(1, blind=blind), add_child(1, blind=blind), note(blind=blind)])
    connection.execute("ROLLBACK")
    assert counts(connection) == (0, 0, 0)


def test_many(connection: psycopg.Connection[Any]) -> None:
    """However many there are, all are made."""
    carry_out(connection, [add_child(number, blind=True) for number in range(300)])
    carry_out(connection, [])
    assert counts(connection)[0] == 300
