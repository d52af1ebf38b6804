"""
The background work of a node: garbage, links, abandoned stages, the sweep.

What is on a node's own disk that node looks after alone. For shared storage every node works: on the garbage queue
all at once, which at worst deletes a blob twice, on the sweep one after the other, each with its own memory.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredLock, gatherResults, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from callfs.backends.interfaces import IBlobBackend
from callfs.deferreds import returns_deferred
from callfs.engine.garbage import GarbageMetrics, GarbageQueue
from callfs.engine.routing import LOCAL_BACKEND
from callfs.engine.settings import JanitorSettings, microseconds
from callfs.engine.sweep import Sweep, SweepMetrics
from callfs.errors import MetadataUnavailable, OutcomeUnknown, PeerUnavailable, ResourceLocked
from callfs.locks.interfaces import ILockService
from callfs.metadata.commands import PurgeLinks
from callfs.metadata.interfaces import IMetadataStore

_log = Logger()

KICK_SECONDS = 0.1
"""How long a kick waits for others: many replaced files then cost one look at the queue."""

_PURGE_LIMIT = 1000


class JanitorMetrics(GarbageMetrics, SweepMetrics, Protocol):
    """Who counts what the janitor does."""

    def staged_removed(self, backend_type: str, count: int) -> None:
        """Staged blobs that nobody works on were removed."""

    def links_purged(self, count: int) -> None:
        """Expired and used links were purged."""

    def stored(self, files: int, directories: int, size: int) -> None:
        """What the store names, and the bytes of all files."""

    def garbage_queue_length(self, count: int) -> None:
        """How many blobs are in the garbage queue."""


class Janitor(Service):
    """
    A service that cleans up behind the flows, driven by the clock and by :meth:`kick`.

    Each kind of work waits for its own end before it begins again; a failure is logged, counted, and tried again at
    the next turn. All of its state is in the store and on the disk but what the sweep saw in its last pass.

    :param metadata: open.
    :param backends: this node's, by name.
    :param locks: where the nodes take turns with what they share; ``None``: what is shared isn't swept.
    :param now: the wall clock, an instant.
    :param clock: drives the turns.
    """

    def __init__(
        self,
        *,
        metadata: IMetadataStore,
        backends: Mapping[str, IBlobBackend],
        settings: JanitorSettings,
        now: Callable[[], int],
        clock: IReactorTime,
        metrics: JanitorMetrics,
        locks: ILockService | None = None,
    ) -> None:
        self._metadata = metadata
        self._locks = locks
        self._backends = backends
        self._settings = settings
        self._now = now
        self._clock = clock
        self._metrics = metrics
        self._stopping = False
        self._turns: list[tuple[LoopingCall, Deferred[LoopingCall]]] = []
        self._kicked: IDelayedCall | None = None
        self._draining = DeferredLock()
        self._queues = [self._queue(name, backend) for name, backend in backends.items()]
        self._sweeps = {name: self._sweep(backend) for name, backend in backends.items()}

    def _queue(self, name: str, backend: IBlobBackend) -> GarbageQueue:
        return GarbageQueue(
            name=name,
            backend=backend,
            metadata=self._metadata,
            instance_id=self._settings.instance_id,
            now=self._now,
            clock=self._clock,
            metrics=self._metrics,
            stopping=self.is_stopping,
        )

    def _sweep(self, backend: IBlobBackend) -> Sweep:
        return Sweep(
            backend=backend,
            metadata=self._metadata,
            settings=self._settings,
            now=self._now,
            clock=self._clock,
            metrics=self._metrics,
            stopping=self.is_stopping,
        )

    def is_stopping(self) -> bool:
        """Whether work under way shall leave off at the next opportunity."""
        return self._stopping

    def startService(self) -> None:
        """Begin: garbage, and what has to be put back, at once; the rest at its first turn."""
        Service.startService(self)
        self._stopping = False
        settings = self._settings
        self._begin("garbage", self._empty_queues, settings.garbage_interval_seconds, at_once=True)
        self._begin("set aside", self._put_back, settings.sweep_interval_seconds, at_once=True)
        self._begin("statistics", self._count, settings.statistics_interval_seconds, at_once=True)
        self._begin("links", self._purge_links, settings.link_purge_interval_seconds)
        self._begin("staging", self._remove_stale_staged, settings.staging_interval_seconds)
        self._begin("sweep", self._sweep_all, settings.sweep_interval_seconds)

    @returns_deferred
    async def stopService(self) -> None:
        """End; fires when the work under way has left off, so that store and backends can be closed then."""
        if not self.running:
            return
        Service.stopService(self)
        self._stopping = True
        if self._kicked is not None and self._kicked.active():
            self._kicked.cancel()
        self._kicked = None
        turns, self._turns = self._turns, []
        for loop, _ in turns:
            loop.stop()
        await gatherResults([ended for _, ended in turns])
        await self._draining.run(lambda: None)

    @returns_deferred
    async def backend_came(self) -> None:
        """A backend is there that couldn't be reached when this began: do what there was to do then."""
        if self.running:
            self.kick()
            await self._guarded("set aside", self._put_back)

    def kick(self) -> None:
        """There may be garbage: look soon. Many kicks are one."""
        if self.running and self._kicked is None:
            self._kicked = self._clock.callLater(KICK_SECONDS, self._kick_due)

    def _kick_due(self) -> None:
        self._kicked = None
        self._empty_queues()

    def _begin(
        self, work: str, turn: Callable[[], Awaitable[None]], interval_seconds: float, at_once: bool = False
    ) -> None:
        @returns_deferred
        async def guarded() -> None:
            await self._guarded(work, turn)

        loop = LoopingCall(guarded)
        loop.clock = self._clock
        self._turns.append((loop, loop.start(interval_seconds, now=at_once)))

    async def _guarded(self, work: str, turn: Callable[[], Awaitable[None]]) -> None:
        try:
            await turn()
        except (MetadataUnavailable, OutcomeUnknown, PeerUnavailable) as error:
            # A change that was made all the same is made again by the next turn, and changes nothing then.
            self._metrics.error("janitor", type(error).__name__)
            _log.warn(
                "the janitor's work on {work} has to wait: {reason}",
                event="janitor_failed",
                work=work,
                reason=error.message,
            )
        except Exception as error:
            self._metrics.error("janitor", type(error).__name__)
            _log.failure(
                "the janitor's work on {work} failed; it is tried again", event="janitor_failed", work=work
            )

    def _empty_queues(self) -> Deferred[None]:
        """
        Empty the queues, never twice side by side. Whoever waits for that already will see what there is now.
        """
        if self._draining.waiting:
            return succeed(None)
        return self._draining.run(self._drain)

    @returns_deferred
    async def _drain(self) -> None:
        for queue in self._queues:
            await self._guarded("garbage", queue.drain)

    async def _count(self) -> None:
        counted = await self._metadata.statistics()
        self._metrics.stored(counted.files, counted.directories, counted.bytes)
        self._metrics.garbage_queue_length(counted.garbage)

    async def _purge_links(self) -> None:
        while not self._stopping:
            at = self._now()
            purged = await self._metadata.apply(
                PurgeLinks(
                    at=at,
                    expired_before_at=at,
                    used_before_at=at - microseconds(self._settings.used_link_age_seconds),
                    limit=_PURGE_LIMIT,
                )
            )
            self._metrics.links_purged(purged.count)
            if purged.count < _PURGE_LIMIT:
                return

    async def _remove_stale_staged(self) -> None:
        for name in self._backends:
            await self._guarded("staging", functools.partial(self._remove_stale_staged_of, name))

    async def _remove_stale_staged_of(self, name: str) -> None:
        before_at = self._now() - microseconds(self._settings.staged_age_seconds)
        self._metrics.staged_removed(name, await self._backends[name].remove_stale_staged(before_at))

    async def _put_back(self) -> None:
        await self._each_sweep(lambda sweep: sweep.put_back_named())

    async def _sweep_all(self) -> None:
        await self._each_sweep(lambda sweep: sweep.run())

    async def _each_sweep(self, act: Callable[[Sweep], Awaitable[None]]) -> None:
        for name, sweep in self._sweeps.items():
            await self._guarded("the sweep", functools.partial(self._in_turn, name, functools.partial(act, sweep)))

    async def _in_turn(self, name: str, act: Callable[[], Awaitable[None]]) -> None:
        """Act now, but on shared storage only if no other node does; it has its turn the next time."""
        if name == LOCAL_BACKEND:
            await act()
            return
        if self._locks is None:
            return
        try:
            leases = await self._locks.acquire((f"sweep:{name}",), 0.0)
        except ResourceLocked:
            return
        try:
            await act()
        finally:
            for lease in leases:
                await lease.release()
