"""Listing directories and walking trees, page by page."""

from __future__ import annotations

from callfs.engine.messages import Page
from callfs.engine.ports import Ports
from callfs.engine.read import stat
from callfs.errors import NotADirectory
from callfs.model import Inode, Principal
from callfs.paths import name


async def list_page(
    ports: Ports,
    principal: Principal,
    path: str,
    recursive: bool,
    max_depth: int | None,
    after: str,
    limit: int,
) -> Page:
    """
    See :meth:`callfs.engine.filesystem.Filesystem.list_page`.

    One entry more than asked for is read, so that a full last page doesn't promise another. The directory is looked
    at again afterwards: if it was moved or removed between the two reads, the page would be of what isn't there.
    """
    directory = await _directory(ports, principal, path)
    while True:
        if recursive:
            entries = await ports.metadata.walk(directory.path, after, max_depth, limit + 1)
        else:
            entries = await ports.metadata.list_children(directory.id, name(after), limit + 1)
        before, directory = directory, await _directory(ports, principal, path)
        if before.id == directory.id:
            break
    if len(entries) <= limit:
        return Page(directory, entries, None)
    return Page(directory, entries[:limit], entries[limit - 1].path)


async def _directory(ports: Ports, principal: Principal, path: str) -> Inode:
    directory = await stat(ports, principal, path)
    if not directory.is_directory:
        raise NotADirectory(f"{path} is a file")
    return directory
