"""Root folders: locked by one process, marked with an identity."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from callfs.backends.identity import Identity
from callfs.backends.rootfolder import RootFolder, RootInUse, RootUnusable
from tests.support.mounts import SmallDisk

STORE = "5" * 32
HOLDER = """
import sys
from pathlib import Path
from callfs.backends.rootfolder import RootFolder
folder = RootFolder(Path(sys.argv[1]), bytes)
folder.lock()
print("locked", flush=True)
sys.stdin.read()
"""


def counting_bytes(count: int) -> bytes:
    """Chance that is none."""
    return bytes(range(count))


def root_folder(path: Path) -> RootFolder:
    """A root folder, not locked yet."""
    return RootFolder(path, counting_bytes)


def test_made(tmp_path: Path) -> None:
    """A missing root is made, for its owner alone; it holds nothing and says nothing."""
    folder = root_folder(tmp_path / "root")
    folder.lock()
    assert (tmp_path / "root").stat().st_mode & 0o777 == 0o700
    assert folder.identity() is None
    assert not folder.has_blobs()
    folder.unlock()


def test_two_processes(tmp_path: Path) -> None:
    """The second process on one root is refused and told the pid of the first; when that is killed, it gets in."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        folder = root_folder(tmp_path)
        with pytest.raises(RootInUse, match=f"pid {holder.pid}"):
            folder.lock()
        assert folder.identity() is None
        holder.kill()
        holder.wait()
    folder.lock()
    assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
    folder.unlock()


def test_unlock(tmp_path: Path) -> None:
    """After unlock another may lock; locking twice and unlocking twice do nothing."""
    first, second = root_folder(tmp_path), root_folder(tmp_path)
    first.lock()
    first.lock()
    with pytest.raises(RootInUse):
        second.lock()
    first.unlock()
    first.unlock()
    second.lock()
    second.unlock()


def test_the_lock_is_not_inherited(tmp_path: Path) -> None:
    """A program that the daemon starts doesn't keep the root locked after the daemon's end."""
    folder = root_folder(tmp_path)
    folder.lock()
    child_code = "print('running', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", child_code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"running\n"
        folder.unlock()
        again = root_folder(tmp_path)
        again.lock()
        again.unlock()
        child.communicate(b"\n")


def test_adopt(tmp_path: Path) -> None:
    """An adopted root remembers the store and an identity of its own, across processes."""
    folder = root_folder(tmp_path)
    folder.lock()
    adopted = folder.adopt(STORE)
    assert adopted == Identity(store_id=STORE, root_id=counting_bytes(16).hex(), version=1)
    folder.unlock()
    assert root_folder(tmp_path).identity() == adopted
    assert (tmp_path / "identity.json").stat().st_mode & 0o777 == 0o600


def test_has_blobs(tmp_path: Path) -> None:
    """Anything among the blobs or those set aside counts; empty folders and staged files don't."""
    folder = root_folder(tmp_path)
    for name in ("blobs", "blobs/ab", "aside", "staging"):
        (tmp_path / name).mkdir()
    (tmp_path / "staging" / "x").touch()
    assert not folder.has_blobs()
    for name in ("blobs/ab/x", "blobs/loose", "aside/x"):
        (tmp_path / name).touch()
        assert folder.has_blobs()
        (tmp_path / name).unlink()


def test_damaged_identity(tmp_path: Path) -> None:
    """A damaged identity is refused with the file's name, not taken for a new root."""
    (tmp_path / "identity.json").write_text("{")
    with pytest.raises(RootUnusable, match=r"identity\.json is damaged"):
        root_folder(tmp_path).identity()


def test_a_missing_parent(tmp_path: Path) -> None:
    """Only the last folder is made: a path that isn't mounted or mistyped is refused."""
    with pytest.raises(RootUnusable, match=r"parent .* does not exist"):
        root_folder(tmp_path / "missing" / "root").lock()


def test_a_file(tmp_path: Path) -> None:
    """A root that is a file, or below one, is refused."""
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "root"):
        with pytest.raises(RootUnusable, match="is no folder"):
            root_folder(path).lock()


def test_read_only(tmp_path: Path) -> None:
    """A root on a read-only file system is refused."""
    disk = SmallDisk(tmp_path, 1024 * 1024)
    try:
        (disk.inside / "root").mkdir()
        disk.make_read_only()
        with pytest.raises(RootUnusable, match="read-only"):
            root_folder(disk.inside / "root").lock()
    finally:
        disk.close()


LOCK_AS_NOBODY = """
import os, sys
from pathlib import Path
from callfs.backends.rootfolder import RootFolder, RootUnusable
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
try:
    RootFolder(Path(sys.argv[1]), bytes).lock()
except RootUnusable as error:
    print(error)
"""


def test_no_permission(tmp_path: Path) -> None:
    """A root that the daemon's user may not write is refused with a hint at its owner."""
    (tmp_path / "root").mkdir(mode=0o500)
    result = subprocess.run(
        [sys.executable, "-c", LOCK_AS_NOBODY, str(tmp_path / "root")], capture_output=True, text=True, check=True
    )
    assert "No permission to use the root folder" in result.stdout
