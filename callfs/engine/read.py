"""Looking inodes up and opening their bytes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.logger import Logger

from callfs.backends.interfaces import BlobMissing, IBlobReader
from callfs.deferreds import with_timeout
from callfs.engine.access import may_read
from callfs.engine.claims import claimed
from callfs.engine.messages import OpenFile
from callfs.engine.ports import Ports
from callfs.engine.routing import Source, backend_type, sources
from callfs.errors import FileNotFound, NotADirectory, NotAFile, PeerUnavailable, PermissionDenied
from callfs.model import BlobRef, Inode, Principal

_log = Logger()

LOOKUPS = 8
"""How often a file may change between the look at its inode and the opening of its blob, in a row."""


class _Unreadable(Exception):
    """No copy of a blob that this node knows of could be opened."""


class _Gone(_Unreadable):
    """Each of them is missing: the file may have got other content meanwhile."""


async def stat(ports: Ports, principal: Principal, path: str, directory_expected: bool = False) -> Inode:
    """
    The inode at ``path``.

    :raises callfs.errors.FileNotFound: nothing is there.
    :raises callfs.errors.NotADirectory: ``directory_expected`` and it is a file.
    """
    inode = await ports.metadata.get(path)
    if inode is None:
        raise FileNotFound(f"there is nothing at {path}")
    return _readable(principal, inode, directory_expected)


def _readable(principal: Principal, inode: Inode, directory_expected: bool) -> Inode:
    if not may_read(principal, inode):
        raise PermissionDenied(f"{inode.path} may not be read by {principal.user}")
    if directory_expected and not inode.is_directory:
        raise NotADirectory(f"{inode.path} is a file; a trailing slash names a directory")
    return inode


async def open_file(ports: Ports, principal: Principal, path: str, directory_expected: bool = False) -> OpenFile:
    """Open a file for reading; see :meth:`callfs.engine.filesystem.Filesystem.open`."""
    opened = await open_found(ports, lambda: stat(ports, principal, path, directory_expected))
    ports.metrics.file_operation("read", backend_type(opened.inode))
    return opened


async def open_found(ports: Ports, find: Callable[[], Awaitable[Inode]]) -> OpenFile:
    """
    Open the file that ``find`` finds; when its blob went before the first byte, find it again.

    :param find: looks the inode up; what it raises is passed on.
    :raises callfs.errors.NotAFile: it found a directory.
    :raises callfs.errors.PeerUnavailable: the bytes can't be read just now. Never "not found": the file is there.
    """
    inode = await find()
    for _ in range(LOOKUPS):
        blob = content(inode)
        try:
            return OpenFile(inode, await _open_blob(ports, inode, blob))
        except _Unreadable as unreadable:
            failure = unreadable
        inode = await find()
        if inode.blob is not None and inode.blob.id == blob.id:
            raise _unavailable(ports, inode, blob, failure)
    raise PeerUnavailable(f"{inode.path} is being replaced faster than it can be opened")


def content(inode: Inode) -> BlobRef:
    """
    The content of a file.

    :raises callfs.errors.NotAFile: it is a directory.
    """
    if inode.blob is None:
        raise NotAFile(f"{inode.path} is a directory")
    return inode.blob


def _unavailable(ports: Ports, inode: Inode, blob: BlobRef, failure: _Unreadable) -> PeerUnavailable:
    """Bytes that metadata knows and no backend has are the worst that can happen: say so loudly."""
    if isinstance(failure, _Gone):
        ports.metrics.error("engine", "blob_missing")
        _log.critical(
            "the bytes of {path} are missing: blob {blob_id}",
            event="blob_missing",
            path=inode.path,
            blob_id=blob.id,
        )
    return PeerUnavailable(f"the bytes of {inode.path} can't be read just now")


async def _open_blob(ports: Ports, inode: Inode, blob: BlobRef) -> IBlobReader:
    """Open the first copy that can be opened."""
    candidates = sources(blob, ports.settings.instance_id, ports.backends)
    missing = 0
    for source in candidates:
        try:
            return await _open_source(ports, inode, source)
        except BlobMissing:
            missing += 1
        except PeerUnavailable:
            continue
    # A copy out of this node's reach may well be there: only when all are known to be missing the blob is gone.
    raise _Gone if missing == len(blob.copies()) else _Unreadable


async def _open_source(ports: Ports, inode: Inode, source: Source) -> IBlobReader:
    opening = claimed(ports.backends[source.backend].open(source.blob.id), lambda reader: reader.close())
    if not opening.called:
        opening = with_timeout(
            opening,
            ports.settings.file_op_timeout_seconds,
            ports.clock,
            lambda: PeerUnavailable("the backend doesn't answer"),
        )
    reader = await opening
    if reader.size == source.blob.size:
        return reader
    reader.close()
    ports.metrics.error("engine", "blob_size_mismatch")
    _log.critical(
        "the blob {blob_id} of {path} has {found} bytes instead of {expected}",
        event="blob_size_mismatch",
        path=inode.path,
        blob_id=source.blob.id,
        found=reader.size,
        expected=source.blob.size,
    )
    raise PeerUnavailable(f"the bytes of {inode.path} aren't as they were stored")
