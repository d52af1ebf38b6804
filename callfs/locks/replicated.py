"""
Locks that the nodes of a cluster keep among themselves, in the state that Raft replicates.

Whoever wants locks makes a claim, which is an entry of the log, and holds them when this node's copy of the state
says so. A claim that is given up, for whatever reason, is released by another entry behind it.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from callfs.cluster.interfaces import IReplicator
from callfs.deferreds import returns_deferred, shielded, with_timeout
from callfs.errors import MetadataUnavailable, ResourceLocked
from callfs.identifiers import TokenBytes
from callfs.locks.interfaces import ILease, ILockService
from callfs.locks.replicated_commands import Claim, EndSession, LockCommand, Place, Release, Renew
from callfs.locks.replicated_leases import SilentSessions
from callfs.locks.replicated_table import Changes, LockTable
from callfs.locks.replicated_together import Asking, Together
from callfs.raft.boundary import Role

LOCKS = b"l"
"""The first byte of a command about locks."""

LEASE_SECONDS = 15.0
_ID_BYTES = 16
_BEATS_IN_A_LEASE = 3
_AGAIN_SECONDS = 1.0
_ANSWER_SECONDS = 1.0
"""How much longer than it wanted to wait somebody waits for the word whether the lock is free."""
_FAREWELL_SECONDS = 1.0


def _locked() -> ResourceLocked:
    return ResourceLocked("The path is in use by other requests. Try again.")


def _silent() -> MetadataUnavailable:
    return MetadataUnavailable("the cluster that keeps the locks doesn't answer; nothing was changed")


@implementer(ILease)
class ReplicatedLease:
    """A key that is held by a claim."""

    def __init__(self, service: ReplicatedLocks, claim: bytes, key: str, fencing: int) -> None:
        self.key = key
        self.fencing = fencing
        self._service = service
        self._claim = claim
        self._released = False

    @returns_deferred
    async def release(self) -> None:
        """See :meth:`ILease.release`. When the cluster doesn't answer now, it is told later."""
        if not self._released:
            self._released = True
            await self._service.give_back(self._claim, self.key)


class _Waiter:
    """
    Somebody who has made a claim.

    :ivar granted: fires with the place when the claim holds its keys; fails when it is over.
    :ivar expired: there is no time left to wait in line.
    """

    def __init__(self, claim: bytes, keys: tuple[str, ...], expired: bool) -> None:
        self.claim = claim
        self.keys = keys
        self.expired = expired
        self.asking: Asking | None = None
        self.in_line = False
        self.granted: Deferred[int] = Deferred()

    def answered(self, place: Place | None) -> None:
        """The claim is in the log."""
        self.in_line = True
        if place is not None and place.held:
            self.grant(place.number)
        elif self.expired:
            self.refuse(_locked())

    def grant(self, place: int) -> None:
        """The claim holds its keys."""
        if not self.granted.called:
            self.granted.callback(place)

    def refuse(self, error: Exception | Failure) -> None:
        """It doesn't, and won't."""
        if not self.granted.called:
            self.granted.errback(error)


