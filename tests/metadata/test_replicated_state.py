"""A node's copy of the replicated state: in order, once, durable when it says so, replaced whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from twisted.trial.unittest import TestCase

from callfs.cluster.interfaces import ClientForgotten, Membership, Outcome, SnapshotMeta, StateUnusable, Step
from callfs.cluster.requests import SILENT_CLIENT_MICROSECONDS, Request
from callfs.errors import FileAlreadyExists
from callfs.metadata import sqlite_queries as queries
from callfs.metadata.commands import Command
from callfs.metadata.replicated_apply import METADATA
from callfs.metadata.replicated_codec import decode_answer, encode_command
from callfs.metadata.replicated_state import MetadataState
from callfs.model import Inode
from callfs.raft.membership import NOBODY
from tests.metadata.replicated_binding import SingleLogBinding
from tests.support.commands import Commands
from tests.support.single_log import MEMBERS

START = 1_700_000_000_000_000
CLIENT = 2
"""The index of the second step of :func:`beginning`."""


def beginning() -> list[Step]:
    """A membership, and a client."""
    return [
        Step(1, 1, None, MEMBERS),
        Step(2, 1, Request(0, 0, 0, START, 1, b"nonce")),
    ]


def step(
    index: int, sequence: int, command: Command[Any] | bytes, *, lowest: int = 1, at: int = START, version: int = 1
) -> Step:
    """The client's command at an index."""
    data = command if isinstance(command, bytes) else METADATA + encode_command(command)
    return Step(index, 1, Request(CLIENT, sequence, lowest, at, version, data))


class StateCase(SingleLogBinding, TestCase):
    """A state with a beginning."""

    async def setUp(self) -> None:
        self.make = Commands()
        self.place = self.folder()
        self.current = await self.opened(self.place)
        await self.current.apply(beginning())

    async def opened(self, folder: Path, **options: Any) -> MetadataState:
        """A state that is closed with the test."""
        state = self.state(folder, **options)
        await state.open()
        self.addCleanup(state.close)
        return state

    async def paths(self, state: MetadataState | None = None) -> list[str]:
        """Everything below the root."""
        readers = (state or self.current).readers
        assert readers is not None
        inodes: list[Inode] = await readers.threaded(queries.walk, "/", "", None, 1000)
        return [inode.path for inode in inodes]


