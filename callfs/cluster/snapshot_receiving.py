"""A copy of a leader's state as it comes in, piece by piece, into a file; and its installation."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from callfs.cluster.connections import DeclinedQuestion
from callfs.cluster.interfaces import SnapshotMeta
from callfs.cluster.questions import CHUNK_BYTES, Chunk, Install, Offer, Wanted
from callfs.cluster.snapshot_sending import SnapshotObserver, chunk_checksum
from callfs.deferreds import returns_deferred

INCOMING = "incoming"
"""The folder in ``raft.data_dir`` for states that aren't whole."""

_SHA256_BYTES = 32
_READ_BYTES = 1024 * 1024


class InThread(Protocol):
    """Calls a function that blocks, in a thread."""

    def __call__(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]: ...


class SnapshotReceiving:
    """
    Takes one state at a time. What has come stays on disk, so that it goes on where it was broken off.

    :param folder: ``raft.data_dir``.
    :param in_thread: for the files.
    :param wants: whether a state would bring this node on.
    :param install: puts the state that is in a file in place; ``False`` when it is of no use any more. It declines
        when it can't.
    """

    _log = Logger()

    def __init__(
        self,
        folder: Path,
        *,
        in_thread: InThread,
        wants: Callable[[SnapshotMeta], bool],
        install: Callable[[Path, SnapshotMeta], Deferred[bool]],
        observer: SnapshotObserver,
    ) -> None:
        self._folder = folder / INCOMING
        self._in_thread = in_thread
        self._wants = wants
        self._install = install
        self._observer = observer
        self._turn = DeferredLock()
        self._offer: Offer | None = None
        self._offset = 0

    def offered(self, offer: Offer) -> Deferred[Wanted]:
        """A state can be had."""
        return self._turn.run(self._offered, offer)

    def came(self, chunk: Chunk) -> Deferred[Wanted]:
        """A piece is here."""
        return self._turn.run(self._came, chunk)

    def complete(self, asking: Install) -> Deferred[Wanted]:
        """All pieces are here."""
        return self._turn.run(self._complete, asking)

    def settled(self) -> Deferred[None]:
        """Fires when nothing is under way."""
        return self._turn.run(lambda: None)

    @returns_deferred
    async def _offered(self, offer: Offer) -> Wanted:
        if len(offer.sha256) != _SHA256_BYTES:
            raise DeclinedQuestion("malformed")
        if not self._wants(offer.meta):
            return Wanted(0, True)
        self._offer = offer
        self._offset = await self._in_thread(self._prepare, offer)
        return Wanted(self._offset, False)

    @returns_deferred
    async def _came(self, chunk: Chunk) -> Wanted:
        offer = self._known(chunk.sha256)
        if len(chunk.data) > CHUNK_BYTES or self._offset + len(chunk.data) > offer.size or not chunk.data:
            raise DeclinedQuestion("malformed")
        if chunk.offset == self._offset and chunk.checksum == chunk_checksum(chunk.data):
            try:
                await self._in_thread(self._write, offer, chunk)
            except OSError as error:
                self._log.error("can't store a state that comes in: {error}", error=str(error))
                self._offer = None
                raise DeclinedQuestion("disk") from error
            self._offset += len(chunk.data)
        return Wanted(self._offset, False)

    @returns_deferred
    async def _complete(self, asking: Install) -> Wanted:
        offer = self._known(asking.sha256)
        if self._offset != offer.size:
            return Wanted(self._offset, False)
        path = self._path(offer)
        try:
            whole = await self._in_thread(_is_whole, path, offer)
        except OSError as error:
            # After a failed fsync nobody knows what is on the disk, and the next one may say that all is well.
            self._log.error("can't make a state durable that came in: {error}", error=str(error))
            self._offer = None
            await self._in_thread(_remove, path)
            raise DeclinedQuestion("disk") from error
        if not whole:
            self._log.error("a state came in damaged: it is fetched anew", event="raft_snapshot_damaged")
            self._offset = 0
            await self._in_thread(_remove, path)
            return Wanted(0, False)
        self._offer = None
        try:
            installed = self._wants(offer.meta) and await self._install(path, offer.meta)
        finally:
            await self._in_thread(_remove, path)
        if installed:
            self._observer.raft_snapshot("installed")
            self._log.info(
                "installed the state up to {index}", event="raft_snapshot_installed", index=offer.meta.index
            )
        return Wanted(offer.size, True)

    def _known(self, sha256: bytes) -> Offer:
        if self._offer is None or self._offer.sha256 != sha256:
            raise DeclinedQuestion("unknown")
        return self._offer

    def _path(self, offer: Offer) -> Path:
        return self._folder / offer.sha256.hex()

    # In threads

    def _prepare(self, offer: Offer) -> int:
        """Only the file of this state stays; what is in it already needn't come again."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        path = self._path(offer)
        for other in self._folder.iterdir():
            if other != path:
                other.unlink()
        size = path.stat().st_size if path.exists() else 0
        if size > offer.size:
            path.unlink()
            return 0
        return size

    def _write(self, offer: Offer, chunk: Chunk) -> None:
        descriptor = os.open(self._path(offer), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.seek(chunk.offset)
            file.write(chunk.data)


def _is_whole(path: Path, offer: Offer) -> bool:
    """Bring it to stable storage, and compare its digest."""
    if offer.size == 0 or not path.exists():
        return False
    digest = hashlib.sha256()
    with path.open("rb+") as file:
        os.fsync(file.fileno())
        while data := file.read(_READ_BYTES):
            digest.update(data)
    return digest.digest() == offer.sha256


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
