"""
Second copies made in the background: the worker that empties this node's part of the durable replication queue.

An entry is there from the transaction that gave a file its content until the transaction that gives it the copy, or
that makes the copy pointless. Nothing of it is in memory alone, so a restart forgets nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredLock, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from callfs.backends.interfaces import IBlobBackend, IPeers
from callfs.deferreds import returns_deferred
from callfs.engine.arrangement import copy_at, with_replica
from callfs.engine.ports import ErrorMetrics, Storage, ignore
from callfs.engine.rearranging import Wish, rearrange, reordered
from callfs.engine.settings import EngineSettings, microseconds
from callfs.engine.waves import WIDTH, succeeded
from callfs.errors import MetadataUnavailable, OutcomeUnknown
from callfs.identifiers import TokenBytes
from callfs.metadata.commands import PostponeReplication
from callfs.metadata.interfaces import IMetadataStore
from callfs.metrics import ReplicationStatus
from callfs.model import ROOT_USER, BlobRef, Principal, Replication

_log = Logger()

INTERVAL_SECONDS = 10.0
REPORT_SECONDS = 60.0
"""How often the backlog is counted while nothing happens, or while much does."""
KICK_SECONDS = 0.1
"""How long a kick waits for others: many writes then cost one look at the queue."""

FIRST_RETRY_SECONDS = 5.0
LAST_RETRY_SECONDS = 600.0

PAGE = 16 * WIDTH
HASTY_PAGE = WIDTH
"""When what waits is tried before its time: a server that fails again is left alone after so many."""

_ROOT = Principal(ROOT_USER, is_admin=True)


class ReplicationMetrics(ErrorMetrics, Protocol):
    """Who counts second copies."""

    def replicated(self, status: ReplicationStatus) -> None:
        """A copy was made, or couldn't be made just now."""

    def replication_backlog(self, waiting: int, failing: int, oldest_age_seconds: float) -> None:
        """What waits for this node."""


def retry_seconds(attempts: int) -> float:
    """
    How long an entry waits that failed once more.

    :param attempts: how often it had failed before.
    """
    return min(FIRST_RETRY_SECONDS * 2.0 ** min(attempts, 16), LAST_RETRY_SECONDS)


