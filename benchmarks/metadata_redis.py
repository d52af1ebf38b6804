"""
The Redis metadata store against a bare loop of the same commands: ``python -m benchmarks.metadata_redis``.

Starts a server of its own, with ``appendonly yes`` and ``appendfsync always``. Prints rates and ratios. The bare
loop has txredisapi's own pool with as many connections, and as many requests under way. A creation is two requests,
one that asks and one that writes; the bare loop sends the same question, then a script that only writes.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any

import txredisapi
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from benchmarks.engine import ThroughEngine
from benchmarks.stores import LARGE, SMALL, creation, directly, fill, pages, rate, report
from callfs.engine.chance import DrawnAhead
from callfs.metadata.commands import CreateFile, Written
from callfs.metadata.redis import RedisStore
from callfs.metadata.redis_facts import first_questions
from callfs.metadata.redis_scripts import FACTS, POINT

CONNECTIONS = 8
IN_FLIGHT = 32
LOOKUPS = 8_000
CREATES = 4_000

BY_HAND = """
redis.call('SET', KEYS[1] .. 'i:' .. ARGV[1], ARGV[3])
redis.call('ZADD', KEYS[1] .. 'paths', 0, ARGV[2] .. '\\0' .. ARGV[1])
redis.call('ZADD', KEYS[1] .. 'children', 0, ARGV[2] .. '\\0' .. ARGV[1])
redis.call('ZADD', KEYS[1] .. 'blobs', 0, ARGV[4] .. '\\0' .. ARGV[1])
redis.call('SETRANGE', KEYS[1] .. 'parent', 0, ARGV[5])
redis.call('HINCRBY', KEYS[1] .. 'store', 'files', 1)
redis.call('HINCRBY', KEYS[1] .. 'store', 'bytes', 1024)
return 'done'
"""


async def lookups(store: RedisStore | ThroughEngine, bare: Any, what: str) -> None:
    """Point reads, through the store and by the bare script."""
    paths = [f"/small/{number % SMALL:06}" for number in range(LOOKUPS)]
    await bare.script_load(POINT.body)
    words = ("callfs:{fs}:", store.store_id, "get")
    by_hand = await rate(
        LOOKUPS, IN_FLIGHT, lambda n: bare.execute_command("EVALSHA", POINT.digest, 1, *words, paths[n])
    )
    through = await rate(LOOKUPS, IN_FLIGHT, lambda n: store.get(paths[n]))
    report(f"lookups{what}", through, by_hand)


async def creates(create: Callable[[str], Deferred[Written]], store_id: str, bare: Any, what: str) -> None:
    """Durable creations, through the store and by hand."""
    chance = DrawnAhead(secrets.token_bytes)
    digest = await bare.script_load(BY_HAND)
    await bare.script_load(FACTS.body)

    async def write(command: CreateFile) -> None:
        words = (command.inode_id, command.path, bytes(180), command.blob.id, bytes(24))
        await bare.execute_command("EVALSHA", digest, 1, "bare:", *words)

    async def ask_and_write(command: CreateFile) -> None:
        questions = [word for question in first_questions(command) for word in question]
        await bare.execute_command("EVALSHA", FACTS.digest, 1, "callfs:{fs}:", store_id, "", "1000", *questions)
        await write(command)

    await create(f"/created{what}/first")
    writes = await rate(CREATES, IN_FLIGHT, lambda n: write(creation(f"/by-hand/{n}", chance)))
    both = await rate(CREATES, IN_FLIGHT, lambda n: ask_and_write(creation(f"/by-hand-too/{n}", chance)))
    through = await rate(CREATES, IN_FLIGHT, lambda n: create(f"/created{what}/{n}"))
    report(f"creates{what}", through, both)
    print(f"           (to the writes alone, {writes:,.0f}/s: ratio {through / writes:.2f})")


async def trees(store: RedisStore) -> None:
    """The longest steps: all other commands of all nodes wait for them."""
    from tests.support.commands import Commands

    make = Commands()
    started = time.perf_counter()
    await store.apply(make.move("/large", "/moved"))
    middle = time.perf_counter()
    removed = await store.apply(make.remove("/moved", recursive=True))
    ended = time.perf_counter()
    print(f"tree of {removed.count:,}: moved in {middle - started:.2f} s, removed in {ended - middle:.2f} s")


async def main(reactor: Any) -> None:
    """Run all."""
    from tests.support.redis import DURABLE, RedisServer

    server = RedisServer(**DURABLE).start()
    store = RedisStore(
        server.address,
        reactor=reactor,
        token_bytes=DrawnAhead(secrets.token_bytes),
        op_timeout_seconds=60,
        pool_size=CONNECTIONS,
    )
    bare = txredisapi.lazyConnectionPool(
        "127.0.0.1", server.port, poolsize=CONNECTIONS, charset=None, convertNumbers=False
    )
    try:
        await store.open()
        await fill(store, "/small", SMALL)
        engine = ThroughEngine(store, reactor)
        await lookups(store, bare, "")
        await creates(directly(store), store.store_id, bare, "")
        await lookups(engine, bare, " through the engine")
        await creates(engine.create, store.store_id, bare, " through the engine")
        server.configure(appendfsync="no")
        await fill(store, "/large", LARGE)
        await pages(store)
        await trees(store)
    finally:
        await bare.disconnect()
        await store.close()
        server.stop()


if __name__ == "__main__":
    react(main)
