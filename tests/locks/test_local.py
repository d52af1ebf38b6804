"""Locks within one process."""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from callfs.errors import ResourceLocked
from callfs.locks.interfaces import ILockService
from callfs.locks.local import LocalLocks
from tests.contract.locks import LockServiceContract


class LocalLocksTests(LockServiceContract, TestCase):
    """The locks of a process keep the port's promises."""

    provider = LocalLocks

    def make_locks(self) -> ILockService:
        self.clock = Clock()
        return LocalLocks(self.clock)

    def let_pass(self, seconds: float) -> None:
        self.clock.advance(seconds)

    async def test_nothing_is_kept(self) -> None:
        """Keys that nobody holds are forgotten, and no timer stays."""
        held = await self.locks.acquire(("/a",), 0)
        ways = [self.locks.acquire(("/a", f"/{number}"), 5.0 + number % 2) for number in range(100)]
        for way in ways[:50]:
            way.addErrback(lambda failure: failure.trap(CancelledError))
            way.cancel()
        for way in ways[50:]:
            way.addErrback(lambda failure: failure.trap(ResourceLocked))
        self.clock.advance(10)
        await self.release(held)
        assert self.locks.held() == 0
        assert self.clock.getDelayedCalls() == []

    async def test_numbers_of_an_earlier_process(self) -> None:
        """Numbers begin where they are told to, above those of the process before."""
        (lease,) = await LocalLocks(Clock(), first_fencing=1_700_000_000_000_000).acquire(("/a",), 0)
        assert lease.fencing >= 1_700_000_000_000_000

    async def test_any_order_of_events(self) -> None:
        """Whatever is acquired, cancelled, released and timed out, no key is held twice or lost."""
        for seed in range(30):
            rng, clock = random.Random(seed), Clock()
            locks = LocalLocks(clock)
            holders: dict[str, int] = {}
            held: list[tuple[Any, ...]] = []
            waiting: list[Deferred[Any]] = []

            def refused(failure: Failure) -> None:
                failure.trap(ResourceLocked, CancelledError)

            def got(leases: tuple[Any, ...], holders: dict[str, int] = holders, held: Any = held) -> None:
                for lease in leases:
                    assert holders.setdefault(lease.key, lease.fencing) == lease.fencing
                held.append(leases)

            for _ in range(400):
                action = rng.random()
                if action < 0.5:
                    keys = tuple(rng.choices("abcdef", k=rng.randint(1, 3)))
                    acquired: Deferred[Any] = locks.acquire(keys, rng.uniform(0, 3))
                    waiting.append(acquired)
                    acquired.addCallbacks(got, refused)
                elif action < 0.8 and held:
                    leases = held.pop(rng.randrange(len(held)))
                    for lease in leases:
                        del holders[lease.key]
                        await lease.release()
                elif action < 0.9 and waiting:
                    waiting.pop(rng.randrange(len(waiting))).cancel()
                else:
                    clock.advance(rng.uniform(0, 1))
            clock.advance(10)
            while held:
                for lease in held.pop():
                    holders.pop(lease.key)
                    await lease.release()
            for way in waiting:
                assert way.called
                await way
            assert locks.held() == 0
