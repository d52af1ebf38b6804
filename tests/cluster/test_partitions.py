"""Clusters whose nodes can't always reach each other."""

from __future__ import annotations

import random

from twisted.internet.defer import Deferred, gatherResults

from callfs.errors import CallFSError, MetadataUnavailable, OutcomeUnknown
from tests.cluster.nodes import ELECTION_SECONDS, Cluster, Place, propose_all, reactor, turns, until
from tests.cluster.test_driver import ClusterCase, failure
from tests.support.raft import Network


class PartitionTests(ClusterCase):
    """A network in memory, cut in two."""

    def network(self) -> Network:
        """One for each cluster."""
        self.net = Network(reactor, delay_seconds=0.001)
        return self.net

    async def test_the_majority_goes_on_and_the_rest_promises_nothing(self) -> None:
        """A leader that is cut off steps down and confirms neither writes nor reads; the others elect another."""
        cluster = await self.formed(apply_timeout_seconds=2.0)
        old = await cluster.leader()
        await old.node.propose(b"before")
        self.net.isolate(old.node_id)
        writing, reading = old.node.propose(b"cut off"), old.node.read_barrier()
        others = [place for place in cluster.places.values() if place is not old]
        await until(lambda: any(place.leads for place in others), "another leader")
        new = next(place for place in others if place.leads)
        await new.node.propose(b"after")
        assert isinstance(await failure(reading), MetadataUnavailable)
        assert isinstance(await failure(writing), OutcomeUnknown)
        assert not old.leads
        self.net.heal()
        await old.node.read_barrier()
        assert old.state.values == ["before", "after"]

    async def test_a_leader_that_reaches_no_majority_steps_down(self) -> None:
        """
        Whichever way it is cut, three election timeouts later it leads no more (6.2). Who reads there is refused
        when ``apply_timeout`` is over, also where it still hears who leads now.
        """
        cluster = await self.formed(apply_timeout_seconds=2.0)
        for ways in ("outwards", "inwards", "both"):
            old = await cluster.leader()
            for other in cluster.places:
                cutting = {(old.node_id, other): ways != "inwards", (other, old.node_id): ways != "outwards"}
                self.net.cut |= {way for way, is_cut in cutting.items() if is_cut and other != old.node_id}
            begun = reactor.seconds()
            reading = old.node.read_barrier()
            await until(lambda old=old: not old.leads, "the retreat", 3 * ELECTION_SECONDS + 1.0)
            assert isinstance(await failure(reading), MetadataUnavailable)
            assert isinstance(await failure(old.node.read_barrier()), MetadataUnavailable)
            assert reactor.seconds() - begun < 2 * 2.0 + 1.0
            self.net.heal()
            assert await old.node.read_barrier()

    async def test_a_node_that_was_cut_off_does_not_depose_the_leader(self) -> None:
        """However long a follower campaigned in vain, nobody notices when it is back (thesis 9.6)."""
        cluster = await self.formed()
        leader, follower = await cluster.leader_and_follower()
        term = leader.node.status().raft.term
        self.net.isolate(follower.node_id)
        await turns(2.0)
        self.net.heal()
        await leader.node.propose(b"x")
        await follower.node.read_barrier()
        assert leader.leads
        assert leader.node.status().raft.term == term

    async def test_a_lost_answer_of_the_leader_does_nothing_twice(self) -> None:
        """A follower whose question arrived, but not the answer, sees its command happen once."""
        cluster = await self.formed(forward_timeout_seconds=0.3)
        leader, follower = await cluster.leader_and_follower()
        await follower.node.propose(b"first")
        self.net.cut.add((leader.node_id, follower.node_id))
        proposing = follower.node.propose(b"once")
        await until(lambda: "once" in leader.state.values, "the command on the leader")
        self.net.heal()
        await proposing
        values = await cluster.agree()
        assert values == ["first", "once"]

    async def test_a_history_with_faults_has_each_command_once(self) -> None:
        """Whatever is cut, stopped and restarted: acknowledged once, unknown at most once, refused never."""
        cluster = await self.formed(apply_timeout_seconds=2.0, forward_timeout_seconds=0.5, snapshot_threshold=40)
        chance = random.Random(20)
        running = True
        fates: dict[str, str] = {}

        async def client(place: Place, name: str) -> None:
            number = 0
            while running:
                number += 1
                command = f"{name}.{number}"
                try:
                    await place.node.propose(command.encode())
                    fates[command] = "done"
                    await place.node.read_barrier()
                    assert command in place.state.values, f"{place.node_id} doesn't see its own {command}"
                except OutcomeUnknown:
                    fates[command] = "unknown"
                except CallFSError:
                    fates.setdefault(command, "refused")
                await turns(0.002)

        clients = [
            Deferred.fromCoroutine(client(place, f"{place.node_id}.{each}"))
            for place in cluster.places.values()
            for each in range(4)
        ]
        for _ in range(6):
            victim = chance.choice(list(cluster.places.values()))
            fault = chance.choice(["isolate", "one way", "restart"])
            if fault == "isolate":
                self.net.isolate(victim.node_id)
            elif fault == "one way":
                other = chance.choice([name for name in cluster.places if name != victim.node_id])
                self.net.cut.add((victim.node_id, other))
            else:
                await victim.node.stop()
            await turns(chance.uniform(0.2, 1.2))
            self.net.heal()
            if fault == "restart":
                victim.options = {**victim.options, "bootstrap": False}
                await victim.start()
            await turns(chance.uniform(0.2, 0.8))
        running = False
        await gatherResults(clients)
        await (await cluster.leader()).node.propose(b"end")
        values = await cluster.agree()
        assert len(values) == len(set(values)), "something happened twice"
        assert {command for command, fate in fates.items() if fate == "done"} <= set(values)
        assert not {command for command, fate in fates.items() if fate == "refused"} & set(values)
        assert sum(fate == "done" for fate in fates.values()) > 100
        assert all(not place.failures for place in cluster.places.values())


