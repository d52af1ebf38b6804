"""A file system in one test: the real store, a backend and locks that can be made to wait or to fail."""

from __future__ import annotations

import os
import secrets
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, TypeVar

import pytest
from twisted.internet import reactor, task
from twisted.internet.defer import Deferred
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from callfs.backends.interfaces import BlobStat, CommittedBlob, Hasher, IBlobBackend, IBlobReader, IStagedBlob
from callfs.backends.memory import MemoryBackend
from callfs.deferreds import returns_deferred
from callfs.engine.filesystem import Filesystem, OpenFile, Upload
from callfs.engine.settings import EngineSettings
from callfs.locks.interfaces import ILease, ILockService
from callfs.locks.local import LocalLocks
from callfs.metadata.commands import Command
from callfs.metadata.interfaces import IMetadataStore
from callfs.metadata.sqlite import SqliteStore
from callfs.model import Inode, Principal

T = TypeVar("T")

NODE = "node-1"
ALICE = Principal("alice")
BOB = Principal("bob")
ADMIN = Principal("root", is_admin=True)
START_AT = 1_700_000_000_000_000
SECOND = 1_000_000
HOUR_SECONDS = 3600.0
DAY_SECONDS = 24 * HOUR_SECONDS
MAX_SIZE = 1 << 30

FAST_FOLDER = "/dev/shm" if os.path.isdir("/dev/shm") else None
"""In memory where there is such a place: these tests are about order, not about disks."""


class Steps:
    """Named steps at which whoever comes by can be made to wait or to fail."""

    def __init__(self) -> None:
        self.passed: Counter[str] = Counter()
        self._errors: dict[str, list[Exception | None]] = {}
        self._gates: dict[str, list[Deferred[None]]] = {}
        self._arrivals: dict[str, list[Deferred[None]]] = defaultdict(list)

    def fail(self, step: str, *errors: Exception | None) -> None:
        """The next calls of ``step`` fail with ``errors``, one each (``None``: that one succeeds)."""
        self._errors[step] = list(errors)

    def hold(self, step: str) -> None:
        """Whoever comes to ``step`` waits until it is released."""
        self._gates[step] = []

    def release(self, step: str) -> None:
        """Let all go on who wait at ``step``."""
        for gate in self._gates.pop(step):
            gate.callback(None)

    def arrival(self, step: str) -> Deferred[None]:
        """Fires when the next one comes to ``step``."""
        arrival: Deferred[None] = Deferred()
        self._arrivals[step].append(arrival)
        return arrival

    async def pass_by(self, step: str) -> None:
        """Come to a step."""
        self.passed[step] += 1
        arrivals = self._arrivals.pop(step, [])
        gate: Deferred[None] | None = None
        if step in self._gates:
            gate = Deferred()
            self._gates[step].append(gate)
        for arrival in arrivals:
            arrival.callback(None)
        if gate is not None:
            await gate
        if self._errors.get(step):
            error = self._errors[step].pop(0)
            if error is not None:
                raise error


@implementer(IStagedBlob)
class SteppedStage:
    """A staged blob with steps ``write``, ``commit``, ``abort``."""

    def __init__(self, inner: IStagedBlob, backend: SteppedBackend) -> None:
        self._inner = inner
        self._backend = backend

    @returns_deferred
    async def write(self, data: bytes) -> None:
        """See :meth:`IStagedBlob.write`."""
        await self._backend.steps.pass_by("write")
        await self._inner.write(data)

    @returns_deferred
    async def commit(self) -> CommittedBlob:
        """See :meth:`IStagedBlob.commit`."""
        await self._backend.steps.pass_by("commit")
        committed = await self._inner.commit()
        self._backend.stages.discard(self)
        return committed

    @returns_deferred
    async def abort(self) -> None:
        """See :meth:`IStagedBlob.abort`."""
        await self._backend.steps.pass_by("abort")
        await self._inner.abort()
        self._backend.stages.discard(self)


