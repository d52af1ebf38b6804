"""A node's log on disk: what it keeps, and what it refuses to go on with."""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
import subprocess
import sys
import time
import zlib
from pathlib import Path

import msgspec
import pytest
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from callfs.cluster.disklog import DiskLog
from callfs.cluster.logfile import FILE_NAME, LogFile, LogUnusable, StoredLog
from callfs.raft.boundary import HardState, Saved, SnapshotMeta, Write
from callfs.raft.membership import Member, Membership
from callfs.raft.messages import Entry, EntryKind
from tests.cluster.nodes import reactor, temporary_folder, until
from tests.support.mounts import SmallDisk
from tests.support.waiting import eventually

HERE = Path(__file__).parents[2]
MEMBERSHIP = Membership("c1", (Member("n1", "d1", "n1:1", "http://n1", True, 3),))


def entries(first: int, last: int, term: int = 1) -> tuple[Entry, ...]:
    return tuple(
        Entry(index, term, EntryKind.COMMAND, b"%d.%d" % (index, term)) for index in range(first, last + 1)
    )


class Events:
    """Collects what the log says."""

    def __init__(self) -> None:
        self.durable = 0
        self.reports = 0
        self.full: list[bool] = []
        self.failures: list[str] = []

    def log_persisted(self, number: int, seconds: float) -> None:
        assert number > self.durable
        assert seconds >= 0
        self.durable = number
        self.reports += 1

    def log_full(self, full: bool) -> None:
        self.full.append(full)

    def log_failed(self, reason: str) -> None:
        self.failures.append(reason)


def make(folder: Path, node_id: str = "n1") -> DiskLog:
    return DiskLog(folder, node_id, reactor=reactor, token_bytes=secrets.token_bytes, seconds=time.monotonic)


def stored(folder: Path, node_id: str = "n1") -> StoredLog:
    """What a start would find."""
    file = LogFile(folder, node_id)
    try:
        return file.open(secrets.token_bytes)
    finally:
        file.close()


def change(folder: Path, statement: str, *values: object) -> None:
    """Damage the file behind the log's back."""
    connection = sqlite3.connect(folder / FILE_NAME)
    connection.execute(statement, values)
    connection.commit()
    connection.close()


