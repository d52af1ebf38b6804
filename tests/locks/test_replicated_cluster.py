"""Locks in the state of a cluster of three: the contract, and what one node sees of another's."""

from __future__ import annotations

import secrets
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from callfs.errors import ResourceLocked
from callfs.locks.replicated import ReplicatedLocks
from tests.cluster.nodes import until
from tests.contract.locks import LockServiceContract
from tests.metadata.replicated_cluster import ClusterBinding


class LocksBinding(ClusterBinding):
    """Services of the nodes of a cluster."""

    async def begin(self) -> None:
        """A cluster with a service on each node: on a follower, on the other, on the leader."""
        self.cluster = await self.formed()
        leader = await self.cluster.leader()
        self.followers: list[Any] = [place for place in self.cluster.places.values() if place is not leader]
        self.clock = Clock()

    def service(self, place: Any, clock: Any = None, **options: Any) -> ReplicatedLocks:
        """The service of a node."""
        locks = ReplicatedLocks(
            place.node, place.table, token_bytes=secrets.token_bytes, clock=clock or self.clock, **options
        )
        self.addCleanup(locks.close)
        return locks


class ReplicatedLocksTests(LocksBinding, LockServiceContract, TestCase):
    """The locks of a follower keep the port's promises."""

    provider = ReplicatedLocks
    crowd = 500

    async def setUp(self) -> None:  # type: ignore[override]
        await self.begin()
        super().setUp()

    def make_locks(self) -> ReplicatedLocks:
        return self.service(self.followers[0])

    def let_pass(self, seconds: float) -> None:
        self.clock.advance(seconds)


class TestNodes(LocksBinding, TestCase):
    """Nodes and each other's locks."""

    async def setUp(self) -> None:  # type: ignore[override]
        await self.begin()
        assert self.cluster is not None
        self.leader: Any = await self.cluster.leader()

    async def test_exclusion(self) -> None:
        """A key that one node holds is refused to others until it is given back."""
        one, other = self.service(self.followers[0]), self.service(self.followers[1])
        (lease,) = await one.acquire(("/a",), 0)
        await self.assertFailure(other.acquire(("/a",), 0), ResourceLocked)
        waiting: Deferred[Any] = other.acquire(("/a",), 5)
        await lease.release()
        (second,) = await waiting
        assert second.fencing > lease.fencing
        await second.release()

    async def test_nobody_starves(self) -> None:
        """A hundred waiters on each node all get their turn."""
        services = [self.service(place) for place in (*self.followers, self.leader)]
        order: list[int] = []

        async def worker(number: int) -> None:
            for lease in await services[number].acquire(("/a", "/b"), 60):
                order.append(number)
                await lease.release()

        await gatherResults([Deferred.fromCoroutine(worker(each % 3)) for each in range(300)])
        assert sorted(order) == sorted([0, 1, 2] * 200)

    async def test_ended(self) -> None:
        """What a node that ends had is free at once, and whoever waited there doesn't stand in line."""
        one, other = self.service(self.followers[0]), self.service(self.followers[1])
        await one.acquire(("/a",), 0)
        waiting = self.assertFailure(one.acquire(("/a",), 5), ResourceLocked)
        await one.close()
        await waiting
        await (await other.acquire(("/a",), 5))[0].release()

    async def test_dead_node(self) -> None:
        """A node that stops without a word loses its locks within the lease and a beat."""
        lost, kept = self.service(self.followers[0]), self.service(self.followers[1], reactor, lease_seconds=1.0)
        self.service(self.leader, reactor, lease_seconds=1.0).start()
        await lost.acquire(("/a",), 0)
        (mine,) = await kept.acquire(("/b",), 0)
        waiting = kept.acquire(("/a",), 20)
        await self.followers[0].node.stop()
        await until(lambda: waiting.called, "the lock of a dead node")
        await (await waiting)[0].release()
        await self.assertFailure(self.service_again().acquire(("/b",), 0), ResourceLocked)
        await mine.release()

    def service_again(self) -> ReplicatedLocks:
        """Another start of the leader's service."""
        return self.service(self.leader)
