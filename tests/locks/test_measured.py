"""Locks that report what happens to them."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from callfs.errors import ResourceLocked
from callfs.locks.interfaces import ILockService
from callfs.locks.local import LocalLocks
from callfs.locks.measured import MeasuredLocks
from tests.contract.locks import LockServiceContract


class MeasuredLocksTests(LockServiceContract, TestCase):
    """Measuring changes nothing."""

    provider = MeasuredLocks

    def make_locks(self) -> ILockService:
        self.clock = Clock()
        return MeasuredLocks(LocalLocks(self.clock), lambda *seen: None, lambda count: None, self.clock.seconds)

    def let_pass(self, seconds: float) -> None:
        self.clock.advance(seconds)


class ReportTests(TestCase):
    """What is reported."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.seen: list[tuple[str, str, float]] = []
        self.active: list[int] = []
        self.locks = MeasuredLocks(
            LocalLocks(self.clock), lambda *seen: self.seen.append(seen), self.active.append, self.clock.seconds
        )

    async def test_success(self) -> None:
        """An acquisition and each release are reported once; the gauge follows the leases."""
        leases = await self.locks.acquire(("/a", "/b"), 0)
        for lease in leases * 2:
            await lease.release()
        assert self.seen == [("acquire", "success", 0.0), *[("release", "success", 0.0)] * 2]
        assert self.active == [2, 1, 0]

    async def test_timeout(self) -> None:
        """A wait in vain is reported with how long it was."""
        await self.locks.acquire(("/a",), 0)
        waiting = self.locks.acquire(("/a",), 3)
        self.clock.advance(3)
        await self.assertFailure(waiting, ResourceLocked)
        assert self.seen[1:] == [("acquire", "timeout", 3.0)]

    async def test_cancelled(self) -> None:
        """So is one that was given up."""
        await self.locks.acquire(("/a",), 0)
        waiting = self.locks.acquire(("/a",), 3)
        self.clock.advance(1)
        waiting.cancel()
        await self.assertFailure(waiting, CancelledError)
        assert self.seen[1:] == [("acquire", "cancelled", 1.0)]

    async def test_close(self) -> None:
        """After the end nothing is held."""
        (lease,) = await self.locks.acquire(("/a",), 0)
        await self.locks.close()
        await lease.release()
        assert self.active == [1, 0]
