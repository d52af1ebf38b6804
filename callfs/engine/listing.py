"""Listing directories and walking trees, page by page."""

from __future__ import annotations

from callfs.engine.messages import Page
from callfs.engine.ports import Ports
from callfs.engine.read import stat
from callfs.errors import NotADirectory
from callfs.model import Principal
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

    One entry more than asked for is read, so that a full last page doesn't promise another.
    """
    directory = await stat(ports, principal, path)
    if not directory.is_directory:
        raise NotADirectory(f"{path} is a file")
    if recursive:
        entries = await ports.metadata.walk(directory.path, after, max_depth, limit + 1)
    else:
        entries = await ports.metadata.list_children(directory.id, name(after), limit + 1)
    if len(entries) <= limit:
        return Page(directory, entries, None)
    return Page(directory, entries[:limit], entries[limit - 1].path)
