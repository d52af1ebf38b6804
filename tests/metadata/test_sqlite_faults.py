"""The SQLite store when things go wrong under it: killed, disk full, file damaged."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.internet.defer import DeferredList
from twisted.trial.unittest import TestCase

from callfs.errors import MetadataUnavailable
from tests.contract.metadata_base import failure
from tests.metadata.processes import DatabaseUser, run_store
from tests.metadata.sqlite_binding import TMPFS, SqliteBinding
from tests.metadata.test_sqlite_commit import Observer
from tests.support.commands import Commands
from tests.support.mounts import SmallDisk

KILLED_AT = """
count = 0
def reached(step):
    global count
    count += step == {step!r}
    if count == 5:
        os.kill(os.getpid(), signal.SIGKILL)
"""

CREATE_TEN = """
for number in range(10):
    await store.apply(make.create(f"/d/{number}"))
    print(number, flush=True)
"""

OUT_OF_SPACE = """
await store.apply(make.create("/before"))
ballast = open(os.path.join(os.path.dirname(sys.argv[1]), "ballast"), "wb")
status = os.fstatvfs(ballast.fileno())
os.posix_fallocate(ballast.fileno(), 0, status.f_bavail * status.f_frsize)
failures = []
for number in range(300):
    try:
        await store.apply(make.create(f"/during/{number}"))
    except Exception as error:
        failures.append(type(error).__name__)
assert failures
print(set(failures))
assert await store.get("/before") is not None
assert len(await store.walk("/during")) == 300 - len(failures)
ballast.truncate(0)
await store.apply(make.create("/after"))
print(await store.verify())
"""

REMOVALS_ON_A_FULL_DISK = """
for number in range(400):
    await store.apply(make.create(f"/x/{number}"))
await store.apply(make.remove("/x", recursive=True))
from callfs.metadata.commands import DropGarbage
await store.apply(DropGarbage(at=1, ids=tuple(range(1, 401))))
for number in range(200):
    await store.apply(make.create(f"/d/{number}"))
await store.close()
await store.open()
ballast = open(os.path.join(os.path.dirname(sys.argv[1]), "ballast"), "wb")
status = os.fstatvfs(ballast.fileno())
os.posix_fallocate(ballast.fileno(), 0, status.f_bavail * status.f_frsize - 512 * 1024)
refused = 0
for number in range(200):
    for attempt in range(2):
        try:
            await store.apply(make.remove(f"/d/{number}"))
        except Exception as error:
            assert type(error).__name__ == "InsufficientStorage"
            refused += 1
        else:
            break
assert refused
print([inode.path for inode in await store.walk("/")])
print(await store.verify())
"""

OUT_OF_FILE_SIZE = """
await store.apply(make.create("/before"))
size = os.stat(sys.argv[1] + "-wal").st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
try:
    await store.apply(make.create("/during"))
except Exception as error:
    print(type(error).__name__)
assert await store.get("/during") is None and await store.get("/before") is not None
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
await store.apply(make.create("/after"))
print(await store.verify())
"""


class KillTests(SqliteBinding, TestCase):
    """``kill -9`` in the middle of a commit."""

    async def left_after_kill(self, step: str) -> set[str]:
        """What is there after a daemon was killed at the step of its fifth commit, four answers given."""
        path = self.folder() / "callfs.sqlite3"
        killed = run_store(path, CREATE_TEN, KILLED_AT.format(step=step))
        assert killed.returncode == -9, killed.stderr
        assert killed.stdout.split() == ["0", "1", "2", "3"]
        store = await self.opened(path)
        assert await store.verify() == []
        left = {inode.path for inode in await store.walk("/d")}
        await store.apply(Commands(2).create("/d/new"))
        return left

    async def test_before_the_commit(self) -> None:
        """All that was answered is there, what wasn't committed isn't."""
        assert await self.left_after_kill("metadata.before_commit") == {f"/d/{n}" for n in range(4)}

    async def test_after_the_commit(self) -> None:
        """What was committed is there, though nobody was answered."""
        assert await self.left_after_kill("metadata.after_commit") == {f"/d/{n}" for n in range(5)}


class FullDiskTests(SqliteBinding, TestCase):
    """A disk without room."""

    async def test_a_full_disk(self) -> None:
        """Changes are refused with the reason and leave nothing, reads go on, and with room all is well again."""
        disk = SmallDisk(self.folder(), 8 * 1024 * 1024)
        self.addCleanup(disk.close)
        process = run_store(disk.folder / "callfs.sqlite3", OUT_OF_SPACE, wrapper=disk.wrapper)
        assert process.stdout.splitlines() == ["{'InsufficientStorage'}", "[]"], process.stderr

    async def test_removals_on_a_full_disk(self) -> None:
        """Files can be removed though the log can't grow: a removal that was refused succeeds when repeated."""
        disk = SmallDisk(self.folder(), 64 * 1024 * 1024)
        self.addCleanup(disk.close)
        process = run_store(disk.folder / "callfs.sqlite3", REMOVALS_ON_A_FULL_DISK, wrapper=disk.wrapper)
        assert process.stdout.splitlines() == ["['/d']", "[]"], process.stderr

    async def test_a_write_error(self) -> None:
        """A log that can't grow (here by a limit on file sizes) refuses the change, and no more than that."""
        process = run_store(self.folder() / "callfs.sqlite3", OUT_OF_FILE_SIZE)
        assert process.stdout.splitlines() == ["MetadataUnavailable", "[]"], process.stderr


class DamageTests(SqliteBinding, TestCase):
    """A file that becomes damaged, or locked, while it is in use."""

    base_folder = TMPFS

    async def test_damage_under_a_running_store(self) -> None:
        """Reads and writes that meet the damage say that the store is unavailable; the operator is told."""
        path, make, observer = self.folder() / "callfs.sqlite3", Commands(), Observer()
        filling = self.sqlite_store(path)
        await filling.open()
        await DeferredList([filling.apply(make.create(f"/{number}")) for number in range(400)])
        await filling.close()
        store = await self.opened(path, observer=observer)
        self.overwrite_pages(path)
        refusal = await failure(store.walk("/", limit=1000), MetadataUnavailable)
        assert "damaged" in refusal.message
        assert str(path) not in refusal.message
        await failure(store.apply(make.create("/200/x")), MetadataUnavailable)
        assert {component for component, _ in observer.errors} == {"metadata"}
        assert any("CORRUPT" in error_type for _, error_type in observer.errors)
        self.flushLoggedErrors()

    def overwrite_pages(self, path: Path) -> None:
        """Replace all but the first page with noise."""
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(os.urandom(path.stat().st_size - 4096))

    async def test_a_lock_of_another_process(self) -> None:
        """While another process writes for long, reads go on as ever, in the store and in a reader beside it."""
        path, make = self.folder() / "callfs.sqlite3", Commands()
        store = await self.opened(path)
        await store.apply(make.create("/f"))
        user = DatabaseUser(path, "BEGIN IMMEDIATE", "UPDATE inodes SET owner = 'mallory'")
        self.addCleanup(user.end)
        tool = await self.opened(path, read_only=True)
        for reader in (store, tool):
            inode = await reader.get("/f")
            assert inode is not None
            assert inode.owner == "alice"
            assert len(await reader.walk("/")) == 1
            assert (await reader.statistics()).files == 1
