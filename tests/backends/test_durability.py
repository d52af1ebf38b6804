"""Batched fsync of folders, and small files that are replaced whole."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from callfs.backends.durability import FolderSync, make_folder, replace_durably, sync_folder
from tests.support.waiting import eventually


class SlowDisk:
    """Syncs folders one at a time, when it is allowed to."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.allowed = threading.Semaphore(0)
        self.error: OSError | None = None

    def __call__(self, path: str) -> None:
        self.begun.append(path)
        self.allowed.acquire()
        if self.error is not None:
            raise self.error


def begin_round(pool: ThreadPoolExecutor, disk: SlowDisk, folder_sync: FolderSync) -> Future[None]:
    """Start an fsync of ``/a`` and see it under way."""
    count = len(disk.begun)
    first = pool.submit(folder_sync.sync, "/a")
    eventually(lambda: len(disk.begun) > count, what="the first fsync")
    return first


def gathered(executor: ThreadPoolExecutor, call: Callable[[], None], count: int) -> list[Future[None]]:
    """So many threads that have called and wait."""
    calling = threading.Barrier(count + 1)

    def wait_and_call() -> None:
        calling.wait()
        call()

    futures = [executor.submit(wait_and_call) for _ in range(count)]
    calling.wait()
    return futures


def test_waiters_share_the_next_round() -> None:
    """Whoever comes while an fsync runs isn't served by it, and all who come share the next one."""
    disk = SlowDisk()
    folder_sync = FolderSync(disk)
    with ThreadPoolExecutor(20) as pool:
        first = begin_round(pool, disk, folder_sync)
        others = gathered(pool, lambda: folder_sync.sync("/a"), 10)
        disk.allowed.release()
        first.result(10)
        eventually(lambda: len(disk.begun) == 2, what="the second fsync")
        assert not any(other.done() for other in others)
        disk.allowed.release(20)
        for other in others:
            other.result(10)
    assert 2 <= len(disk.begun) <= 4  # a thread that was slow to call may have come too late for the second


def test_folders_do_not_wait_for_each_other() -> None:
    """Two folders are brought to stable storage side by side."""
    disk = SlowDisk()
    folder_sync = FolderSync(disk)
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(folder_sync.sync, path) for path in ("/a", "/b")]
        eventually(lambda: len(disk.begun) == 2, what="both")
        disk.allowed.release(2)
        for future in futures:
            future.result(10)


def test_a_failed_round_fails_for_all_in_it_and_for_no_other() -> None:
    """A failure is never taken for another's success, and doesn't stick."""
    disk = SlowDisk()
    folder_sync = FolderSync(disk)
    disk.error = OSError(5, "Input/output error")
    disk.allowed.release(1000)
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(folder_sync.sync, "/a") for _ in range(50)]
        for future in futures:
            with pytest.raises(OSError, match="Input/output"):
                future.result(10)
    disk.error = None
    folder_sync.sync("/a")


def test_a_real_folder(tmp_path: Path) -> None:
    """A folder is synced; what is no folder, missing, or a link to one is an error."""
    FolderSync().sync(str(tmp_path))
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("file", "missing", "link"):
        with pytest.raises(OSError, match=name):
            sync_folder(str(tmp_path / name))


def test_make_folder(tmp_path: Path) -> None:
    """A new folder is its owner's alone whatever the umask; one that exists stays as it is."""
    before = os.umask(0o777)
    try:
        assert make_folder(str(tmp_path / "new"))
    finally:
        os.umask(before)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    (tmp_path / "new").chmod(0o750)
    assert not make_folder(str(tmp_path / "new"))
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o750


def test_replace_durably(tmp_path: Path) -> None:
    """A file is replaced whole, readable by its owner alone; a crash's leftover is no obstacle."""
    path = tmp_path / "identity.json"
    (tmp_path / "identity.json.new").write_text("half")
    for data in (b"first", b"second"):
        replace_durably(path, data)
        assert path.read_bytes() == data
        assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["identity.json"]
