"""
Blobs set aside on S3: copied under another key, then deleted. A crash between the two leaves both, which the next
attempt, or :meth:`S3Aside.put_back`, brings in order.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from callfs.backends.interfaces import BlobStat
from callfs.backends.s3_copying import S3Copying
from callfs.backends.s3_errors import S3Refusal
from callfs.backends.s3_objects import LIST_PAGE, S3Objects
from callfs.backends.s3_settings import S3Keys

_LAST = "~"
"""Sorts after every instant."""


class S3Aside:
    """
    What is set aside. A blob may be there more than once, after a crash or a repeated request; the latest counts.
    """

    def __init__(self, objects: S3Objects, copying: S3Copying, keys: S3Keys) -> None:
        self._objects = objects
        self._copying = copying
        self._keys = keys

    async def take(self, blob_id: str, at: int) -> None:
        """Set a blob aside at the instant; one that isn't there is no error."""
        try:
            await self._copying.copy(self._keys.blob(blob_id), self._keys.set_aside(blob_id, at))
        except S3Refusal as refusal:
            if refusal.is_missing:
                return
            raise
        await self._objects.delete(self._keys.blob(blob_id))

    async def put_back(self, blob_id: str) -> None:
        """Undo :meth:`take`; a blob that isn't set aside is no error."""
        page = await self._objects.list(f"{self._keys.aside}{blob_id}/")
        keys = [found.key for found in page.objects if self._keys.set_aside_blob(found.key) is not None]
        if not keys:
            return
        await self._copying.copy(keys[-1], self._keys.blob(blob_id))
        for key in keys:
            await self._objects.delete(key)

    async def listed(self, after: str, limit: int) -> list[BlobStat]:
        """A page, by id; the time is since when a blob is set aside."""
        found: list[BlobStat] = []
        async for blob, _ in self._walk(f"{self._keys.aside}{after}/{_LAST}" if after else ""):
            if found and found[-1].id == blob.id:
                found.pop()
            elif len(found) == limit:
                break
            found.append(blob)
        return found

    async def purge(self, before_at: int) -> int:
        """Delete what was set aside before the instant, and not again since; how many blobs."""
        count = 0
        seen: list[tuple[BlobStat, str]] = []
        async for blob, key in self._walk(""):
            if seen and seen[-1][0].id != blob.id:
                count += await self._purge(seen, before_at)
                seen = []
            seen.append((blob, key))
        return count + await self._purge(seen, before_at)

    async def _purge(self, copies: list[tuple[BlobStat, str]], before_at: int) -> int:
        """Of one blob, the oldest first."""
        if not copies or copies[-1][0].modified_at >= before_at:
            return 0
        for _, key in copies:
            await self._objects.delete(key)
        return 1

    async def _walk(self, start_after: str) -> AsyncIterator[tuple[BlobStat, str]]:
        """All that is set aside, with its key, by id and then by time."""
        while True:
            page = await self._objects.list(self._keys.aside, start_after, LIST_PAGE)
            for item in page.objects:
                aside = self._keys.set_aside_blob(item.key)
                if aside is not None:
                    yield BlobStat(id=aside[0], size=item.size, modified_at=aside[1]), item.key
            if not page.truncated or not page.objects:
                return
            start_after = page.objects[-1].key
