"""Nodes of a cluster together, over real sockets and over a network in memory."""

from __future__ import annotations

import hashlib
import random
import secrets
from typing import Any

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import TestCase

from callfs.cluster.connections import DeclinedQuestion
from callfs.cluster.forming import CannotForm
from callfs.cluster.identity import PeerIdentity
from callfs.cluster.interfaces import ChangeRefused, SnapshotMeta, StateUnusable
from callfs.cluster.logfile import LogFile, LogUnusable
from callfs.cluster.questions import Chunk, Install, Offer, encode
from callfs.cluster.snapshot_sending import chunk_checksum
from callfs.cluster.waiting_reads import HELD_UP_SECONDS
from callfs.errors import InsufficientStorage, MetadataUnavailable, OutcomeUnknown
from callfs.raft.boundary import HardState
from tests.cluster.nodes import ELECTION_SECONDS, Cluster, propose_all, reactor, temporary_folder, turns, until
from tests.support.foresight import ForesightedMemoryState
from tests.support.raft import KeptState, Network


class BrokenChance(random.Random):
    """Fails once it is broken."""

    broken = False

    def randrange(self, *args: int) -> int:  # type: ignore[override]
        """A number, unless it is broken."""
        if self.broken:
            raise ZeroDivisionError
        return super().randrange(*args)


async def failure(awaitable: Any) -> BaseException:
    """What it fails with."""
    try:
        result = await awaitable
    except BaseException as error:
        return error
    raise AssertionError(f"it didn't fail, but gave {result!r}")


class ClusterCase(TestCase):
    """Makes clusters, and stops them at the end."""

    timeout = 60

    def network(self) -> Network | None:
        """Sockets, unless a subclass says otherwise."""
        return None

    def make(self, size: int = 3, **options: Any) -> Cluster:
        """A cluster that isn't formed."""
        cluster = Cluster(temporary_folder(self), size, self.network())
        for place in cluster.places.values():
            place.options = dict(options)
        self.addCleanup(lambda: Deferred.fromCoroutine(cluster.stop()))
        return cluster

    async def formed(self, size: int = 3, **options: Any) -> Cluster:
        """A cluster with a leader."""
        cluster = self.make(size, **options)
        await cluster.form()
        return cluster


