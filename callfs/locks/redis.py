"""
Locks that all nodes share, in a Redis server.

Within a node whoever wants a key waits in line, and only the first of the line asks Redis; so nodes take turns,
and the waiters of a node go in the order they came. A lease renews itself at least three times in its time to
live. When the server can't be reached for longer the lease is lost, which its holder isn't stopped for: a lock
saves work, the metadata command decides.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from callfs.deferreds import returns_deferred, shielded
from callfs.errors import MetadataUnavailable, ResourceLocked
from callfs.identifiers import TokenBytes
from callfs.locks.interfaces import ILease, ILockService
from callfs.locks.redis_lease import Lease, Line, Unreleased
from callfs.locks.redis_scripts import ACQUIRE, RELEASE, RENEW
from callfs.locks.redis_wakeups import Wakeups
from callfs.redis_errors import RedisFault
from callfs.redis_pool import PoolObserver, RedisPool

_POLL_SECONDS = 0.1
_TICKET_SECONDS = 3.0
_SHORTEST_ASK_SECONDS = 1.0
_RENEWED_AT_ONCE = 500
_LONGEST_TICK_SECONDS = 2.0
_TAKING_BACK_SECONDS = 0.25
"""How long somebody who got no lock waits for what was begun to be taken back, which goes on without him."""


def _locked() -> ResourceLocked:
    return ResourceLocked("The path is in use by other requests. Try again.")


def _unavailable() -> MetadataUnavailable:
    return MetadataUnavailable("the Redis server of the locks doesn't answer; nothing was changed")


@implementer(ILockService)
class RedisLocks:
    """
    :param address: ``host:port``, ``[v6]:port`` or ``unix:/path``.
    :param token_bytes: makes the tokens by which holders are known.
    :param op_timeout_seconds: how long the server may take for one answer.
    :param lease_seconds: after so long the locks of a node that died are free.
    :param pool_size: how many connections, besides one on which the server tells of free locks.
    :param key_prefix: what all keys begin with.
    :param clock: measures waiting and leases; the reactor when ``None``.
    :param observer: is told of faults and lost leases.
    """

    _log = Logger()

    def __init__(
        self,
        address: str,
        *,
        reactor: Any,
        token_bytes: TokenBytes,
        op_timeout_seconds: float = 5.0,
        lease_seconds: float = 15.0,
        pool_size: int = 2,
        password: str | None = None,
        db: int = 0,
        key_prefix: str = "callfs:",
        clock: IReactorTime | None = None,
        observer: PoolObserver | None = None,
    ) -> None:
        self._clock = IReactorTime(reactor) if clock is None else clock
        self._token_bytes = token_bytes
        self._lease_seconds = lease_seconds
        self._lease_milliseconds = int(lease_seconds * 1000)
        self._tick_seconds = min(lease_seconds / 3, _LONGEST_TICK_SECONDS)
        self._observer = observer
        self._keys = (key_prefix + "{locks}:",)
        self._channel = key_prefix + "{locks}:freed"
        self._pool = RedisPool(
            address,
            reactor=reactor,
            clock=None,
            size=pool_size,
            op_timeout_seconds=op_timeout_seconds,
            password=password,
            db=db,
            component="locks",
            observer=observer,
        )
        self._wakeups = Wakeups(
            address,
            reactor=reactor,
            connect_seconds=op_timeout_seconds,
            password=password,
            channel=self._channel,
            received=self._freed,
        )
        self._lines: dict[str, Line] = {}
        self._held: dict[str, Lease] = {}
        self._unreleased = Unreleased()
        self._acquiring: set[Deferred[Any]] = set()
        self._taking_back: set[Deferred[Any]] = set()
        self._renewal: IDelayedCall | None = None
        self._started = False
        self._closed = False

    def start(self) -> None:
        """Begin to connect; the first :meth:`acquire` does it otherwise."""
        if not self._started:
            self._started = True
            self._pool.start()
            self._wakeups.start()
            self._renewal = self._clock.callLater(self._tick_seconds, self._renew)

    def acquire(self, keys: tuple[str, ...], wait_seconds: float) -> Deferred[tuple[ILease, ...]]:
        """
        See :meth:`ILockService.acquire`. The leases come in the order of the keys' names.

        :raises callfs.errors.MetadataUnavailable: the server can't be asked.
        """
        if self._closed:
            refused: Deferred[tuple[ILease, ...]] = Deferred()
            refused.errback(Failure(_locked()))
            return refused
        self.start()
        deadline = self._clock.seconds() + wait_seconds if wait_seconds > 0 else None
        work = Deferred.fromCoroutine(self._acquire(tuple(sorted(set(keys))), deadline))
        timed_out: list[bool] = []
        timer: IDelayedCall | None = None
        if deadline is not None and not work.called:

            def expire() -> None:
                timed_out.append(True)
                work.cancel()

            timer = self._clock.callLater(wait_seconds, expire)
        self._acquiring.add(work)

        def ended(result: Any) -> Any:
            self._acquiring.discard(work)
            if timer is not None and timer.active():
                timer.cancel()
            if isinstance(result, Failure) and result.check(CancelledError) and (timed_out or self._closed):
                return Failure(_locked() if self._closed or self._pool.is_connected else _unavailable())
            return result

        return work.addBoth(ended)

    @returns_deferred
    async def check(self) -> None:
        """See :meth:`ILockService.check`."""
        self.start()
        try:
            await self._pool.ask("PING", deadline=self._pool.deadline())
        except RedisFault as fault:
            raise _unavailable() from fault

    async def _acquire(self, keys: tuple[str, ...], deadline: float | None) -> tuple[ILease, ...]:
        leases: list[Lease] = []
        try:
            for key in keys:
                leases.append(await self._acquire_one(key, deadline))
        except MetadataUnavailable:
            # The server is silent: what is held is given back when it can be told, and nobody waits for that.
            for lease in leases:
                self._held.pop(lease.token, None)
                self._release_later(lease.key, lease.token)
                self._leave_line(lease.key, lease.token)
            raise
        except BaseException:
            await self._soon(DeferredList([self.release(lease) for lease in leases], consumeErrors=True))
            raise
        return tuple(leases)

    async def _acquire_one(self, key: str, deadline: float | None) -> Lease:
        """Wait in line, then ask Redis until the key is ours; what was begun is taken back when it isn't."""
        token = self._token_bytes(16).hex()
        await self._stand_in_line(key, token, deadline is not None)
        work: Deferred[int] | None = None
        try:
            while True:
                asked_at = self._clock.seconds()
                work = Deferred.fromCoroutine(self._ask(key, token, deadline))
                fencing = await shielded(work)
                if fencing:
                    break
                if deadline is None:
                    raise _locked()
                await self._until_freed(key)
        except MetadataUnavailable:
            self._release_later(key, token)
            self._leave_line(key, token)
            raise
        except BaseException:
            await self._soon(Deferred.fromCoroutine(self._take_back(key, token, work)))
            raise
        lease = Lease(self, key, token, fencing, asked_at + self._lease_seconds)
        self._held[token] = lease
        return lease

    async def _take_back(self, key: str, token: str, work: Deferred[int] | None) -> None:
        """A request on its way has to arrive before it is taken back: connections don't keep the order."""
        try:
            if work is not None:
                await _quiet(work)
            await self._give_back(key, token)
        finally:
            self._leave_line(key, token)

    async def _soon(self, work: Deferred[Any]) -> None:
        """Until ``work`` is over, or for a moment: it goes on then, as it does for who is cancelled once more."""
        self._taking_back.add(work)
        over = _quiet(work).addCallback(lambda _: self._taking_back.discard(work))
        pause = self._pool.pause(_TAKING_BACK_SECONDS)
        either = DeferredList([shielded(over), pause], fireOnOneCallback=True, consumeErrors=True)
        try:
            await either
        except CancelledError:
            pass  # whoever waits is told so anyway, by the exception that this is the end of
        finally:
            pause.cancel()

    async def _ask(self, key: str, token: str, deadline: float | None) -> int:
        life = 0 if deadline is None else int(_TICKET_SECONDS * 1000)
        seconds = self._pool.op_timeout_seconds
        if deadline is not None:
            seconds = min(seconds, max(deadline - self._clock.seconds(), _SHORTEST_ASK_SECONDS))
        try:
            reply = await self._pool.run_again(
                ACQUIRE,
                self._keys,
                key,
                token,
                self._lease_milliseconds,
                life,
                deadline=self._pool.clock.seconds() + seconds,
            )
        except RedisFault as fault:
            if self._observer is not None:
                self._observer.error("locks", type(fault).__name__.lower())
            raise MetadataUnavailable(
                "the Redis server of the locks doesn't answer; nothing was changed"
            ) from fault
        return int(reply or 0)

    async def _until_freed(self, key: str) -> None:
        """Until Redis says that the key is free, or for a while, since it may not be able to."""
        line = self._lines[key]
        line.wake = Deferred()
        timer = self._clock.callLater(_POLL_SECONDS, self._freed, key)
        try:
            await line.wake
        finally:
            line.wake = None
            if timer.active():
                timer.cancel()

    def _freed(self, key: str) -> None:
        line = self._lines.get(key)
        if line is not None and line.wake is not None and not line.wake.called:
            line.wake.callback(None)

    async def _stand_in_line(self, key: str, token: str, may_wait: bool) -> None:
        line = self._lines.setdefault(key, Line())
        turn: Deferred[None] = Deferred()
        if line.waiting and not may_wait:
            raise _locked()
        line.waiting[token] = turn
        if len(line.waiting) == 1:
            return
        try:
            await turn
        except BaseException:
            self._leave_line(key, token)
            raise

    def _leave_line(self, key: str, token: str) -> None:
        line = self._lines.get(key)
        if line is None or token not in line.waiting:
            return
        was_first = next(iter(line.waiting)) == token
        del line.waiting[token]
        if not line.waiting:
            del self._lines[key]
        elif was_first:
            turn = next(iter(line.waiting.values()))
            if not turn.called:
                turn.callback(None)

    @returns_deferred
    async def release(self, lease: Lease) -> None:
        """For a lease: give the key back; nothing when it isn't held any more."""
        if self._held.pop(lease.token, None) is None:
            return
        try:
            await self._give_back(lease.key, lease.token)
        finally:
            self._leave_line(lease.key, lease.token)

    async def _give_back(self, key: str, token: str) -> None:
        """
        Tell Redis that a token neither holds nor waits. Without a connection it is told later: nobody waits for
        that, and the lease runs out meanwhile.
        """
        if not self._pool.is_connected:
            self._release_later(key, token)
            return
        try:
            await shielded(Deferred.fromCoroutine(self._tell_released({token: key})))
        except RedisFault:
            self._release_later(key, token)

    def _release_later(self, key: str, token: str) -> None:
        """Until the server can be told, or the lease has run out anyway."""
        self._unreleased.add(key, token, self._clock.seconds() + self._lease_seconds)

    async def _tell_released(self, tokens: dict[str, str]) -> None:
        words = [word for token, key in tokens.items() for word in (key, token)]
        await self._pool.run_again(RELEASE, self._keys, self._channel, *words, deadline=self._pool.deadline())

    def _renew(self) -> None:
        """Often enough: renew what is held, tell what couldn't be told."""
        self._renewal = self._clock.callLater(self._tick_seconds, self._renew)
        leases = [lease for lease in self._held.values() if not lease.lost]
        for start in range(0, len(leases), _RENEWED_AT_ONCE):
            Deferred.fromCoroutine(self._renew_some(leases[start : start + _RENEWED_AT_ONCE]))
        self._unreleased.forget(self._clock.seconds())
        if self._unreleased and self._pool.is_connected:
            Deferred.fromCoroutine(self._release_late())

    async def _renew_some(self, leases: list[Lease]) -> None:
        asked_at = self._clock.seconds()
        words = [word for lease in leases for word in (lease.key, lease.token)]
        try:
            reply = await self._pool.run_again(
                RENEW, self._keys, self._lease_milliseconds, *words, deadline=self._pool.deadline()
            )
        except RedisFault:
            reply = b"?" * len(leases)
        for lease, answer in zip(leases, reply.decode(), strict=True):
            if answer == "1":
                lease.until = asked_at + self._lease_seconds
            elif answer == "0" or self._clock.seconds() >= lease.until:
                self._lose(lease)

    def _lose(self, lease: Lease) -> None:
        if lease.token in self._held and not lease.lost:
            lease.lost = True
            if self._observer is not None:
                self._observer.error("locks", "lease_lost")
            self._log.error("the lease of a lock ran out: {key}", event="lock_lease_lost", key=lease.key)

    async def _release_late(self) -> None:
        tokens = self._unreleased.first(_RENEWED_AT_ONCE)
        try:
            await self._tell_released(tokens)
        except RedisFault:
            return
        self._unreleased.told(tokens)

    @returns_deferred
    async def close(self) -> None:
        """See :meth:`ILockService.close`."""
        if self._closed:
            return
        self._closed = True
        if not self._started:
            return
        if self._renewal is not None and self._renewal.active():
            self._renewal.cancel()
        acquiring = list(self._acquiring)
        for work in acquiring:
            work.cancel()
        await DeferredList([_quiet(work) for work in acquiring])
        await DeferredList([_quiet(work) for work in self._taking_back])
        await DeferredList([self.release(lease) for lease in list(self._held.values())])
        await self._wakeups.stop()
        await self._pool.stop()


def _quiet(deferred: Deferred[Any]) -> Deferred[None]:
    """Fires when the other one has, which keeps its result for others."""
    ended: Deferred[None] = Deferred()

    def over(result: Any) -> Any:
        ended.callback(None)
        return result

    deferred.addBoth(over)
    return ended
