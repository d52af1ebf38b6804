"""
The sweep: blobs that nothing names are condemned, set aside, and deleted a week later.

A crash between the commit of a blob and the command that names it leaves such a blob. The sweep is the only part of
CallFS that deletes bytes without having been told to, so it doubts itself at each step:

- A blob is judged only when by its id and by its file it is older than the grace period: no upload is that slow
  between commit and command.
- Nothing happens to a blob unless two passes, at least the grace period apart, found it unnamed. What the first
  pass saw is kept in memory: a restart delays a sweep and does nothing else.
- Between seeing and acting stands a command. ``Condemn`` leaves out what has a name by then, and from then on no
  command can give it one, however late it comes. Only what the command returns is touched.
- Touching means setting aside; the bytes are there for another week, and go back when a store that names them
  comes into use.
- When more than 1 % looks unnamed, it is the store that is wrong (empty, another's, an old copy): then the pass
  does nothing at all, deletes nothing that was set aside before, and, unless few blobs are meant, says so loudly.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger, LogLevel

from callfs.backends.interfaces import BlobMissing, BlobStat, IBlobBackend
from callfs.deferreds import returns_deferred
from callfs.engine.judgement import Verdict, judge
from callfs.engine.settings import JanitorSettings, microseconds
from callfs.engine.waves import succeeded
from callfs.errors import CallFSError
from callfs.identifiers import blob_created_at, is_blob_id
from callfs.metadata.commands import Condemn, ForgetCondemned
from callfs.metadata.interfaces import IMetadataStore
from callfs.metrics import SweepFinding

_log = Logger()

PAGE = 500
MAX_CANDIDATES = 10_000
"""So many unnamed blobs are remembered from pass to pass; the others have their turn when these are gone."""


class SweepMetrics(Protocol):
    """Who counts what the sweep finds and does."""

    def sweep_passed(self, unnamed: int, backend_type: str) -> None:
        """A pass is complete."""

    def sweep_blobs(self, finding: SweepFinding, count: int) -> None:
        """What was done with so many blobs."""

    def sweep_alarm(self, raised: bool, backend_type: str) -> None:
        """Whether the sweep is stopped because too many blobs look unnamed."""

    def error(self, component: str, error_type: str) -> None:
        """Something went wrong."""


def is_old(blob: BlobStat, before_at: int) -> bool:
    """Whether a blob was begun, and last written, before the instant; what isn't named like a blob never is."""
    return is_blob_id(blob.id) and blob_created_at(blob.id) < before_at and blob.modified_at < before_at


async def pages(backend: IBlobBackend, size: int = PAGE) -> AsyncGenerator[Sequence[BlobStat], None]:
    """All committed blobs of a backend, in pages."""
    after = ""
    while page := await backend.list_blobs(after, size):
        yield page
        after = page[-1].id


async def unnamed_blobs(blob_ids: Sequence[str], backend: IBlobBackend, metadata: IMetadataStore) -> list[str]:
    """
    Those of ``blob_ids`` that nothing names and that are still there.

    The list of blobs is older than what the store says: what was removed and deleted between the two has neither a
    name nor a row in the garbage queue any more, and isn't there either.

    :raises callfs.errors.MetadataUnavailable: the store doesn't answer.
    """
    if not blob_ids:
        return []

    @returns_deferred
    async def is_there(blob_id: str) -> bool:
        try:
            await backend.stat(blob_id)
        except BlobMissing:
            return False
        except CallFSError:
            return True
        return True

    named = await metadata.named_blobs(blob_ids)
    return await succeeded([blob_id for blob_id in blob_ids if blob_id not in named], is_there)


async def set_aside_ids(backend: IBlobBackend) -> frozenset[str]:
    """All that is set aside."""
    after = ""
    found: set[str] = set()
    while page := await backend.list_set_aside(after, PAGE):
        found.update(blob.id for blob in page)
        after = page[-1].id
    return frozenset(found)


async def put_back_named(backend: IBlobBackend, metadata: IMetadataStore, metrics: SweepMetrics) -> list[str]:
    """
    Put back what was set aside and has a name: another, newer copy of the store has come into use since.

    :return: the ids of what was put back.
    :raises callfs.errors.MetadataUnavailable: the store doesn't answer.
    """
    after = ""
    put_back: list[str] = []
    while page := await backend.list_set_aside(after, PAGE):
        after = page[-1].id
        named = sorted(await metadata.named_blobs([blob.id for blob in page]))
        for blob_id in named:
            await backend.put_back(blob_id)
        if named:
            put_back += named
            metrics.sweep_blobs("put_back", len(named))
            _log.warn("{count} blobs have a name again and were put back", event="put_back", count=len(named))
    return put_back


class _Stopped(Exception):
    """The node is going down: the pass ends where it is."""


class _Pass:
    """What one walk over all blobs has found; ``unnamed`` says since when each has been seen without a name."""

    def __init__(self, seen_before: dict[str, float], seconds: float) -> None:
        self._seen_before = seen_before
        self._seconds = seconds
        self.judged = 0
        self.unnamed_count = 0
        self.unnamed: dict[str, float] = {}

    def add(self, old: Sequence[str], unnamed: Sequence[str]) -> None:
        """A page of blobs that are old enough, and those of them that have no name."""
        self.judged += len(old)
        self.unnamed_count += len(unnamed)
        for blob_id in unnamed[: MAX_CANDIDATES - len(self.unnamed)]:
            self.unnamed[blob_id] = self._seen_before.get(blob_id, self._seconds)


