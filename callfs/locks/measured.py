"""
Locks that report what happens to them.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from callfs.deferreds import returns_deferred
from callfs.errors import ResourceLocked
from callfs.locks.interfaces import ILease, ILockService

Observe = Callable[[str, str, float], None]
"""
Told of the operation (``acquire``, ``release``), its status (``success``, ``timeout``, ``cancelled``, ``error``),
and how long it took in seconds.
"""


@implementer(ILease)
class _MeasuredLease:
    """Reports its release once."""

    def __init__(self, lease: ILease, locks: MeasuredLocks) -> None:
        self.key = lease.key
        self.fencing = lease.fencing
        self._lease = lease
        self._locks = locks

    def release(self) -> Deferred[None]:
        """See :meth:`ILease.release`."""
        return self._locks.release(self, self._lease)


@implementer(ILockService)
class MeasuredLocks:
    """
    Passes everything on.

    :param observe: told of each operation.
    :param active: told how many leases are held whenever that changes.
    :param now_seconds: a clock that never goes back.
    """

    def __init__(
        self,
        locks: ILockService,
        observe: Observe,
        active: Callable[[int], None],
        now_seconds: Callable[[], float],
    ) -> None:
        self._wrapped = locks
        self._observe = observe
        self._active = active
        self._now_seconds = now_seconds
        self._held: set[_MeasuredLease] = set()

    def acquire(self, keys: tuple[str, ...], wait_seconds: float) -> Deferred[tuple[ILease, ...]]:
        """See :meth:`ILockService.acquire`."""
        began = self._now_seconds()

        def acquired(leases: tuple[ILease, ...]) -> tuple[ILease, ...]:
            measured = tuple(_MeasuredLease(lease, self) for lease in leases)
            self._held.update(measured)
            self._active(len(self._held))
            self._observe("acquire", "success", self._now_seconds() - began)
            return measured

        def failed(failure: Failure) -> Failure:
            self._observe("acquire", _status(failure), self._now_seconds() - began)
            return failure

        return self._wrapped.acquire(keys, wait_seconds).addCallbacks(acquired, failed)

    @returns_deferred
    async def release(self, measured: _MeasuredLease, lease: ILease) -> None:
        """For a lease: give the lock back."""
        if measured not in self._held:
            return
        self._held.discard(measured)
        self._active(len(self._held))
        began, status = self._now_seconds(), "error"
        try:
            await lease.release()
            status = "success"
        finally:
            self._observe("release", status, self._now_seconds() - began)

    def check(self) -> Deferred[None]:
        """See :meth:`ILockService.check`."""
        return self._wrapped.check()

    @returns_deferred
    async def close(self) -> None:
        """See :meth:`ILockService.close`."""
        await self._wrapped.close()
        self._held.clear()
        self._active(0)


def _status(failure: Failure) -> str:
    """How an acquisition failed, in a word."""
    if failure.check(ResourceLocked):
        return "timeout"
    return "cancelled" if failure.check(CancelledError) else "error"
