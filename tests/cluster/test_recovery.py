"""A new cluster out of one survivor: nothing that it has is lost, and nobody of the old cluster gets in."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
from twisted.trial.unittest import TestCase

from callfs.cluster.interfaces import ChangeRefused
from callfs.cluster.logfile import FILE_NAME, LogFile, LogUnusable, StoredLog
from callfs.cluster.recovery import NothingToRecover, Recovery
from callfs.raft.boundary import HardState, SnapshotMeta, Write, first_write
from callfs.raft.membership import NOBODY, Member, Membership, decoded, encoded
from callfs.raft.messages import Entry, EntryKind
from tests.cluster.nodes import Place, propose_all, temporary_folder, turns
from tests.cluster.test_driver import ClusterCase, failure

NOTHING = SnapshotMeta(0, 0, NOBODY)


def recovery_of(place: Place) -> Recovery:
    """For a stopped node, whose state is what its last checkpoint wrote."""
    place.make()
    found: list[SnapshotMeta] = []
    place.state.open().addCallback(found.append)
    return Recovery(place.folder, place.node_id, found[0], secrets.token_bytes)


def recover(place: Place) -> Membership:
    """Make a stopped node the only voter."""
    return recovery_of(place).carry_out(
        raft_address=place.address, api_endpoint=f"http://{place.node_id}", version=place.command_version
    )


class RecoveredClusterTests(ClusterCase):
    """Over real sockets."""

    async def lost(self, **options: Any) -> tuple[list[str], str, list[Place]]:
        """A cluster of three that did something and stopped: what it acknowledged, its id, its nodes."""
        cluster = self.cluster = await self.formed(**options)
        await propose_all(await cluster.leader(), [f"old-{number}" for number in range(20)])
        values = list(await cluster.agree())
        cluster_id = cluster["n1"].node.status().cluster_id
        for place in cluster.places.values():
            await place.node.stop()
        return values, cluster_id, list(cluster.places.values())

    async def test_everything_acknowledged_survives(self) -> None:
        """The survivor leads alone, with all that its log has, and takes new commands."""
        values, cluster_id, (survivor, *_) = await self.lost()
        assert recovery_of(survivor).examine().belongs
        membership = recover(survivor)
        assert membership.voters == ("n1",)
        assert membership.cluster_id != cluster_id
        await survivor.start()
        await self.cluster.leader()
        await survivor.node.propose(b"new")
        assert survivor.state.values == [*values, "new"]
        assert survivor.node.membership() == membership
        assert survivor.node.status().cluster_id == membership.cluster_id

    async def test_the_same_after_the_log_was_cut(self) -> None:
        """What is in the state alone survives as well."""
        values, _, (survivor, *_) = await self.lost(snapshot_threshold=4)
        recover(survivor)
        await survivor.start()
        await self.cluster.leader()
        await survivor.node.read_barrier()
        assert survivor.state.values == values

    async def test_nobody_of_the_old_cluster_gets_in(self) -> None:
        """Old members that come back change nothing, and can't join before their folder was emptied."""
        values, cluster_id, (survivor, second, _) = await self.lost()
        recover(survivor)
        await survivor.start()
        await self.cluster.leader()
        await second.start()
        term = survivor.node.status().raft.term
        await turns(1.5)
        assert survivor.leads
        assert survivor.node.status().raft.term == term
        assert second.node.status().cluster_id == cluster_id
        assert not second.leads
        refused = await failure(survivor.node.join("n2", second.address))
        assert isinstance(refused, ChangeRefused)
        assert refused.reason == "cluster"
        assert survivor.node.membership().voters == ("n1",)
        await second.node.stop()
        for path in second.folder.iterdir():
            path.unlink()
        second.options["bootstrap"] = False
        await second.start()
        await survivor.node.join("n2", second.address)
        await survivor.node.propose(b"together")
        await second.node.read_barrier()
        assert second.state.values == [*values, "together"]

    async def test_two_survivors_are_two_clusters(self) -> None:
        """Recovering twice never makes nodes that take each other for members."""
        _, _, (first, second, _) = await self.lost()
        assert recover(first).cluster_id != recover(second).cluster_id
        await first.start()
        await second.start()
        await self.cluster.leader()
        refused = await failure(first.node.join("n2", second.address))
        assert isinstance(refused, ChangeRefused)
        assert refused.reason == "cluster"

    async def test_not_while_the_node_runs(self) -> None:
        """The log belongs to the daemon then."""
        cluster = await self.formed(size=3)
        recovery = Recovery(cluster["n1"].folder, "n1", NOTHING, secrets.token_bytes)
        with pytest.raises(LogUnusable, match="in use by another process"):
            recovery.examine()
        with pytest.raises(LogUnusable, match="in use by another process"):
            recovery.carry_out(raft_address="127.0.0.1:1", api_endpoint="", version=1)
        await cluster["n1"].node.propose(b"undisturbed")