class ProxiedTests(ClusterCase):
    """Real sockets, each node behind a proxy."""

    async def proxied(self, **options: float) -> Cluster:
        """A cluster whose nodes reach each other through proxies."""
        cluster = self.make(3, **options)
        for place in cluster.places.values():
            place.stand_behind_a_proxy()
        await cluster.form()
        return cluster

    async def test_a_leader_that_hears_nobody_steps_down(self) -> None:
        """One way cut: it is heard and hears nothing. Another takes over, and it follows when it hears again."""
        cluster = await self.proxied(apply_timeout_seconds=3.0)
        old = await cluster.leader()
        await old.node.propose(b"before")
        assert old.proxy is not None
        old.proxy.swallows = True
        others = [place for place in cluster.places.values() if place is not old]
        await until(lambda: any(place.leads for place in others), "another leader")
        new = next(place for place in others if place.leads)
        await new.node.propose(b"after")
        assert not old.leads
        old.proxy.swallows = False
        await old.node.propose(b"again")
        assert (await cluster.agree()) == ["before", "after", "again"]

    async def test_connections_that_break_all_the_time_lose_nothing(self) -> None:
        """Every command happens once while connections are cut again and again."""
        cluster = await self.proxied()
        follower = await cluster.follower()
        proposing = [propose_all(follower, [f"{part}.{number}" for number in range(10)]) for part in range(10)]
        waiting = [Deferred.fromCoroutine(each) for each in proposing]
        for _ in range(10):
            for place in cluster.places.values():
                assert place.proxy is not None
                place.proxy.cut()
            await turns(0.1)
        await gatherResults(waiting)
        values = await cluster.agree()
        assert sorted(values) == sorted(f"{part}.{number}" for part in range(10) for number in range(10))

    async def test_a_state_that_is_broken_off_goes_on_where_it_was(self) -> None:
        """A copy of the state that is cut on its way is resumed, not begun anew."""
        cluster = await self.proxied(snapshot_threshold=20)
        leader = await cluster.leader()
        for part in range(10):
            await propose_all(leader, [f"{part}.{number}" + "x" * 100_000 for number in range(10)])
        await until(lambda: leader.node.status().raft.first_index > 50, "a cut log")
        newcomer = cluster.place("n9")
        newcomer.stand_behind_a_proxy()
        await newcomer.start()
        await leader.node.join("n9", newcomer.address)
        partial = newcomer.folder / "incoming"

        def received() -> int:
            return sum(each.stat().st_size for each in partial.iterdir()) if partial.exists() else 0

        await until(lambda: received() > 1_000_000, "a part of the state")
        assert newcomer.proxy is not None
        newcomer.proxy.cut()
        before = received()
        await turns(0.1)
        assert received() >= before
        await until(lambda: "n9" in leader.node.membership().voters, "a voter")
        await newcomer.node.read_barrier()
        assert newcomer.state.values == leader.state.values
        assert newcomer.state.installed == 1
