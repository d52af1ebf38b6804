"""
The local backend against plain system calls, each figure printed as a ratio.

``python -m benchmarks.localfs [folder]``: the folder, on the disk that is to be measured, defaults to the
system's temporary one. Needs 2 GiB there, which are removed at the end.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react
from twisted.python.threadpool import ThreadPool

from callfs.backends.localfs import LocalBackend
from callfs.deferreds import returns_deferred
from callfs.identifiers import new_blob_id

GIB = 1 << 30
CHUNK_BYTES = 64 * 1024
SMALL_BYTES = 1024
SMALL_COUNT = 3200
WRITERS = 32
THREADS = 8


def now() -> int:
    """The instant."""
    return time.time_ns() // 1000


def new_id() -> str:
    """A blob id."""
    return new_blob_id(now(), secrets.token_bytes)


def plain_large(folder: Path, chunk: bytes) -> float:
    """Seconds to write 1 GiB with SHA-256 and fsync in one thread."""
    began = time.perf_counter()
    digest = hashlib.sha256()
    with (folder / "plain").open("wb", buffering=0) as file:
        for _ in range(GIB // len(chunk)):
            file.write(chunk)
            digest.update(chunk)
        os.fsync(file.fileno())
    took = time.perf_counter() - began
    (folder / "plain").unlink()
    return took


def plain_small(folder: Path, rename: bool) -> float:
    """Files a second of one process that creates and fsyncs in a loop."""
    data = os.urandom(SMALL_BYTES)
    directory = os.open(folder, os.O_RDONLY)
    began = time.perf_counter()
    for number in range(SMALL_COUNT // 4):
        fd = os.open(folder / f"new{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(fd, data)
        os.fsync(fd)
        os.close(fd)
        if rename:
            os.rename(folder / f"new{number}", folder / f"done{number}")
            os.fsync(directory)
    rate = SMALL_COUNT / 4 / (time.perf_counter() - began)
    os.close(directory)
    for path in folder.iterdir():
        path.unlink()
    return rate


@returns_deferred
async def large_upload(backend: LocalBackend, chunk: bytes, declared_size: int | None) -> float:
    """Seconds to stage, write and commit 1 GiB."""
    blob_id = new_id()
    began = time.perf_counter()
    staged = await backend.stage(blob_id, declared_size)
    for _ in range(GIB // len(chunk)):
        await staged.write(chunk)
    await staged.commit()
    took = time.perf_counter() - began
    await backend.delete(blob_id)
    return took


@returns_deferred
async def small_writer(backend: LocalBackend, count: int) -> None:
    """One connection's blobs, one after the other."""
    data = os.urandom(SMALL_BYTES)
    for _ in range(count):
        staged = await backend.stage(new_id(), SMALL_BYTES)
        await staged.write(data)
        await staged.commit()


@returns_deferred
async def small_reader(backend: LocalBackend, ids: list[str]) -> None:
    """Open, read, close, as a GET does."""
    for blob_id in ids:
        reader = await backend.open(blob_id)
        await reader.read(0, reader.size)
        reader.close()


async def _rate(work: Callable[[], Deferred[Any]], count: int) -> float:
    began = time.perf_counter()
    await work()
    return count / (time.perf_counter() - began)


async def measure(reactor: Any, pool: ThreadPool, folder: Path) -> None:
    """Run everything once."""
    (folder / "root").mkdir()
    (folder / "plain").mkdir()
    backend = LocalBackend(folder / "root", reactor=reactor, pool=pool, now=now, min_free_bytes=0)
    chunk = os.urandom(CHUNK_BYTES)
    for declared_size in (GIB, None):
        plain = plain_large(folder / "plain", chunk)
        ours = await large_upload(backend, chunk, declared_size)
        print(
            f"1 GiB upload, declared size {declared_size}: {GIB / ours / 1e6:.0f} MB/s; "
            f"ratio to plain {plain / ours:.2f}"
        )

    create, rename = plain_small(folder / "plain", False), plain_small(folder / "plain", True)
    # The first writes make the 1,024 folders; what counts is a root that has them.
    await gatherResults([small_writer(backend, 100) for _ in range(WRITERS)])
    rate = await _rate(
        lambda: gatherResults([small_writer(backend, SMALL_COUNT // WRITERS) for _ in range(WRITERS)]), SMALL_COUNT
    )
    print(f"1 KiB commits, {WRITERS} writers: {rate:.0f}/s; ratio to create+fsync {rate / create:.2f}, "
          f"to create+fsync+rename+fsync {rate / rename:.2f}")  # fmt: skip
    ids = [found.id for found in await backend.list_blobs(limit=SMALL_COUNT)]
    print(f"1 KiB reads: {await _rate(lambda: small_reader(backend, ids), len(ids)):.0f}/s")
    await backend.close()


def main(reactor: Any, folder: str = tempfile.gettempdir()) -> Deferred[None]:
    """For ``react``."""
    pool = ThreadPool(minthreads=0, maxthreads=THREADS)
    pool.start()

    async def run() -> None:
        try:
            with tempfile.TemporaryDirectory(dir=folder) as work:
                await measure(reactor, pool, Path(work))
        finally:
            pool.stop()

    coroutine: Coroutine[Any, Any, None] = run()
    return Deferred.fromCoroutine(coroutine)


if __name__ == "__main__":
    react(main, sys.argv[1:])
