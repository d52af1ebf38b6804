"""
The PostgreSQL metadata store against a bare loop of the same statements on the same number of connections:
``python -m benchmarks.metadata_postgres [CONNECTIONS]``. Starts a durable server of its own; prints rates, ratios.
"""

from __future__ import annotations

import secrets
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import react

from benchmarks.engine import ThroughEngine
from benchmarks.stores import LARGE, SMALL, creation, directly, fill, pages, rate, report
from callfs.engine.chance import DrawnAhead
from callfs.identifiers import TokenBytes
from callfs.metadata import postgres_queries as queries
from callfs.metadata.commands import Written
from callfs.metadata.postgres import PostgresStore
from callfs.metadata.postgres_pool import prepare_session
from tests.support.postgres import running

CONNECTIONS = 8
IN_FLIGHT = 64
LOOKUPS = 10_000
CREATES = 2_000

INSERT_INODE = """INSERT INTO inodes (path, parent_id, name, depth, type, mode, owner, mtime, ctime, created_at,
    generation, content_type, content_id, id)
    VALUES (%s, %s, %s, 2, 'file', 420, 'alice', 1, 1, 1, 1, 'text/plain', %s, %s)"""
INSERT_BLOB = """INSERT INTO blobs (inode_id, role, blob_id, kind, instance_id, size, sha256)
    VALUES (%s, 0, %s, 'localfs', 'node-1', 1024, %s)"""
TOUCH = "UPDATE inodes SET mtime = 1, ctime = 1, generation = generation + 1 WHERE id = %s"

Connection = psycopg.Connection[Any]


def create_by_hand(
    connection: Connection, parent_id: str, directory: str, name: str, token_bytes: TokenBytes
) -> None:
    """One durable creation: its writes alone, nothing asked and nothing decided."""
    command = creation(f"{directory}/{name}", token_bytes)
    connection.execute("BEGIN")
    connection.execute(INSERT_INODE, (command.path, parent_id, name, command.content_id, command.inode_id))
    connection.execute(INSERT_BLOB, (command.inode_id, command.blob.id, command.blob.sha256))
    connection.execute(TOUCH, (parent_id,))
    connection.execute("COMMIT")


def bare_rate(dsn: str, connections: int, total: int, work: Callable[[Connection, int, int], object]) -> float:
    """Calls of ``work`` (connection, its number, the call's number) per second, a thread for each connection."""

    def loop(number: int, connection: Connection) -> None:
        for call in range(total // connections):
            work(connection, number, call)

    opened = [psycopg.connect(dsn, autocommit=True) for _ in range(connections)]
    for connection in opened:
        prepare_session(connection, 60)
    threads = [threading.Thread(target=loop, args=each) for each in enumerate(opened)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    for connection in opened:
        connection.close()
    return total / seconds


async def lookups(store: PostgresStore | ThroughEngine, dsn: str, connections: int, what: str) -> None:
    """Point reads."""
    through = await rate(LOOKUPS, IN_FLIGHT, lambda number: store.get(f"/small/{number % SMALL:06}"))

    def look_up(connection: Connection, number: int, call: int) -> object:
        return connection.execute(queries.BY_PATH, (f"/small/{call % SMALL:06}",)).fetchall()

    report(f"lookups{what}", through, bare_rate(dsn, connections, LOOKUPS, look_up))


async def creates(create: Callable[[str], Deferred[Written]], dsn: str, connections: int, what: str) -> None:
    """Durable creations, in a directory for each connection, and all in one directory."""
    chances = [DrawnAhead(secrets.token_bytes) for _ in range(connections)]
    for kind, count in (("many directories", connections), ("one directory", 1)):
        made = f"/store{what}-{count}"
        names = [f"{made}-{number % count}/{number}" for number in range(CREATES)]
        through = await rate(CREATES, IN_FLIGHT, lambda number, names=names: create(names[number]))  # type: ignore[misc]
        by_hand = [f"/hand{what}-{count}-{number}" for number in range(count)]
        parents = [(await create(f"{path}/first")).inode.parent_id for path in by_hand]

        def by_statements(
            connection: Connection, number: int, call: int, by_hand: Any = by_hand, parents: Any = parents
        ) -> None:
            place = number % len(by_hand)
            create_by_hand(connection, parents[place], by_hand[place], f"{number}-{call}", chances[number])

        report(f"creates{what}, {kind}", through, bare_rate(dsn, connections, CREATES, by_statements))


def fill_by_hand(dsn: str, directory: str, count: int) -> None:
    """Put many files into a directory at once."""
    with psycopg.connect(dsn) as connection:
        (parent_id,) = connection.execute("SELECT id FROM inodes WHERE path = %s", (directory,)).fetchall()[0]
        connection.execute(
            """INSERT INTO inodes
                SELECT md5(name), %(directory)s || '/' || name, %(parent)s, name, 2, 'file', 420, 'x',
                    0, 0, 0, 1, NULL, 'c'
                FROM (SELECT lpad(n::text, 6, '0') AS name FROM generate_series(1, %(count)s) n) AS names""",
            {"directory": directory, "parent": parent_id, "count": count},
        )
        connection.execute(
            """INSERT INTO blobs SELECT id, 0, 'b' || id, 's3', NULL, 1, '' FROM inodes
                WHERE parent_id = %s AND id NOT IN (SELECT inode_id FROM blobs)""",
            (parent_id,),
        )


async def main(reactor: Any, given: str = str(CONNECTIONS)) -> None:
    """Run all."""
    connections = int(given)
    with running(durable=True, autovacuum=True, shared_buffers="128MB") as server:
        dsn = server.new_schema()
        store = PostgresStore(
            dsn,
            reactor=reactor,
            token_bytes=DrawnAhead(secrets.token_bytes),
            op_timeout_seconds=60,
            pool_size=connections,
        )
        await store.open()
        try:
            await fill(store, "/small", SMALL)
            engine = ThroughEngine(store, reactor)
            await lookups(store, dsn, connections, "")
            await creates(directly(store), dsn, connections, "")
            await lookups(engine, dsn, connections, " through the engine")
            await creates(engine.create, dsn, connections, " through the engine")
            await engine.create("/large/last")
            fill_by_hand(dsn, "/large", LARGE)
            await pages(store)
        finally:
            await store.close()


if __name__ == "__main__":
    react(lambda reactor, *given: ensureDeferred(main(reactor, *given)), sys.argv[1:])
