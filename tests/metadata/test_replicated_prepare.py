"""What steps come to, said before they are applied: the same as then, and nobody sees anything of it."""

from __future__ import annotations

import random
import signal
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from callfs.cluster.interfaces import Outcome, SnapshotMeta, Step
from callfs.cluster.requests import SILENT_CLIENT_MICROSECONDS, Request
from callfs.errors import FileAlreadyExists
from callfs.locks.replicated import LOCKS
from callfs.locks.replicated_table import LockTable
from callfs.metadata.replicated_apply import METADATA
from callfs.metadata.replicated_codec import decode_answer, encode_command
from callfs.metadata.replicated_state import MetadataState
from tests.metadata.test_replicated_faults import create, process
from tests.metadata.test_replicated_state import CLIENT, START, StateCase, beginning, bytes_of, step
from tests.support.commands import Commands
from tests.support.mounts import SmallDisk
from tests.support.single_log import MEMBERS


def contents(folder: Path) -> list[str]:
    """Everything in a state that is closed, as SQL; but for what a checkpoint counts."""
    (path,) = (folder / "state").glob("state-*.sqlite3")
    connection = sqlite3.connect(path)
    try:
        connection.execute("UPDATE raft_state SET settled = 0")
        return list(connection.iterdump())
    finally:
        connection.close()


class TestPreparing(StateCase):
    async def test_the_same_outcome(self) -> None:
        """Results and refusals are said as they will be; nobody sees anything of it until the steps are applied."""
        steps = [step(3, 1, self.make.create("/f")), step(4, 2, self.make.create("/f"))]
        prepared = await self.current.prepare(steps)()
        assert prepared is not None
        assert await self.paths() == []
        assert await self.current.apply(steps) == prepared
        assert await self.paths() == ["/f"]
        with pytest.raises(FileAlreadyExists):
            decode_answer(self.make.create("/f"), bytes_of(prepared[1]))

    async def test_never_applied(self) -> None:
        """What was only prepared leaves nothing, whether other steps come in its place or the state is closed."""
        await self.current.prepare([step(3, 1, self.make.create("/f"))])()
        other = step(3, 1, self.make.create("/g"))
        (result,) = await self.current.apply([other])
        assert decode_answer(self.make.create("/g"), bytes_of(result)).inode.path == "/g"
        assert await self.paths() == ["/g"]
        await self.current.prepare([step(4, 2, self.make.create("/h"))])()
        await self.current.close()
        self.current = self.state(self.place)
        assert (await self.current.open()).index == 3
        assert await self.paths() == ["/g"]
        await self.current.apply([step(4, 2, self.make.create("/i"))])
        await self.current.close()

    async def test_another_term(self) -> None:
        """The same command at the same index, but of another leader, is another step."""
        ours = step(3, 1, self.make.create("/f"))
        await self.current.prepare([ours])()
        await self.current.apply([Step(3, 7, ours.request)])
        await self.current.close()
        assert await self.current.open() == SnapshotMeta(3, 7, MEMBERS)

    async def test_prepared_again(self) -> None:
        """What was prepared last counts."""
        await self.current.prepare([step(3, 1, self.make.create("/f"))])()
        steps = [step(3, 1, self.make.create("/g"))]
        assert await self.current.prepare(steps)() == await self.current.apply(steps)
        assert await self.paths() == ["/g"]

    async def test_a_checkpoint_or_a_copy_between(self) -> None:
        """Neither contains what is only prepared; the steps come to the same after it."""
        steps = [step(3, 1, self.make.create("/f"))]
        prepared = await self.current.prepare(steps)()
        assert await self.current.checkpoint() == 2
        assert await self.paths() == []
        await self.current.prepare(steps)()
        snapshot = await self.current.snapshot()
        assert snapshot.meta.index == 2
        await snapshot.close()
        assert await self.current.apply(steps) == prepared
        assert await self.current.checkpoint() == 3

    async def test_another_state_between(self) -> None:
        """A state that takes this one's place contains nothing of it."""
        other = await self.opened(self.folder())
        await other.apply([*beginning(), step(3, 1, self.make.create("/g"))])
        snapshot = await other.snapshot()
        received = self.folder() / "received"
        received.write_bytes(await snapshot.read(0, snapshot.size))
        await snapshot.close()
        await self.current.prepare([step(3, 1, self.make.create("/f"))])()
        await self.current.install(received, snapshot.meta)
        assert await self.paths() == ["/g"]
        await self.current.apply([step(4, 2, self.make.create("/h"))])
        assert await self.paths() == ["/g", "/h"]

    async def test_what_is_not_said_beforehand(self) -> None:
        """Only commands about metadata are, of clients, that are the next ones and that this program knows."""
        await self.current.close()
        self.current = await self.opened(self.folder(), parts={LOCKS: LockTable()})
        await self.current.apply(beginning())
        create = self.make.create("/f")
        for unsaid in (
            Step(3, 1),
            Step(3, 1, None, MEMBERS),
            Step(3, 1, Request(0, 0, 0, START, 1, b"nonce")),
            step(3, 1, LOCKS + b"whatever"),
            step(4, 1, create),
            step(2, 1, create),
            step(3, 1, create, version=99),
            step(3, 1, METADATA + b"\x81\xa7command\xa3fly"),
        ):
            assert await self.current.prepare([unsaid])() is None, unsaid
        assert await self.paths() == []
        steps = [step(3, 1, create)]
        assert await self.current.prepare(steps)() == await self.current.apply(steps)

    async def test_what_can_wait(self) -> None:
        """Changes of locks are waited for without asking, and no-ops and memberships are the cluster's own."""
        create = step(3, 1, self.make.create("/f"))
        assert self.current.can_wait([create])
        for urgent in (Step(4, 1), Step(4, 1, None, MEMBERS), step(4, 2, LOCKS + b"whatever")):
            assert not self.current.can_wait([create, urgent])

    async def test_closed(self) -> None:
        """A state that isn't open knows nothing."""
        await self.current.close()
        assert await self.current.prepare([step(3, 1, self.make.create("/f"))])() is None

    async def test_any_log(self) -> None:
        """However steps are prepared, applied, and prepared in vain, outcomes and state are the same."""
        chance = random.Random(20261123)
        for _ in range(4):
            log = made_up_log(chance, 60)
            plain_place, place = self.folder(), self.folder()
            plain, state = await self.opened(plain_place), await self.opened(place)
            expected = [outcome for each in log for outcome in await plain.apply([each])]
            assert await self.foreseen(chance, state, log) == expected
            await plain.close()
            await state.close()
            assert contents(place) == contents(plain_place)

    async def foreseen(self, chance: random.Random, state: MetadataState, log: Sequence[Step]) -> list[Outcome]:
        """All outcomes of a log."""
        outcomes: list[Outcome] = []
        while len(outcomes) < len(log):
            rest = log[len(outcomes) :]
            steps = rest[: chance.randrange(1, 4)]
            prepared = await state.prepare(steps)() if chance.random() < 0.7 else None
            what = chance.random()
            if what < 0.2:
                await state.checkpoint()
            elif what < 0.4:
                steps = rest[: chance.randrange(1, 4)]
                prepared = None
            applied = await state.apply(steps)
            assert prepared is None or prepared == applied
            outcomes += applied
        return outcomes


