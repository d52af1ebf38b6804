"""The replicated state when things go wrong under it: killed at any step, disk full, replaced while it is read."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from twisted.internet.defer import gatherResults

from callfs.cluster.interfaces import SnapshotMeta, StateUnusable, Step
from callfs.cluster.requests import Request
from callfs.errors import MetadataUnavailable
from callfs.metadata.replicated import ReplicatedStore
from callfs.metadata.replicated_state import MetadataState
from tests.metadata.test_replicated_state import START, StateCase, step
from tests.support.commands import Commands
from tests.support.forking import child_environment, run
from tests.support.mounts import SmallDisk
from tests.support.single_log import MEMBERS, SingleLog

_PROCESS = """
import os, secrets, shutil, signal, sys
from pathlib import Path
from twisted.internet import task
from twisted.python.threadpool import ThreadPool
from callfs.cluster.interfaces import SnapshotMeta, StateUnusable
from callfs.errors import InsufficientStorage
from callfs.metadata import sqlite_queries as queries
from callfs.metadata.replicated_state import MetadataState
from callfs.metadata.sqlite import Unobserved
from tests.metadata.test_replicated_faults import create
from tests.metadata.test_replicated_state import beginning
from tests.support.single_log import MEMBERS

def reached(step):
    if step == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)

async def main(reactor):
    pool = ThreadPool(0, 2)
    pool.start()
    state = MetadataState(
        Path(sys.argv[1]), reactor=reactor, pool=pool, query_pool=pool, token_bytes=secrets.token_bytes,
        op_timeout_seconds=20, observer=Unobserved(), reached=reached,
    )
    try:
        meta = await state.open()
{body}
        await state.close()
    finally:
        pool.stop()

task.react(main)
"""

_INSTALL = """
        await state.install(Path(sys.argv[3]), SnapshotMeta(int(sys.argv[4]), 1, MEMBERS))
"""
_APPLY = """
        index = meta.index
        while True:
            batch = [create(index + number) for number in range(1, 8)]
            await state.apply(batch)
            index += len(batch)
            if index % 5 == 0:
                await state.checkpoint()
            print(index, flush=True)
"""


def create(index: int) -> Step:
    """The entry that makes a file which is named after it."""
    return step(index, index, Commands(index).create(f"/{index:06}"), lowest=index)


def command(folder: Path, body: str, *arguments: object) -> list[str]:
    """The command of another process with a state; the first argument is the step at which it is killed."""
    return [sys.executable, "-c", _PROCESS.format(body=body), str(folder), *map(str, arguments)]


def process(folder: Path, body: str, *arguments: object, wrapper: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """That process."""
    return subprocess.Popen(
        [*wrapper, *command(folder, body, *arguments)],
        env=child_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


class TestKilled(StateCase):
    async def copy_of(self, state: MetadataState) -> tuple[Path, SnapshotMeta]:
        """A copy in a file."""
        snapshot = await state.snapshot()
        received = self.folder() / "received"
        received.write_bytes(await snapshot.read(0, snapshot.size))
        await snapshot.close()
        return received, snapshot.meta

    async def killed_while_installing(self, at: str) -> tuple[int, list[str]]:
        """How far the state is after a kill, and what is in it; it goes on from there and nothing is left over."""
        await self.current.apply([create(3)])
        received, meta = await self.copy_of(self.current)
        old = self.folder()
        state = await self.opened(old)
        await state.apply([Step(1, 1, None, MEMBERS)])
        await state.close()
        ended = run(command(old, _INSTALL, at, received, meta.index), timeout_seconds=30)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        state = self.state(old)
        index = (await state.open()).index
        self.addCleanup(state.close)
        found = await self.paths(state)
        await state.apply([Step(index + 1, 1)])
        (database,) = (old / "state").glob("state-*.sqlite3")
        assert (old / "state" / "current").read_text().strip() == database.name
        return index, found

    async def test_before_the_switch(self) -> None:
        """Until the name has changed, the old state is in force after a kill."""
        for at in ("arrived", "recognised", "prepared"):
            await self.set_up_again()
            assert await self.killed_while_installing(at) == (1, [])

    async def test_after_the_switch(self) -> None:
        """From then on the new one is, whole."""
        for at in ("switched", "forgotten"):
            await self.set_up_again()
            assert await self.killed_while_installing(at) == (3, ["/000003"])

    async def set_up_again(self) -> None:
        """A state at its beginning."""
        await self.current.close()
        await self.setUp()

    async def test_while_applying(self) -> None:
        """A process that is killed loses nothing that it applied; the same entries again change nothing."""
        await self.current.close()
        running = process(self.place, _APPLY, "never")
        assert running.stdout is not None
        applied = 0
        while applied < 100:
            applied = int(running.stdout.readline())
        running.kill()
        running.communicate()
        self.current = self.state(self.place)
        index = (await self.current.open()).index
        self.addCleanup(self.current.close)
        assert index >= applied
        assert await self.paths() == [f"/{number:06}" for number in range(3, index + 1)]
        await self.current.apply([create(index + 1)])


_FULL_DISK = """
        folder = Path(sys.argv[1])
        ballast = folder / "ballast"

        def fill(leave=0):
            status = os.statvfs(folder)
            with ballast.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize - leave)

        async def paths():
            return [inode.path for inode in await state.readers.threaded(queries.walk, "/", "", None, 1000)]

        async def lacks_room(work):
            try:
                await work
            except InsufficientStorage:
                return
            raise AssertionError("there was room")

        await state.apply(beginning())
