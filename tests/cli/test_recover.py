"""``callfs cluster recover``: on the folders of a node that is stopped."""

from __future__ import annotations

import secrets
import subprocess
from pathlib import Path

import pytest
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from callfs.cluster.interfaces import SnapshotMeta, Step
from callfs.cluster.logfile import LogFile, StoredLog
from callfs.metadata.replicated_file import StateFolder, record, store_id_of
from callfs.raft.boundary import HardState, Write, first_write
from callfs.raft.membership import NOBODY, Member, Membership, decoded
from callfs.raft.messages import Entry, EntryKind
from tests.cli.test_cluster import as_node
from tests.cli.test_node import run
from tests.metadata.replicated_binding import SingleLogBinding

OLD = Membership(
    "c" * 32,
    tuple(Member(name, f"disk-{name}", f"10.0.0.{name[1]}:7000", "", True) for name in ("n1", "n2", "n3")),
)
CONFIRMED = "--yes-data-may-be-lost"
RESTORE = """
mkdir damaged && mv state log.sqlite3* damaged/
mkdir -m 700 state && cp "$(ls snapshots/*.sqlite3 | tail -n 1)" state/state-restored.sqlite3
echo state-restored.sqlite3 > state/current
"""


def write_log(folder: Path) -> None:
    """A log of node ``n3`` with 19 commands."""
    log = LogFile(folder, "n3")
    log.open(secrets.token_bytes)
    log.connection.execute("BEGIN")
    log.put_fact("cluster", OLD.cluster_id)
    log.carry_out(first_write(OLD))
    commands = tuple(Entry(index, 2, EntryKind.COMMAND, b"%d" % index) for index in range(2, 21))
    log.carry_out(Write(number=1, entries=commands, hard_state=HardState(3, "n1", 15)))
    log.connection.execute("COMMIT")
    log.close()


def write_state(folder: Path, meta: SnapshotMeta) -> None:
    """A state that contains this."""
    state = StateFolder(folder / "state", secrets.token_bytes, 1.0, (), lambda _: None)
    connection = state.open().writer(1.0)
    connection.execute("BEGIN")
    record(connection, meta, 0)
    connection.execute("COMMIT")
    connection.close()
    state.close()


def stored(folder: Path) -> StoredLog:
    """What a start would find."""
    log = LogFile(folder, "n3")
    try:
        return log.open(secrets.token_bytes)
    finally:
        log.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """``raft.data_dir`` of a node whose cluster is lost."""
    folder = tmp_path / "raft"
    write_log(folder)
    write_state(folder, SnapshotMeta(12, 2, OLD))
    return folder


class TestRecover:
    def test_without_confirmation(self, folder: Path, tmp_path: Path) -> None:
        """It says what there is and what may be lost, and changes nothing; status 1."""
        before = stored(folder)
        status, out, err = run(as_node(tmp_path, data_dir=str(folder)), "cluster", "recover")
        assert status == 1
        assert "Nothing was changed" in err
        assert CONFIRMED in err
        assert "Its log ends with entry 20 of term 2; up to entry 15 it knows that a majority agreed." in out
        assert "the others were: n1 (10.0.0.1:7000), n2 (10.0.0.2:7000)." in out
        assert "are lost" in out
        assert "must never run again with the raft.data_dir that they have" in out
        assert stored(folder) == before

    def test_confirmed(self, folder: Path, tmp_path: Path) -> None:
        """The node is the only voter of a new cluster, with the addresses of its configuration and all its log."""
        before = stored(folder)
        status, out, err = run(as_node(tmp_path, data_dir=str(folder)), "cluster", "recover", CONFIRMED)
        assert (status, err) == (0, "")
        after = stored(folder)
        *kept, last = after.saved.entries
        assert tuple(kept) == before.saved.entries
        membership = decoded(last.data)
        (member,) = membership.members
        assert (member.node_id, member.voter) == ("n3", True)
        assert (member.raft_address, member.api_endpoint) == ("10.0.0.3:7000", "http://n3.example:8443")
        assert membership.cluster_id != OLD.cluster_id
        assert f"Node n3 is the only voter of the new cluster {membership.cluster_id}" in out

    def test_twice(self, folder: Path, tmp_path: Path) -> None:
        """The second time there is nothing to do."""
        config = as_node(tmp_path, data_dir=str(folder))
        run(config, "cluster", "recover", CONFIRMED)
        after = stored(folder)
        status, _, err = run(config, "cluster", "recover", CONFIRMED)
        assert status == 1
        assert "node n3 is the only voter of its cluster already" in err
        assert stored(folder) == after

    def test_while_the_daemon_runs(self, folder: Path, tmp_path: Path) -> None:
        """Refused, whether it has the log or the state open."""
        config = as_node(tmp_path, data_dir=str(folder))
        log = LogFile(folder, "n3")
        log.open(secrets.token_bytes)
        status, _, err = run(config, "cluster", "recover", CONFIRMED)
        log.close()
        assert (status, "in use by another process" in err) == (1, True)
        state = StateFolder(folder / "state", secrets.token_bytes, 1.0, (), lambda _: None)
        state.open()
        status, _, err = run(config, "cluster", "recover", CONFIRMED)
        state.close()
        assert (status, "callfs cluster recover:" in err) == (1, True)
        assert len(stored(folder).saved.entries) == 20

    def test_warnings(self, folder: Path, tmp_path: Path) -> None:
        """A node that didn't count in its cluster, or lost its log, says so."""
        config = as_node(tmp_path, data_dir=str(folder))
        assert "This node is no voter of that cluster" in run(config, "cluster", "recover")[1]
        for path in folder.glob("log.sqlite3*"):
            path.unlink()
        assert "The log of this node is gone" in run(config, "cluster", "recover")[1]
        assert not list(folder.glob("log.sqlite3*"))
        log = LogFile(folder, "n3")
        log.open(secrets.token_bytes)
        log.close()
        assert "doesn't fit its state" in run(config, "cluster", "recover")[1]

    def test_nothing_there(self, tmp_path: Path) -> None:
        """A node that belongs to no cluster is refused, and no folder is made."""
        status, _, err = run(as_node(tmp_path, data_dir=str(tmp_path / "none")), "cluster", "recover", CONFIRMED)
        assert (status, "never belonged to a cluster" in err) == (1, True)
        assert not (tmp_path / "none").exists()

    def test_damaged(self, folder: Path, tmp_path: Path) -> None:
        """What can't be read is named, and nothing is made up for it."""
        config = as_node(tmp_path, data_dir=str(folder))
        (state,) = (path for path in (folder / "state").glob("state-*.sqlite3"))
        kept = state.read_bytes()
        state.write_bytes(b"rubbish" * 1000)
        status, _, err = run(config, "cluster", "recover", CONFIRMED)
        assert (status, err.startswith("callfs cluster recover: ")) == (1, True)
        state.write_bytes(kept)
        (folder / "log.sqlite3").write_bytes(b"rubbish" * 1000)
        status, _, err = run(config, "cluster", "recover", CONFIRMED)
        assert (status, "is damaged" in err) == (1, True)


