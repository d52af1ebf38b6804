"""Local backends on real folders, with a thread pool that ends with the test."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from twisted.internet import reactor
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import TestCase

from callfs.backends.localfs import LocalBackend
from tests.contract.backends import Instant


def ignore(_step: str) -> None:
    """No failpoint."""


def open_descriptors() -> int:
    """How many file descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


def new_folder(case: TestCase) -> Path:
    """An empty folder, removed at the end of the test."""
    folder = Path(tempfile.mkdtemp(prefix="callfs-"))
    case.addCleanup(shutil.rmtree, folder, ignore_errors=True)
    return folder


def start_pool(case: TestCase, threads: int = 8) -> ThreadPool:
    """A running pool, stopped at the end of the test."""
    pool = ThreadPool(minthreads=0, maxthreads=threads)
    pool.start()
    case.addCleanup(pool.stop)
    return pool


def make_local(
    case: TestCase,
    root: Path | None = None,
    now: Callable[[], int] | None = None,
    min_free_bytes: int = 0,
    reached: Callable[[str], None] = ignore,
    linux_calls: bool = True,
    threads: int = 8,
) -> LocalBackend:
    """A backend below ``root`` (a new folder of the test's if none is given), closed at the end of the test."""
    backend = LocalBackend(
        root or new_folder(case),
        reactor=reactor,  # type: ignore[arg-type]
        pool=start_pool(case, threads),
        now=now or Instant(),
        min_free_bytes=min_free_bytes,
        reached=reached,
        linux_calls=linux_calls,
    )
    case.addCleanup(backend.close)
    return backend