class TestApplying(StateCase):
    async def test_new(self) -> None:
        """A fresh state contains nothing and belongs to nobody; it remembers how far it has come."""
        state = self.state(self.folder())
        assert await state.open() == SnapshotMeta(0, 0, NOBODY)
        await state.apply([Step(1, 3, None, MEMBERS), Step(2, 4)])
        await state.close()
        assert await state.open() == SnapshotMeta(2, 4, MEMBERS)
        await state.close()

    async def test_result(self) -> None:
        """What a command returns, and what it is refused with, are its results; a refusal changes nothing."""
        create = self.make.create("/f")
        made, refused = await self.current.apply([step(3, 1, create), step(4, 2, self.make.create("/f"))])
        assert decode_answer(create, bytes_of(made)).inode.path == "/f"
        with pytest.raises(FileAlreadyExists) as caught:
            decode_answer(create, bytes_of(refused))
        assert caught.value.details["existing_path"] == "/f"
        assert await self.paths() == ["/f"]

    async def test_once(self) -> None:
        """A command that comes again has no further effect and gives its first result; also after a restart."""
        create = self.make.create("/f")
        first, again = await self.current.apply([step(3, 1, create), step(4, 1, create)])
        assert first == again
        await self.current.close()
        self.current = await self.opened(self.place)
        remove = self.make.remove("/f")
        removed, made_again, removed_again = await self.current.apply(
            [step(5, 2, remove), step(6, 1, create), step(7, 2, remove)]
        )
        assert (made_again, removed_again) == (first, removed)
        assert await self.paths() == []

    async def test_out_of_order(self) -> None:
        """A command that comes after one with a higher number is carried out, once."""
        await self.current.apply([step(3, 3, self.make.create("/three"))])
        late = self.make.create("/two")
        first, again = await self.current.apply([step(4, 2, late), step(5, 2, late)])
        assert first == again
        assert await self.current.apply([step(6, 2, late)]) == [first]
        assert await self.paths() == ["/three", "/two"]

    async def test_below_the_lowest(self) -> None:
        """What the client doesn't wait for any more isn't carried out, however late it comes."""
        outcomes = await self.current.apply(
            [
                step(3, 2, self.make.create("/two"), lowest=2),
                step(4, 1, self.make.create("/one"), lowest=1),
            ]
        )
        assert outcomes[1] == ClientForgotten()
        assert await self.paths() == ["/two"]

    async def test_unknown_client(self) -> None:
        """A client that never registered is refused."""
        request = Request(1, 1, 1, START, 1, METADATA + encode_command(self.make.create("/f")))
        assert await self.current.apply([Step(3, 1, request)]) == [ClientForgotten()]
        assert await self.paths() == []

    async def test_silent_client(self) -> None:
        """A client that the log hasn't heard for an hour of its time is refused, and may register anew."""
        await self.current.apply([step(3, 1, self.make.create("/f"))])
        later = START + SILENT_CLIENT_MICROSECONDS + 1
        outcomes = await self.current.apply(
            [
                Step(4, 1, Request(0, 0, 0, later, 1, b"nonce")),
                step(5, 1, self.make.create("/f"), at=START),
                step(6, 2, self.make.create("/g"), at=later),
                Step(7, 1, Request(4, 1, 1, later, 1, METADATA + encode_command(self.make.create("/h")))),
            ]
        )
        assert outcomes[1:3] == [ClientForgotten(), ClientForgotten()]
        assert await self.paths() == ["/f", "/h"]

    async def test_batches_do_not_matter(self) -> None:
        """The same log gives the same state and the same results, however it is cut into batches."""
        later = START + SILENT_CLIENT_MICROSECONDS + 1
        log = [
            step(3, 1, self.make.create("/a")),
            step(4, 1, self.make.create("/a")),
            step(5, 2, self.make.put("/a"), lowest=2),
            step(6, 1, self.make.put("/a"), lowest=1),
            Step(7, 1, Request(0, 0, 0, later, 1, b"nonce")),
            step(8, 3, self.make.create("/b"), at=START),
            Step(9, 1, Request(7, 1, 1, START, 1, METADATA + encode_command(self.make.create("/c")))),
        ]
        other = await self.opened(self.folder())
        one_by_one: list[Outcome] = []
        for each in [*beginning(), *log]:
            one_by_one += await other.apply([each])
        assert one_by_one[2:] == await self.current.apply(log)
        assert await self.paths(other) == await self.paths() == ["/a", "/c"]

    async def test_same_identity(self) -> None:
        """All nodes of a cluster have a store of one identity, which is another than that of another cluster."""
        foreign = await self.opened(self.folder())
        await foreign.apply([Step(1, 1, None, Membership("cluster-2", MEMBERS.members))])
        twin = await self.opened(self.folder())
        await twin.apply(beginning())
        ours, same, other = [await store_id(state) for state in (self.current, twin, foreign)]
        assert ours == same != other