class TestTheStore(SingleLogBinding, TestCase):
    """The metadata that goes on in the new cluster."""

    async def test_the_store_stays_the_same(self) -> None:
        """Root folders know the store by its id: a new cluster's membership doesn't change it."""
        folder = self.folder()
        state = self.state(folder)
        await state.open()
        await state.apply([Step(1, 1, None, OLD)])
        await state.close()
        write_log(folder)
        status, _, err = run(as_node(folder, data_dir=str(folder)), "cluster", "recover", CONFIRMED)
        assert (status, err) == (0, "")
        last = stored(folder).saved.entries[-1]
        assert await state.open() == SnapshotMeta(1, 1, OLD)
        steps = [Step(index, 2) for index in range(2, 21)]
        await state.apply([*steps, Step(last.index, last.term, None, decoded(last.data))])
        assert state.readers is not None
        found = await state.readers.inline(
            lambda connection: connection.execute("SELECT id FROM store").fetchone()[0]
        )
        assert found == store_id_of(OLD.cluster_id)
        await state.close()

    async def test_from_a_copy(self) -> None:
        """Log and database are damaged: a copy made for another node takes their place, as the guide says."""
        folder = self.folder()
        state = self.state(folder)
        await state.open()
        await state.apply([Step(1, 1, None, OLD), Step(2, 1)])
        await (await state.snapshot()).close()
        await state.close()
        write_log(folder)
        await deferToThread(subprocess.run, ["/bin/sh", "-ec", RESTORE], cwd=folder, check=True)
        status, out, err = run(as_node(folder, data_dir=str(folder)), "cluster", "recover", CONFIRMED)
        assert (status, err) == (0, "")
        assert "Its log ends with entry 2 of term 1" in out
        assert "The log of this node is gone" in out
        found = stored(folder).saved
        assert found.point == SnapshotMeta(2, 1, OLD)
        assert [entry.index for entry in found.entries] == [3]
        assert await state.open() == SnapshotMeta(2, 1, OLD)
        await state.close()

    async def test_a_fresh_state_has_its_store_from_the_first_membership(self) -> None:
        """A node that joins the new cluster and gets the whole log ends with the same store."""
        state = self.state(self.folder())
        assert (await state.open()).membership == NOBODY
        new = Membership("d" * 32, OLD.members[2:])
        await state.apply([Step(1, 1, None, OLD), Step(2, 1, None, new)])
        assert state.readers is not None
        found = await state.readers.inline(
            lambda connection: connection.execute("SELECT id FROM store").fetchone()[0]
        )
        assert found == store_id_of(OLD.cluster_id)
        await state.close()
