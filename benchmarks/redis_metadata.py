"""
The Redis metadata store against a bare loop of the same commands: ``python -m benchmarks.redis_metadata``.

Starts a server of its own, with ``appendonly yes`` and ``appendfsync always``. Prints rates and ratios. The bare
loop has txredisapi's own pool with as many connections, and as many requests under way. A creation is two requests,
one that asks and one that writes; the bare loop sends the same question, then a script that only writes.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

import txredisapi
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react

from benchmarks.engine import ThroughEngine
from benchmarks.metadata import creation, directly
from callfs.engine.chance import DrawnAhead
from callfs.metadata.commands import CreateFile, Written
from callfs.metadata.redis import RedisStore
from callfs.metadata.redis_facts import first_questions
from callfs.metadata.redis_scripts import FACTS, POINT

CONNECTIONS = 8
IN_FLIGHT = 32
LOOKUPS = 8_000
CREATES = 4_000
PAGE = 1_000
PAGES = 20
SMALL, LARGE = 1_000, 100_000

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


async def rate(count: int, job: Callable[[int], Awaitable[Any]]) -> float:
    """How many jobs a second, so many under way at a time."""

    async def worker(first: int) -> None:
        for number in range(first, count, IN_FLIGHT):
            await job(number)

    started = time.perf_counter()
    await gatherResults([Deferred.fromCoroutine(worker(first)) for first in range(IN_FLIGHT)])
    return count / (time.perf_counter() - started)


def report(what: str, store: float, bare: float) -> None:
    """A line of the result."""
    print(
        f"{what:<28} store {store:>8,.0f}/s   bare loop {bare:>8,.0f}/s   ratio {store / bare:.2f} (at least 0.4)"
    )


async def fill(store: RedisStore, directory: str, count: int) -> None:
    """Put files into a directory."""
    create = directly(store)
    await create(f"{directory}/first")
    await create(f"{directory}/second")
    await rate(count - 2, lambda number: create(f"{directory}/{number:06}"))


async def lookups(store: RedisStore | ThroughEngine, bare: Any, what: str) -> None:
    """Point reads, through the store and by the bare script."""
    paths = [f"/small/{number % (SMALL - 2):06}" for number in range(LOOKUPS)]
    await bare.script_load(POINT.body)
    words = ("callfs:{fs}:", store.store_id, "get")
    by_hand = await rate(LOOKUPS, lambda n: bare.execute_command("EVALSHA", POINT.digest, 1, *words, paths[n]))
    through = await rate(LOOKUPS, lambda n: store.get(paths[n]))
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
    writes = await rate(CREATES, lambda n: write(creation(f"/by-hand/{n}", chance)))
    both = await rate(CREATES, lambda n: ask_and_write(creation(f"/by-hand-too/{n}", chance)))
    through = await rate(CREATES, lambda n: create(f"/created{what}/{n}"))
    report(f"creates{what}", through, both)
    print(f"           (to the writes alone, {writes:,.0f}/s: ratio {through / writes:.2f})")


async def pages(store: RedisStore) -> None:
    """A page of a small directory and one from the middle of a large one, listed and walked."""
    directories = [await store.get(path) for path in ("/small", "/large")]
    for kind in ("list", "walk"):
        seconds = []
        for directory in directories:
            assert directory is not None
            middle = "" if directory.path == "/small" else f"{LARGE // 2:06}"
            best = 1e9
            for _ in range(PAGES):
                started = time.perf_counter()
                if kind == "list":
                    page = await store.list_children(directory.id, middle, PAGE)
                else:
                    page = await store.walk(directory.path, middle and f"{directory.path}/{middle}", 0, PAGE)
                best = min(best, time.perf_counter() - started)
                assert len(page) == PAGE
            seconds.append(best)
        print(
            f"{kind}, page of {PAGE:,}:  of {SMALL:,} {seconds[0] * 1e3:.1f} ms   "
            f"of {LARGE:,} {seconds[1] * 1e3:.1f} ms   ratio {seconds[1] / seconds[0]:.2f} (at most 1.5)"
        )


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