class BothWays(ClusterCase):
    """What holds however messages travel."""

    async def test_commands_reach_all_nodes_in_one_order(self) -> None:
        """What any node proposes is applied on all, in one order, and the proposer gets its result."""
        cluster = await self.formed()
        for place in cluster.places.values():
            results = await propose_all(place, [f"{place.node_id}-{number}" for number in range(20)])
            assert len({each.index for each in results}) == 20
        values = await cluster.agree()
        assert sorted(values) == sorted(f"{name}-{number}" for name in cluster.places for number in range(20))

    async def test_a_result_is_that_of_its_own_command(self) -> None:
        """Each proposer gets the result of its own command, also where many are under way."""
        cluster = await self.formed()
        follower = await cluster.follower()
        results = await propose_all(follower, [str(number) for number in range(50)])
        for number, applied in enumerate(results):
            assert follower.state.values[int(applied.result) - 1] == str(number)

    async def test_a_read_on_a_follower_sees_what_was_acknowledged(self) -> None:
        """A follower's read waits until it has applied what was acknowledged elsewhere."""
        cluster = await self.formed()
        leader, follower = await cluster.leader_and_follower()
        for number in range(20):
            applied = await leader.node.propose(b"%d" % number)
            assert await follower.node.read_barrier() >= applied.index
            assert follower.state.values[-1] == f"{number}"

    async def test_the_others_go_on_without_their_leader(self) -> None:
        """When the leader is gone, another leads and proposals go on."""
        cluster = await self.formed()
        leader = await cluster.leader()
        await leader.node.propose(b"before")
        await leader.node.stop()
        other = await cluster.leader()
        assert other is not leader
        applied = await other.node.propose(b"after")
        assert await other.node.read_barrier() >= applied.index
        assert other.state.values == ["before", "after"]

    async def test_a_restarted_node_has_all(self) -> None:
        """A node that comes back gets what it missed, and keeps what it had."""
        cluster = await self.formed()
        follower = await cluster.follower()
        leader = await cluster.leader()
        await propose_all(leader, ["a", "b"])
        await follower.node.stop()
        await propose_all(leader, ["c", "d"])
        await follower.start()
        await follower.node.read_barrier()
        assert sorted(follower.state.values) == ["a", "b", "c", "d"]

    async def test_a_whole_cluster_comes_back(self) -> None:
        """After all nodes stopped, they start with everything, and need no bootstrap."""
        cluster = await self.formed()
        await propose_all(await cluster.leader(), ["a", "b", "c"])
        for place in cluster.places.values():
            await place.node.stop()
        for place in cluster.places.values():
            await place.start()
        leader = await cluster.leader()
        await leader.node.read_barrier()
        assert sorted(leader.state.values) == ["a", "b", "c"]
        await leader.node.propose(b"d")

    async def test_a_new_node_joins_through_any_node(self) -> None:
        """A node that joins becomes a voter by itself and has everything; joining twice changes nothing."""
        cluster = await self.formed()
        follower = await cluster.follower()
        await follower.node.propose(b"early")
        newcomer = cluster.place("n9")
        await newcomer.start()
        membership = await follower.node.join("n9", newcomer.address, "http://n9")
        assert membership.get("n9") is not None
        await until(lambda: "n9" in follower.node.membership().voters, "a voter")
        await newcomer.node.read_barrier()
        assert newcomer.state.values == ["early"]
        again = await follower.node.join("n9", newcomer.address, "http://n9")
        assert again == follower.node.membership()
        member = newcomer.node.membership().get("n1")
        assert member is not None
        assert member.api_endpoint == "http://n1"

    async def test_a_new_node_gets_the_state_when_the_log_is_cut(self) -> None:
        """Whoever lacks what was cut from the log gets a copy of the state, and then the rest."""
        cluster = await self.formed(snapshot_threshold=20)
        leader = await cluster.leader()
        for number in range(10):
            await propose_all(leader, [f"{number}.{part}" for part in range(10)])
        await until(lambda: leader.node.status().raft.first_index > 50, "a cut log")
        newcomer = cluster.place("n9")
        await newcomer.start()
        await leader.node.join("n9", newcomer.address)
        await until(lambda: "n9" in leader.node.membership().voters, "a voter")
        await newcomer.node.read_barrier()
        assert newcomer.state.values == leader.state.values
        assert newcomer.state.installed == 1
        # The newcomer begins to answer from its state before it has answered that it installed it.
        await until(lambda: "sent" in leader.observer.snapshots, "the end of the sending")
        assert newcomer.observer.snapshots == ["installed"]
        await newcomer.node.stop()
        await newcomer.start()
        await newcomer.node.read_barrier()
        assert newcomer.state.values == leader.state.values

    async def test_a_removed_node_takes_no_part(self) -> None:
        """A node that was removed learns so, and the others go on; removing twice changes nothing."""
        cluster = await self.formed()
        leader, follower = await cluster.leader_and_follower()
        await leader.node.remove(follower.node_id)
        await until(lambda: follower.node.status().raft.removed, "the news of the removal")
        assert await leader.node.remove(follower.node_id) == leader.node.membership()
        await leader.node.propose(b"without it")
        assert isinstance(await failure(leader.node.transfer(follower.node_id)), ChangeRefused)

    async def test_the_leadership_is_handed_to_whom_it_should(self) -> None:
        """A transfer asked of any node makes the named voter lead, if it can within an election timeout."""
        cluster = await self.formed(election_timeout_seconds=4 * ELECTION_SECONDS)
        leader, follower = await cluster.leader_and_follower()
        await follower.node.transfer(follower.node_id)
        await until(lambda: follower.leads, "the leadership")
        assert not leader.leads
        third = next(each for each in cluster.places.values() if each not in (follower, leader))
        await third.node.propose(b"goes on")

    async def test_a_stopped_leader_hands_over_first(self) -> None:
        """A leader that stops in order leaves no gap of an election timeout."""
        cluster = await self.formed()
        leader = await cluster.leader()
        term = leader.node.status().raft.term
        await leader.node.stop()
        other = await cluster.leader()
        assert other.node.status().raft.term == term + 1

    async def test_without_a_majority_nothing_is_promised(self) -> None:
        """A proposal that can't be committed fails as unavailable if it was never placed, else as unknown."""
        cluster = await self.formed(apply_timeout_seconds=1.0)
        leader = await cluster.leader()
        await leader.node.propose(b"known")
        others = [place for place in cluster.places.values() if place is not leader]
        for place in others:
            await place.node.stop()
        assert isinstance(await failure(leader.node.propose(b"perhaps")), OutcomeUnknown)
        await until(lambda: leader.node.status().raft.leader is None, "no leader")
        assert isinstance(await failure(leader.node.propose(b"no")), MetadataUnavailable)
        assert isinstance(await failure(leader.node.read_barrier()), MetadataUnavailable)
        assert isinstance(await failure(leader.node.join("n9", "127.0.0.1:1")), MetadataUnavailable)

    async def test_an_unknown_outcome_shows_once_or_never(self) -> None:
        """What was left unknown is later there once or not at all, whatever was tried for it."""
        cluster = await self.formed(apply_timeout_seconds=1.0)
        leader = await cluster.leader()
        await leader.node.propose(b"known")
        others = [place for place in cluster.places.values() if place is not leader]
        for place in others:
            await place.node.stop()
        assert isinstance(await failure(leader.node.propose(b"perhaps")), OutcomeUnknown)
        for place in others:
            await place.start()
        now = await cluster.leader()
        await now.node.propose(b"later")
        values = await cluster.agree()
        assert values.count("perhaps") <= 1
        assert values[-1] == "later"

    async def test_a_change_without_a_majority_is_not_called_undone(self) -> None:
        """It is in the leader's log, so it may come true yet; whoever asked doesn't wait for ever."""
        cluster = await self.formed(apply_timeout_seconds=1.0)
        leader = await cluster.leader()
        await leader.node.propose(b"known")
        gone, other = (place for place in cluster.places.values() if place is not leader)
        await gone.node.stop()
        await other.node.stop()
        asked = leader.node.remove(gone.node_id)
        assert isinstance(await failure(asked), OutcomeUnknown)

    async def test_a_change_that_a_stop_interrupts_is_not_called_undone(self) -> None:
        """The next leader may have it in its log."""
        cluster = await self.formed()
        leader = await cluster.leader()
        await leader.node.propose(b"known")
        gone, other = (place for place in cluster.places.values() if place is not leader)
        await gone.node.stop()
        await other.node.stop()
        asked = leader.node.remove(gone.node_id)
        await leader.node.stop()
        assert isinstance(await failure(asked), OutcomeUnknown)

    async def test_a_node_that_is_stopped_while_it_opens_lets_go_of_its_files(self) -> None:
        """The thread that opens them is waited for."""
        place = self.make(1)["n1"]
        started = place.start()
        started.addErrback(lambda failure: failure.trap(CancelledError))
        await place.node.stop()
        await started
        file = LogFile(place.folder, "n1")
        file.open(secrets.token_bytes)
        file.close()

    async def test_a_stopped_node_says_so(self) -> None:
        """A node that stopped refuses everything, and what waited is told."""
        cluster = await self.formed()
        leader = await cluster.leader()
        await leader.node.stop()
        assert isinstance(await failure(leader.node.propose(b"no")), MetadataUnavailable)
        assert isinstance(await failure(leader.node.read_barrier()), MetadataUnavailable)
        assert isinstance(await failure(leader.node.remove("n1")), MetadataUnavailable)

    async def test_a_mistyped_join_changes_nothing(self) -> None:
        """An address where nobody, or another node, is: the leader says what is wrong and nothing changes."""
        cluster = await self.formed()
        follower = await cluster.follower()
        await follower.node.read_barrier()
        before = follower.node.membership()
        stranger = cluster.place("n9")
        await stranger.start()
        expected = {
            ("n8", stranger.address): "node",
            ("n9", "127.0.0.1:1"): "unreachable",
            ("n8", follower.address): "node",
            ("n1", stranger.address): "node",
        }
        for (node_id, address), reason in expected.items():
            error = await failure(follower.node.join(node_id, address))
            assert isinstance(error, ChangeRefused), error
            assert error.reason == reason, (node_id, error)
        assert follower.node.membership() == before

    async def test_a_node_of_another_cluster_cannot_join(self) -> None:
        """A node that belongs to a cluster isn't let into another one."""
        cluster = await self.formed()
        other = cluster.place("n9")
        other.options = {"bootstrap": True, "peers": {"n9": other.address}}
        await other.start()
        await until(lambda: other.leads, "a cluster of one")
        leader = next(each for each in cluster.places.values() if each is not other and each.leads)
        error = await failure(leader.node.join("n9", other.address))
        assert isinstance(error, ChangeRefused)
        assert error.reason == "cluster"

    async def test_no_second_cluster_is_formed_from_members_of_one(self) -> None:
        """A bootstrapping node refuses when a peer belongs to a cluster already."""
        cluster = await self.formed()
        second = cluster.place("n9")
        second.options = {"bootstrap": True, "peers": {name: each.address for name, each in cluster.places.items()}}
        error = await failure(second.start())
        assert isinstance(error, CannotForm)
        assert "belongs to a cluster already" in str(error)

    async def test_a_log_that_contradicts_itself_is_refused(self) -> None:
        """A node that knew more committed than its log has lost entries: it says what to do."""
        cluster = await self.formed()
        follower = await cluster.follower()
        await follower.node.stop()
        file = LogFile(follower.folder, follower.node_id)
        known = file.open(secrets.token_bytes).saved.hard_state
        file.put_fact("hard_state", HardState(known.term, known.vote, 99))
        file.close()
        error = await failure(follower.start())
        assert isinstance(error, LogUnusable)
        assert "99 was committed" in str(error)
        assert "cluster join" in str(error)

    async def test_a_wiped_voter_does_not_count(self) -> None:
        """A voter that lost its disk gets no vote until it was removed and joined again."""
        cluster = await self.formed()
        leader, follower = await cluster.leader_and_follower()
        await follower.node.stop()
        follower.folder = follower.folder.with_name("wiped")
        follower.options = {**follower.options, "bootstrap": False}
        await follower.start()
        await turns(1.0)
        third = next(each for each in cluster.places.values() if each not in (leader, follower))
        await third.node.stop()
        await until(lambda: not leader.leads, "the leader's resignation")
        await turns(1.5)
        assert not any(place.leads for place in cluster.places.values())
        await third.start()
        leader = await cluster.leader()
        assert isinstance(await failure(leader.node.join(follower.node_id, follower.address)), ChangeRefused)
        await leader.node.remove(follower.node_id)
        await leader.node.join(follower.node_id, follower.address)
        await until(lambda: follower.node_id in leader.node.membership().voters, "a voter again")

    async def test_a_newer_command_waits_for_all_members(self) -> None:
        """A newer kind of command is refused until every member has announced that it knows it."""
        cluster = await self.formed(apply_timeout_seconds=2.0)
        for place in cluster.places.values():
            assert isinstance(await failure(place.node.propose(b"new", 2)), MetadataUnavailable)
        for place in cluster.places.values():
            await place.node.stop()
            place.command_version = 2
            place.options = {**place.options, "bootstrap": False}
            await place.start()
        leader = await cluster.leader()
        await until(
            lambda: {member.version for member in leader.node.membership().members} == {2}, "announced versions"
        )
        await leader.node.propose(b"new", 2)

    async def test_a_node_with_new_addresses_announces_them(self) -> None:
        """The address of a node's API travels with the membership, also when it changes."""
        cluster = await self.formed()
        follower = await cluster.follower()
        await follower.node.stop()
        follower.options = {**follower.options, "api_endpoint": "http://moved"}
        await follower.start()

        def told() -> bool:
            members = [place.node.membership().get(follower.node_id) for place in cluster.places.values()]
            return all(member is not None and member.api_endpoint == "http://moved" for member in members)

        await until(told, "the new address on all nodes")

    async def test_a_state_that_fails_stops_the_node(self) -> None:
        """An I/O error while applying stops the node and is nobody's result; the others go on."""
        cluster = await self.formed(apply_timeout_seconds=2.0)
        leader, follower = await cluster.leader_and_follower()
        follower.state.failure = StateUnusable("the disk is broken")
        proposing = leader.node.propose(b"on the others")
        await until(lambda: follower.failures, "the failure")
        await proposing
        assert "the disk is broken" in follower.failures[0]
        assert follower.node.status().stopped_because == follower.failures[0]
        assert isinstance(await failure(follower.node.propose(b"no")), MetadataUnavailable)
        await leader.node.propose(b"still")

    async def test_a_log_that_fails_stops_the_node(self) -> None:
        """A disk that fails under the log ends the node, which says why; the others elect another leader."""
        cluster = await self.formed(apply_timeout_seconds=3.0)
        leader = await cluster.leader()
        await leader.node.propose(b"before")

        def broken(step: str) -> None:
            raise OSError("input/output error")

        leader.reached = broken
        assert isinstance(await failure(leader.node.propose(b"perhaps")), OutcomeUnknown)
        assert "input/output error" in leader.failures[0]
        assert leader.node.status().stopped_because == leader.failures[0]
        assert ("raft", "halted") in leader.observer.errors
        other = await cluster.leader()
        assert other is not leader
        await other.node.propose(b"after")

    async def test_what_must_not_happen_stops_the_node(self) -> None:
        """When raft itself raises, nobody knows what was done: the node stops and is no zombie."""
        cluster = await self.formed()
        follower = await cluster.follower()
        await follower.node.stop()
        chance = BrokenChance()
        follower.random = chance
        await follower.start()
        chance.broken = True
        await (await cluster.leader()).node.stop()
        await until(lambda: follower.failures, "the end of the node")
        assert self.flushLoggedErrors(ZeroDivisionError)
        assert follower.node.status().stopped_because == follower.failures[0]

    async def test_a_command_of_an_unknown_kind_stops_the_node(self) -> None:
        """A node that meets a command that is newer than its program stops rather than guess."""
        cluster = self.make()
        for place in cluster.places.values():
            place.command_version = 2
        await cluster.form()
        leader, follower = await cluster.leader_and_follower()
        await follower.node.stop()
        await leader.node.propose(b"new", 2)
        follower.command_version = 1
        await follower.start()
        await until(lambda: follower.failures, "the end of the older program")
        assert "install the newer version" in follower.failures[0]
        assert follower.state.values == []

    async def test_a_wiped_node_is_told_of(self) -> None:
        """The leader says that a member answers from another disk than it joined with."""
        cluster = await self.formed()
        leader, follower = await cluster.leader_and_follower()
        await follower.node.stop()
        follower.folder = follower.folder.with_name("wiped")
        follower.options = {**follower.options, "bootstrap": False}
        await follower.start()
        await until(lambda: ("raft", "other_disk") in leader.observer.errors, "the news")

    async def test_a_full_disk_of_the_state_is_waited_out(self) -> None:
        """A node whose state can't grow refuses changes, and goes on when there is room."""
        cluster = await self.formed()
        leader, follower = await cluster.leader_and_follower()
        follower.state.failure = InsufficientStorage("full")
        await leader.node.propose(b"one")
        await until(lambda: follower.node.status().disk_full, "the full disk")
        assert isinstance(await failure(follower.node.propose(b"no")), InsufficientStorage)
        follower.state.failure = None
        await until(lambda: not follower.node.status().disk_full, "room")
        await follower.node.propose(b"two")
        await follower.node.read_barrier()
        assert follower.state.values == ["one", "two"]
        assert ("raft", "disk_full") in follower.observer.errors

    async def test_a_read_that_a_full_disk_holds_up_is_refused_soon_and_says_why(self) -> None:
        """Such a node can't have what the others wrote since: whoever asks it is told before the time is over."""
        cluster = await self.formed()
        leader, follower = await cluster.leader_and_follower()
        follower.state.failure = InsufficientStorage("full")
        applied = await leader.node.propose(b"one")
        await until(lambda: follower.node.status().disk_full, "the full disk")
        began = reactor.seconds()
        error = await failure(follower.node.read_barrier())
        assert isinstance(error, MetadataUnavailable)
        assert "the disk of this node's metadata is full" in error.message
        assert reactor.seconds() - began < HELD_UP_SECONDS + 1
        assert await leader.node.read_barrier() >= applied.index
        follower.state.failure = None
        await until(lambda: not follower.node.status().disk_full, "room")
        assert await follower.node.read_barrier() >= applied.index

    async def test_a_node_with_a_full_disk_stops_while_a_state_waits_to_be_installed(self) -> None:
        """What is being applied never ends on a full disk, and the installation waits for it: the end doesn't."""
        cluster = await self.formed()
        leader, follower = await cluster.leader_and_follower()
        follower.state.failure = InsufficientStorage("full")
        await leader.node.propose(b"one")
        await until(lambda: follower.node.status().disk_full, "the full disk")
        membership = leader.node.membership()
        state = KeptState(SnapshotMeta(1000, leader.node.status().raft.term, membership), [], {})
        data = msgspec.msgpack.encode(state)
        digest = hashlib.sha256(data).digest()
        member = membership.get(leader.node_id)
        assert member is not None
        peer = PeerIdentity(
            member.node_id, membership.cluster_id, member.disk_id, 1, member.raft_address, member.api_endpoint
        )
        await follower.node.asked(peer, encode(Offer(state.meta, len(data), digest)))
        await follower.node.asked(peer, encode(Chunk(digest, 0, data, chunk_checksum(data))))
        installing = follower.node.asked(peer, encode(Install(digest)))
        await turns(0.2)
        await follower.node.stop()
        assert isinstance(await failure(installing), DeclinedQuestion)
        assert follower.state.installed == 0

    async def test_a_client_that_was_silent_for_long_is_made_anew(self) -> None:
        """A node that proposed nothing for more than an hour of the log's time goes on unnoticed by its callers."""
        cluster = await self.formed()
        leader, follower = await cluster.leader_and_follower()
        await propose_all(follower, ["a", "b"])
        base = leader.instant
        for place in cluster.places.values():
            await place.node.stop()
            place.instant = lambda: base() + 4_000_000_000
        for place in cluster.places.values():
            await place.start()
        await (await cluster.leader()).node.propose(b"c")
        await follower.node.propose(b"d")
        assert sorted(await cluster.agree()) == ["a", "b", "c", "d"]


