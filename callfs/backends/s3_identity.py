"""
Whether a bucket's prefix and a metadata store belong together; decided before either is used.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from callfs.backends.s3_errors import S3Fault, S3Refusal, advice
from callfs.backends.s3_objects import S3Objects
from callfs.backends.s3_request import content_of
from callfs.backends.s3_settings import S3Keys, S3Settings
from callfs.backends.s3_unusable import S3Unusable
from callfs.errors import PeerUnavailable

NamesBlobs = Callable[[], Awaitable[bool]]

_VERSION = 1
_PROBE = content_of([b"CallFS writes and deletes this at each start, to see whether it may.\n"])


class StoreMark(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a prefix says of itself.

    :param store_id: the metadata store that it belongs to, 32 hex digits.
    :param version: of the layout.
    """

    store_id: str
    version: int


class S3Identity:
    """The object ``callfs-store`` of a prefix."""

    def __init__(self, objects: S3Objects, keys: S3Keys, settings: S3Settings) -> None:
        self._objects = objects
        self._keys = keys
        self._settings = settings

    async def recognise(self, store_id: str, store_was_empty: bool, names_blobs: NamesBlobs) -> None:
        """
        See that what will have to be done can be done, and that the prefix is this store's; take a new one, unless
        the store knows of blobs that should be in it.

        :param store_was_empty: the store was just made, or holds nothing but the root directory.
        :param names_blobs: asked about a new prefix: whether the store names blobs on S3.
        :raises S3Unusable: it can't be used.
        :raises callfs.errors.PeerUnavailable: S3 doesn't answer; to be tried again.
        """
        try:
            has_blobs = await self._has_blobs()
            mark = await self._read()
            if mark is None:
                self._refuse_unmarked(has_blobs)
                if await names_blobs():
                    raise S3Unusable(self._misplaced(store_id))
                mark = await self._take(store_id)
            if mark.store_id != store_id:
                raise S3Unusable(self._foreign(mark, store_id, store_was_empty))
            await self._objects.put(self._keys.probe, _PROBE)
            await self._objects.delete(self._keys.probe)
        except S3Fault as fault:
            text = advice(fault, self._settings)
            raise (PeerUnavailable(text) if fault.passing else S3Unusable(text)) from fault

    async def confirm(self, store_id: str, store_was_empty: bool) -> None:
        """
        See that the prefix is this store's, and write nothing: not even to a new one.

        :param store_was_empty: as in :meth:`recognise`.
        :raises S3Unusable: it isn't, or can't be read.
        :raises callfs.errors.PeerUnavailable: S3 doesn't answer; to be tried again.
        """
        try:
            has_blobs = await self._has_blobs()
            mark = await self._read()
        except S3Fault as fault:
            text = advice(fault, self._settings)
            raise (PeerUnavailable(text) if fault.passing else S3Unusable(text)) from fault
        if mark is None:
            self._refuse_unmarked(has_blobs)
            raise S3Unusable(
                "The bucket's prefix is empty, and doesn't belong to any metadata store: correct "
                "backend.s3_bucket_name or backend.s3_key_prefix, unless no node has used it yet; the first one "
                f"that starts makes it its store's. ({self._place})"
            )
        if mark.store_id != store_id:
            raise S3Unusable(self._foreign(mark, store_id, store_was_empty))

    async def _has_blobs(self) -> bool:
        """Also whether the bucket is there and may be listed, which makes "missing" differ from "forbidden"."""
        pages = [await self._objects.list(prefix, limit=1) for prefix in (self._keys.blobs, self._keys.aside)]
        return any(page.objects for page in pages)

    async def _read(self) -> StoreMark | None:
        try:
            data = await self._objects.read(self._keys.identity)
        except S3Refusal as refusal:
            if refusal.is_missing:
                return None
            raise
        try:
            mark = msgspec.json.decode(data, type=StoreMark)
        except msgspec.DecodeError as error:
            raise S3Unusable(
                f"The object {self._keys.identity} in the bucket {self._settings.bucket} is damaged ({error}). "
                "Restore it."
            ) from error
        if mark.version != _VERSION:
            raise S3Unusable(
                f"The bucket {self._settings.bucket} has layout version {mark.version}; this program knows "
                f"{_VERSION}: update it."
            )
        return mark

    async def _take(self, store_id: str) -> StoreMark:
        """
        Mark the prefix as this store's, unless another node is quicker; what it says then.
        """
        data = msgspec.json.format(_encoded(store_id)) + b"\n"
        try:
            await self._objects.put(self._keys.identity, content_of([data]), only_new=True)
        except S3Refusal as refusal:
            if refusal.code == "NotImplemented":
                # An older server of another make: the look afterwards has to do.
                await self._objects.put(self._keys.identity, content_of([data]))
            elif refusal.code != "PreconditionFailed":
                raise
        found = await self._read()
        if found is None:
            raise S3Unusable(f"The object {self._keys.identity} is gone as soon as it is written ({self._place}).")
        return found

    @property
    def _place(self) -> str:
        return self._settings.place

    def _refuse_unmarked(self, has_blobs: bool) -> None:
        if has_blobs:
            raise S3Unusable(
                f"The bucket holds blobs, but its object {self._keys.identity} is missing, so nobody can tell "
                "which metadata store they belong to. Restore it from a backup or an older version, or choose "
                f"another backend.s3_key_prefix. ({self._place})"
            )

    def _misplaced(self, store_id: str) -> str:
        return (
            "The metadata store names files on S3, but the bucket's prefix is new and empty: they must be "
            "elsewhere. Correct backend.s3_bucket_name, backend.s3_key_prefix or backend.s3_endpoint. If the "
            f"bucket is lost and was really replaced, put an object {self._keys.identity} into it whose content is "
            f"{_encoded(store_id).decode()}; files of which S3 had the only copy are lost then. ({self._place})"
        )

    def _foreign(self, mark: StoreMark, store_id: str, store_was_empty: bool) -> str:
        which = "a new, empty metadata store" if store_was_empty else "another metadata store"
        return (
            f"The bucket's prefix belongs to the metadata store {mark.store_id}, but the configured one is "
            f"{which}, {store_id}. Restore the metadata store from its backup, or point the configuration at the "
            f"right one; choose another backend.s3_key_prefix if a new store is meant. ({self._place})"
        )


def _encoded(store_id: str) -> bytes:
    return msgspec.json.encode(StoreMark(store_id=store_id, version=_VERSION))
