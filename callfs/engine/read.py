"""Looking inodes up and opening their bytes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.logger import Logger

from callfs.access import may_read
from callfs.engine.messages import OpenFile
from callfs.engine.opening import Gone, Unreadable, open_blob
from callfs.engine.ports import Ports
from callfs.engine.routing import backend_type
from callfs.errors import FileNotFound, NotADirectory, NotAFile, PeerUnavailable, PermissionDenied
from callfs.model import BlobRef, Inode, Principal

_log = Logger()

LOOKUPS = 8
"""How often a file may change between the look at its inode and the opening of its blob, in a row."""


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
    Open the file that ``find`` finds; when its copies went elsewhere before the first byte, find it again.

    :param find: looks the inode up; what it raises is passed on.
    :raises callfs.errors.NotAFile: it found a directory.
    :raises callfs.errors.PeerUnavailable: the bytes can't be read just now. Never "not found": the file is there.
    """
    inode = await find()
    for _ in range(LOOKUPS):
        blob = content(inode)
        try:
            return OpenFile(inode, await open_blob(ports, inode.path, blob))
        except Unreadable as unreadable:
            failure = unreadable
        inode = await find()
        if inode.blob == blob:
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


def _unavailable(ports: Ports, inode: Inode, blob: BlobRef, failure: Unreadable) -> PeerUnavailable:
    """Bytes that metadata knows and no backend has are the worst that can happen: say so loudly."""
    if isinstance(failure, Gone):
        ports.metrics.error("engine", "blob_missing")
        _log.critical(
            "the bytes of {path} are missing: blob {blob_id}",
            event="blob_missing",
            path=inode.path,
            blob_id=blob.id,
        )
    return PeerUnavailable(f"the bytes of {inode.path} can't be read just now")
