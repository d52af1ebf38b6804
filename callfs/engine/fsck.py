"""
The consistency check: do names and bytes agree?

It reads and changes nothing, and works beside a running daemon: what is merely under way (staged files, queued
garbage, blobs within their grace period, a file that is replaced or removed while it is looked at) is no finding.
Repairs are calls of their own; they write to the store and so need the daemon stopped.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from twisted.internet.defer import Deferred, FirstError, gatherResults

from callfs.backends.interfaces import BlobMissing, IBlobBackend, IBlobReader
from callfs.engine.arrangement import without
from callfs.engine.inventory import Inventory
from callfs.engine.judgement import Verdict, judge
from callfs.engine.routing import S3_BACKEND, backend_of, is_own
from callfs.engine.settings import microseconds
from callfs.engine.sweep import (
    SweepMetrics,
    condemn_and_set_aside,
    is_old,
    pages,
    put_back_named,
    set_aside_ids,
    unnamed_blobs,
)
from callfs.engine.waves import WIDTH
from callfs.errors import CallFSError
from callfs.metadata.commands import Relocate, Remove
from callfs.metadata.interfaces import IMetadataStore
from callfs.model import ROOT_USER, BlobRef, Preconditions, Principal, S3Placement

PAGE = 500
LIST_PAGE = 1000
"""Blobs in one request for a backend's list: S3 gives no more."""
PIECE_BYTES = 1 << 20

GRACE_SECONDS = 3600.0
"""A blob younger than this may belong to an upload that is under way."""


class FindingKind(enum.Enum):
    """What can be wrong."""

    MISSING_BLOB = "missing_blob"
    SET_ASIDE_BLOB = "set_aside_blob"
    WRONG_SIZE = "wrong_size"
    WRONG_CHECKSUM = "wrong_checksum"
    UNREADABLE_BLOB = "unreadable_blob"
    UNNAMED_BLOB = "unnamed_blob"
    STORE = "store"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """
    Something that is wrong.

    :param detail: one sentence for the operator.
    :param path: of the file that has the blob; ``None`` where there is none.
    :param blob_id: the blob; ``None`` for what is wrong in the store itself.
    :param backend: the name of the backend that has, or should have, the blob.
    """

    kind: FindingKind
    detail: str
    path: str | None = None
    blob_id: str | None = None
    backend: str | None = None


@dataclass(frozen=True)
class Progress:
    """
    How far the check is.

    :param checked: blobs so far.
    :param total: of how many, as far as it is known.
    """

    checked: int
    total: int | None = None


Report = AsyncGenerator[Finding | Progress, None]


