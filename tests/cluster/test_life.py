"""How a cluster begins, whom it asks, and how a node of it ends."""

from __future__ import annotations

from callfs.cluster.forming import CannotForm, Forming
from callfs.cluster.interfaces import ChangeRefused
from callfs.cluster.settings import ClusterSettings
from callfs.errors import MetadataUnavailable, OutcomeUnknown
from tests.cluster.nodes import logged, reactor, turns, until
from tests.cluster.test_driver import ClusterCase, failure
from tests.cluster.test_peers import PeerCase
from tests.support.raft import Network


class FormingTests(PeerCase):
    """One node looks for the others."""

    async def test_a_peer_that_is_just_stopping_is_waited_for(self) -> None:
        """It answers that it has stopped while it is being restarted, which isn't the last word."""
        founder, other = await self.peer("n1"), await self.peer("n2")
        founder.cluster_id = other.cluster_id = ""
        other.refusal = "stopped"
        settings = ClusterSettings(node_id="n1", raft_address=founder.address, peers={"n2": other.address})
        membership = Forming(settings, founder.identity(), founder.transport, reactor).membership("c1")
        await until(lambda: other.judged, "a refusal")
        await turns(0.2)
        assert not membership.called
        other.refusal = None
        assert (await membership).voters == ("n1", "n2")


class LostFounderTests(ClusterCase):
    """A node that is to begin a cluster, and was in one before its disk was lost."""

    async def test_it_does_not_begin_another_cluster(self) -> None:
        """The members are looking for it, so it refuses to start and says what to do; alone it may begin one."""
        cluster = await self.formed()
        founder = cluster["n1"]
        await founder.node.stop()
        founder.folder = founder.folder.with_name("lost")
        founder.options = {**founder.options, "peers": {}, "bootstrap": True}
        error = await failure(founder.start())
        assert isinstance(error, CannotForm)
        assert "has lost its log" in str(error)
        assert "callfs cluster remove n1" in str(error)
        await founder.node.stop()
        for place in (cluster["n2"], cluster["n3"]):
            await place.node.stop()
        await founder.start()
        assert (await cluster.leader()).node_id == "n1"


class FirstLeaderTests(ClusterCase):
    """A cluster that has just been formed."""

    async def test_a_cluster_that_was_formed_has_a_leader_at_once(self) -> None:
        """Nobody leads it whom an election timeout would have to be waited for."""
        cluster = self.make(election_timeout_seconds=5.0, heartbeat_interval_seconds=0.05)
        begun = reactor.seconds()
        await cluster.form()
        await cluster["n2"].node.propose(b"x")
        assert reactor.seconds() - begun < 4.0
        assert (await cluster.leader()).node_id == "n1"


class JoiningTests(ClusterCase):
    """What is said of a join that goes well."""

    async def test_a_join_is_told_without_a_lost_connection(self) -> None:
        """The new node makes its connections anew when it has a cluster, which nobody has to worry about."""
        cluster = self.make(3)
        first, *others = cluster.places.values()
        first.options = {"bootstrap": True}
        with logged("raft_peer_lost") as lines:
            await first.start()
            await cluster.leader()
            for size, place in enumerate(others, 2):
                await place.start()
                await first.node.join(place.node_id, place.address)
                node = place.node
                await until(lambda node=node, size=size: len(node.membership().voters) == size, "a voice")
                await place.node.propose(b"joined")
        assert lines == []
        assert [place.observer.refused for place in cluster.places.values()] == [[], [], []]


