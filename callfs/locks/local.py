"""
Locks within one process.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from callfs.deferreds import returns_deferred
from callfs.errors import ResourceLocked
from callfs.locks.interfaces import ILease, ILockService


def _locked() -> ResourceLocked:
    return ResourceLocked("The path is in use by other requests. Try again.")


@implementer(ILease)
class _Lease:
    """A key that is held."""

    def __init__(self, service: LocalLocks, key: str, fencing: int) -> None:
        self.key = key
        self.fencing = fencing
        self._service = service

    def release(self) -> Deferred[None]:
        """See :meth:`ILease.release`."""
        self._service.release(self)
        return succeed(None)


class _Lock:
    """A key's holder and who waits for it; forgotten when nobody holds it."""

    def __init__(self) -> None:
        self.holder: _Lease | None = None
        self.waiting: OrderedDict[_Acquisition, None] = OrderedDict()


class _Acquisition:
    """Keys that somebody wants, taken one after the other in sorted order."""

    def __init__(self, keys: tuple[str, ...], withdraw: Callable[[_Acquisition], None]) -> None:
        self.keys = keys
        self.result: Deferred[tuple[ILease, ...]] = Deferred(lambda _: withdraw(self))
        self.leases: list[_Lease] = []
        self.expiry: IDelayedCall | None = None

    def next_key(self) -> str | None:
        """The first key that isn't held yet."""
        return self.keys[len(self.leases)] if len(self.leases) < len(self.keys) else None


@implementer(ILockService)
class LocalLocks:
    """
    First come, first served, key by key.

    Whoever is next is given the lock at the release itself, and told in a loop, never from inside the call that
    told the one before: a thousand waiters in a row don't pile up on the stack.

    :param clock: measures the waiting.
    :param first_fencing: where the fencing numbers begin; more than any number of an earlier process, for instance
        the instant of the start.
    """

    def __init__(self, clock: IReactorTime, first_fencing: int = 1) -> None:
        self._clock = clock
        self._next_fencing = first_fencing
        self._locks: dict[str, _Lock] = {}
        self._ready: deque[_Acquisition] = deque()
        self._telling = False
        self._closed = False

    def acquire(self, keys: tuple[str, ...], wait_seconds: float) -> Deferred[tuple[ILease, ...]]:
        """See :meth:`ILockService.acquire`. The leases come in the order of the keys' names."""
        acquisition = _Acquisition(tuple(sorted(set(keys))), self._withdraw)
        if self._closed:
            acquisition.result.errback(Failure(_locked()))
        elif self._take(acquisition):
            acquisition.result.callback(tuple(acquisition.leases))
        elif wait_seconds <= 0:
            self._give_up(acquisition)
        else:
            acquisition.expiry = self._clock.callLater(wait_seconds, self._give_up, acquisition)
        return acquisition.result

    def check(self) -> Deferred[None]:
        """See :meth:`ILockService.check`."""
        return succeed(None)

    @returns_deferred
    async def close(self) -> None:
        """See :meth:`ILockService.close`."""
        self._closed = True
        locks, self._locks = self._locks, {}
        waiting = [acquisition for lock in locks.values() for acquisition in lock.waiting]
        for acquisition in waiting:
            self._stop_clock(acquisition)
            if not acquisition.result.called:
                acquisition.result.errback(Failure(_locked()))

    def release(self, lease: _Lease) -> None:
        """Take a lease back and give the key to whoever waits longest; nothing when it isn't held any more."""
        lock = self._locks.get(lease.key)
        if lock is None or lock.holder is not lease:
            return
        if not lock.waiting:
            del self._locks[lease.key]
            return
        acquisition, _ = lock.waiting.popitem(last=False)
        self._give(lock, lease.key, acquisition)
        if self._take(acquisition):
            self._stop_clock(acquisition)
            self._ready.append(acquisition)
            self._tell()

    def held(self) -> int:
        """How many keys are held."""
        return len(self._locks)

    def _take(self, acquisition: _Acquisition) -> bool:
        """Take keys as far as they are free, then queue up for the next one; whether all are held."""
        while (key := acquisition.next_key()) is not None:
            lock = self._locks.get(key)
            if lock is not None:
                lock.waiting[acquisition] = None
                return False
            self._locks[key] = lock = _Lock()
            self._give(lock, key, acquisition)
        return True

    def _give(self, lock: _Lock, key: str, acquisition: _Acquisition) -> None:
        lock.holder = _Lease(self, key, self._next_fencing)
        self._next_fencing += 1
        acquisition.leases.append(lock.holder)

    def _tell(self) -> None:
        """Fire those who have all of their keys."""
        if self._telling:
            return
        self._telling = True
        try:
            while self._ready:
                acquisition = self._ready.popleft()
                acquisition.result.callback(tuple(acquisition.leases))
        finally:
            self._telling = False

    def _give_up(self, acquisition: _Acquisition) -> None:
        """The wait is over without all of the keys."""
        acquisition.expiry = None
        self._withdraw(acquisition)
        acquisition.result.errback(Failure(_locked()))

    def _withdraw(self, acquisition: _Acquisition) -> None:
        """Leave the queue and give back what was got."""
        self._stop_clock(acquisition)
        key = acquisition.next_key()
        lock = None if key is None else self._locks.get(key)
        if lock is not None:
            lock.waiting.pop(acquisition, None)
        if acquisition in self._ready:
            self._ready.remove(acquisition)
        for lease in acquisition.leases:
            self.release(lease)

    def _stop_clock(self, acquisition: _Acquisition) -> None:
        if acquisition.expiry is not None:
            acquisition.expiry.cancel()
            acquisition.expiry = None