class WritingTests(TestCase):
    """What was written is there after a restart."""

    def setUp(self) -> None:
        self.folder = temporary_folder(self) / "log"

    async def written(self, *writes: Write, cluster_id: str = "") -> Events:
        """Write, wait, close."""
        log, events = make(self.folder), Events()
        log.open()
        log.start(events)
        if cluster_id:
            log.adopt(cluster_id)
        for write in writes:
            log.write(write)
        await until(lambda: not writes or events.durable == writes[-1].number, "durable writes")
        await log.close()
        return events

    async def test_a_fresh_log_has_nothing_but_its_identity(self) -> None:
        """The disk gets a random id that stays."""
        await self.written()
        first, second = stored(self.folder), stored(self.folder)
        assert first == second
        assert first.saved == Saved()
        assert len(first.identity.disk_id) == 32
        assert stored(self.folder.with_name("other")).identity.disk_id != first.identity.disk_id

    async def test_everything_of_a_write_is_kept(self) -> None:
        """Entries, hard state, and the cluster that the node belongs to."""
        await self.written(
            Write(number=1, entries=entries(1, 3)),
            Write(number=2, hard_state=HardState(2, "n2", 3)),
            cluster_id="c1",
        )
        found = stored(self.folder)
        assert found.saved.entries == entries(1, 3)
        assert found.saved.hard_state == HardState(2, "n2", 3)
        assert found.cluster_id == "c1"

    async def test_newer_entries_take_the_place_of_older_ones(self) -> None:
        """Stored entries from the first new one's index on go."""
        await self.written(Write(number=1, entries=entries(1, 5)), Write(number=2, entries=entries(3, 4, term=2)))
        assert stored(self.folder).saved.entries == entries(1, 2) + entries(3, 4, term=2)

    async def test_a_point_drops_the_entries_up_to_it(self) -> None:
        """After a cut the log goes on from the point, whose membership is kept."""
        point = SnapshotMeta(3, 1, MEMBERSHIP)
        await self.written(Write(number=1, entries=entries(1, 5)), Write(number=2, point=point))
        saved = stored(self.folder).saved
        assert (saved.point, saved.entries, saved.applied) == (point, entries(4, 5), 3)

    async def test_a_cut_goes_through_what_was_written_together(self) -> None:
        """Whatever was in one write, what is kept is what comes after the point."""
        point = SnapshotMeta(7, 1, MEMBERSHIP)
        await self.written(
            Write(number=1, entries=entries(1, 5)),
            Write(number=2, entries=entries(6, 9)),
            Write(number=3, point=point, entries=entries(10, 12)),
        )
        assert stored(self.folder).saved.entries == entries(8, 12)

    async def test_newer_entries_take_the_place_of_several_writes_and_a_part_of_one(self) -> None:
        """In the same process, and in one that found them."""
        await self.written(*[Write(number=each, entries=entries(3 * each - 2, 3 * each)) for each in range(1, 5)])
        await self.written(
            Write(number=1, entries=entries(5, 6, term=2)), Write(number=2, entries=entries(7, 7, 2))
        )
        assert stored(self.folder).saved.entries == entries(1, 4) + entries(5, 7, term=2)
        await self.written(
            Write(number=1, entries=entries(8, 20, term=2)),
            Write(number=2, entries=entries(2, 3, term=3)),
            Write(number=3, entries=entries(4, 5, term=3)),
        )
        assert stored(self.folder).saved.entries == entries(1, 1) + entries(2, 5, term=3)

    async def test_a_discarded_log_starts_anew_from_the_point(self) -> None:
        """All entries go, those after the point too, before new ones come."""
        point = SnapshotMeta(9, 2, MEMBERSHIP)
        await self.written(
            Write(number=1, entries=entries(1, 20)),
            Write(number=2, discard_log=True, point=point, entries=entries(10, 11, term=2)),
        )
        saved = stored(self.folder).saved
        assert (saved.point, saved.entries) == (point, entries(10, 11, term=2))

    async def test_what_comes_while_one_write_is_under_way_shares_the_next(self) -> None:
        """Many writes become durable with few commits, and are reported in order."""
        writes = [Write(number=number, entries=entries(number, number)) for number in range(1, 201)]
        events = await self.written(*writes)
        assert events.durable == 200
        assert events.reports < 100
        assert len(stored(self.folder).saved.entries) == 200

    async def test_what_a_killed_process_left_is_durable_before_it_is_believed(self) -> None:
        """A commit that is whole but maybe not synchronised is brought into the database by the next start."""
        log, events = make(self.folder), Events()
        log.open()
        log.start(events)
        log.write(Write(number=1, entries=entries(1, 3), hard_state=HardState(2, "n2", 0)))
        await until(lambda: events.durable == 1, "a durable write")
        left = self.folder.with_name("left")
        shutil.copytree(self.folder, left)
        await log.close()
        file = LogFile(left, "n1")
        file.open(secrets.token_bytes)
        database = self.folder.with_name("database")
        database.mkdir()
        shutil.copy(left / FILE_NAME, database)
        file.close()
        saved = stored(database).saved
        assert (saved.entries, saved.hard_state) == (entries(1, 3), HardState(2, "n2", 0))

    async def test_closing_finishes_what_was_queued(self) -> None:
        """A write that was queued before the end is durable after it."""
        log = make(self.folder)
        log.open()
        log.start(Events())
        log.write(Write(number=1, entries=entries(1, 1)))
        await log.close()
        assert stored(self.folder).saved.entries == entries(1, 1)

    async def test_the_first_write_of_a_cluster_comes_before_the_start(self) -> None:
        """It is durable when the call returns, the cluster's id with it."""
        log = make(self.folder)
        log.open()
        log.begin("c1", Write(number=0, entries=entries(1, 1), hard_state=HardState(1, None, 1)))
        await log.close()
        found = stored(self.folder)
        assert found.cluster_id == "c1"
        assert found.saved.hard_state == HardState(1, None, 1)

    async def test_a_write_that_cannot_be_carried_out_is_fatal(self) -> None:
        """It is told once, and neither it nor anything after it is called durable."""
        log, events = make(self.folder), Events()
        log.open()
        log.start(events)
        log.write(Write(number=1, entries=entries(1, 1)))
        await until(lambda: events.durable == 1, "a durable write")
        log.write(Write(number=2, entries=(Entry(1, 1, EntryKind.COMMAND, object()),)))  # type: ignore[arg-type]
        log.write(Write(number=3, entries=entries(2, 2)))
        await until(lambda: events.failures, "the failure")
        log.write(Write(number=4, entries=entries(3, 3)))
        await log.close()
        assert len(events.failures) == 1
        assert events.durable == 1
        assert stored(self.folder).saved.entries == entries(1, 1)


