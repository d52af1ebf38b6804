"""Renaming, moving, setting attributes: one command. Bytes stay where they are."""

from __future__ import annotations

from callfs.deferreds import returns_deferred
from callfs.engine.messages import MoveRequest
from callfs.engine.ports import Ports, locked
from callfs.engine.routing import backend_of, backend_type, holder
from callfs.errors import BadRequest, FileNotFound
from callfs.metadata.commands import Move
from callfs.model import Inode, Principal

_PAGE = 1000


async def move(ports: Ports, principal: Principal, request: MoveRequest) -> Inode:
    """See :meth:`callfs.engine.filesystem.Filesystem.move`."""
    await _check_placement(ports, request)
    return await ports.unattended.shield(_move(ports, principal, request))


@returns_deferred
async def _move(ports: Ports, principal: Principal, request: MoveRequest) -> Inode:
    async with locked(ports, request.source, request.destination):
        at = ports.now()
        moved = await ports.metadata.apply(
            Move(
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
        )
    in_place = request.source == request.destination
    ports.metrics.file_operation("update" if in_place else "move", backend_type(moved.inode))
    if request.overwrite:
        ports.garbage_made()
    return moved.inode


async def _check_placement(ports: Ports, request: MoveRequest) -> None:
    """
    Whether the bytes are where the request wants them: then a move is metadata alone.

    :raises callfs.errors.BadRequest: the backend or instance isn't known, or bytes would have to travel, which
        needs a second backend or node.
    """
    if request.backend is not None:
        ports.known_backend(request.backend)
    if request.instance not in (None, ports.settings.instance_id):
        raise BadRequest(f"there is no instance {request.instance!r}; known is: {ports.settings.instance_id}")
    if request.backend is None and request.instance is None:
        return
    source = await ports.metadata.get(request.source)
    if source is None:
        raise FileNotFound(f"there is nothing at {request.source}")
    _check_at_home(ports, source, request)
    after = ""
    while source.is_directory:
        page = await ports.metadata.walk(source.path, after, limit=_PAGE)
        for inode in page:
            _check_at_home(ports, inode, request)
        if len(page) < _PAGE:
            break
        after = page[-1].path


def _check_at_home(ports: Ports, inode: Inode, request: MoveRequest) -> None:
    if inode.blob is None:
        return
    placement = inode.blob.placement
    if request.backend not in (None, backend_of(placement)):
        raise BadRequest(f"the bytes of {inode.path} can't be moved to the backend {request.backend!r}")
    if request.instance not in (None, holder(placement, ports.settings.instance_id)):
        raise BadRequest(f"the bytes of {inode.path} can't be moved to the instance {request.instance!r}")
