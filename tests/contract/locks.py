"""What every lock service promises."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

from twisted.internet.defer import CancelledError, Deferred
from zope.interface.verify import verifyObject

from callfs.errors import ResourceLocked
from callfs.locks.interfaces import ILease, ILockService

WAIT_SECONDS = 10.0


class LockServiceContract:
    """
    Bound to a provider by a subclass that is also a ``twisted.trial.unittest.TestCase``.

    ``provider`` is the class under test, ``crowd`` how many wait for one lock at most; :meth:`make_locks` makes
    a service, and :meth:`let_pass` lets its clock go on.
    """

    provider: ClassVar[type]
    crowd: ClassVar[int] = 3000

    def make_locks(self) -> ILockService:
        """A service without any lock."""
        raise NotImplementedError

    def let_pass(self, seconds: float) -> None:
        """Move the service's clock."""
        raise NotImplementedError

    def setUp(self) -> None:
        self.locks: Any = self.make_locks()
        self.order: list[str] = []

    def wait_for(self, name: str, *keys: str, seconds: float = WAIT_SECONDS) -> Deferred[Any]:
        """Ask for keys, and write down when they come."""

        def got(leases: Any) -> Any:
            self.order.append(name)
            return leases

        acquired: Deferred[Any] = self.locks.acquire(keys, seconds)
        return acquired.addCallback(got)

    async def release(self, leases: Any) -> None:
        """Give all back."""
        for lease in leases:
            await lease.release()

    async def test_interfaces(self) -> None:
        """The service and its leases have what the port declares."""
        verifyObject(ILockService, self.locks)
        (lease,) = await self.locks.acquire(("/a",), 0)
        verifyObject(ILease, lease)
        assert lease.key == "/a"
        await lease.release()

    async def test_check(self) -> None:
        """A service whose locks can be had says so."""
        assert await self.locks.check() is None

    async def test_exclusion(self: Any) -> None:
        """A key is held by one lease at a time; other keys don't matter."""
        (lease,) = await self.locks.acquire(("/a",), 0)
        await self.assertFailure(self.locks.acquire(("/a",), 0), ResourceLocked)
        await self.release(await self.locks.acquire(("/b", "/aa"), 0))
        await lease.release()
        await self.release(await self.locks.acquire(("/a",), 0))

    async def test_first_come_first_served(self) -> None:
        """Waiters get the lock in the order they came, each at the release of the one before."""
        leases = await self.wait_for("0", "/a")
        waiting = [self.wait_for(str(number), "/a") for number in range(1, 6)]
        for number, waiter in enumerate(waiting, start=1):
            assert not waiter.called
            await self.release(leases)
            leases = await waiter
            assert self.order == [str(count) for count in range(number + 1)]
        await self.release(leases)

    async def test_nobody_starves(self) -> None:
        """A hundred waiters, who ask again as soon as they had it, take turns."""
        held = await self.locks.acquire(("/a",), 0)
        done: Deferred[None] = Deferred()

        async def worker(name: str) -> None:
            for _ in range(3):
                leases = await self.wait_for(name, "/a")
                await self.release(leases)
            # The last may have its turn before the one before it hears that its lock was given back.
            if len(self.order) == 300 and not done.called:
                done.callback(None)

        workers = [Deferred.fromCoroutine(worker(str(number))) for number in range(100)]
        await self.release(held)
        await done
        names = [str(number) for number in range(100)]
        assert self.order == names * 3
        for worker in workers:
            await worker

    async def test_thousands_in_a_row(self) -> None:
        """However many release at once when told, nothing piles up."""
        held = await self.locks.acquire(("/a",), 0)
        workers = []
        for number in range(self.crowd):
            workers.append(self.wait_for(str(number), "/a").addCallback(lambda leases: leases[0].release()))
        await self.release(held)
        for worker in workers:
            await worker
        assert len(self.order) == self.crowd

    async def test_all_or_nothing(self: Any) -> None:
        """When one of the keys can't be got in time, none is held."""
        held = await self.locks.acquire(("/b",), 0)
        waiting = self.locks.acquire(("/c", "/b", "/a"), WAIT_SECONDS)
        self.let_pass(WAIT_SECONDS - 0.1)
        assert not waiting.called
        self.let_pass(0.2)
        await self.assertFailure(waiting, ResourceLocked)
        await self.release(await self.locks.acquire(("/a", "/c"), 0))
        await self.release(held)
        await self.release(await self.locks.acquire(("/b",), 0))

    async def test_the_wait_is_for_all_together(self: Any) -> None:
        """Getting a key on the way doesn't start the wait anew."""
        first, second = await self.locks.acquire(("/a",), 0), await self.locks.acquire(("/b",), 0)
        waiting = self.locks.acquire(("/a", "/b"), WAIT_SECONDS)
        self.let_pass(WAIT_SECONDS * 0.6)
        await self.release(first)
        self.let_pass(WAIT_SECONDS * 0.6)
        await self.assertFailure(waiting, ResourceLocked)
        await self.release(await self.locks.acquire(("/a",), 0))
        await self.release(second)

    async def test_opposite_orders(self) -> None:
        """Two callers who name the same keys in opposite orders don't block each other for good."""
        held = await self.locks.acquire(("/a", "/b"), 0)
        one, other = self.wait_for("one", "/a", "/b"), self.wait_for("other", "/b", "/a")
        await self.release(held)
        await self.release(await one)
        await self.release(await other)
        assert self.order == ["one", "other"]

    async def test_a_key_given_twice(self) -> None:
        """It is taken once."""
        leases = await self.locks.acquire(("/a", "/b", "/a"), 0)
        assert sorted(lease.key for lease in leases) == ["/a", "/b"]
        await self.release(leases)
        await self.release(await self.locks.acquire(("/a", "/b"), 0))

    async def test_no_keys(self) -> None:
        """Nothing to lock is got at once."""
        assert await self.locks.acquire((), 0) == ()

    async def test_release_twice(self: Any) -> None:
        """The second release does nothing, above all not to whoever has the lock by then."""
        (lease,) = await self.locks.acquire(("/a",), 0)
        await lease.release()
        (newer,) = await self.locks.acquire(("/a",), 0)
        await lease.release()
        await self.assertFailure(self.locks.acquire(("/a",), 0), ResourceLocked)
        await newer.release()

    async def test_cancelled_while_waiting(self: Any) -> None:
        """A waiter who goes gives back what it got, and the one behind moves up."""
        held = await self.locks.acquire(("/b",), 0)
        goes, behind = self.locks.acquire(("/a", "/b"), WAIT_SECONDS), self.wait_for("behind", "/b", "/a")
        goes.cancel()
        await self.assertFailure(goes, CancelledError)
        await self.release(held)
        await self.release(await behind)
        await self.release(await self.locks.acquire(("/a", "/b"), 0))

    async def test_cancelled_by_whoever_was_told_before(self: Any) -> None:
        """A waiter who is cancelled at the very moment its lock becomes free leaves nothing held."""
        held = await self.locks.acquire(("/a", "/b"), 0)
        second = self.locks.acquire(("/b",), WAIT_SECONDS)
        first = self.wait_for("first", "/a")
        first.addCallback(lambda leases: (second.cancel(), leases)[1])
        gone: Deferred[Any] = self.assertFailure(second, CancelledError)
        for lease in held:
            if lease.key == "/a":
                await lease.release()
        await self.release(await first)
        await gone
        await self.release(held)
        await self.release(await self.locks.acquire(("/a", "/b"), 0))

    async def test_fencing_grows(self) -> None:
        """Each lease of a key has a greater number than the one before."""
        numbers = []
        for _ in range(20):
            leases = await self.locks.acquire(("/a", "/b"), 0)
            numbers.append({lease.key: lease.fencing for lease in leases})
            await self.release(leases)
        for before, after in itertools.pairwise(numbers):
            assert all(before[key] < after[key] for key in before)

    async def test_close(self: Any) -> None:
        """At the end waiters are refused, and so is whoever comes later; releasing afterwards does nothing."""
        held = await self.locks.acquire(("/a",), 0)
        waiting = [self.locks.acquire(keys, WAIT_SECONDS) for keys in (("/a",), ("/a", "/b"))]
        refused: list[Deferred[Any]] = [self.assertFailure(waiter, ResourceLocked) for waiter in waiting]
        await self.locks.close()
        for refusal in refused:
            await refusal
        await self.assertFailure(self.locks.acquire(("/c",), 0), ResourceLocked)
        await self.release(held)
        await self.locks.close()