class RefusingTests(TestCase):
    """What a node doesn't start with."""

    def setUp(self) -> None:
        self.folder = temporary_folder(self) / "log"
        file = LogFile(self.folder, "n1")
        file.open(secrets.token_bytes)
        file.connection.execute("BEGIN")
        for number, (first, last) in enumerate(((1, 4), (5, 5), (6, 8), (9, 10)), 1):
            file.carry_out(Write(number=number, entries=entries(first, last), hard_state=HardState(1, "n1", 4)))
        file.connection.execute("COMMIT")
        file.close()

    def refusal(self, node_id: str = "n1") -> str:
        """What the operator is told."""
        with pytest.raises(LogUnusable) as caught:
            stored(self.folder, node_id)
        return str(caught.value)

    def damaged(self, finding: str) -> None:
        """It is called damaged, with how to rejoin."""
        message = self.refusal()
        assert finding in message
        assert "callfs cluster remove n1" in message
        assert "callfs cluster join" in message

    def test_a_changed_entry_is_found(self) -> None:
        """A row whose checksum is wrong: the node doesn't start."""
        change(self.folder, "UPDATE runs SET entries = x'9194050101c403352e32' WHERE last = 5")
        self.damaged("bad checksum of entries 5 to 5")

    def test_a_moved_run_is_found(self) -> None:
        """The checksum covers the positions."""
        change(self.folder, "UPDATE runs SET first = 10, last = 11 WHERE last = 10")
        self.damaged("bad checksum of entries 10 to 11")

    def test_entries_that_are_not_what_their_row_says_are_found(self) -> None:
        """However right the checksum is."""
        self.replace_run(5, 5, msgspec.msgpack.encode(entries(6, 6)))
        self.damaged("entries 5 to 5 aren't in their row")

    def test_missing_entries_are_found(self) -> None:
        """A log has no gaps."""
        change(self.folder, "DELETE FROM runs WHERE last = 8")
        self.damaged("entry 6 is missing")

    def test_a_missing_beginning_is_found(self) -> None:
        """The log goes on right after where it was cut."""
        change(self.folder, "DELETE FROM runs WHERE last = 4")
        self.damaged("entry 1 is missing")

    def replace_run(self, first: int, last: int, data: bytes) -> None:
        """Write other entries, with their checksum."""
        checksum = zlib.crc32(data, zlib.crc32(f"{first} {last} ".encode()))
        change(self.folder, "UPDATE runs SET entries = ?, checksum = ? WHERE last = ?", data, checksum, last)

    def test_a_changed_vote_is_found(self) -> None:
        """A hard state that isn't what was stored is worse than none."""
        change(self.folder, "UPDATE facts SET value = x'930200c0' WHERE name = 'hard_state'")
        self.damaged("bad checksum of hard_state")

    def test_an_entry_of_an_unknown_kind_is_found(self) -> None:
        """It can't be guessed what it means."""
        self.replace_run(5, 5, msgspec.msgpack.encode([(5, 1, 77, b"")]))
        self.damaged("entries 5 to 5 can't be read: Invalid enum value 77")

    def test_a_log_of_before_the_first_release_is_refused(self) -> None:
        """It is said so, rather than guessed what is in it."""
        change(self.folder, "PRAGMA user_version = 1")
        self.damaged("before the first release")

    def test_a_lost_identity_is_not_replaced(self) -> None:
        """A log without its disk's id isn't given a new one."""
        change(self.folder, "DELETE FROM facts WHERE name = 'identity'")
        self.damaged("no identity")

    def test_bytes_overwritten_in_the_file_are_found(self) -> None:
        """What SQLite itself finds is said in the same way."""
        path = self.folder / FILE_NAME
        data = bytearray(path.read_bytes())
        data[4096:8192] = os.urandom(4096)
        path.write_bytes(bytes(data))
        message = self.refusal()
        assert "damaged" in message

    def test_a_file_that_is_no_database_is_refused(self) -> None:
        """Whatever else is there isn't touched."""
        path = self.folder / FILE_NAME
        path.write_bytes(b"something else" * 1000)
        assert "damaged" in self.refusal()
        assert path.read_bytes() == b"something else" * 1000

    def test_another_programs_database_is_refused(self) -> None:
        """An SQLite file of somebody else."""
        other = temporary_folder(self)
        connection = sqlite3.connect(other / FILE_NAME)
        connection.execute("CREATE TABLE theirs (x)")
        connection.close()
        self.folder = other
        assert "another program" in self.refusal()

    def test_another_nodes_log_is_refused(self) -> None:
        """Two nodes never share a log, not even one after the other."""
        assert "belongs to node 'n1'" in self.refusal("n2")

    def test_a_newer_log_is_refused(self) -> None:
        """An older program doesn't touch what a newer one wrote."""
        change(self.folder, "PRAGMA user_version = 99")
        assert "newer CallFS" in self.refusal()

    def test_a_log_in_use_is_refused(self) -> None:
        """A second process on the same folder doesn't start."""
        script = (
            "import secrets, sys; from pathlib import Path; from callfs.cluster.logfile import LogFile;"
            "LogFile(Path(sys.argv[1]), 'n1').open(secrets.token_bytes)"
        )
        file = LogFile(self.folder, "n1")
        file.open(secrets.token_bytes)
        try:
            done = subprocess.run(
                [sys.executable, "-c", script, str(self.folder.absolute())],
                capture_output=True,
                text=True,
                cwd=HERE,
            )
        finally:
            file.close()
        assert "in use by another process" in done.stderr


