"""Locks in Redis, between nodes and with faults of the server."""

from __future__ import annotations

import secrets
import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase

from callfs.errors import MetadataUnavailable, ResourceLocked
from callfs.locks.redis import RedisLocks
from tests.support.redis import RedisServer


def passed(seconds: float) -> Deferred[None]:
    """Fires a little later."""
    return deferLater(reactor, seconds)


class Observer:
    """Remembers faults."""

    def __init__(self) -> None:
        self.faults: list[tuple[str, str]] = []

    def error(self, component: str, error_type: str) -> None:
        """A fault."""
        self.faults.append((component, error_type))


class NodesTests(TestCase):
    """Several services on one server, as several nodes have them."""

    timeout = 60

    def setUp(self) -> None:
        self.server = RedisServer().start()
        self.addCleanup(self.server.stop)
        self.observer = Observer()

    def node(self, **options: Any) -> RedisLocks:
        """A node's service, closed with the test."""
        given: dict[str, Any] = {"op_timeout_seconds": 1.0, "observer": self.observer}
        locks = RedisLocks(
            self.server.address, reactor=reactor, token_bytes=secrets.token_bytes, **(given | options)
        )
        self.addCleanup(locks.close)
        return locks

    async def test_nodes_exclude_each_other(self) -> None:
        """A key that one node holds is refused to others until it is given back."""
        one, other = self.node(), self.node()
        (lease,) = await one.acquire(("/a",), 0)
        await self.assertFailure(other.acquire(("/a",), 0), ResourceLocked)
        await self.assertFailure(other.acquire(("/a",), 0.3), ResourceLocked)
        waiting = other.acquire(("/a",), 5)
        await lease.release()
        (second,) = await waiting
        assert second.fencing > lease.fencing
        await second.release()

    async def test_a_waiter_is_told(self) -> None:
        """A lock that is given back reaches a waiter on another node before that asks again by itself."""
        one, other = self.node(), self.node(clock=(stopped := Clock()))
        await (await other.acquire(("/b",), 0))[0].release()
        (lease,) = await one.acquire(("/a",), 0)
        waiting = other.acquire(("/a",), 5)
        await passed(0.2)
        assert not waiting.called
        await lease.release()
        (second,) = await waiting
        assert stopped.seconds() == 0
        await second.release()

    async def test_nobody_starves_between_nodes(self) -> None:
        """A hundred waiters on two nodes all get their turn, and the nodes take turns."""
        nodes = [self.node(), self.node()]
        held = await nodes[0].acquire(("/a",), 0)
        order: list[int] = []

        async def worker(number: int) -> None:
            (lease,) = await nodes[number].acquire(("/a",), 30)
            order.append(number)
            await lease.release()

        workers = [Deferred.fromCoroutine(worker(number % 2)) for number in range(100)]
        await passed(0.2)
        await held[0].release()
        await gatherResults(workers)
        assert len(order) == 100
        assert min(order[:50].count(number) for number in (0, 1)) >= 15

    async def test_never_two_holders(self) -> None:
        """With many holders on many nodes, keys in any order, each key has one holder at a time."""
        nodes = [self.node() for _ in range(3)]
        holders: dict[str, int] = {}

        async def worker(number: int) -> None:
            keys = ("/a", "/b", "/c")[number % 3 :] + ("/a",)[: number % 2]
            for _ in range(5):
                leases = await nodes[number % 3].acquire(keys, 30)
                for lease in leases:
                    assert lease.key not in holders
                    holders[lease.key] = number
                await passed(0)
                for lease in leases:
                    del holders[lease.key]
                for lease in leases:
                    await lease.release()

        await gatherResults([Deferred.fromCoroutine(worker(number)) for number in range(12)])

    async def test_an_owner_that_died(self) -> None:
        """Its locks are free within the time to live; what it then releases isn't the newer holder's."""
        dead = self.node(clock=Clock(), lease_seconds=0.5)
        alive = self.node()
        (lease,) = await dead.acquire(("/a",), 0)
        started = time.monotonic()
        (newer,) = await alive.acquire(("/a",), 5)
        assert time.monotonic() - started < 1.0
        await lease.release()
        await self.assertFailure(self.node().acquire(("/a",), 0), ResourceLocked)
        await newer.release()

    async def test_a_waiter_that_died(self) -> None:
        """A ticket that nobody asks for any more doesn't hold up those behind it."""
        owner, dead, alive = self.node(), self.node(clock=Clock()), self.node()
        (lease,) = await owner.acquire(("/a",), 0)
        waiting = dead.acquire(("/a",), 60)
        await passed(0.2)
        self.server.command("CLIENT", "KILL", "TYPE", "pubsub")
        behind = alive.acquire(("/a",), 20)
        await lease.release()
        (newer,) = await behind
        await newer.release()
        waiting.cancel()
        await passed(0)
        waiting.addErrback(lambda _: None)
        await waiting

    async def test_a_lease_renews_itself(self) -> None:
        """A lock that is held for longer than its time to live stays held."""
        one, other = self.node(lease_seconds=0.5), self.node()
        (lease,) = await one.acquire(("/a",), 0)
        await self.assertFailure(other.acquire(("/a",), 1.2), ResourceLocked)
        await lease.release()
        await (await other.acquire(("/a",), 0))[0].release()
        assert self.observer.faults == []

    async def test_a_lost_lease_is_reported(self) -> None:
        """When the server lost the lock its holder's node says so, and numbers still grow."""
        one, other = self.node(lease_seconds=0.5), self.node()
        (lease,) = await one.acquire(("/a",), 0)
        self.server.command("FLUSHALL")
        (newer,) = await other.acquire(("/a",), 1)
        assert newer.fencing > lease.fencing
        await passed(0.4)
        assert ("locks", "lease_lost") in self.observer.faults
        await lease.release()
        await self.assertFailure(one.acquire(("/a",), 0.2), ResourceLocked)
        await newer.release()

    async def test_a_server_that_is_gone(self) -> None:
        """Unavailable within the limit, releasing doesn't hang, and service again when it is back."""
        locks = self.node()
        (lease,) = await locks.acquire(("/a",), 0)
        self.server.kill()
        started = time.monotonic()
        for wait_seconds in (0.0, 0.5):
            await self.assertFailure(locks.acquire(("/b",), wait_seconds), MetadataUnavailable, ResourceLocked)
        await self.assertFailure(locks.check(), MetadataUnavailable)
        await lease.release()
        assert time.monotonic() - started < 4.0
        self.server.start()
        await self.works_again(locks)

    async def test_a_paused_server(self) -> None:
        """Unavailable within the limit; service again when it goes on, and nothing is left held."""
        locks = self.node()
        await (await locks.acquire(("/a",), 0))[0].release()
        self.server.pause()
        started = time.monotonic()
        await self.assertFailure(locks.acquire(("/a", "/b"), 0), MetadataUnavailable)
        assert time.monotonic() - started < 3.0
        self.server.resume()
        await self.works_again(locks)

    async def test_a_wait_ends_in_time_when_the_server_pauses(self) -> None:
        """A server that stops while somebody waits makes the wait no longer, and leaves nothing in the way."""
        one, other = self.node(), self.node(op_timeout_seconds=4.0)
        (lease,) = await one.acquire(("/b",), 0)
        started = time.monotonic()
        waiting = other.acquire(("/a", "/b"), 0.5)
        await passed(0.2)
        self.server.pause()
        await self.assertFailure(waiting, ResourceLocked, MetadataUnavailable)
        assert time.monotonic() - started < 1.2
        self.server.resume()
        await lease.release()
        await self.works_again(other)

    async def test_cancelled_twice(self) -> None:
        """Who is cancelled again while what it began is taken back leaves the line all the same."""
        locks = self.node()
        await (await locks.acquire(("/a",), 0))[0].release()
        self.server.pause()
        goes = locks.acquire(("/a",), 10)
        for _ in range(3):
            goes.cancel()
            await passed(0)
        await self.assertFailure(goes, CancelledError)
        self.server.resume()
        await self.works_again(locks)

    async def test_connections_that_are_cut(self) -> None:
        """Waiters and holders don't notice."""
        locks = self.node()
        held = await locks.acquire(("/a",), 0)
        waiting = [locks.acquire(("/a",), 10) for _ in range(20)]
        self.server.cut_connections()
        await held[0].release()
        for waiter in waiting:
            self.server.cut_connections()
            (lease,) = await waiter
            await lease.release()

    async def works_again(self, locks: RedisLocks) -> None:
        """Keys can be had again, soon."""
        for _ in range(60):
            try:
                leases = await locks.acquire(("/a", "/b"), 1)
            except (MetadataUnavailable, ResourceLocked):
                await passed(0.1)
            else:
                for lease in leases:
                    await lease.release()
                return
        raise AssertionError("the locks don't recover")