@implementer(IBlobReader)
class SteppedReader:
    """A reader with the step ``read``; it reports a size of its own where it is told to."""

    def __init__(self, inner: IBlobReader, backend: SteppedBackend) -> None:
        self._inner = inner
        self._backend = backend
        self.size = inner.size + backend.size_error

    @returns_deferred
    async def read(self, offset: int, length: int) -> bytes:
        """See :meth:`IBlobReader.read`."""
        await self._backend.steps.pass_by("read")
        return await self._inner.read(offset, length)

    def fileno(self) -> int | None:
        """See :meth:`IBlobReader.fileno`."""
        return self._inner.fileno()

    def close(self) -> None:
        """See :meth:`IBlobReader.close`."""
        self._backend.readers.discard(self)
        self._inner.close()


@implementer(IBlobBackend)
class SteppedBackend:
    """Another backend, with steps; ``stages`` and ``readers`` are those that nobody has ended yet."""

    name = "localfs"

    def __init__(self, inner: IBlobBackend) -> None:
        self.inner = inner
        self.steps = Steps()
        self.stages: set[SteppedStage] = set()
        self.readers: set[SteppedReader] = set()
        self.size_error = 0

    @returns_deferred
    async def stage(
        self, blob_id: str, declared_size: int | None = None, hashers: Sequence[Hasher] = ()
    ) -> IStagedBlob:
        """See :meth:`IBlobBackend.stage`."""
        await self.steps.pass_by("stage")
        stage = SteppedStage(await self.inner.stage(blob_id, declared_size, hashers), self)
        self.stages.add(stage)
        return stage

    @returns_deferred
    async def open(self, blob_id: str) -> IBlobReader:
        """See :meth:`IBlobBackend.open`."""
        await self.steps.pass_by("open")
        reader = SteppedReader(await self.inner.open(blob_id), self)
        self.readers.add(reader)
        return reader

    @returns_deferred
    async def delete(self, blob_id: str) -> None:
        """See :meth:`IBlobBackend.delete`; the step ``delete`` comes for all, and one with the id for each."""
        await self.steps.pass_by("delete")
        await self.steps.pass_by(f"delete {blob_id}")
        await self.inner.delete(blob_id)

    @returns_deferred
    async def set_aside(self, blob_id: str) -> None:
        """See :meth:`IBlobBackend.set_aside`."""
        await self.steps.pass_by("set_aside")
        await self.inner.set_aside(blob_id)

    def list_set_aside(self, after: str = "", limit: int = 1000) -> Deferred[list[BlobStat]]:
        """See :meth:`IBlobBackend.list_set_aside`."""
        return self.inner.list_set_aside(after, limit)

    @returns_deferred
    async def put_back(self, blob_id: str) -> None:
        """See :meth:`IBlobBackend.put_back`."""
        await self.steps.pass_by("put_back")
        await self.inner.put_back(blob_id)

    def purge_set_aside(self, before_at: int) -> Deferred[int]:
        """See :meth:`IBlobBackend.purge_set_aside`."""
        return self.inner.purge_set_aside(before_at)

    @returns_deferred
    async def stat(self, blob_id: str) -> BlobStat:
        """See :meth:`IBlobBackend.stat`."""
        await self.steps.pass_by("stat")
        return await self.inner.stat(blob_id)

    @returns_deferred
    async def list_blobs(self, after: str = "", limit: int = 1000) -> list[BlobStat]:
        """See :meth:`IBlobBackend.list_blobs`."""
        await self.steps.pass_by("list_blobs")
        return await self.inner.list_blobs(after, limit)

    @returns_deferred
    async def remove_stale_staged(self, before_at: int) -> int:
        """See :meth:`IBlobBackend.remove_stale_staged`."""
        await self.steps.pass_by("remove_stale_staged")
        return await self.inner.remove_stale_staged(before_at)

    def close(self) -> Deferred[None]:
        """See :meth:`IBlobBackend.close`."""
        return self.inner.close()


