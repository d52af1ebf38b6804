"""The plans of SQLite's queries: everything that a request asks is a step or a range of an index."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from callfs.metadata import sql, sqlite_facts, sqlite_view
from callfs.metadata import sqlite_queries as queries
from callfs.metadata import sqlite_transaction as transaction
from callfs.metadata.sqlite_file import migrations

REQUESTS = {
    "by path": queries.BY_PATH,
    "by id": queries.BY_ID,
    "chain": queries.chain_query(4),
    "some paths": sqlite_view.by_paths(4),
    "children": queries.CHILDREN,
    "subtree": queries.SUBTREE,
    "link": queries.LINK,
    "garbage": queries.GARBAGE,
    "condemned": queries.CONDEMNED,
    "named blobs": queries.NAMED_BLOBS,
    "all blobs": queries.BLOBS,
    "blobs on a node": queries.BLOBS_ON,
    "replications": queries.REPLICATIONS,
    "anything on a node": sql.COPIES_ON,
    "garbage on a node": sqlite_facts.COUNT_GARBAGE_ON,
    "end of a replication": sql.unqueue(sql.OF_INODE),
    "a postponed replication": sql.POSTPONE,
    "move of a tree": sql.MOVE_TREE,
    "owners in a tree": sql.TREE,
    "longest path": sqlite_facts.LONGEST_PATH,
    "anything in a directory": sql.ANY_CHILD,
    "purge of links": transaction.PURGE_LINKS,
}
PAGES = ("children", "subtree", "garbage", "condemned", "all blobs", "blobs on a node", "replications")


@pytest.fixture(name="connection")
def make_connection() -> Iterator[sqlite3.Connection]:
    """A database with the current schema."""
    connection = sqlite3.connect(":memory:")
    for _, script in migrations():
        connection.executescript(script)
    yield connection
    connection.close()


def plan(connection: sqlite3.Connection, query: str) -> list[str]:
    """The steps of a query."""
    parameters = 1 if "?1" in query else query.count("?")
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}", (1,) * parameters)]


@pytest.mark.parametrize("name", REQUESTS)
def test_no_table_is_read_from_end_to_end(connection: sqlite3.Connection, name: str) -> None:
    """Only the question itself (``w``) and the few replicas of one blob (``r``) are gone through."""
    scans = [step for step in plan(connection, REQUESTS[name]) if step.startswith("SCAN")]
    assert [step for step in scans if step.split()[1] not in ("r", "w")] == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_read_in_order(connection: sqlite3.Connection, name: str) -> None:
    """A page costs what it shows: nothing is sorted."""
    assert [step for step in plan(connection, REQUESTS[name]) if "TEMP B-TREE" in step] == []
