"""
The SQLite metadata store against a bare loop of the same statements.

``python -m benchmarks.metadata_sqlite [FOLDER]`` prints rates and ratios. FOLDER is where the database goes, by
default the temporary folder of the system; its disk matters, because the creates are durable.
"""

from __future__ import annotations

import secrets
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react
from twisted.python.threadpool import ThreadPool

from benchmarks.engine import ThroughEngine
from benchmarks.stores import LARGE, SMALL, creation, directly, fill, pages, report
from callfs.engine.chance import DrawnAhead
from callfs.identifiers import TokenBytes
from callfs.metadata import sqlite_queries as queries
from callfs.metadata.commands import Written
from callfs.metadata.sqlite import SqliteStore
from callfs.metadata.sqlite_file import DatabaseFile

LOOKUPS = 20_000
CREATES = 2_048
SINGLE_CREATES = 200
IN_FLIGHT = 64

INSERT_INODE = """INSERT INTO inodes (path, parent_id, name, depth, type, mode, owner, mtime, ctime, created_at,
    generation, content_type, content_id, id)
    VALUES (?, ?, ?, 2, 'file', 420, 'alice', 1, 1, 1, 1, 'text/plain', ?, ?)"""
INSERT_BLOB = """INSERT INTO blobs (inode_id, role, blob_id, kind, instance_id, size, sha256)
    VALUES (?, 0, ?, 'localfs', 'node-1', 1024, ?)"""
TOUCH = "UPDATE inodes SET mtime = 1, ctime = 1, generation = generation + 1 WHERE id = ?"


def create_by_hand(
    connection: sqlite3.Connection, parent_id: str, directory: str, name: str, token_bytes: TokenBytes
) -> None:
    """One durable creation: its writes alone, nothing asked and nothing decided."""
    command = creation(f"{directory}/{name}", token_bytes)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(INSERT_INODE, (command.path, parent_id, name, command.content_id, command.inode_id))
    connection.execute(INSERT_BLOB, (command.inode_id, command.blob.id, command.blob.sha256))
    connection.execute(TOUCH, (parent_id,))
    connection.execute("COMMIT")


async def lookups(store: SqliteStore | ThroughEngine, bare: sqlite3.Connection, what: str) -> None:
    """Point reads, through the store and by the bare statement."""
    paths = [f"/small/{number:06}" for number in range(SMALL)] * (LOOKUPS // SMALL)
    started = time.perf_counter()
    for path in paths:
        await store.get(path)
    middle = time.perf_counter()
    for path in paths:
        bare.execute(queries.BY_PATH, (path,)).fetchall()
    report(f"lookups{what}", LOOKUPS / (middle - started), LOOKUPS / (time.perf_counter() - middle))


async def creates(create: Callable[[str], Deferred[Written]], file: DatabaseFile, what: str) -> None:
    """Durable creations, through the store and by hand."""
    names: Iterator[str] = (f"/created{what}/{number}" for number in range(CREATES + SINGLE_CREATES))
    started = time.perf_counter()
    for _ in range(CREATES // IN_FLIGHT):
        await gatherResults([create(next(names)) for _ in range(IN_FLIGHT)])
    together = CREATES / (time.perf_counter() - started)
    started = time.perf_counter()
    for name in names:
        await create(name)
    alone = SINGLE_CREATES / (time.perf_counter() - started)
    parent = (await create(f"/by-hand{what}/first")).inode.parent_id
    connection = file.writer(5)
    chance = DrawnAhead(secrets.token_bytes)
    started = time.perf_counter()
    for number in range(SINGLE_CREATES):
        create_by_hand(connection, parent, f"/by-hand{what}", str(number), chance)
    by_hand = SINGLE_CREATES / (time.perf_counter() - started)
    connection.close()
    report(f"creates{what}, {IN_FLIGHT} in flight", together, by_hand)
    report(f"creates{what}, one at a time", alone, by_hand)


async def main(reactor: Any, folder: str | None = None) -> None:
    """Run all."""
    place = Path(tempfile.mkdtemp(prefix="callfs-benchmark-", dir=folder))
    pool = ThreadPool(0, 4)
    pool.start()
    store = SqliteStore(
        place / "callfs.sqlite3",
        reactor=reactor,
        pool=pool,
        token_bytes=secrets.token_bytes,
        op_timeout_seconds=60,
    )
    try:
        await store.open()
        await fill(store, "/small", SMALL)
        file = DatabaseFile(place / "callfs.sqlite3", read_only=False, busy_seconds=5)
        reader = file.reader(may_wait=False)
        engine = ThroughEngine(store, reactor)
        await lookups(store, reader, "")
        await creates(directly(store), file, "")
        await lookups(engine, reader, " through the engine")
        await creates(engine.create, file, " through the engine")
        reader.close()
        await fill(store, "/large", LARGE)
        await pages(store)
    finally:
        await store.close()
        pool.stop()
        shutil.rmtree(place)


if __name__ == "__main__":
    react(main, sys.argv[1:])