def made_up_log(chance: random.Random, count: int) -> list[Step]:
    """A beginning, and commands of a client about few paths; some come again, and some belong to nobody."""
    make, log, sequence = Commands(chance.randrange(1, 1000)), beginning(), 0
    names = [f"/{name}" for name in "abcd"]
    for index in range(3, count):
        path, other = chance.choice(names), chance.choice(names)
        command = chance.choice(
            [
                make.create(path),
                make.put(path),
                make.remove(path),
                make.make_directory(path),
                make.create(f"{path}/below"),
                make.move(path, other),
                make.move(path, f"{other}/moved", create_parents=True),
            ]
        )
        again = chance.random() < 0.1 and sequence > 1
        sequence += not again
        at = START + index + (SILENT_CLIENT_MICROSECONDS + 1 if index > count - 5 else 0)
        data = METADATA + encode_command(command)
        client = CLIENT if chance.random() < 0.95 else 1
        lowest = max(1, sequence - chance.randrange(0, 4))
        log.append(Step(index, 1, Request(client, sequence, lowest, at, 1, data)))
    return log


_APPLY_PREPARED = """
        batch = [create(index) for index in (3, 4, 5)]
        prepared = await state.prepare(batch)()
        print(*[outcome.hex() for outcome in prepared], flush=True)
        await state.apply(batch)
"""


class TestKilled(StateCase):
    async def killed(self, at: str) -> tuple[list[bytes], int]:
        """What was said beforehand, and the last entry that the state contains after a kill at a step."""
        await self.current.close()
        ended = process(self.place, _APPLY_PREPARED, at)
        output, _ = ended.communicate(timeout=30)
        assert ended.returncode == -signal.SIGKILL, output.decode()
        self.current = self.state(self.place)
        index = (await self.current.open()).index
        self.addCleanup(self.current.close)
        assert await self.paths() == [f"/{number:06}" for number in range(3, index + 1)]
        return [bytes.fromhex(word) for word in output.decode().split()], index

    async def test_prepared(self) -> None:
        """A kill before anything was said leaves nothing."""
        assert await self.killed("metadata.prepared") == ([], 2)

    async def test_said_and_not_committed(self) -> None:
        """A kill after that loses nothing that the log doesn't bring again, to the same results."""
        said, index = await self.killed("metadata.before_commit")
        assert (len(said), index) == (3, 2)
        assert await self.current.apply([create(number) for number in (3, 4, 5)]) == said
        assert await self.paths() == ["/000003", "/000004", "/000005"]

    async def test_committed(self) -> None:
        """What was committed is there after a kill, and the same commands again give the same results."""
        said, index = await self.killed("metadata.after_commit")
        assert (len(said), index) == (3, 5)
        again = [Step(6 + number, 1, create(3 + number).request) for number in range(3)]
        assert list(await self.current.apply(again))[-1:] == said[-1:]


_FULL_DISK_AFTERWARDS = """
        ballast = Path(sys.argv[1]) / "ballast"
        await state.apply(beginning())
        await state.apply([create(3)])
        steps = [create(number) for number in range(4, 12)]
        while True:
            # Until there is no room left in the write-ahead log.
            prepared = await state.prepare(steps)()
            assert prepared is not None
            status = os.statvfs(ballast.parent)
            with ballast.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize)
            try:
                assert await state.apply(steps) == prepared
            except InsufficientStorage:
                break
            ballast.unlink()
            steps = [create(step.index + len(steps)) for step in steps]
        assert await state.prepare(steps)() is None
        ballast.unlink()
        assert await state.apply(steps) == prepared
        assert await state.checkpoint() == steps[-1].index
        steps = [create(steps[-1].index + 1)]
        assert await state.prepare(steps)() == await state.apply(steps)
"""


class TestFullDisk(StateCase):
    async def test_after_it_was_said(self) -> None:
        """Where there is no room for what was said, it comes to the same when there is."""
        mount = self.folder()
        disk = SmallDisk(mount, 4_000_000)
        self.addCleanup(disk.close)
        ended = process(mount, _FULL_DISK_AFTERWARDS, "never", wrapper=disk.wrapper)
        output, _ = ended.communicate(timeout=60)
        assert ended.returncode == 0, output.decode()