@implementer(ILockService)
class ReplicatedLocks:
    """
    The locks of a node in a cluster.

    :param replicator: the cluster.
    :param table: the locks' part of this node's copy of the state.
    :param token_bytes: makes the names of sessions and claims.
    :param clock: measures waiting and leases; must not jump.
    :param lease_seconds: after so long the locks of a node that died are free.
    :param lost: told when this node's session was ended although it held locks.
    """

    _log = Logger()

    def __init__(
        self,
        replicator: IReplicator,
        table: LockTable,
        *,
        token_bytes: TokenBytes,
        clock: IReactorTime,
        lease_seconds: float = LEASE_SECONDS,
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        self._replicator = replicator
        self._token_bytes = token_bytes
        self._clock = clock
        self._beat_seconds = lease_seconds / _BEATS_IN_A_LEASE
        self._lost = lost
        self._session = token_bytes(_ID_BYTES)
        self._queue = Together(self._propose)
        self._held: dict[bytes, set[str]] = {}
        self._waiting: dict[bytes, _Waiter] = {}
        self._untold: list[LockCommand] = []
        self._sessions = SilentSessions(clock, lease_seconds, self._beat_seconds)
        self._beat: IDelayedCall | None = None
        self._again: IDelayedCall | None = None
        self._closed = False
        table.changed = self._changed

    def start(self) -> None:
        """Begin to give signs of life, and to count the leases of others should this node lead."""
        if self._beat is None and not self._closed:
            self._beat = self._clock.callLater(self._beat_seconds, self._on_beat)

    @returns_deferred
    async def acquire(self, keys: tuple[str, ...], wait_seconds: float) -> tuple[ILease, ...]:
        """See :meth:`ILockService.acquire`. All keys of a caller have the same fencing number."""
        if self._closed:
            raise _locked()
        wanted = tuple(dict.fromkeys(keys))
        if not wanted:
            return ()
        self.start()
        waiter = _Waiter(self._token_bytes(_ID_BYTES), wanted, expired=wait_seconds <= 0)
        timer = None if waiter.expired else self._clock.callLater(wait_seconds, self._expired, waiter)
        try:
            place = await self._claimed(waiter)
        finally:
            if timer is not None and timer.active():
                timer.cancel()
        self._held[waiter.claim] = set(wanted)
        return tuple(ReplicatedLease(self, waiter.claim, key, place) for key in wanted)

    async def _claimed(self, waiter: _Waiter) -> int:
        """The claim's place, once it holds its keys; otherwise it leaves no trace."""
        self._waiting[waiter.claim] = waiter
        waiter.asking = self._queue.ask(Claim(self._session, waiter.claim, waiter.keys))
        waiter.asking.answer.addCallbacks(waiter.answered, waiter.refuse)
        try:
            return await waiter.granted
        except ResourceLocked:
            # Whoever is refused has left the line, unless that takes too long.
            await with_timeout(self._withdrawn(waiter), _ANSWER_SECONDS, self._clock, _locked)
            raise
        except BaseException:
            self._withdrawn(waiter)
            raise
        finally:
            self._waiting.pop(waiter.claim, None)

    def _withdrawn(self, waiter: _Waiter) -> Deferred[None]:
        """Fires when the claim has gone, or it is known that that takes longer; may be cancelled."""
        assert waiter.asking is not None
        if self._queue.withdraw(waiter.asking) or self._closed:
            done: Deferred[None] = Deferred()
            done.callback(None)
            return done
        return shielded(self._told(Release(waiter.claim, waiter.keys)))

    def _expired(self, waiter: _Waiter) -> None:
        """The time to wait is over. Only the log knows whether a claim on its way there gets its keys at once."""
        waiter.expired = True
        assert waiter.asking is not None
        if waiter.in_line or not waiter.asking.sent:
            waiter.refuse(_locked())
        else:
            late = self._clock.callLater(_ANSWER_SECONDS, waiter.refuse, _silent())
            waiter.granted.addBoth(_no_more, late)

    def give_back(self, claim: bytes, key: str) -> Deferred[None]:
        """For a lease: free a key of a claim."""
        held = self._held.get(claim, set())
        held.discard(key)
        if not held:
            self._held.pop(claim, None)
        if self._closed:
            done: Deferred[None] = Deferred()
            done.callback(None)
            return done
        return shielded(self._told(Release(claim, (key,))))

    @returns_deferred
    async def _told(self, command: LockCommand) -> None:
        """Have a command carried out; when that can't be now, later, and nobody waits for that."""
        try:
            await self._queue.ask(command).answer
        except Exception:  # Together has logged what is worth it
            if not self._closed:
                self._tell_again(command)

    def _tell_again(self, command: LockCommand) -> None:
        self._untold.append(command)
        if self._again is None:
            self._again = self._clock.callLater(_AGAIN_SECONDS, self._on_again)

    def _on_again(self) -> None:
        self._again = None
        untold, self._untold = self._untold, []
        for command in untold:
            self._told(command)

    def _propose(self, commands: bytes) -> Deferred[bytes]:
        return self._replicator.propose(LOCKS + commands).addCallback(lambda applied: applied.result)

    # What is applied to this node's copy

    def _changed(self, changes: Changes) -> None:
        self._sessions.saw(changes)
        if self._session in changes.ended:
            self._end(frozenset())
        if changes.standing is not None:
            self._end(changes.standing)
        for claim, place in changes.held.items():
            waiter = self._waiting.get(claim)
            if waiter is not None:
                waiter.grant(place)

    def _end(self, standing: frozenset[bytes]) -> None:
        """Claims but these are gone: whoever waits has no place in line any more, and must not wait for nothing."""
        lost = self._held.keys() - standing
        gone = [
            waiter
            for claim, waiter in self._waiting.items()
            if claim not in standing and waiter.asking is not None and waiter.asking.sent
        ]
        for claim in lost:
            del self._held[claim]
        if lost:
            self._log.error("the leases of this node's locks ran out", event="lock_lease_lost", count=len(lost))
            self._lost()
        for waiter in gone:
            waiter.refuse(MetadataUnavailable("the cluster took this node for dead; nothing was changed"))

    def _on_beat(self) -> None:
        self._beat = self._clock.callLater(self._beat_seconds, self._on_beat)
        if self._held or self._waiting:
            self._quietly(Renew(self._session))
        status = self._replicator.status().raft
        leads = status.role is Role.LEADER
        for session, heard in self._sessions.silent(status.term if leads else None).items():
            self._quietly(EndSession(session, heard))

    @returns_deferred
    async def _quietly(self, command: LockCommand) -> None:
        """What is tried again with the next beat."""
        try:
            await self._queue.ask(command).answer
        except MetadataUnavailable as error:
            self._log.debug("the locks' beat failed: {reason}", reason=error.message)
        except Exception as error:
            self._log.debug("the locks' beat failed: {reason}", reason=str(error))

    @returns_deferred
    async def check(self) -> None:
        """See :meth:`ILockService.check`."""
        await self._replicator.read_barrier()

    @returns_deferred
    async def close(self) -> None:
        """See :meth:`ILockService.close`. What this node can't tell the others any more they find out."""
        if self._closed:
            return
        self._closed = True
        for timer in (self._beat, self._again):
            if timer is not None and timer.active():
                timer.cancel()
        waiting, self._waiting = self._waiting, {}
        for waiter in waiting.values():
            waiter.refuse(_locked())
        self._held.clear()
        farewell = shielded(self._quietly(EndSession(self._session, None)))
        try:
            await with_timeout(farewell, _FAREWELL_SECONDS, self._clock, _locked)
        except ResourceLocked:
            self._log.info("the locks of this node run out by themselves", event="locks_left")


def _no_more(result: int | Failure, late: IDelayedCall) -> int | Failure:
    if late.active():
        late.cancel()
    return result