class AskingTests(ClusterCase):
    """Who is asked to change the membership."""

    def network(self) -> Network:
        """In memory, where nodes can be frozen."""
        self.net = Network(reactor)
        return self.net

    async def test_a_node_without_a_cluster_says_so_at_once(self) -> None:
        """A join that is asked of it says what is wrong and what to do, and changes nothing."""
        cluster = self.make(2, apply_timeout_seconds=60.0)
        for place in cluster.places.values():
            await place.start()
        error = await failure(cluster["n1"].node.join("n2", cluster["n2"].address))
        assert isinstance(error, ChangeRefused)
        assert error.reason == "no_cluster"
        assert "node n1 belongs to no cluster itself" in error.message
        assert "raft.bootstrap" in error.message
        assert not cluster["n2"].node.status().cluster_id

    async def test_a_node_that_still_forms_its_cluster_says_for_whom_it_waits(self) -> None:
        """It can't let anybody in before the nodes of raft.peers have answered."""
        cluster = self.make(2, bootstrap=True, peers={"n1": "n1:1", "n2": "n2:1"})
        founder = cluster["n1"]
        starting = founder.start()
        await until(lambda: hasattr(founder, "transport") and founder.transport.is_running, "a founder that looks")
        error = await failure(founder.node.join("n9", "n9:1"))
        assert isinstance(error, ChangeRefused)
        assert "waits for all nodes of its raft.peers" in error.message
        await founder.node.stop()
        await starting

    async def test_a_founder_without_others_says_that_it_takes_a_moment(self) -> None:
        """Nobody is waited for: asking again is all that is to be done."""
        cluster = self.make(1, bootstrap=True)
        founder = cluster["n1"]
        starting = founder.start()
        await until(lambda: hasattr(founder, "transport") and founder.transport.is_running, "a founder that looks")
        error = await failure(founder.node.join("n9", "n9:1"))
        assert isinstance(error, ChangeRefused)
        assert "takes a few seconds" in error.message
        assert "raft.peers" not in error.message
        await founder.node.stop()
        await starting

    async def test_a_read_on_a_node_without_a_cluster_says_what_is_missing(self) -> None:
        """It doesn't wait for a majority that it can't have, for as long as changes may take."""
        cluster = self.make(1, apply_timeout_seconds=60.0)
        await cluster["n1"].start()
        error = await failure(cluster["n1"].node.read_barrier())
        assert isinstance(error, MetadataUnavailable)
        assert "callfs cluster join" in error.message

    async def test_a_read_on_a_removed_node_says_so(self) -> None:
        """Neither clients nor operators are told of a majority that is missing."""
        cluster = await self.formed(apply_timeout_seconds=60.0)
        leader, follower = await cluster.leader_and_follower()
        await leader.node.remove(follower.node_id)
        await until(lambda: follower.node.status().raft.removed, "the news of the removal")
        error = await failure(follower.node.read_barrier())
        assert isinstance(error, MetadataUnavailable)
        assert "this node was removed" in error.message

    async def test_a_removed_node_is_nobody_to_ask(self) -> None:
        """It knows no leader any more, and says why."""
        cluster = await self.formed(apply_timeout_seconds=60.0)
        leader, follower = await cluster.leader_and_follower()
        await leader.node.remove(follower.node_id)
        await until(lambda: follower.node.status().raft.removed, "the news of the removal")
        error = await failure(follower.node.remove(leader.node_id))
        assert isinstance(error, ChangeRefused)
        assert error.reason == "removed"

    async def test_a_frozen_leader_is_not_waited_for_when_another_leads(self) -> None:
        """What it was asked for and can't answer is asked of the new one at once."""
        cluster = await self.formed(apply_timeout_seconds=50.0)
        leader, follower = await cluster.leader_and_follower()
        self.net.frozen.add(leader.node_id)
        begun = reactor.seconds()
        await follower.node.remove("nobody")
        assert reactor.seconds() - begun < 20


class EndingTests(ClusterCase):
    """A node that is to stop."""

    async def test_without_a_leader_nobody_waits_for_one(self) -> None:
        """What waits is refused, and what comes: no leader can be elected."""
        cluster = await self.formed(apply_timeout_seconds=50.0)
        last, *others = cluster.places.values()
        for place in others:
            await place.node.stop()
        waiting = [last.node.propose(b"never"), last.node.read_barrier(), last.node.remove("n2")]
        last.node.wind_down()
        begun = reactor.seconds()
        for each in waiting:
            assert isinstance(await failure(each), MetadataUnavailable | OutcomeUnknown)
        assert isinstance(await failure(last.node.read_barrier()), MetadataUnavailable)
        assert reactor.seconds() - begun < 20

    async def test_with_a_leader_what_is_under_way_ends_well(self) -> None:
        """A node that is about to stop still serves, however long that takes."""
        cluster = await self.formed()
        for place in cluster.places.values():
            place.node.wind_down()
        await turns(2.0)
        for number, place in enumerate(cluster.places.values()):
            await place.node.propose(b"%d" % number)
        leader = await cluster.leader()
        stopping = leader.node.stop()
        other = next(place for place in cluster.places.values() if place is not leader)
        await until(lambda: other.node.status().raft.leader not in (None, leader.node_id), "another leader")
        await other.node.propose(b"after")
        await stopping


del ClusterCase, PeerCase  # else they would be collected as well
