"""Removing files and trees."""

from __future__ import annotations

from callfs.deferreds import returns_deferred
from callfs.engine.ports import Ports, locked
from callfs.engine.routing import backend_type
from callfs.errors import FileNotFound
from callfs.metadata.commands import Remove
from callfs.model import Preconditions, Principal


async def remove(
    ports: Ports,
    principal: Principal,
    path: str,
    recursive: bool,
    directory_expected: bool,
    preconditions: Preconditions,
) -> None:
    """See :meth:`callfs.engine.filesystem.Filesystem.remove`."""
    inode = await ports.metadata.get(path)
    if inode is None:
        raise FileNotFound(f"there is nothing at {path}")
    await ports.unattended.shield(_remove(ports, principal, path, recursive, directory_expected, preconditions))
    ports.metrics.file_operation("delete", backend_type(inode))


@returns_deferred
async def _remove(
    ports: Ports,
    principal: Principal,
    path: str,
    recursive: bool,
    directory_expected: bool,
    preconditions: Preconditions,
) -> None:
    async with locked(ports, path):
        at = ports.now()
        await ports.metadata.apply(
            Remove(
                at=at,
                principal=principal,
                path=path,
                garbage_not_before_at=ports.garbage_not_before(at),
                recursive=recursive,
                directory_expected=directory_expected,
                preconditions=preconditions,
            )
        )
    ports.garbage_made()