class SteppedStore:
    """
    A store whose commands have steps, named as their classes: one before the command, and one, with ``applied``
    before the name, between the command and its answer. Most reads pass through; some are steps themselves.
    """

    def __init__(self, inner: IMetadataStore) -> None:
        self.inner = inner
        self.steps = Steps()

    @returns_deferred
    async def apply(self, command: Command[T]) -> T:
        """See :meth:`IMetadataStore.apply`."""
        name = type(command).__name__
        await self.steps.pass_by(name)
        result = await self.inner.apply(command)
        await self.steps.pass_by(f"applied {name}")
        return result

    @returns_deferred
    async def named_blobs(self, blob_ids: Sequence[str]) -> frozenset[str]:
        """See :meth:`IMetadataStore.named_blobs`."""
        await self.steps.pass_by("named_blobs")
        return await self.inner.named_blobs(blob_ids)

    @returns_deferred
    async def get_chain(self, path: str) -> Sequence[Inode]:
        """See :meth:`IMetadataStore.get_chain`."""
        await self.steps.pass_by("get_chain")
        return await self.inner.get_chain(path)

    @returns_deferred
    async def list_children(self, directory_id: str, after_name: str = "", limit: int = 1000) -> Sequence[Inode]:
        """See :meth:`IMetadataStore.list_children`."""
        await self.steps.pass_by("list_children")
        return await self.inner.list_children(directory_id, after_name, limit)

    @returns_deferred
    async def walk(
        self, directory: str, after_path: str = "", max_depth: int | None = None, limit: int = 1000
    ) -> Sequence[Inode]:
        """See :meth:`IMetadataStore.walk`."""
        await self.steps.pass_by("walk")
        return await self.inner.walk(directory, after_path, max_depth, limit)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@implementer(ILockService)
class SteppedLocks:
    """Locks with the steps ``acquire`` and ``release``; ``held`` are those that nobody gave back."""

    def __init__(self, inner: ILockService) -> None:
        self.inner = inner
        self.steps = Steps()
        self.held: list[str] = []

    @returns_deferred
    async def acquire(self, keys: tuple[str, ...], wait_seconds: float) -> tuple[ILease, ...]:
        """See :meth:`ILockService.acquire`."""
        await self.steps.pass_by("acquire")
        leases = await self.inner.acquire(keys, wait_seconds)
        self.held += [lease.key for lease in leases]
        return tuple(_Lease(lease, self) for lease in leases)

    def close(self) -> Deferred[None]:
        """See :meth:`ILockService.close`."""
        return self.inner.close()


@implementer(ILease)
class _Lease:
    def __init__(self, inner: ILease, locks: SteppedLocks) -> None:
        self.key = inner.key
        self.fencing = inner.fencing
        self._inner = inner
        self._locks = locks

    @returns_deferred
    async def release(self) -> None:
        """See :meth:`ILease.release`."""
        await self._inner.release()
        self._locks.held.remove(self.key)
        await self._locks.steps.pass_by("release")