class TestHalting(StateCase):
    async def halts(self, bad: Step, reason: str) -> None:
        """The batch changes nothing, and says why."""
        with pytest.raises(StateUnusable, match=reason):
            await self.current.apply([step(3, 1, self.make.create("/f")), bad])
        assert await self.paths() == []
        await self.current.close()
        state = self.state(self.place)
        assert (await state.open()).index == 2
        await state.close()

    async def test_unknown_kind(self) -> None:
        """A command that this version doesn't know stops the node rather than being skipped."""
        await self.halts(step(4, 2, METADATA + b"\x81\xa7command\xa3fly"), "doesn't know")

    async def test_unknown_part(self) -> None:
        """So does one for a part that isn't there."""
        await self.halts(step(4, 2, b"?x"), "doesn't know")

    async def test_newer_version(self) -> None:
        """So does one that says that it is too new."""
        await self.halts(step(4, 2, self.make.create("/g"), version=99), "of version 99")

    async def test_gap(self) -> None:
        """An entry that isn't the next one is a fault of the log."""
        await self.halts(step(5, 2, self.make.create("/g")), "came after 3")

    async def test_missing_state(self) -> None:
        """A state that was lost isn't taken for an empty one."""
        await self.current.close()
        for path in (self.place / "state").glob("state-*.sqlite3*"):
            path.unlink()
        with pytest.raises(StateUnusable, match="is missing"):
            await self.state(self.place).open()

    async def test_damaged_state(self) -> None:
        """A damaged state is refused, with what to do."""
        await self.current.close()
        (path,) = (self.place / "state").glob("state-*.sqlite3")
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.seek(size // 3)
            file.write(os.urandom(size // 2))
        with pytest.raises(StateUnusable):
            await self.state(self.place).open()

    async def test_two_processes(self) -> None:
        """Only one state is opened on a folder."""
        with pytest.raises(StateUnusable, match="another CallFS daemon"):
            await self.state(self.place).open()


class TestSnapshots(StateCase):
    async def copy_of(self, state: MetadataState) -> tuple[Path, SnapshotMeta]:
        """A copy, received piece by piece."""
        snapshot = await state.snapshot()
        received = self.folder() / "received"
        with received.open("wb") as file:
            for offset in range(0, snapshot.size, 10_000):
                file.write(await snapshot.read(offset, 10_000))
        assert hashlib.sha256(received.read_bytes()).digest() == snapshot.sha256
        await snapshot.close()
        return received, snapshot.meta

    async def test_installed(self) -> None:
        """A copy makes another node what this one was, answers of its clients included; it goes on from there."""
        create = self.make.create("/f")
        (result,) = await self.current.apply([step(3, 1, create)])
        received, meta = await self.copy_of(self.current)
        assert meta == SnapshotMeta(3, 1, MEMBERS)
        place = self.folder()
        other = await self.opened(place)
        await other.install(received, meta)
        assert await other.apply([step(4, 1, create), step(5, 2, self.make.create("/g"))]) != [None, None]
        assert await self.paths(other) == ["/f", "/g"]
        assert await store_id(other) == await store_id(self.current)
        (again,) = await other.apply([step(6, 1, create)])
        assert again == result
        await other.close()
        other = await self.opened(place)
        assert await self.paths(other) == ["/f", "/g"]
        assert len(list((place / "state").glob("state-*.sqlite3"))) == 1

    async def test_moment(self) -> None:
        """A copy is what the state was when it was asked for, whatever comes after."""
        await self.current.apply([step(3, 1, self.make.create("/f"))])
        snapshot = await self.current.snapshot()
        await self.current.apply([step(4, 2, self.make.create("/g"))])
        received = self.folder() / "received"
        received.write_bytes(await snapshot.read(0, snapshot.size))
        await snapshot.close()
        other = await self.opened(self.folder())
        await other.install(received, snapshot.meta)
        assert await self.paths(other) == ["/f"]

    async def test_foreign_file(self) -> None:
        """What isn't a state, or not the one that was announced, is refused; the old one stays in force."""
        await self.current.apply([step(3, 1, self.make.create("/f"))])
        junk = self.folder() / "junk"
        junk.write_bytes(b"no database" * 1000)
        with pytest.raises(StateUnusable, match="isn't a state"):
            await self.current.install(junk, SnapshotMeta(9, 1, MEMBERS))
        received, meta = await self.copy_of(self.current)
        with pytest.raises(StateUnusable, match="up to 3 where 9"):
            await self.current.install(received, SnapshotMeta(9, 1, meta.membership))
        assert await self.paths() == ["/f"]
        await self.current.apply([step(4, 2, self.make.create("/g"))])
        await self.current.close()
        self.current = await self.opened(self.place)
        assert await self.paths() == ["/f", "/g"]

    async def test_crash_while_replacing(self) -> None:
        """Until the name has changed the old state is in force; what was left beside it goes away."""
        await self.current.apply([step(3, 1, self.make.create("/f"))])
        await self.current.close()
        state = self.place / "state"
        (path,) = state.glob("state-*.sqlite3")
        shutil.copy(path, state / "state-0000000000000000.sqlite3")
        (state / "current.new").write_text("state-0000000000000000.sqlite3\n")
        self.current = await self.opened(self.place)
        assert await self.paths() == ["/f"]
        assert list(state.glob("state-*.sqlite3")) == [path]

    async def test_kept(self) -> None:
        """The newest copies are kept, as many as wanted; those that a crash left unfinished aren't."""
        for index in range(3, 8):
            await self.current.apply([step(index, index, self.make.create(f"/{index}"))])
            await (await self.current.snapshot()).close()
        kept = self.place / "snapshots"
        assert [path.name for path in sorted(kept.iterdir())] == [f"{i:020}-1.sqlite3" for i in (6, 7)]
        (kept / "ab.part").write_bytes(b"half")
        await self.current.close()
        self.current = await self.opened(self.place)
        assert len(list(kept.iterdir())) == 2

    async def test_checkpoint(self) -> None:
        """After a checkpoint the state is on stable storage up to the index that it gives."""
        await self.current.apply([step(3, 1, self.make.create("/f"))])
        assert await self.current.checkpoint() == 3
        saved = self.folder() / "state"
        shutil.copytree(self.place / "state", saved)
        (path,) = saved.glob("state-*.sqlite3")
        with sqlite3.connect(path) as connection:
            assert connection.execute("SELECT applied_index FROM raft_state").fetchall() == [(3,)]


def bytes_of(outcome: Outcome) -> bytes:
    """The outcome, which is a result."""
    assert isinstance(outcome, bytes)
    return outcome


async def store_id(state: MetadataState) -> str:
    """The identity of the store in a state."""
    assert state.readers is not None
    return await state.readers.inline(
        lambda connection: str(connection.execute("SELECT id FROM store").fetchone()[0])
    )