class Sweep:
    """
    The sweep over the blobs of one backend, by one node at a time.

    :param backend: whose blobs this node alone stores and deletes; or a shared one, whose sweep it has to itself.
    :param now: the wall clock, an instant.
    :param clock: measures the time between passes.
    :param stopping: asked between pages whether to leave off.
    """

    def __init__(
        self,
        *,
        backend: IBlobBackend,
        metadata: IMetadataStore,
        settings: JanitorSettings,
        now: Callable[[], int],
        clock: IReactorTime,
        metrics: SweepMetrics,
        stopping: Callable[[], bool],
    ) -> None:
        self._backend = backend
        self._metadata = metadata
        self._settings = settings
        self._now = now
        self._clock = clock
        self._metrics = metrics
        self._stopping = stopping
        self._seen: dict[str, float] = {}

    async def run(self) -> None:
        """
        One pass. Should it fail, the next begins with what the one before it knew.

        :raises callfs.errors.MetadataUnavailable: the store doesn't answer.
        """
        await self.put_back_named()
        try:
            found = await self._look()
            condemned = await self._recently_condemned()
        except _Stopped:
            return
        self._metrics.sweep_passed(found.unnamed_count, self._backend.name)
        verdict = judge(found.judged, found.unnamed_count)
        self._metrics.sweep_alarm(verdict is Verdict.ALARMING, self._backend.name)
        if verdict is not Verdict.SOUND:
            self._seen = {}
            self._hold_back(verdict, found)
            return
        self._seen = found.unnamed
        # What was set aside counts on, so that a wrong store can't take a little with every pass.
        if judge(found.judged + condemned, found.unnamed_count + condemned) is Verdict.SOUND:
            await self._condemn(self._ripe(found))
        await self._purge()

    async def put_back_named(self) -> None:
        """
        See :func:`put_back_named`. Comes before anything is purged, also when the store is doubted: keeping bytes
        is never wrong.
        """
        await put_back_named(self._backend, self._metadata, self._metrics)

    async def _look(self) -> _Pass:
        before_at = self._now() - microseconds(self._settings.sweep_grace_seconds)
        found = _Pass(self._seen, self._clock.seconds())
        async for page in pages(self._backend):
            if self._stopping():
                raise _Stopped
            old = [blob.id for blob in page if is_old(blob, before_at)]
            found.add(old, await unnamed_blobs(old, self._backend, self._metadata))
        return found

    async def _recently_condemned(self) -> int:
        """How many blobs are condemned, as far as the count can matter."""
        after, count = "", 0
        while page := await self._metadata.condemned_blobs(self._now() + 1, after, PAGE):
            if self._stopping():
                raise _Stopped
            count += len(page)
            after = page[-1]
        return count

    def _hold_back(self, verdict: Verdict, found: _Pass) -> None:
        """Say why nothing is done."""
        if verdict is Verdict.ALARMING:
            self._metrics.error("janitor", "sweep_alarm")
        _log.emit(
            LogLevel.critical if verdict is Verdict.ALARMING else LogLevel.warn,
            "{unnamed} of {judged} blobs have no name in the metadata store: the sweep touches nothing. "
            "Is the store empty, an old copy, or another one? 'callfs fsck' shows what is there",
            event="sweep_held_back",
            verdict=verdict.value,
            unnamed=found.unnamed_count,
            judged=found.judged,
        )

    def _ripe(self, found: _Pass) -> list[str]:
        """Those that an earlier pass, long enough ago, saw unnamed already."""
        latest = self._clock.seconds() - self._settings.sweep_grace_seconds
        return [blob_id for blob_id, since in found.unnamed.items() if since <= latest]

    async def _condemn(self, ripe: list[str]) -> None:
        for start in range(0, len(ripe), PAGE):
            if self._stopping():
                return
            await condemn_and_set_aside(
                ripe[start : start + PAGE], self._backend, self._metadata, self._now(), self._metrics
            )

    async def _purge(self) -> None:
        """
        Delete what has been aside long enough. A condemnation is remembered twice as long as that, because the
        bytes may have been set aside some time after it.
        """
        keep = microseconds(self._settings.set_aside_seconds)
        purged = await self._backend.purge_set_aside(self._now() - keep)
        if purged:
            self._metrics.sweep_blobs("purged", purged)
            _log.info("{count} blobs set aside long ago were deleted", event="sweep_purged", count=purged)
        await self._metadata.apply(ForgetCondemned(at=self._now(), before_at=self._now() - 2 * keep))


async def condemn_and_set_aside(
    blob_ids: Sequence[str], backend: IBlobBackend, metadata: IMetadataStore, at: int, metrics: SweepMetrics
) -> list[str]:
    """
    Condemn blobs, and set aside those that the store says are condemned.

    :param blob_ids: seen unnamed; what has a name by now is left alone.
    :param at: the instant of the command.
    :return: what was set aside. What couldn't be stays where it is, condemned, for the next time.
    """

    @returns_deferred
    async def set_aside(blob_id: str) -> bool:
        try:
            await backend.set_aside(blob_id)
        except Exception:
            metrics.error("janitor", "set_aside_failed")
            _log.failure("blob {blob_id} could not be set aside", event="set_aside_failed", blob_id=blob_id)
            return False
        _log.warn("blob {blob_id} has no name and was set aside", event="blob_set_aside", blob_id=blob_id)
        return True

    condemned = await metadata.apply(Condemn(at=at, blob_ids=tuple(blob_ids)))
    metrics.sweep_blobs("condemned", len(condemned.ids))
    aside = await succeeded(condemned.ids, set_aside)
    metrics.sweep_blobs("set_aside", len(aside))
    return aside