class LogCase(TestCase):
    """A log made by hand."""

    membership = Membership(
        "c" * 32,
        tuple(Member(name, f"disk-{name}", f"127.0.0.1:700{name[1]}", "", True) for name in ("n1", "n2", "n3")),
    )

    def setUp(self) -> None:
        self.folder = temporary_folder(self)

    def write(self, *writes: Write, cluster_id: str = "c" * 32) -> StoredLog:
        """Put writes into the log of ``n1``."""
        log = LogFile(self.folder, "n1")
        log.open(secrets.token_bytes)
        log.connection.execute("BEGIN")
        if cluster_id:
            log.put_fact("cluster", cluster_id)
        for write in writes:
            log.carry_out(write)
        log.connection.execute("COMMIT")
        log.close()
        return self.stored()

    def stored(self) -> StoredLog:
        """What a start would find."""
        log = LogFile(self.folder, "n1")
        try:
            return log.open(secrets.token_bytes)
        finally:
            log.close()

    def recovery(self, state: SnapshotMeta = NOTHING) -> Recovery:
        """With this state."""
        return Recovery(self.folder, "n1", state, secrets.token_bytes)

    def recovered(self, state: SnapshotMeta = NOTHING) -> StoredLog:
        """The log after it."""
        self.recovery(state).carry_out(raft_address="127.0.0.1:7001", api_endpoint="http://n1", version=2)
        return self.stored()