class Replicator(Service):
    """
    A service that makes second copies, driven by the clock, by :meth:`kick`, and by :meth:`hurry`.

    :param metadata: open, as are the backends and peers.
    :param backends: this node's, by name.
    :param now: the wall clock, an instant.
    :param clock: drives the turns.
    :param reached: called at named points; a test can end the process there.
    """

    def __init__(
        self,
        *,
        metadata: IMetadataStore,
        backends: Mapping[str, IBlobBackend],
        peers: IPeers,
        settings: EngineSettings,
        now: Callable[[], int],
        clock: IReactorTime,
        token_bytes: TokenBytes,
        metrics: ReplicationMetrics,
        reached: Callable[[str], None] = ignore,
    ) -> None:
        self._storage = Storage(
            metadata=metadata,
            backends=backends,
            peers=peers,
            settings=settings,
            now=now,
            clock=clock,
            token_bytes=token_bytes,
            metrics=metrics,
            reached=reached,
        )
        self._metrics = metrics
        self._stopping = False
        self._working = DeferredLock()
        self._turns: tuple[LoopingCall, Deferred[LoopingCall]] | None = None
        self._kicked: IDelayedCall | None = None
        self._hurried: IDelayedCall | None = None
        self._hurried_seconds = -math.inf
        self._hasty = False
        self._under_way: set[Deferred[bool]] = set()
        self._reported_seconds = -math.inf

    def startService(self) -> None:
        """Begin, at once with what an earlier process left."""
        Service.startService(self)
        self._stopping = False
        loop = LoopingCall(self._empty_queue)
        loop.clock = self._storage.clock
        self._turns = (loop, loop.start(INTERVAL_SECONDS, now=True))

    @returns_deferred
    async def stopService(self) -> None:
        """End: copies under way are broken off, and what was being named has its name when this fires."""
        if not self.running or self._turns is None:
            return
        Service.stopService(self)
        self._stopping = True
        for call in (self._kicked, self._hurried):
            if call is not None:
                call.cancel()
        self._kicked = self._hurried = None
        self._hasty = False
        (loop, ended), self._turns = self._turns, None
        loop.stop()
        for copying in list(self._under_way):
            copying.cancel()
        await ended
        await self._working.run(lambda: None)
        await self._storage.unattended.ended()

    def kick(self) -> None:
        """There may be something to copy: look soon. Many kicks are one."""
        if self.running and self._kicked is None:
            self._kicked = self._storage.clock.callLater(KICK_SECONDS, self._kick_due)

    def _kick_due(self) -> None:
        self._kicked = None
        self._empty_queue()

    def hurry(self) -> None:
        """
        What stood in the way of copies is gone: try those that failed before their time, a few at once, as long as
        some of them succeed. Once in every :data:`INTERVAL_SECONDS` at most, whatever comes and goes.
        """
        if self.running and self._hurried is None:
            clock = self._storage.clock
            due_seconds = self._hurried_seconds + INTERVAL_SECONDS - clock.seconds()
            self._hurried = clock.callLater(max(due_seconds, KICK_SECONDS), self._hurry_due)

    def _hurry_due(self) -> None:
        self._hurried = None
        self._hurried_seconds = self._storage.clock.seconds()
        self._hasty = True
        self._empty_queue()

    def _empty_queue(self) -> Deferred[None]:
        """Never twice side by side: whoever waits for that already will see what there is now."""
        if self._working.waiting:
            return succeed(None)
        return self._working.run(self._turn)

    @returns_deferred
    async def _turn(self) -> None:
        try:
            worked = await self._work()
            if worked or self._is_report_due():
                await self._report()
        except (MetadataUnavailable, OutcomeUnknown) as error:
            # What is due and done already is settled by the next turn.
            self._metrics.error("replication", type(error).__name__)
            _log.warn(
                "no second copies can be made just now: {reason}", event="replication_failed", reason=error.message
            )
        except Exception as error:
            self._metrics.error("replication", type(error).__name__)
            _log.failure("making second copies failed; it is tried again", event="replication_failed")

    async def _work(self) -> bool:
        """Copy what is due, whether anything was; where nothing succeeds the next turn comes soon enough."""
        worked = await self._work_through(self._storage.now, PAGE)
        if self._hasty:
            self._hasty = False
            # What has failed often is put off beyond this when it fails again, so it isn't met twice.
            horizon = self._storage.now() + microseconds(LAST_RETRY_SECONDS) - 1
            worked = await self._work_through(lambda: horizon, HASTY_PAGE) or worked
        return worked

    async def _work_through(self, horizon: Callable[[], int], width: int) -> bool:
        """
        Copy what is due at an instant, page by page until a page has no success; whether there was anything.

        :param horizon: the instant, asked for each page.
        """
        storage = self._storage
        here = storage.settings.instance_id
        worked = False
        while not self._stopping:
            due = await storage.metadata.replications(horizon(), here, width)
            worked = worked or bool(due)
            if not due or not await succeeded(due, self._attempt):
                break
            if self._is_report_due():
                await self._report()
        return worked

    def _is_report_due(self) -> bool:
        """Counting a long queue takes the store a while."""
        return self._storage.clock.seconds() - self._reported_seconds >= REPORT_SECONDS

    async def _report(self) -> None:
        self._reported_seconds = self._storage.clock.seconds()
        here = self._storage.settings.instance_id
        backlogs = [each for each in await self._storage.metadata.replication_backlog() if each.by == here]
        if not backlogs:
            self._metrics.replication_backlog(0, 0, 0.0)
            return
        (backlog,) = backlogs
        age = max(self._storage.now() - backlog.oldest_queued_at, 0) / microseconds(1)
        self._metrics.replication_backlog(backlog.waiting, backlog.failing, age)

    def _attempt(self, entry: Replication) -> Deferred[bool]:
        attempt = self._attempted(entry)
        self._under_way.add(attempt)
        return attempt.addBoth(self._ended, attempt)

    def _ended(self, result: bool, attempt: Deferred[bool]) -> bool:
        self._under_way.discard(attempt)
        return result

    @returns_deferred
    async def _attempted(self, entry: Replication) -> bool:
        if self._stopping:
            return False
        try:
            await self._replicate(entry)
        except Exception as error:
            if not self._stopping:
                await self._postpone(entry, error)
            return False
        return True

    async def _replicate(self, entry: Replication) -> None:
        storage = self._storage
        inode = await storage.metadata.get_by_id(entry.inode_id)
        if inode is None or inode.blob is None or inode.blob.id != entry.blob_id:
            # The entry went with the content. Should it be there all the same it mustn't stand in the others' way.
            await self._put_off(entry)
            return
        if copy_at(inode.blob, entry.order.target) is not None:
            await reordered(storage, _ROOT, inode, None)
            return
        rearranged = await rearrange(storage, _ROOT, inode, wish_for(entry), lambda _: None)
        if rearranged.copied_bytes is not None:
            self._metrics.replicated("made")

    async def _postpone(self, entry: Replication, error: Exception) -> None:
        self._metrics.replicated("failed")
        _log.warn(
            "the second copy of blob {blob_id} could not be made: {reason!r}; it is tried again",
            event="replica_failed",
            blob_id=entry.blob_id,
            attempts=entry.attempts + 1,
            reason=error,
        )
        try:
            await self._storage.unattended.shield(self._put_off(entry))
        except Exception as failure:
            # It stays due: then the next turn tries it.
            self._metrics.error("replication", type(failure).__name__)

    @returns_deferred
    async def _put_off(self, entry: Replication) -> None:
        at = self._storage.now()
        due_at = at + microseconds(retry_seconds(entry.attempts))
        await self._storage.metadata.apply(PostponeReplication(at=at, blob_id=entry.blob_id, due_at=due_at))


def wish_for(entry: Replication) -> Callable[[BlobRef], Wish | None]:
    """What an entry asks for, as long as its blob is the file's first copy."""

    def wish(blob: BlobRef) -> Wish | None:
        if blob.id != entry.blob_id or copy_at(blob, entry.order.target) is not None:
            return None
        return Wish(entry.order.target, with_replica)

    return wish