"""
_APPLYING = """
        await state.apply([create(3)])
        fill()
        steps = [create(number) for number in range(4, 400)]
        await lacks_room(state.apply(steps))
        assert await paths() == ["/000003"]
        ballast.unlink()
        await state.apply(steps)
        assert len(await paths()) == 397
        assert await state.checkpoint() == 399
"""
_OWN_LOG = """
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 500_000)
        number = 3
        while True:
            try:
                await state.apply([create(number)])
            except InsufficientStorage:
                break
            number += 1
        ballast.unlink()
        for further in range(number, number + 60):
            await state.apply([create(further)])
        assert len(await paths()) == number + 57
"""
_CHECKPOINT = """
        await state.apply([create(number) for number in range(3, 400)])
        fill()
        try:
            assert await state.checkpoint() == 399
        except InsufficientStorage:
            ballast.unlink()
            assert await state.checkpoint() == 399
        assert len(await paths()) == 397
"""
_COPY = """
        await state.apply([create(3)])
        fill(leave=50_000)
        await lacks_room(state.snapshot())
        assert list((folder / "snapshots").iterdir()) == []
        ballast.unlink()
        await (await state.snapshot()).close()
        await state.apply([create(4)])
"""
_COMING_IN = """
        incoming = folder / "incoming"
        shutil.copy(sys.argv[3], incoming)
        fill()
        try:
            await state.install(incoming, SnapshotMeta(3, 1, MEMBERS))
        except StateUnusable as error:
            assert "no room" in str(error), error
        else:
            raise AssertionError("there was room")
        ballast.unlink()
        assert len(list((folder / "state").glob("state-*.sqlite3"))) == 1
        await state.apply([create(3)])
        assert await paths() == ["/000003"]