class Counts:
    """Metrics that a test reads: by method and labels."""

    def __init__(self) -> None:
        self.of: Counter[tuple[object, ...]] = Counter()
        self.alarm: bool | None = None
        self.backlog: tuple[int, int, float] | None = None

    def file_operation(self, operation: str, backend_type: str) -> None:
        """An operation succeeded."""
        self.of["file", operation, backend_type] += 1

    def upload_started(self) -> None:
        """A body begins."""
        self.of["uploads",] += 1

    def upload_ended(self) -> None:
        """A body has ended."""
        self.of["uploads",] -= 1

    def error(self, component: str, error_type: str) -> None:
        """Something went wrong."""
        self.of["error", component, error_type] += 1

    def garbage_deleted(self, backend_type: str, count: int = 1) -> None:
        """Blobs are gone."""
        self.of["garbage_deleted", backend_type] += count

    def garbage_failed(self, backend_type: str) -> None:
        """A blob isn't gone."""
        self.of["garbage_failed", backend_type] += 1

    def staged_removed(self, backend_type: str, count: int) -> None:
        """Staged blobs were removed."""
        self.of["staged_removed", backend_type] += count

    def stored(self, files: int, directories: int, size: int) -> None:
        """See :class:`callfs.metrics.Metrics`."""
        self.of["stored",] = files

    def garbage_queue_length(self, count: int) -> None:
        """See :class:`callfs.metrics.Metrics`."""
        self.of["garbage_queue_length",] = count

    def links_purged(self, count: int) -> None:
        """Links were purged."""
        self.of["links_purged",] += count

    def sweep_passed(self, unnamed: int, backend_type: str) -> None:
        """A pass is complete."""
        self.of["sweep_passes",] += 1

    def sweep_blobs(self, finding: str, count: int) -> None:
        """What the sweep did."""
        self.of["sweep", finding] += count

    def sweep_alarm(self, raised: bool, backend_type: str) -> None:
        """Whether the sweep is stopped."""
        self.alarm = raised

    def replicated(self, status: str) -> None:
        """See :class:`callfs.metrics.Metrics`."""
        self.of["replicated", status] += 1

    def replication_backlog(self, waiting: int, failing: int, oldest_age_seconds: float) -> None:
        """See :class:`callfs.metrics.Metrics`."""
        self.backlog = (waiting, failing, oldest_age_seconds)


class EngineCase(TestCase):
    """
    A test with a file system: real store on disk, blobs in memory (or where :meth:`make_backend` says), real locks.

    ``clock`` drives time limits and periods, ``now`` is the wall clock; :meth:`advance` moves both.
    """

    timeout = 60

    async def setUp(self) -> None:  # type: ignore[override]
        self.folder = Path(mkdtemp(prefix="callfs-engine-", dir=FAST_FOLDER))
        self.addCleanup(_remove_tree, self.folder)
        self.pool = ThreadPool(0, 8, name="engine-test")
        self.pool.start()
        self.addCleanup(self.pool.stop)
        self.clock = task.Clock()
        self.metrics = Counts()
        self.kicks = 0
        self.reached: list[str] = []
        self.at_point: Callable[[str], None] = lambda point: None
        self.store = SteppedStore(await self.open_store("metadata.sqlite3"))
        self.addCleanup(lambda: self.store.inner.close())
        self.backend = SteppedBackend(await self.make_backend())
        self.addCleanup(lambda: self.backend.inner.close())
        self.locks = SteppedLocks(LocalLocks(self.clock))
        self.addCleanup(lambda: self.locks.inner.close())
        self.filesystem = self.make_filesystem()

    def now(self) -> int:
        """The wall clock."""
        return START_AT + int(self.clock.seconds() * SECOND)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance(seconds)

    async def open_store(self, name: str) -> SqliteStore:
        """A real store in the test's folder."""
        store = SqliteStore(
            self.folder / name,
            reactor=reactor,
            pool=self.pool,
            token_bytes=secrets.token_bytes,
            op_timeout_seconds=30.0,
        )
        await store.open()
        return store

    async def make_backend(self) -> IBlobBackend:
        """Where the bytes go."""
        return MemoryBackend(now=self.now, name="localfs")

    def make_filesystem(self, **changes: Any) -> Filesystem:
        """The facade over the test's ports."""
        arguments: dict[str, Any] = {
            "metadata": self.store,
            "backends": {"localfs": self.backend},
            "locks": self.locks,
            "settings": EngineSettings(instance_id=NODE),
            "now": self.now,
            "clock": self.clock,
            "token_bytes": secrets.token_bytes,
            "metrics": self.metrics,
            "link_secrets": (b"a secret of the links",),
            "garbage_made": self._kicked,
            "reached": self._reached,
        }
        return Filesystem(**{**arguments, **changes})

    def _kicked(self) -> None:
        self.kicks += 1

    def _reached(self, point: str) -> None:
        self.reached.append(point)
        self.at_point(point)

    async def put(self, path: str, data: bytes = b"content", principal: Principal = ALICE, **options: Any) -> Any:
        """PUT a file."""
        return await self.filesystem.put_file(principal, path, upload(data, **options))

    async def create(
        self, path: str, data: bytes = b"content", principal: Principal = ALICE, **options: Any
    ) -> Any:
        """POST a file."""
        return await self.filesystem.create_file(principal, path, upload(data, **options))

    async def content(self, path: str, principal: Principal = ALICE) -> bytes:
        """What a reader gets."""
        return await read_all(await self.filesystem.open(principal, path))

    async def blob_ids(self) -> list[str]:
        """All committed blobs."""
        return [blob.id for blob in await self.backend.inner.list_blobs()]

    async def refused(self, error: type[Exception], work: Awaitable[Any]) -> Any:
        """Await what has to fail with exactly this error; the error."""
        with pytest.raises(error) as caught:
            await work
        assert caught.type is error
        return caught.value

    async def nothing_left(self) -> None:
        """Check that nobody holds a stage, a reader or a lock, and that every blob has a name."""
        assert self.backend.stages == set()
        assert self.backend.readers == set()
        assert self.locks.held == []
        assert self.metrics.of["uploads",] == 0
        ids = await self.blob_ids()
        assert sorted(ids) == sorted(await self.store.named_blobs(ids))