class ConsistencyCheck:
    """
    The check of one node.

    :param metadata: open, read-only is enough.
    :param backends: this node's, by name.
    :param instance_id: this node; of a local disk it judges its own blobs alone.
    :param now: the wall clock, an instant.
    :param deep: read every byte and compare the SHA-256, hashing where it is called: not for a busy reactor.
    :param grace_seconds: blobs younger than this are not judged.
    """

    def __init__(
        self,
        *,
        metadata: IMetadataStore,
        backends: Mapping[str, IBlobBackend],
        instance_id: str,
        now: Callable[[], int],
        deep: bool = False,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        self._metadata = metadata
        self._backends = backends
        self._instance_id = instance_id
        self._now = now
        self._deep = deep
        self._grace_seconds = grace_seconds
        self._set_aside: dict[str, frozenset[str]] = {}

    async def store(self) -> Report:
        """The store itself: its file, and what CallFS relies on in it. Takes a while and shows no progress."""
        for detail in await self._metadata.verify():
            yield Finding(kind=FindingKind.STORE, detail=detail)

    async def files(self) -> Report:
        """
        Every file: is its blob there, is it as long, and with ``deep`` the same, as it should be?

        What other nodes have on their disks is for them to check. What is in S3 and isn't read is looked for in its
        list, a thousand at once; only what isn't there as it should be costs a request of its own.

        :raises callfs.errors.CallFSError: the store doesn't answer, or S3 doesn't give its list; or there is no
            room for temporary files.
        """
        total = (await self._metadata.statistics()).files
        checked, after = 0, ""
        with closing(Inventory()) as inventory:
            while page := await self._metadata.list_blobs(after, PAGE):
                listed = [blob for blob, _ in page if self._is_listed(blob)]
                inventory.expect(listed)
                singly = [blob for blob, _ in page if not self._is_listed(blob)]
                for start in range(0, len(singly), WIDTH):
                    wave = singly[start : start + WIDTH]
                    for finding in await self._findings(wave):
                        yield finding
                    checked += len(wave)
                    if self._deep:
                        yield Progress(checked, max(checked, total))
                yield Progress(checked, max(checked, total))
                after = page[-1][0].id
            async for step in self._compared(inventory, checked, total):
                yield step

    async def _compared(self, inventory: Inventory, checked: int, total: int) -> Report:
        """What is expected in S3, against its list."""
        if len(inventory):
            async for page in pages(self._backends[S3_BACKEND], LIST_PAGE):
                checked += inventory.strike(page)
                yield Progress(checked, max(checked, total))
        after = ""
        while ids := inventory.missing(after, WIDTH):
            # The list is younger than what was expected: what was relocated or removed meanwhile isn't in it.
            for finding in await self._findings(await self._still_named(ids)):
                yield finding
            checked += len(ids)
            yield Progress(checked, max(checked, total))
            after = ids[-1]
        yield Progress(checked, checked)

    def _is_listed(self, blob: BlobRef) -> bool:
        """Whether a list says all that is asked about it, and cheaper than it does."""
        own = is_own(blob.placement, self._instance_id, self._backends)
        return own and not self._deep and isinstance(blob.placement, S3Placement)

    async def _findings(self, blobs: Sequence[BlobRef]) -> list[Finding]:
        """What is wrong with these, each looked at by itself."""
        findings: list[Finding] = []
        for blob, found in zip(blobs, await self._check_blobs(blobs), strict=True):
            # What was renamed meanwhile is found where it is now; replaced or removed is no finding.
            current = None if found is None else await self._current_name(blob.id)
            if found is not None and current is not None:
                kind, detail = found
                backend = backend_of(blob.placement)
                findings.append(
                    Finding(kind=kind, detail=detail, path=current[1], blob_id=blob.id, backend=backend)
                )
        return findings

    async def blobs(self) -> Report:
        """Every blob of this node's backends: does anything name it?"""
        for name, backend in self._backends.items():
            checked = 0
            async for page in pages(backend, LIST_PAGE):
                before_at = self._now() - microseconds(self._grace_seconds)
                for blob_id in await self._unnamed([b.id for b in page if is_old(b, before_at)], backend):
                    yield Finding(
                        kind=FindingKind.UNNAMED_BLOB,
                        detail=f"blob {blob_id} has no name",
                        blob_id=blob_id,
                        backend=name,
                    )
                checked += len(page)
                yield Progress(checked)

    async def _unnamed(self, blob_ids: Sequence[str], backend: IBlobBackend) -> list[str]:
        """Those of ``blob_ids`` that no inode names, no garbage row holds, and that aren't condemned."""
        unnamed = await unnamed_blobs(blob_ids, backend, self._metadata)
        return [blob_id for blob_id in unnamed if not await self._is_condemned(blob_id)]

    async def _is_condemned(self, blob_id: str) -> bool:
        neighbours = await self._metadata.condemned_blobs(self._now() + 1, *_neighbours(blob_id))
        return blob_id in neighbours

    async def _still_named(self, ids: Sequence[str]) -> list[BlobRef]:
        named = [await self._current_name(blob_id) for blob_id in ids]
        return [each[0] for each in named if each is not None]

    async def _current_name(self, blob_id: str) -> tuple[BlobRef, str] | None:
        """The blob, with the path of the file that has it."""
        for blob, path in await self._metadata.list_blobs(*_neighbours(blob_id)):
            if blob.id == blob_id:
                return blob, path
        return None

    async def _check_blobs(self, blobs: Sequence[BlobRef]) -> list[tuple[FindingKind, str] | None]:
        """Side by side: what isn't on a disk of this node costs a request each."""
        checks = [Deferred.fromCoroutine(self._check_blob(blob)) for blob in blobs]
        try:
            return await gatherResults(checks, consumeErrors=True)
        except FirstError as error:
            error.subFailure.raiseException()

    async def _check_blob(self, blob: BlobRef) -> tuple[FindingKind, str] | None:
        if not is_own(blob.placement, self._instance_id, self._backends):
            return None
        backend = backend_of(blob.placement)
        try:
            size, sha256 = await self._measure(self._backends[backend], blob)
        except BlobMissing:
            if await self._is_set_aside(backend, blob):
                return FindingKind.SET_ASIDE_BLOB, f"blob {blob.id} is set aside: a start or a repair puts it back"
            return FindingKind.MISSING_BLOB, f"blob {blob.id} is missing"
        except CallFSError as error:
            return FindingKind.UNREADABLE_BLOB, f"blob {blob.id} can't be read: {error.message}"
        if size != blob.size:
            return FindingKind.WRONG_SIZE, f"blob {blob.id} has {size} bytes and should have {blob.size}"
        if sha256 != blob.sha256:
            return FindingKind.WRONG_CHECKSUM, f"the content of blob {blob.id} has changed"
        return None

    async def _is_set_aside(self, backend: str, blob: BlobRef) -> bool:
        """The list is read once: nothing that has a name is set aside later."""
        if backend not in self._set_aside:
            self._set_aside[backend] = await set_aside_ids(self._backends[backend])
        return blob.id in self._set_aside[backend]

    async def _measure(self, backend: IBlobBackend, blob: BlobRef) -> tuple[int, bytes]:
        """Size and digest of what is there; the digest is only believed where not every byte is read."""
        if not self._deep:
            return (await backend.stat(blob.id)).size, blob.sha256
        reader = await backend.open(blob.id)
        try:
            return reader.size, await _sha256(reader)
        finally:
            reader.close()


def _neighbours(blob_id: str) -> tuple[str, int]:
    """Start and length of a page that has the blob if it is there: all ids with the same beginning."""
    return blob_id[:-1], 32


async def _sha256(reader: IBlobReader) -> bytes:
    hasher = hashlib.sha256()
    offset = 0
    while piece := await reader.read(offset, PIECE_BYTES):
        hasher.update(piece)
        offset += len(piece)
    return hasher.digest()


class TooManyUnnamed(Exception):
    """So many blobs look unnamed that the store is to be doubted; the message is for the operator."""


class Repair:
    """
    What can be done about findings. The daemon must be stopped: a store on SQLite has one writer.

    :param metadata: open for writing.
    :param backends: this node's, by name.
    :param now: the wall clock, an instant.
    :param metrics: counts what is done.
    """

    def __init__(
        self,
        *,
        metadata: IMetadataStore,
        backends: Mapping[str, IBlobBackend],
        now: Callable[[], int],
        metrics: SweepMetrics,
    ) -> None:
        self._metadata = metadata
        self._backends = backends
        self._now = now
        self._metrics = metrics

    async def set_aside(self, findings: Sequence[Finding], judged: int, force: bool = False) -> list[str]:
        """
        Set unnamed blobs aside: out of sight, but on the disk until the daemon's janitor deletes them a week later.

        :param findings: of the kind ``UNNAMED_BLOB``.
        :param judged: how many blobs were looked at.
        :param force: do it though much looks unnamed.
        :return: the ids of what was set aside; what has a name by now was left alone.
        :raises TooManyUnnamed: more looks unnamed than crashes leave behind.
        """
        if judge(judged, len(findings)) is Verdict.ALARMING and not force:
            raise TooManyUnnamed(
                f"{len(findings)} of {judged} blobs have no name: the metadata store may be empty, an old copy, or "
                "another one. Nothing was changed"
            )
        aside: list[str] = []
        for name, backend in self._backends.items():
            ids = [f.blob_id for f in findings if f.backend == name and f.blob_id is not None]
            for start in range(0, len(ids), PAGE):
                aside += await condemn_and_set_aside(
                    ids[start : start + PAGE], backend, self._metadata, self._now(), self._metrics
                )
        return aside

    async def put_back(self) -> list[str]:
        """
        Put back what is set aside and has a name, as the daemon does when it starts.

        :return: the ids of what was put back.
        """
        ids: list[str] = []
        for backend in self._backends.values():
            ids += await put_back_named(backend, self._metadata, self._metrics)
        return ids

    async def remove_file(self, finding: Finding) -> bool:
        """
        Remove a file whose bytes are lost, if it is still the file that was found; of one that has other copies
        only the name of the lost copy goes.

        :return: whether it was.
        :raises callfs.errors.CallFSError: as :class:`callfs.metadata.commands.Remove` and
            :class:`callfs.metadata.commands.Relocate`.
        """
        inode = None if finding.path is None else await self._metadata.get(finding.path)
        if inode is None or inode.blob is None or inode.etag is None:
            return False
        copies = inode.blob.copies()
        if finding.blob_id not in {copy.id for copy in copies}:
            return False
        at, root = self._now(), Principal(ROOT_USER, is_admin=True)
        if len(copies) > 1:
            forget = Relocate(
                at=at,
                principal=root,
                inode_id=inode.id,
                expected_blob_ids=tuple(copy.id for copy in copies),
                blob=without(inode.blob, finding.blob_id),
                garbage_not_before_at=at,
            )
            await self._metadata.apply(forget)
            return True
        remove = Remove(
            at=at,
            principal=root,
            path=inode.path,
            garbage_not_before_at=at,
            preconditions=Preconditions(if_match=(inode.etag,)),
        )
        await self._metadata.apply(remove)
        return True