def writing(
    folder: Path, total: int, kill_at: str, *more: str, wrapper: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
    """A process that writes a log."""
    return subprocess.Popen(
        [*wrapper, sys.executable, "-m", "tests.cluster.writing_log", str(folder), str(total), kill_at, *more],
        env={**os.environ, "PYTHONPATH": str(HERE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd="/" if wrapper else HERE,
    )


@pytest.mark.parametrize("step", ["raft.before_commit 1", "raft.after_commit 2", "raft.before_commit 3"])
def test_a_killed_process_keeps_what_it_called_durable(tmp_path: Path, step: str) -> None:
    """Killed in the middle of a write, the log has every reported write, each whole or not at all."""
    process = writing(tmp_path / "log", 40, step)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == -9, output
    durable = max((int(line.split()[1]) for line in output.splitlines() if line.startswith("durable")), default=0)
    found = stored(tmp_path / "log").saved.entries
    assert len(found) >= durable * 50
    assert len(found) % 50 == 0


@pytest.mark.parametrize("writes", [20, 400])
def test_a_process_killed_at_any_time_keeps_what_it_called_durable(tmp_path: Path, writes: int) -> None:
    """The same from outside, under load; also when SQLite's write-ahead log was begun anew meanwhile."""
    process = writing(tmp_path / "log", 4000, "never")
    assert process.stdout is not None
    durable = 0
    while durable < writes:
        line = process.stdout.readline()
        assert line.startswith("durable"), line
        durable = int(line.split()[1])
    process.kill()
    rest = process.stdout.read()
    process.wait()
    process.stdout.close()
    durable = max([durable, *(int(line.split()[1]) for line in rest.splitlines() if line.startswith("durable "))])
    found = stored(tmp_path / "log").saved.entries
    assert len(found) >= durable * 50
    assert len(found) % 50 == 0


def test_a_disk_that_fails_is_fatal(tmp_path: Path) -> None:
    """After an I/O error nothing is written or called durable any more, and what was is there."""
    process = writing(tmp_path / "log", 100, "never", "600000")
    output, _ = process.communicate(timeout=60)
    lines = output.splitlines()
    assert lines[-1].startswith("failed the disk of the raft log failed"), output
    durable = max((int(line.split()[1]) for line in lines if line.startswith("durable")), default=0)
    assert 0 < durable < 100
    found = stored(tmp_path / "log").saved.entries
    assert len(found) >= durable * 50
    assert len(found) % 50 == 0


def test_a_full_disk_is_waited_out(tmp_path: Path) -> None:
    """A full disk is told, nothing is called durable meanwhile, and with room again everything becomes so."""
    folder = tmp_path / "small"
    folder.mkdir()
    disk = SmallDisk(folder, 4 * 1024 * 1024)
    try:
        disk.fill(leave_bytes=512 * 1024)
        process = writing(folder / "log", 60, "never", wrapper=tuple(disk.wrapper))
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        while lines[-1] and not lines[-1].startswith("full"):
            lines.append(process.stdout.readline())
        assert lines[-1] == "full\n", lines
        disk.free()
        rest, _ = process.communicate(timeout=60)
        assert "room\n" in rest
        assert "durable 60" in rest
        assert process.returncode == 0
    finally:
        eventually(lambda: process.poll() is not None or process.kill() is None, what="the end of the writer")
        disk.close()


def test_deferreds_are_not_lost() -> None:
    """Closing a log that was never started fires at once."""
    log = make(Path("unused"))
    closing: Deferred[None] = log.close()
    assert closing.called