def _remove_tree(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()
    folder.rmdir()


async def chunks(*pieces: bytes | Exception) -> AsyncGenerator[bytes, None]:
    """A body that comes in pieces; an exception is raised at its place."""
    for piece in pieces:
        if isinstance(piece, Exception):
            raise piece
        yield piece


class Feed:
    """A body that the test feeds; ``asked`` counts how often somebody waited for more."""

    def __init__(self) -> None:
        self.asked = 0
        self._pieces: list[bytes | Exception | None] = []
        self._waiting: Deferred[None] | None = None

    def give(self, piece: bytes | Exception | None) -> None:
        """Give a piece; ``None`` ends the body."""
        self._pieces.append(piece)
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        self.asked += 1
        if not self._pieces:
            self._waiting = Deferred()
            await self._waiting
        piece = self._pieces.pop(0)
        if piece is None:
            raise StopAsyncIteration
        if isinstance(piece, Exception):
            raise piece
        return piece


def upload(data: bytes | AsyncIterator[bytes], **options: Any) -> Upload:
    """An upload of ``data``, in two pieces, or of a body."""
    body = chunks(*[piece for piece in (data[:3], data[3:]) if piece]) if isinstance(data, bytes) else data
    return Upload(**{"body": body, "max_size": MAX_SIZE, **options})


async def read_all(opened: OpenFile) -> bytes:
    """All of an open file, which is closed then."""
    try:
        pieces = []
        offset = 0
        while piece := await opened.reader.read(offset, 1 << 16):
            pieces.append(piece)
            offset += len(piece)
        return b"".join(pieces)
    finally:
        opened.reader.close()


def started(coroutine: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
    """Start a coroutine."""
    return Deferred.fromCoroutine(coroutine)


async def outcome(work: Awaitable[T]) -> T | Exception:
    """The result of something, or the error that it failed with."""
    try:
        return await work
    except Exception as error:
        return error


async def turns(count: int = 3) -> None:
    """Let the reactor, and threads that are ready, come by."""
    for _ in range(count):
        await task.deferLater(reactor, 0.005)


async def settled(condition: Callable[[], bool], limit_seconds: float = 10.0) -> None:
    """Let the reactor run until the condition holds."""
    for _ in range(int(limit_seconds * 200)):
        if condition():
            return
        await task.deferLater(reactor, 0.005)
    raise AssertionError("it never came")