class OverSocketsTests(BothWays):
    """The same over TCP on loopback addresses."""


class InMemoryTests(BothWays):
    """The same over a network in memory."""

    def network(self) -> Network:
        """No sockets."""
        return Network(reactor)


class ForesightedTests(InMemoryTests):
    """The same where states say beforehand what commands come to, and apply what nobody waits for later."""

    def make(self, size: int = 3, **options: Any) -> Cluster:
        """A cluster whose states do so."""
        cluster = super().make(size, **options)
        for place in cluster.places.values():
            place.state_type = ForesightedMemoryState
        return cluster

    async def test_a_read_waits_for_what_was_answered_before(self) -> None:
        """A command is answered before the state contains it; a read that begins then isn't, on any node."""
        cluster = await self.formed()
        leader, follower = await cluster.leader(), await cluster.follower()
        for place in (leader, follower):
            await place.node.propose(b"first")
            await place.node.read_barrier()
            gate = place.state.gate = Deferred()
            await place.node.propose(f"of {place.node_id}".encode())
            assert f"of {place.node_id}" not in place.state.values
            read = place.node.read_barrier()
            await turns(0.2)
            assert not read.called
            place.state.gate = None
            gate.callback(None)
            await read
            assert place.state.values[-1] == f"of {place.node_id}"

    async def test_it_is_made_use_of(self) -> None:
        """Commands are answered by what the state of the proposing node said beforehand, also behind a follower."""
        cluster = await self.formed()
        for place in await cluster.leader_and_follower():
            await place.node.propose(f"first of {place.node_id}".encode())
            for number in range(5):
                await place.node.propose(f"{place.node_id}.{number}".encode())
                assert await place.node.read_barrier() >= place.state.foreseen
            assert place.state.foreseen > 0
        assert len(await cluster.agree()) == 12


del BothWays  # else it would be collected as well
