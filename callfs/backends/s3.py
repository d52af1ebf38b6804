"""
Blobs in an S3 bucket.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from callfs.backends.interfaces import (
    BlobMissing,
    BlobStat,
    Hasher,
    IBlobBackend,
    IBlobReader,
    ICopyingBackend,
    IStagedBlob,
)
from callfs.backends.jobs import Jobs, handed_over
from callfs.backends.s3_aside import S3Aside
from callfs.backends.s3_client import S3Client
from callfs.backends.s3_copying import S3Copying
from callfs.backends.s3_errors import S3Fault, S3Refusal
from callfs.backends.s3_faults import read_fault, write_fault
from callfs.backends.s3_identity import NamesBlobs, S3Identity
from callfs.backends.s3_multipart import S3Multipart
from callfs.backends.s3_objects import LIST_PAGE, OpenObject, S3Objects
from callfs.backends.s3_parts import CopyLimits
from callfs.backends.s3_reader import FIRST_BYTES, S3BlobReader
from callfs.backends.s3_settings import S3Keys, S3Settings
from callfs.backends.s3_upload import S3StagedBlob
from callfs.backends.s3_xml import ListedObject
from callfs.deferreds import returns_deferred, shielded
from callfs.errors import PeerUnavailable
from callfs.identifiers import is_blob_id

T = TypeVar("T")


@implementer(IBlobBackend, ICopyingBackend)
class S3Backend:
    """
    Blobs in the objects of a bucket, below a prefix that several nodes of one metadata store share.

    :param pool: where content is hashed and credentials are looked for; started and stopped by whoever made it.
    :param now: the instant, in microseconds.
    :param clock: for timeouts and pauses.
    :param random: from 0 to 1, for the jitter of repetitions.
    :param answers_again: called when S3 answers after a request was given up because it didn't.
    :param copy_limits: those of S3.
    """

    name = "s3"

    def __init__(
        self,
        settings: S3Settings,
        *,
        reactor: Any,
        pool: ThreadPool,
        now: Callable[[], int],
        clock: IReactorTime,
        random: Callable[[], float],
        answers_again: Callable[[], None] = lambda: None,
        copy_limits: CopyLimits = CopyLimits(),
    ) -> None:
        self._settings = settings
        self._now = now
        self._keys = S3Keys(settings.key_prefix)
        self._jobs = Jobs(reactor, pool)
        self._client = S3Client(
            settings,
            reactor=reactor,
            jobs=self._jobs,
            now=now,
            clock=clock,
            random=random,
            answers_again=answers_again,
        )
        self._objects = S3Objects(self._client, settings)
        self._multipart = S3Multipart(self._objects, settings)
        self._copying = S3Copying(self._objects, self._multipart, copy_limits)
        self._aside = S3Aside(self._objects, self._copying, self._keys)
        self._identity = S3Identity(self._objects, self._keys, settings)
        self._staged: dict[str, S3StagedBlob] = {}
        self._targets: set[str] = set()
        self._readers: set[S3BlobReader] = set()

    @returns_deferred
    async def recognise(self, store_id: str, store_was_empty: bool, names_blobs: NamesBlobs) -> None:
        """
        See whether the bucket can be used, and belongs to this metadata store; a new prefix is taken for it. To be
        called before anything else.

        :param store_id: of the metadata store.
        :param store_was_empty: the store was just made, or holds nothing but the root directory.
        :param names_blobs: says whether the store names blobs on S3, which are missing in a new prefix; only asked
            about one.
        :raises callfs.backends.s3_identity.S3Unusable: the message tells the operator what is wrong and what to do.
        :raises callfs.errors.PeerUnavailable: S3 doesn't answer; the message says why. To be tried again.
        """
        await self._identity.recognise(store_id, store_was_empty, names_blobs)

    @returns_deferred
    async def confirm(self, store_id: str, store_was_empty: bool) -> None:
        """
        See whether the bucket belongs to this metadata store without writing anything: for a tool that only reads.

        :raises callfs.backends.s3_identity.S3Unusable: as :meth:`recognise`, and when the prefix is new.
        :raises callfs.errors.PeerUnavailable: S3 doesn't answer; the message says why.
        """
        await self._identity.confirm(store_id, store_was_empty)

    @returns_deferred
    async def check(self) -> None:
        """
        See whether S3 answers.

        :raises callfs.errors.PeerUnavailable: it doesn't, or refuses; the cause is in the log, for the operator.
        """
        try:
            await self._objects.list(self._keys.blobs, limit=1)
        except S3Fault as fault:
            answers = isinstance(fault, S3Refusal) and not fault.passing
            read_fault(fault, self._settings, "check", "")
            text = "S3 refuses what it is asked" if answers else "S3 doesn't answer"
            raise PeerUnavailable(f"{text}; the log says more") from fault

    def stage(
        self, blob_id: str, declared_size: int | None = None, hashers: Sequence[Hasher] = ()
    ) -> Deferred[IStagedBlob]:
        """See :meth:`IBlobBackend.stage`. S3 hears of it when its first part is full."""
        if not is_blob_id(blob_id) or blob_id in self._staged:
            return fail(ValueError(f"not an id for a new blob: {blob_id!r}"))
        self._staged[blob_id] = staged = S3StagedBlob(
            self._keys.blob(blob_id),
            declared_size,
            hashers,
            objects=self._objects,
            multipart=self._multipart,
            jobs=self._jobs,
            translate=lambda fault: write_fault(fault, self._settings, "upload", blob_id),
            ended=lambda: self._forget(blob_id),
        )
        return succeed(staged)

    def open(self, blob_id: str) -> Deferred[IBlobReader]:
        """See :meth:`IBlobBackend.open`. The first bytes are on their way then."""
        if not is_blob_id(blob_id):
            return fail(BlobMissing(blob_id))
        return handed_over(self._open(blob_id), lambda reader: reader.close())

    def delete(self, blob_id: str) -> Deferred[None]:
        """See :meth:`IBlobBackend.delete`."""
        return self._change("delete", blob_id, lambda: self._objects.delete(self._keys.blob(blob_id)))

    def set_aside(self, blob_id: str) -> Deferred[None]:
        """See :meth:`IBlobBackend.set_aside`; a blob that isn't there is no error."""
        return self._change("set_aside", blob_id, lambda: self._aside.take(blob_id, self._now()))

    @returns_deferred
    async def list_set_aside(self, after: str = "", limit: int = 1000) -> list[BlobStat]:
        """See :meth:`IBlobBackend.list_set_aside`: by id."""
        return await self._reading("list_set_aside", after, self._aside.listed(after, limit))

    def put_back(self, blob_id: str) -> Deferred[None]:
        """See :meth:`IBlobBackend.put_back`."""
        return self._change("put_back", blob_id, lambda: self._aside.put_back(blob_id))

    def purge_set_aside(self, before_at: int) -> Deferred[int]:
        """See :meth:`IBlobBackend.purge_set_aside`."""
        return shielded(self._writing("purge_set_aside", "", self._aside.purge(before_at)))

    @returns_deferred
    async def stat(self, blob_id: str) -> BlobStat:
        """See :meth:`IBlobBackend.stat`."""
        if not is_blob_id(blob_id):
            raise BlobMissing(blob_id)
        found = await self._reading("stat", blob_id, self._objects.head(self._keys.blob(blob_id)))
        return _stat(blob_id, found)

    @returns_deferred
    async def list_blobs(self, after: str = "", limit: int = 1000) -> list[BlobStat]:
        """See :meth:`IBlobBackend.list_blobs`: by the id's last two characters, then by id."""
        return await self._reading("list_blobs", after, self._list_blobs(after, limit))

    def remove_stale_staged(self, before_at: int) -> Deferred[int]:
        """
        See :meth:`IBlobBackend.remove_stale_staged`. What other nodes are sending just now is in the bucket, too:
        the instant has to be old enough.
        """
        return shielded(self._writing("remove_stale_staged", "", self._remove_stale(before_at)))

    def copy(self, from_blob_id: str, to_blob_id: str) -> Deferred[BlobStat]:
        """See :meth:`ICopyingBackend.copy`."""
        if not is_blob_id(from_blob_id):
            return fail(BlobMissing(from_blob_id))
        if not is_blob_id(to_blob_id) or to_blob_id in self._staged or to_blob_id in self._targets:
            return fail(ValueError(f"not an id for a new blob: {to_blob_id!r}"))
        return shielded(self._writing("copy", from_blob_id, self._copy(from_blob_id, to_blob_id)))

    def cut(self) -> None:
        """
        Give up all that is under way, a commit too: it fails, at once, and so does whatever comes. For a node that
        can't wait for S3 any longer; what is left behind there is for the sweep.
        """
        self._client.cut()

    @returns_deferred
    async def close(self) -> None:
        """See :meth:`IBlobBackend.close`; a commit under way is finished first. Open readers are closed."""
        while self._staged:
            for staged in list(self._staged.values()):
                await staged.abort()
        for reader in list(self._readers):
            reader.close()
        await self._client.close()

    def _forget(self, blob_id: str) -> None:
        self._staged.pop(blob_id, None)

    @returns_deferred
    async def _open(self, blob_id: str) -> IBlobReader:
        key = self._keys.blob(blob_id)
        opened = await self._reading("open", blob_id, self._open_object(key))
        reader = S3BlobReader(
            self._objects,
            key,
            opened,
            translate=lambda fault: read_fault(fault, self._settings, "read", blob_id),
            closed=self._readers.discard,
        )
        self._readers.add(reader)
        return reader

    async def _open_object(self, key: str) -> OpenObject | None:
        """``None``: it is empty, so that S3 can't give the range."""
        try:
            return await self._objects.open(key, 0, FIRST_BYTES)
        except S3Refusal as refusal:
            if refusal.code != "InvalidRange" or (await self._objects.head(key)).size:
                raise
            return None

    async def _list_blobs(self, after: str, limit: int) -> list[BlobStat]:
        found: list[BlobStat] = []
        start_after = self._keys.blob(after) if after else ""
        while len(found) < limit:
            page = await self._objects.list(self._keys.blobs, start_after, min(limit - len(found), LIST_PAGE))
            for item in page.objects:
                blob_id = self._keys.blob_id(item.key)
                if blob_id is not None:
                    found.append(_stat(blob_id, item))
            if not page.truncated or not page.objects:
                break
            start_after = page.objects[-1].key
        return found

    async def _remove_stale(self, before_at: int) -> int:
        own = {self._keys.blob(blob_id) for blob_id in (*self._staged, *self._targets)}
        removed = 0
        for prefix in (self._keys.blobs, self._keys.aside):
            for upload in await self._multipart.stale(prefix, before_at):
                if upload.key not in own:
                    await self._multipart.abort(upload.key, upload.upload_id)
                    removed += 1
        return removed

    async def _copy(self, from_blob_id: str, to_blob_id: str) -> BlobStat:
        self._targets.add(to_blob_id)
        try:
            copied = await self._copying.copy(self._keys.blob(from_blob_id), self._keys.blob(to_blob_id))
            return _stat(to_blob_id, copied)
        except S3Refusal as refusal:
            if refusal.is_missing:
                raise BlobMissing(from_blob_id) from refusal
            raise
        finally:
            self._targets.discard(to_blob_id)

    def _change(self, operation: str, blob_id: str, begin: Callable[[], Awaitable[None]]) -> Deferred[None]:
        """A change of a committed blob; once begun it goes on to its end."""
        if not is_blob_id(blob_id):
            return succeed(None)
        return shielded(self._writing(operation, blob_id, begin()))

    @returns_deferred
    async def _writing(self, operation: str, blob_id: str, work: Awaitable[T]) -> T:
        try:
            return await work
        except S3Fault as fault:
            raise write_fault(fault, self._settings, operation, blob_id) from fault

    async def _reading(self, operation: str, blob_id: str, work: Awaitable[T]) -> T:
        try:
            return await work
        except S3Fault as fault:
            if isinstance(fault, S3Refusal) and fault.is_missing:
                raise BlobMissing(blob_id) from fault
            raise read_fault(fault, self._settings, operation, blob_id) from fault


def _stat(blob_id: str, found: ListedObject) -> BlobStat:
    return BlobStat(id=blob_id, size=found.size, modified_at=found.modified_at)
