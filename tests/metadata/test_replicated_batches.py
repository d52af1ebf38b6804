"""However the log is cut into batches, and whatever fails in them, results and state are the same."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from callfs.cluster.interfaces import Outcome, Step
from callfs.errors import CallFSError, InternalError
from callfs.metadata.commands import (
    Command,
    Condemn,
    DropGarbage,
    ForgetCondemned,
    PostponeReplication,
    PurgeLinks,
)
from callfs.metadata.replicated_codec import decode_answer
from callfs.model import BlobRef, Inode, InodeType, Preconditions, Principal, S3Placement
from tests.metadata.test_replicated_state import StateCase, beginning, bytes_of, step
from tests.support.commands import ADMIN, HOUR, NODE, TO_S3, Commands

_TABLES = ("inodes", "blobs", "links", "garbage", "condemned", "replications", "instances", "store", "raft_clients")
_NAMES = ("a", "b", "c")
_SEEDS = range(6)
_SOUND_SEEDS = range(100, 106)
_COMMANDS = 240


class Chance:
    """
    Makes commands that get into each other's way.

    :param make: the ids and instants.
    :param sound: whether none of them fails half-way: those that do make the others of their batch go one by one.
    """

    def __init__(self, make: Commands, seed: int, *, sound: bool = False) -> None:
        self._make = make
        self._sound = sound
        self._random = random.Random(seed)
        self._inodes: list[Inode] = []
        self._blobs: list[BlobRef] = []
        self._tokens: list[bytes] = []

    def path(self) -> str:
        """Up to three names."""
        return "/" + "/".join(self._random.choices(_NAMES, k=self._random.randint(1, 3)))

    def blob(self) -> BlobRef:
        """On a disk, in S3, on both; or one that was named or condemned before."""
        kind = self._random.randrange(0 if self._sound else -2, 12)
        if kind < 0 and self._blobs:
            return self._random.choice(self._blobs)
        if kind < 8:
            blob = self._make.blob()
        elif kind < 10:
            blob = self._make.replicated_blob(NODE, S3Placement())
        else:
            blob = self._make.blob(3, S3Placement())
        self._blobs.append(blob)
        return blob

    def command(self) -> Command[Any]:
        """The next one."""
        kinds: Sequence[Callable[[], Command[Any]]] = (
            self._create,
            self._create,
            self._put,
            self._put,
            lambda: self._make.make_directory(self.path()),
            lambda: self._make.remove(self.path(), recursive=self._random.random() < 0.3),
            self._move,
            self._move,
            self._change,
            self._issue_link,
            self._tend,
            self._relocate,
        )
        return self._random.choice(kinds)()

    def _create(self) -> Command[Any]:
        order = TO_S3 if self._random.random() < 0.2 else None
        command = self._make.create(self.path(), blob=self.blob(), replicate=order)
        if self._inodes and not self._sound and self._random.random() < 0.2:
            # An id that is there already: no decision refuses it, only the database does.
            taken = self._random.choice(self._inodes).id
            command = msgspec.structs.replace(command, path=f"/{command.inode_id}", inode_id=taken)
        elif self._random.random() < 0.5:
            inode = Inode(
                id=command.inode_id,
                path=command.path,
                parent_id="",
                type=InodeType.FILE,
                mode=0,
                owner="alice",
                mtime=0,
                ctime=0,
                created_at=0,
                blob=command.blob,
            )
            self._inodes.append(inode)
        return command

    def _put(self) -> Command[Any]:
        order = TO_S3 if self._random.random() < 0.2 else None
        return self._make.put(self.path(), blob=self.blob(), replicate=order)

    def _move(self) -> Command[Any]:
        flags: dict[str, Any] = {name: self._random.random() < 0.5 for name in ("overwrite", "create_parents")}
        return self._make.move(self.path(), self.path(), **flags)

    def _change(self) -> Command[Any]:
        conditions = Preconditions(if_unmodified_since=self._make.now - self._random.randrange(30) * 1_000_000)
        path, who = self.path(), Principal("alice")
        return msgspec.structs.replace(self._make.change(path, who, mode=0o600), preconditions=conditions)

    def _issue_link(self) -> Command[Any]:
        if self._tokens and self._random.random() < 0.4:
            return self._make.consume_link(self._random.choice(self._tokens))
        if not self._inodes:
            return self._put()
        command = self._make.issue_link(self._random.choice(self._inodes))
        self._tokens.append(command.token_hash)
        return command

    def _relocate(self) -> Command[Any]:
        if not self._inodes:
            return self._put()
        inode = self._random.choice(self._inodes)
        assert inode.blob is not None
        replica = self._make.copy_of(inode.blob, S3Placement())
        return self._make.relocate(inode, msgspec.structs.replace(inode.blob, replicas=(replica,)), ADMIN)

    def _tend(self) -> Command[Any]:
        at = self._make.tick()
        some = tuple(blob.id for blob in self._random.sample(self._blobs, min(3, len(self._blobs))))
        new = self._make.blob()
        self._blobs.append(new)
        return self._random.choice(
            [
                Condemn(at=at, blob_ids=(*some, new.id)),
                ForgetCondemned(at=at, before_at=at - 20_000_000),
                DropGarbage(at=at, ids=tuple(range(self._random.randrange(20)))),
                PurgeLinks(at=at, expired_before_at=at + 2 * HOUR, used_before_at=at, limit=1),
                PostponeReplication(at=at, blob_id=new.id, due_at=at),
            ]
        )


def rows(folder: Path) -> dict[str, list[Any]]:
    """Everything in a state but how its answers are packed."""
    (path,) = (folder / "state").glob("state-*.sqlite3")
    connection = sqlite3.connect(path)
    try:
        return {table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in _TABLES}
    finally:
        connection.close()


class TestBatches(StateCase):
    async def outcomes(self, folder: Path, log: Sequence[Step], sizes: Callable[[], int]) -> list[Outcome]:
        """Apply a log in batches."""
        state = await self.opened(folder)
        await state.apply(beginning())
        outcomes: list[Outcome] = []
        while len(outcomes) < len(log):
            outcomes += await state.apply(log[len(outcomes) : len(outcomes) + sizes()])
        return outcomes

    async def test_any_size(self) -> None:
        """Commands that get into each other's way, some of which fail half-way, come to the same in any batches."""
        refused = done = failed = 0
        for seed in _SEEDS:
            chance = Chance(Commands(seed), seed)
            commands = [chance.command() for _ in range(_COMMANDS)]
            log = [step(3 + n, 1 + n, command) for n, command in enumerate(commands)]
            cut = random.Random(seed)
            one_by_one, together = self.folder(), self.folder()
            alone = await self.outcomes(one_by_one, log, lambda: 1)
            assert await self.outcomes(together, log, lambda: cut.choice([2, 7, 40])) == alone  # noqa: B023
            assert rows(one_by_one) == rows(together)
            for command, outcome in zip(commands, alone, strict=True):
                try:
                    decode_answer(command, bytes_of(outcome))
                except InternalError:
                    failed += 1
                except CallFSError:
                    refused += 1
                else:
                    done += 1
        assert min(done, refused) > 300
        assert failed > 20
        assert len(self.flushLoggedErrors()) >= failed  # type: ignore[no-untyped-call]

    async def test_sound_ones(self) -> None:
        """Where none fails half-way, so that each batch goes in one, it is the same all the more."""
        for seed in _SOUND_SEEDS:
            chance = Chance(Commands(seed), seed, sound=True)
            log = [step(3 + n, 1 + n, chance.command()) for n in range(_COMMANDS)]
            cut = random.Random(seed)
            one_by_one, together = self.folder(), self.folder()
            alone = await self.outcomes(one_by_one, log, lambda: 1)
            assert await self.outcomes(together, log, lambda: cut.choice([2, 7, 40])) == alone, seed  # noqa: B023
            assert rows(one_by_one) == rows(together), seed

    async def test_a_tree_that_has_moved(self) -> None:
        """A command sees where the one before it has moved a tree from, and to."""
        await self.current.apply([step(3, 1, self.make.make_directory("/a"))])
        there = self.make.move("/a", "/d/a", create_parents=True)
        back = self.make.move("/d", "/a")
        outcomes = await self.current.apply([step(4, 2, there), step(5, 3, back)])
        assert decode_answer(back, bytes_of(outcomes[1])).inode.path == "/a"
        assert await self.paths() == ["/a", "/a/a"]

    async def test_a_command_that_fails(self) -> None:
        """What fails half-way, though nothing refuses it, has no effect; the others of its batch have theirs."""
        first, second, third = (self.make.create(f"/d/{name}") for name in "abc")
        twin = msgspec.structs.replace(second, inode_id=first.inode_id)
        outcomes = await self.current.apply([step(3, 1, first), step(4, 2, twin), step(5, 3, third)])
        assert decode_answer(first, bytes_of(outcomes[0])).created
        with pytest.raises(InternalError):
            decode_answer(twin, bytes_of(outcomes[1]))
        assert decode_answer(third, bytes_of(outcomes[2])).created
        assert await self.paths() == ["/d", "/d/a", "/d/c"]
        assert {type(error.value) for error in self.flushLoggedErrors()} == {sqlite3.IntegrityError}  # type: ignore[no-untyped-call]
        assert await self.current.apply([step(6, 2, twin)]) == [outcomes[1]]

    async def test_touched_directories(self) -> None:
        """A directory has the times of its last child, and a generation that counts them all."""
        make = self.make
        await self.current.apply(
            [
                step(3, 1, make.make_directory("/d")),
                step(4, 2, make.create("/d/a")),
                step(5, 3, make.create("/d/b")),
                step(6, 4, make.move("/d", "/e")),
                step(7, 5, make.remove("/e/a")),
            ]
        )
        assert self.current.readers is not None
        await self.current.apply([step(8, 6, last := make.create("/e/c"))])
        (found,) = [row for row in rows(self.place)["inodes"] if row[2] == "/e"]
        mtime, ctime, generation = found[9], found[10], found[12]
        assert (mtime, ctime, generation) == (last.at, last.at, 1 + 2 + 1 + 1 + 1)

    async def test_packed_answers(self) -> None:
        """Answers are kept until the client has them all, and then go."""
        make = self.make
        commands = [make.create(f"/{number}") for number in range(6)]
        outcomes = await self.current.apply([step(3 + n, 1 + n, command) for n, command in enumerate(commands)])
        again = [step(9 + n, 1 + n, command, lowest=3) for n, command in enumerate(commands) if n > 1]
        for number, each in enumerate(again):
            assert await self.current.apply([msgspec.structs.replace(each, index=9 + number)]) == [
                outcomes[2 + number]
            ]
        await self.current.apply([step(13, 7, make.create("/last"), lowest=7)])
        (path,) = (self.place / "state").glob("state-*.sqlite3")
        connection = sqlite3.connect(path)
        kept = connection.execute("SELECT lowest, highest FROM raft_results").fetchall()
        connection.close()
        assert kept == [(7, 7)]
