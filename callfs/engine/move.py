"""
Renaming, moving, setting attributes: one command. Bytes stay where they are unless the request says otherwise; then
they travel before it.
"""

from __future__ import annotations

from callfs.deferreds import returns_deferred
from callfs.engine.messages import MoveRequest
from callfs.engine.ports import Ports, locked
from callfs.engine.preflight import check_move
from callfs.engine.relocation import Relocation, check_target
from callfs.engine.routing import backend_type
from callfs.errors import FileNotFound
from callfs.metadata.commands import Move
from callfs.model import Inode, Principal


async def move(ports: Ports, principal: Principal, request: MoveRequest) -> Inode:
    """See :meth:`callfs.engine.filesystem.Filesystem.move`."""
    relocated = None
    if request.backend is not None or request.instance is not None:
        relocated = await _relocate(ports, principal, request)
    if relocated is not None and request.destination == request.source and not request.attributes.any():
        ports.metrics.file_operation("move", backend_type(relocated))
        return relocated
    return await ports.unattended.shield(_move(ports, principal, request))


async def _relocate(ports: Ports, principal: Principal, request: MoveRequest) -> Inode | None:
    """
    Bring the bytes to where the request wants them.

    :return: the source as it is then; ``None`` when all bytes were there already.
    """
    await check_target(ports, request)
    source = await ports.metadata.get(request.source)
    if source is None:
        raise FileNotFound(f"there is nothing at {request.source}")
    relocation = Relocation(ports, principal, source, request)
    if not await relocation.needed():
        return None
    await check_move(ports, _command(ports, principal, request))
    await relocation.run()
    relocated = await ports.metadata.get_by_id(source.id)
    if relocated is None:
        raise FileNotFound(f"{request.source} was removed meanwhile")
    return relocated


@returns_deferred
async def _move(ports: Ports, principal: Principal, request: MoveRequest) -> Inode:
    async with locked(ports, request.source, request.destination):
        moved = await ports.metadata.apply(_command(ports, principal, request))
    in_place = request.source == request.destination
    ports.metrics.file_operation("update" if in_place else "move", backend_type(moved.inode))
    if request.overwrite:
        ports.garbage_made()
    return moved.inode


def _command(ports: Ports, principal: Principal, request: MoveRequest) -> Move:
    at = ports.now()
    return Move(
        at=at,
        principal=principal,
        source=request.source,
        destination=request.destination,
        parent_ids=ports.parent_ids(request.destination),
        garbage_not_before_at=ports.garbage_not_before(at),
        overwrite=request.overwrite,
        create_parents=request.create_parents,
        directory_expected=request.directory_expected,
        attributes=request.attributes,
        preconditions=request.preconditions,
    )
