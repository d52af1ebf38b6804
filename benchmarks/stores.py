"""What the benchmarks of the metadata stores have in common: what goes into a store, the rates, and the pages."""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from callfs.engine.chance import DrawnAhead
from callfs.identifiers import TokenBytes, new_blob_id, new_content_id, new_inode_id
from callfs.metadata.commands import CreateFile, Written
from callfs.metadata.interfaces import IMetadataStore
from callfs.model import BlobRef, LocalPlacement, Principal

PAGE = 1_000
PAGES = 20
SMALL, LARGE = 1_000, 100_000
GOAL = 0.4


def creation(path: str, token_bytes: TokenBytes) -> CreateFile:
    """A command as the engine makes it."""
    now = time.time_ns() // 1000
    return CreateFile(
        at=now,
        principal=Principal("alice"),
        path=path,
        inode_id=new_inode_id(token_bytes),
        content_id=new_content_id(token_bytes),
        blob=BlobRef(new_blob_id(now, token_bytes), 1024, bytes(32), LocalPlacement("node-1")),
        content_type="text/plain",
        parent_ids=(new_inode_id(token_bytes), new_inode_id(token_bytes)),
    )


def directly(store: IMetadataStore) -> Callable[[str], Deferred[Written]]:
    """Creates files by the store alone."""
    chance = DrawnAhead(secrets.token_bytes)
    return lambda path: store.apply(creation(path, chance))


async def fill(store: IMetadataStore, directory: str, count: int) -> None:
    """Put files into a directory."""
    create = directly(store)
    for start in range(0, count, 500):
        await gatherResults([create(f"{directory}/{n:06}") for n in range(start, start + 500)])


async def rate(count: int, in_flight: int, job: Callable[[int], Awaitable[Any]]) -> float:
    """How many jobs a second, each called with its number, so many under way all the time."""
    numbers: Iterator[int] = iter(range(count))

    async def one_after_the_other() -> None:
        for number in numbers:
            await job(number)

    started = time.perf_counter()
    await gatherResults([Deferred.fromCoroutine(one_after_the_other()) for _ in range(in_flight)])
    return count / (time.perf_counter() - started)


def report(what: str, store: float, bare: float) -> None:
    """A line of the result."""
    print(
        f"{what:<44} store {store:>9,.0f}/s   bare loop {bare:>9,.0f}/s   "
        f"ratio {store / bare:.2f} (at least {GOAL})"
    )


async def pages(store: IMetadataStore) -> None:
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
                assert len(page) == (PAGE if directory.path == "/large" else SMALL)
            seconds.append(best)
        print(
            f"{kind}, page of {PAGE:,}:          of {SMALL:,} {seconds[0] * 1e3:.1f} ms   "
            f"of {LARGE:,} {seconds[1] * 1e3:.1f} ms   ratio {seconds[1] / seconds[0]:.2f} (at most 1.5)"
        )
