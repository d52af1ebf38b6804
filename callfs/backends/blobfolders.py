"""
Where a blob lies below a root folder: ``blobs/<2>/<id>``, ``staging/<id>``, ``aside/<id>``.

``<2>`` are the id's last two characters, its random end, so that blobs spread over 1,024 folders.
Everything here is for threads and raises ``OSError``.
"""

from __future__ import annotations

import heapq
import os
import re
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

from twisted.logger import Logger

from callfs.backends.durability import FolderSync, make_folder
from callfs.backends.interfaces import BlobStat
from callfs.identifiers import is_blob_id

_SHARD = re.compile(r"[0-9a-hjkmnp-tv-z]{2}")


class BlobFolders:
    """
    The folders of one root.

    :param root: exists already: an unmounted disk must not be mistaken for an empty one.
    """

    _log = Logger()

    def __init__(self, root: Path, folder_sync: FolderSync) -> None:
        self.root = str(root)
        self.blobs = str(root / "blobs")
        self.staging = str(root / "staging")
        self.aside = str(root / "aside")
        self._sync = folder_sync
        self._lock = threading.Lock()
        self._made = False
        self._durable_shards: set[str] = set()

    def make(self) -> None:
        """Make the three folders, durably, when called for the first time."""
        with self._lock:
            if self._made:
                return
            for path in (self.blobs, self.staging, self.aside):
                make_folder(path)
                if not stat.S_ISDIR(os.lstat(path).st_mode):
                    raise NotADirectoryError(20, "not a folder", path)
            self._sync.sync(self.root)
            self._made = True

    def staged_path(self, blob_id: str) -> str:
        """Where a blob is while it is written."""
        return f"{self.staging}/{blob_id}"

    def blob_path(self, blob_id: str) -> str:
        """Where a committed blob is."""
        return f"{self.blobs}/{blob_id[-2:]}/{blob_id}"

    def shard_path(self, blob_id: str) -> str:
        """The folder of a committed blob."""
        return f"{self.blobs}/{blob_id[-2:]}"

    def aside_path(self, blob_id: str) -> str:
        """Where the sweep puts a blob before it is deleted."""
        return f"{self.aside}/{blob_id}"

    def make_shard(self, blob_id: str) -> None:
        """
        Make the folder of a blob, durably.

        That it exists isn't enough: another thread may have made it and not have synced its parent yet.
        """
        shard = blob_id[-2:]
        if shard in self._durable_shards:
            return
        make_folder(f"{self.blobs}/{shard}")
        self._sync.sync(self.blobs)
        self._durable_shards.add(shard)

    def take_in(self, path: str, blob_id: str) -> str:
        """
        Give a file its place among the committed blobs; the folder that it goes to is to be synced.

        :return: where it is now.
        """
        target = self.blob_path(blob_id)
        self.make_shard(blob_id)
        try:
            os.rename(path, target)
        except FileNotFoundError:
            # Somebody tidied up: an empty folder that was known to be there has gone.
            self._durable_shards.discard(blob_id[-2:])
            self.make_shard(blob_id)
            os.rename(path, target)
        return target

    def list_blobs(self, after: str, limit: int) -> list[BlobStat]:
        """A page of the committed blobs, by folder, then by id. Memory depends on ``limit`` alone."""
        page: list[BlobStat] = []
        for shard in self._shards(after[-2:]):
            last = after if shard == after[-2:] else ""
            while len(page) < limit:
                ids = heapq.nsmallest(limit - len(page), self._ids(f"{self.blobs}/{shard}", shard, last))
                if not ids:
                    break
                last = ids[-1]
                page.extend(
                    found
                    for blob_id in ids
                    if (found := _stat_listed(blob_id, self.blob_path(blob_id))) is not None
                )
            if len(page) >= limit:
                break
        return page

    def list_set_aside(self, after: str, limit: int) -> list[BlobStat]:
        """A page of what is in ``aside``, by id."""
        ids = heapq.nsmallest(limit, self._ids(self.aside, "", after))
        return [found for blob_id in ids if (found := _stat_listed(blob_id, self.aside_path(blob_id))) is not None]

    def stat(self, blob_id: str) -> BlobStat:
        """Size and time of a committed blob."""
        return _stat(blob_id, self.blob_path(blob_id))

    def _shards(self, first: str) -> list[str]:
        """The names of the folders of committed blobs, in order, from ``first``."""
        try:
            with os.scandir(self.blobs) as entries:
                names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            if self._made:
                raise
            return []
        return sorted(name for name in names if _SHARD.fullmatch(name) and name >= first)

    def _ids(self, folder: str, shard: str, after: str) -> Iterator[str]:
        """The ids of the blobs in a folder that come after one, in no order."""
        foreign = 0
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    name = entry.name
                    if not (is_blob_id(name) and name.endswith(shard) and entry.is_file(follow_symlinks=False)):
                        foreign += 1
                    elif name > after:
                        yield name
        except FileNotFoundError:
            return
        if foreign:
            self._log.warn(
                "{count} files in {folder} are no blobs and ignored",
                event="foreign_files_ignored",
                count=foreign,
                folder=folder,
            )

    def old_files(self, folder: str, before_at: int) -> Iterator[str]:
        """The ids in ``staging`` or ``aside`` not modified since the instant."""
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if is_blob_id(entry.name) and entry.is_file(follow_symlinks=False):
                        try:
                            modified_at = entry.stat(follow_symlinks=False).st_mtime_ns // 1000
                        except FileNotFoundError:
                            continue
                        if modified_at < before_at:
                            yield entry.name
        except FileNotFoundError:
            return


def _stat(blob_id: str, path: str) -> BlobStat:
    """Size and time of a blob's file."""
    found = os.lstat(path)
    if not stat.S_ISREG(found.st_mode):
        raise FileNotFoundError(2, "not a regular file", blob_id)
    return BlobStat(id=blob_id, size=found.st_size, modified_at=found.st_mtime_ns // 1000)


def _stat_listed(blob_id: str, path: str) -> BlobStat | None:
    """As :func:`_stat`; ``None`` when it went since it was listed."""
    try:
        return _stat(blob_id, path)
    except FileNotFoundError:
        return None
