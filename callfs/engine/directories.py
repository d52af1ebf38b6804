"""Making directories."""

from __future__ import annotations

from callfs.deferreds import returns_deferred
from callfs.engine.ports import Ports, locked
from callfs.engine.routing import METADATA_ONLY
from callfs.identifiers import new_inode_id
from callfs.metadata.commands import CreateDirectory, Written
from callfs.model import Preconditions, Principal


async def create_directory(ports: Ports, principal: Principal, path: str, preconditions: Preconditions) -> Written:
    """See :meth:`callfs.engine.filesystem.Filesystem.create_directory`."""
    return await ports.unattended.shield(_create(ports, principal, path, preconditions))


@returns_deferred
async def _create(ports: Ports, principal: Principal, path: str, preconditions: Preconditions) -> Written:
    async with locked(ports, path):
        written = await ports.metadata.apply(
            CreateDirectory(
                at=ports.now(),
                principal=principal,
                path=path,
                inode_id=new_inode_id(ports.token_bytes),
                parent_ids=ports.parent_ids(path),
                preconditions=preconditions,
            )
        )
    if written.created:
        ports.metrics.file_operation("create", METADATA_ONLY)
    return written
