"""The plans of PostgreSQL's queries: everything that a request asks is a step or a range of an index."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from callfs.metadata import postgres_effects as effects
from callfs.metadata import postgres_facts as facts
from callfs.metadata import postgres_queries as queries
from callfs.metadata import postgres_transaction as transaction
from callfs.metadata import sql
from callfs.metadata.postgres_pool import prepare_session
from callfs.metadata.postgres_schema import migrations, prepare
from tests.support.postgres import shared_server

REQUESTS = {
    "by path": (queries.BY_PATH, "'/a'"),
    "by id": (queries.BY_ID, "'a'"),
    "chain": (queries.CHAIN, "ARRAY['/', '/a', '/a/b']"),
    "chain and condemned": (facts.CHAIN_AND_CONDEMNED, "ARRAY['b'], ARRAY['/', '/a', '/a/b']"),
    "children": (queries.CHILDREN, "'a', 'b', 100"),
    "children by path": (queries.CHILDREN_BY_PATH, "'/a', 'b', '/a/b', 100"),
    "subtree": (queries.SUBTREE, "'/a/', '/a0', 100"),
    "link": (queries.LINK, "'\\x00'"),
    "garbage of an instance": (queries.GARBAGE_OF_INSTANCE, "'localfs', 'a', 1, 100"),
    "garbage of all": (queries.GARBAGE_OF_ALL, "'s3', 1, 100"),
    "named blobs": (queries.NAMED_BLOBS.replace("%(ids)s", "%s"), "ARRAY['a'], ARRAY['a']"),
    "condemned": (queries.CONDEMNED, "'a', 1, 100"),
    "all blobs": (queries.BLOBS, "'a', 100"),
    "blobs on a node": (queries.BLOBS_ON, "'a', 'b', 100"),
    "anything on a node": (facts.COPIES_ON, "'a'"),
    "replications": (queries.REPLICATIONS, "'a', 1, 100"),
    "end of a replication": (queries.adapted(sql.unqueue(sql.OF_INODE)), "'a'"),
    "a postponed replication": (transaction.POSTPONE, "1, NULL, 'a'"),
    "owners in a tree": (facts.TREE, "'alice', '/a/', '/a0'"),
    "longest path": (facts.LONGEST_PATH, "'/a/', '/a0'"),
    "anything in a directory": (facts.ANY_CHILD, "'a'"),
    "condemned or not": (facts.ANY_CONDEMNED, "ARRAY['a']"),
    "move of a tree": (effects.MOVE_TREE, "'/b', 3, 0, '/a/', '/a0'"),
    "purge of links": (transaction.PURGE_LINKS, "1, 1, 1, 100"),
}
PAGES = (
    "children",
    "children by path",
    "subtree",
    "garbage of an instance",
    "garbage of all",
    "condemned",
    "all blobs",
    "blobs on a node",
    "replications",
)
RANGES = {
    "children": r"Index Cond: \(\(parent_id = \$1\) AND \(name > \$2\)\)",
    "subtree": r"Index Cond: \(\(path >= \$1\) AND \(path < \$2\)\)",
    "blobs on a node": r"Index Cond: \(\(instance_id = \$1\) AND \(blob_id > \$2\)\)",
    "replications": r"Index Cond: \(\(made_by = \$1\) AND \(due_at <= \$2\)\)",
    "move of a tree": r"Index Cond: \(\(path > \$4\) AND \(path < \$5\)\)",
    "owners in a tree": r"Index Cond: \(\(path > \$2\) AND \(path < \$3\)\)",
}


@pytest.fixture(name="connection", scope="module")
def make_connection() -> Iterator[psycopg.Connection[Any]]:
    """The store's own tables on a connection as the store has it, filled behind the planner's back."""
    with psycopg.connect(shared_server().new_schema(), autocommit=True) as connection:
        prepare_session(connection, 10)
        prepare(connection, secrets.token_bytes, migrations())
        connection.execute("ANALYZE")
        connection.execute(
            """INSERT INTO inodes
            SELECT md5(n::text), '/d/' || n, repeat('0', 32), n::text, 2, 'file', 420, 'x', 0, 0, 0, 1, NULL, 'c'
            FROM generate_series(1, 5000) n"""
        )
        connection.execute(
            """INSERT INTO blobs
            SELECT md5(n::text), 0, 'b' || n, 's3', NULL, 0, '' FROM generate_series(1, 5000) n"""
        )
        yield connection


def plan(connection: psycopg.Connection[Any], query: str, arguments: str) -> str:
    """The steps of a query as it is prepared."""
    numbers = iter(range(1, 100))
    text = re.sub("%s", lambda _: f"${next(numbers)}", query)
    connection.execute(f"PREPARE asked AS {text}")
    try:
        return "\n".join(row[0] for row in connection.execute(f"EXPLAIN EXECUTE asked({arguments})"))
    finally:
        connection.execute("DEALLOCATE asked")


@pytest.mark.parametrize("name", REQUESTS)
def test_no_table_is_read_from_end_to_end(connection: psycopg.Connection[Any], name: str) -> None:
    """Every table is entered through an index, with a condition, however old the planner's numbers are."""
    steps = plan(connection, *REQUESTS[name])
    assert "Seq Scan" not in steps
    assert "Materialize" not in steps
    assert steps.count("Index Cond:") >= steps.count(" Scan using ")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_read_in_order(connection: psycopg.Connection[Any], name: str) -> None:
    """A page costs what it shows: nothing is sorted."""
    assert "Sort" not in plan(connection, *REQUESTS[name])


@pytest.mark.parametrize("name", RANGES)
def test_a_range_of_names_is_a_range_of_an_index(connection: psycopg.Connection[Any], name: str) -> None:
    """Both ends of the range are conditions of the index itself, on a server whose own order isn't bytewise."""
    collation = connection.execute("SELECT 'a' < 'B'").fetchall()
    assert collation == [(True,)]
    assert re.search(RANGES[name], plan(connection, *REQUESTS[name]))