class RecoveredLogTests(LogCase):
    """What is written."""

    def commands(self, first: int, last: int, term: int) -> Write:
        """Entries."""
        entries = tuple(Entry(index, term, EntryKind.COMMAND, b"%d" % index) for index in range(first, last + 1))
        return Write(number=1, entries=entries)

    def test_what_nobody_knows_the_fate_of_is_kept(self) -> None:
        """All entries count as committed, those that the node didn't know committed included, in a newer term."""
        before = self.write(
            first_write(self.membership), self.commands(2, 9, 1), Write(number=2, hard_state=HardState(7, "n2", 4))
        )
        survivor = self.recovery().examine()
        assert (survivor.last_index, survivor.committed, survivor.log_lost, survivor.outdated) == (
            9,
            4,
            False,
            False,
        )
        assert [member.node_id for member in survivor.others] == ["n2", "n3"]
        after = self.recovered()
        *kept, last = after.saved.entries
        assert tuple(kept) == before.saved.entries
        assert (last.index, last.term, last.kind) == (10, 8, EntryKind.MEMBERSHIP)
        assert after.saved.hard_state == HardState(8, None, 10)
        assert after.identity.disk_id != before.identity.disk_id
        (member,) = self.recovery_membership(last).members
        assert member == Member("n1", after.identity.disk_id, "127.0.0.1:7001", "http://n1", True, 2)
        assert after.cluster_id == self.recovery_membership(last).cluster_id

    def recovery_membership(self, entry: Entry) -> Membership:
        """What an entry says."""
        return decoded(entry.data)

    def test_the_address_of_today_counts(self) -> None:
        """The new membership has the addresses that were given, not those of the old one."""
        self.write(first_write(self.membership))
        self.recovery().carry_out(raft_address="10.0.0.9:7000", api_endpoint="http://new", version=1)
        (member,) = self.recovery_membership(self.stored().saved.entries[-1]).members
        assert (member.raft_address, member.api_endpoint) == ("10.0.0.9:7000", "http://new")

    def test_a_state_ahead_of_the_log(self) -> None:
        """A state that was installed just before the end takes the place of the whole log."""
        self.write(first_write(self.membership), self.commands(2, 3, 1))
        state = SnapshotMeta(50, 4, self.membership)
        survivor = self.recovery(state).examine()
        assert (survivor.last_index, survivor.outdated) == (50, True)
        after = self.recovered(state)
        assert after.saved.point == state
        (last,) = after.saved.entries
        assert (last.index, last.term) == (51, 5)
        assert after.saved.hard_state == HardState(5, None, 51)

    def test_a_lost_log(self) -> None:
        """Without a log the state is what there is; looking doesn't make a log."""
        state = SnapshotMeta(50, 4, self.membership)
        survivor = self.recovery(state).examine()
        assert (survivor.log_lost, survivor.belongs, survivor.last_index) == (True, False, 50)
        assert not (self.folder / FILE_NAME).exists()
        assert self.recovered(state).saved.point == state

    def test_all_or_nothing(self) -> None:
        """What fails before the end has changed nothing at all."""
        before = self.write(first_write(self.membership), self.commands(2, 5, 1))

        def fail(step: str) -> None:
            raise OSError(f"the power failed at {step}")

        with pytest.raises(OSError, match=r"recovery\.before_commit"):
            self.recovery().carry_out(raft_address="127.0.0.1:7001", api_endpoint="", version=1, reached=fail)
        assert self.stored() == before

    def test_twice(self) -> None:
        """A second time there is nothing to do, and nothing is done."""
        self.write(first_write(self.membership))
        after = self.recovered()
        with pytest.raises(NothingToRecover, match="only voter of its cluster already"):
            self.recovery().carry_out(raft_address="127.0.0.1:7001", api_endpoint="", version=1)
        assert self.stored() == after


class RefusedTests(LogCase):
    """What can't be recovered."""

    def test_a_fresh_node(self) -> None:
        """It belonged to no cluster."""
        for prepared in (lambda: None, lambda: self.write(cluster_id="")):
            prepared()
            with pytest.raises(NothingToRecover, match="never belonged to a cluster"):
                self.recovery().examine()

    def test_a_state_older_than_the_log(self) -> None:
        """Entries are missing: nothing may be made up for them."""
        point = SnapshotMeta(9, 2, self.membership)
        self.write(Write(number=1, point=point, hard_state=HardState(2, None, 9)))
        with pytest.raises(NothingToRecover, match="older than its log"):
            self.recovery(SnapshotMeta(5, 1, self.membership)).examine()

    def test_another_node(self) -> None:
        """The log says whose it is."""
        self.write(first_write(self.membership))
        with pytest.raises(LogUnusable, match=r"raft\.node_id right"):
            Recovery(self.folder, "n7", NOTHING, secrets.token_bytes).examine()

    def test_a_membership_that_cannot_be_read(self) -> None:
        """A damaged entry ends it."""
        self.write(
            first_write(self.membership),
            Write(number=1, entries=(Entry(2, 1, EntryKind.MEMBERSHIP, encoded(self.membership)[:-4]),)),
        )
        with pytest.raises(NothingToRecover, match="entry 2 of the log holds no membership"):
            self.recovery().examine()

    def test_a_node_that_was_removed_says_so(self) -> None:
        """It may be all that is left, but isn't counted as a member."""
        others = Membership(self.membership.cluster_id, self.membership.members[1:])
        self.write(first_write(others))
        assert not self.recovery().examine().belongs
