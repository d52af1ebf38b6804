"""
Relocation: bringing the bytes of a file, or of all files in a tree, to another place, at the path where they are.

It goes file by file and stops at the first that can't be relocated. What was relocated stays so: the same request,
repeated, goes on with the rest.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import cast

from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from callfs.access import owns
from callfs.deferreds import returns_deferred
from callfs.engine.arrangement import move_target, moved, replica_order
from callfs.engine.messages import MoveRequest
from callfs.engine.opening import Unreadable
from callfs.engine.ports import Ports
from callfs.engine.rearranging import Wish, rearrange
from callfs.engine.routing import LOCAL_BACKEND
from callfs.engine.waves import WIDTH
from callfs.errors import BadRequest, PeerUnavailable, PermissionDenied
from callfs.model import BlobRef, Inode, Principal

PAGE = 1000
_PASSES = 3
"""How often a tree is looked through for what was added or changed behind the look before."""


async def check_target(ports: Ports, request: MoveRequest) -> None:
    """
    Whether there is such a place.

    :raises callfs.errors.BadRequest: the backend or the instance isn't known, or the node has no such backend.
    """
    here = ports.settings.instance_id
    if request.instance is not None and request.instance not in await ports.peers.known():
        raise BadRequest(f"there is no instance {request.instance!r}")
    if request.backend not in (None, LOCAL_BACKEND):
        ports.known_backend(request.backend)
    elif request.instance in (None, here) and (request.backend, request.instance) != (None, None):
        ports.known_backend(LOCAL_BACKEND)


class Relocation:
    """
    What a move asks for besides other names.

    :param source: what is moved.
    """

    def __init__(self, ports: Ports, principal: Principal, source: Inode, request: MoveRequest) -> None:
        self._ports = ports
        self._principal = principal
        self._source = source
        self._request = request

    async def needed(self) -> bool:
        """
        Whether any bytes have to travel.

        :raises callfs.errors.PermissionDenied: bytes of a file that belongs to another would have to.
        """
        needed = False
        async for page in self._pages():
            for inode in page:
                if inode.blob is None or self._wish(inode.blob) is None:
                    continue
                if not owns(self._principal, inode.owner):
                    raise PermissionDenied(f"{inode.path} belongs to another user")
                needed = True
        return needed

    async def run(self) -> None:
        """
        Relocate all.

        :raises callfs.errors.PeerUnavailable: the bytes of a file can't be read, or the place can't be reached.
        :raises callfs.errors.CallFSError: as :func:`callfs.engine.rearranging.rearrange`.
        """
        for _ in range(_PASSES):
            relocated = 0
            async for page in self._pages():
                lacking = [inode for inode in page if inode.blob is not None and self._wish(inode.blob) is not None]
                await in_waves(lacking, self._relocate)
                relocated += len(lacking)
            if not relocated:
                return

    async def _pages(self) -> AsyncGenerator[Sequence[Inode], None]:
        """The source, then everything below it."""
        source = await self._ports.metadata.get_by_id(self._source.id)
        if source is None:
            return
        yield [source]
        after = ""
        while source.is_directory and (page := await self._ports.metadata.walk(source.path, after, limit=PAGE)):
            yield page
            after = page[-1].path

    def _wish(self, blob: BlobRef) -> Wish | None:
        settings = self._ports.settings
        target = move_target(blob, self._request.backend, self._request.instance, settings.instance_id)
        if target is None:
            return None
        return Wish(target, lambda blob, copy: moved(blob, copy, settings.replica_backend))

    @returns_deferred
    async def _relocate(self, inode: Inode) -> None:
        ports, settings = self._ports, self._ports.settings
        try:
            rearranged = await rearrange(
                ports,
                self._principal,
                inode,
                self._wish,
                lambda blob: replica_order(blob, settings.replica_backend, settings.instance_id),
            )
        except Unreadable:
            raise PeerUnavailable(f"the bytes of {inode.path} can't be read just now") from None
        if rearranged.copied_bytes is not None:
            ports.garbage_made()
            ports.copies_ordered()


async def in_waves(inodes: Sequence[Inode], act: Callable[[Inode], Deferred[None]]) -> None:
    """Act on all, a few at a time; when one fails those beside it come to their end, and its error is raised."""
    for start in range(0, len(inodes), WIDTH):
        wave = DeferredList([act(inode) for inode in inodes[start : start + WIDTH]], consumeErrors=True)
        for succeeded, outcome in await wave:
            if not succeeded:
                cast(Failure, outcome).raiseException()