"""


class TestFullDisk(StateCase):
    def works(self, body: str, *arguments: object) -> None:
        """The lines go well on a disk of 4 MB."""
        mount = self.folder()
        disk = SmallDisk(mount, 4_000_000)
        self.addCleanup(disk.close)
        ended = process(mount, _FULL_DISK + body, "never", *arguments, wrapper=disk.wrapper)
        output, _ = ended.communicate(timeout=60)
        assert ended.returncode == 0, output.decode()

    async def test_applying(self) -> None:
        """Without room a batch changes nothing, and can be applied when there is room again."""
        self.works(_APPLYING)

    async def test_its_own_log(self) -> None:
        """Little room is enough to go on with, where it was the write-ahead log that took the most."""
        self.works(_OWN_LOG)

    async def test_checkpoint(self) -> None:
        """Without room the state is called durable only if it is."""
        self.works(_CHECKPOINT)

    async def test_snapshot(self) -> None:
        """A copy that there is no room for leaves nothing behind, and the state goes on."""
        self.works(_COPY)

    async def test_installing(self) -> None:
        """Without room for a state that came in, the old one stays in force and nothing is left beside it."""
        await self.current.apply([create(3)])
        received, _ = await TestKilled.copy_of(self, self.current)  # type: ignore[arg-type]
        self.works(_COMING_IN, received)


class TestReplacement(StateCase):
    async def test_reads_go_on(self) -> None:
        """Whoever reads while another state is put in place gets an answer, from the one or from the other."""
        await self.current.apply([create(number) for number in range(3, 500)])
        received, meta = await TestKilled.copy_of(self, self.current)  # type: ignore[arg-type]
        place = self.folder()
        state = self.state(place)
        log = SingleLog(state)
        await log.start()
        self.addCleanup(log.stop)
        store = ReplicatedStore(log, state)
        await store.open()
        before = [store.walk("/", limit=1000) for _ in range(30)]
        installing = state.install(received, meta)
        during = [store.walk("/", limit=1000) for _ in range(30)]
        counts = {len(inodes) for inodes in await gatherResults([*before, *during])}
        await installing
        assert counts <= {0, 497}
        assert len(await store.walk("/", limit=1000)) == 497

    async def test_reads_of_a_closed_state(self) -> None:
        """A state that isn't open isn't waited for."""
        await self.current.close()
        with pytest.raises(MetadataUnavailable):
            await self.current.reading()

    async def test_switch_that_failed(self) -> None:
        """When nobody knows which state is in force, the node goes on with neither."""
        received, meta = await TestKilled.copy_of(self, self.current)  # type: ignore[arg-type]
        pointer = self.place / "state" / "current"
        pointer.unlink()
        pointer.mkdir()  # a file can't take the place of a folder
        with pytest.raises(StateUnusable, match="another state was put in place"):
            await self.current.install(received, meta)
        with pytest.raises(StateUnusable, match="another state was put in place"):
            await self.current.apply([create(3)])
        with pytest.raises(MetadataUnavailable):
            await self.current.reading()

    async def test_closed_while_read(self) -> None:
        """A copy that is closed while it is read is read to the end; then no more."""
        snapshot = await self.current.snapshot()
        reading = snapshot.read(0, 16)
        await snapshot.close()
        assert await reading == b"SQLite format 3\0"
        with pytest.raises(ValueError, match="closed"):
            await snapshot.read(0, 16)
        await snapshot.close()


class Broken:
    """A part that can't take the news."""

    schema = ""
    unknown: type[Exception] = KeyError
    replaced = begun = staticmethod(lambda *_: None)
    apply: Callable[..., bytes] = staticmethod(lambda *_: b"done")

    def committed(self) -> None:
        """Fails."""
        raise ZeroDivisionError


class TestParts(StateCase):
    async def test_broken_part(self) -> None:
        """That a part can't be told of a change doesn't undo it, and stops nobody."""
        state = await self.opened(self.folder(), parts={b"x": Broken()})
        await state.apply([Step(1, 1, None, MEMBERS)])
        assert {type(error.value) for error in self.flushLoggedErrors()} == {ZeroDivisionError}  # type: ignore[no-untyped-call]

    async def test_disk_fault_in_a_part(self) -> None:
        """An I/O error while a command is carried out is no result of it: the node halts."""
        part = Broken()
        part.committed = lambda: None  # type: ignore[method-assign]

        def fails(*_: object) -> bytes:
            raise OSError(5, "Input/output error")

        part.apply = fails
        place = self.folder()
        state = await self.opened(place, parts={b"x": part})
        await state.apply([Step(1, 1, None, MEMBERS), Step(2, 1, Request(0, 0, 0, START, 1, b"nonce"))])
        with pytest.raises(StateUnusable, match="Input/output error"):
            await state.apply([step(3, 1, b"x")])
        await state.close()
        assert (await state.open()).index == 2
