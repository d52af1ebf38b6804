"""
The one facade of the engine: what the REST API, WebSockets and commands ask of the file system.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from twisted.internet.interfaces import IReactorTime

from callfs.backends.interfaces import IBlobBackend, IPeers
from callfs.engine import copying, directories, drain, links, listing, read, replicas, write
from callfs.engine import move as moving
from callfs.engine import remove as removing
from callfs.engine.alone import Alone
from callfs.engine.chance import DrawnAhead
from callfs.engine.drain import DrainProgress
from callfs.engine.messages import ExpectedDigest, IssuedLink, MoveRequest, OpenFile, Page, Upload
from callfs.engine.ports import FileMetrics, Ports, ignore, nobody
from callfs.engine.replicas import ReplicaScan
from callfs.engine.settings import EngineSettings
from callfs.identifiers import TokenBytes
from callfs.locks.interfaces import ILockService
from callfs.metadata.commands import Written
from callfs.metadata.interfaces import IMetadataStore
from callfs.model import NO_PRECONDITIONS, Inode, Placement, Preconditions, Principal

__all__ = [
    "DrainProgress",
    "ExpectedDigest",
    "Filesystem",
    "IssuedLink",
    "MoveRequest",
    "OpenFile",
    "Page",
    "ReplicaScan",
    "Upload",
]


class Filesystem:
    """
    The file system.

    All methods are coroutines (or asynchronous iterators), fail with the errors of ``callfs.errors``, and may be
    cancelled: a change whose body is complete goes on to its end all the same.

    :param metadata: open; closed by whoever opened it, as are the backends and locks.
    :param backends: by the names that requests call them.
    :param now: the wall clock, an instant.
    :param clock: for time limits.
    :param token_bytes: chance, for new ids and tokens.
    :param link_secrets: the first signs links, all are accepted.
    :param peers: the other nodes; ``None`` for a node that is the only one.
    :param garbage_made: called when a command may have queued garbage; the janitor's ``kick``.
    :param copies_ordered: called when a command may have ordered a second copy; the replicator's ``kick``.
    :param reached: called at named points of a write; a test can end the process there.
    """

    def __init__(
        self,
        *,
        metadata: IMetadataStore,
        backends: Mapping[str, IBlobBackend],
        locks: ILockService,
        settings: EngineSettings,
        now: Callable[[], int],
        clock: IReactorTime,
        token_bytes: TokenBytes,
        metrics: FileMetrics,
        link_secrets: Sequence[bytes],
        peers: IPeers | None = None,
        garbage_made: Callable[[], None] = nobody,
        copies_ordered: Callable[[], None] = nobody,
        reached: Callable[[str], None] = ignore,
    ) -> None:
        self._tokens = links.LinkTokens(link_secrets)
        self._ports = Ports(
            metadata=metadata,
            backends=backends,
            peers=peers or Alone(settings.instance_id),
            locks=locks,
            settings=settings,
            now=now,
            clock=clock,
            token_bytes=DrawnAhead(token_bytes),
            metrics=metrics,
            garbage_made=garbage_made,
            copies_ordered=copies_ordered,
            reached=reached,
        )

    async def settled(self) -> None:
        """
        Wait until the changes that go on without their clients have ended.

        For the end of a node: when no request is left, and before store, backends and locks are closed.
        """
        await self._ports.unattended.ended()

    def replace_link_secrets(self, link_secrets: Sequence[bytes]) -> None:
        """
        Use other secrets for links from now on.

        :param link_secrets: the first signs, all are accepted; links of a secret that isn't among them are unknown.
        """
        self._tokens.replace_secrets(link_secrets)

    async def api_endpoint(self, instance_id: str) -> str | None:
        """The base URL of a node as its peers know it, or as it is registered; ``None``: nobody knows it."""
        known = await self._ports.peers.known()
        if instance_id in known:
            return known[instance_id] or None
        endpoints = {instance.id: instance.api_endpoint for instance in await self._ports.metadata.instances()}
        return endpoints.get(instance_id)

    async def stat(self, principal: Principal, path: str, directory_expected: bool = False) -> Inode:
        """
        The inode at ``path``.

        :raises callfs.errors.FileNotFound: nothing is there.
        :raises callfs.errors.NotADirectory: ``directory_expected`` and it is a file.
        """
        return await read.stat(self._ports, principal, path, directory_expected)

    async def open(self, principal: Principal, path: str, directory_expected: bool = False) -> OpenFile:
        """
        Open a file for reading; looks the inode up again when its blob went before the first byte.

        :raises callfs.errors.FileNotFound: nothing is there.
        :raises callfs.errors.NotAFile: a directory is there.
        :raises callfs.errors.NotADirectory: ``directory_expected`` and it is a file.
        :raises callfs.errors.PeerUnavailable: the bytes can't be read just now.
        """
        return await read.open_file(self._ports, principal, path, directory_expected)

    async def create_file(self, principal: Principal, path: str, upload: Upload) -> Written:
        """A new file (POST); errors of :class:`callfs.metadata.commands.CreateFile`, and of the body."""
        return await write.create_file(self._ports, principal, path, upload)

    async def put_file(self, principal: Principal, path: str, upload: Upload) -> Written:
        """A new file or new content (PUT); errors of :class:`callfs.metadata.commands.PutFile`, and of the body."""
        return await write.put_file(self._ports, principal, path, upload)

    async def copy_file(
        self,
        principal: Principal,
        source: str,
        path: str,
        preconditions: Preconditions = NO_PRECONDITIONS,
        backend: str | None = None,
    ) -> Written:
        """A new file with another's content and content type, the bytes copied on the server."""
        return await copying.copy_file(self._ports, principal, source, path, preconditions, backend)

    async def create_directory(
        self, principal: Principal, path: str, preconditions: Preconditions = NO_PRECONDITIONS
    ) -> Written:
        """A directory; errors of :class:`callfs.metadata.commands.CreateDirectory`."""
        return await directories.create_directory(self._ports, principal, path, preconditions)

    async def move(self, principal: Principal, request: MoveRequest) -> Inode:
        """
        Rename, move, relocate, set attributes; errors of :class:`callfs.metadata.commands.Move`.

        Bytes travel before the names change, file by file; a request that failed on the way goes on where it was.

        :raises callfs.errors.BadRequest: besides, the backend or the instance isn't known, or all is there already
            and nothing else is asked for.
        :raises callfs.errors.PermissionDenied: besides, bytes would have to travel that belong to another.
        :raises callfs.errors.PeerUnavailable: bytes can't be read, or the place can't be reached.
        :raises callfs.errors.InsufficientStorage: there is no room.
        """
        return await moving.move(self._ports, principal, request)

    async def remove(
        self,
        principal: Principal,
        path: str,
        recursive: bool = False,
        directory_expected: bool = False,
        preconditions: Preconditions = NO_PRECONDITIONS,
    ) -> None:
        """Remove a file or directory; errors of :class:`callfs.metadata.commands.Remove`."""
        await removing.remove(self._ports, principal, path, recursive, directory_expected, preconditions)

    async def list_page(
        self,
        principal: Principal,
        path: str,
        recursive: bool = False,
        max_depth: int | None = None,
        after: str = "",
        limit: int = 1000,
    ) -> Page:
        """
        A page of a directory's entries.

        :param after: ``Page.after`` of the page before, or empty.
        :raises callfs.errors.FileNotFound: nothing is there.
        :raises callfs.errors.NotADirectory: a file is there.
        """
        return await listing.list_page(self._ports, principal, path, recursive, max_depth, after, limit)

    async def issue_link(self, principal: Principal, path: str, expiry_seconds: int) -> IssuedLink:
        """
        A single-use download link for a file.

        :raises callfs.errors.FileNotFound: nothing is there.
        :raises callfs.errors.NotAFile: a directory is there.
        """
        return await links.issue(self._ports, self._tokens, principal, path, expiry_seconds)

    async def look_up_link(self, token: str) -> Inode:
        """
        The file of a link, which stays unused.

        :raises callfs.errors.LinkNotFound: unknown or forged, or the file is gone.
        :raises callfs.errors.LinkExpired: its time is over.
        :raises callfs.errors.LinkUsed: it was redeemed.
        """
        return await links.look_up(self._ports, self._tokens, token)

    async def redeem_link(self, token: str) -> OpenFile:
        """
        Open the link's file, then use the link up: exactly one of any number of simultaneous calls succeeds.

        Errors as :meth:`look_up_link`; and :class:`callfs.errors.PeerUnavailable`, which leaves the link unused.
        """
        return await links.redeem(self._ports, self._tokens, token)

    async def drain_batch(
        self, instance_id: str, target: Placement | None, after: str = "", limit: int = 64
    ) -> DrainProgress:
        """
        Relocate some of what a node's local disk holds, first copies and second ones; administrators' work.

        Whoever drains a node calls this until ``after`` is ``None``, and again from the beginning until nothing was
        there: new files may have come meanwhile. What breaks off is done again by the next call.

        :param instance_id: the node, which may be down if what it has can be read elsewhere.
        :param target: where it goes; ``None``: to all other known nodes in equal parts.
        :param after: what the batch before returned.
        :raises callfs.errors.BadRequest: the target isn't another known node, or a backend that this node has; or
            nobody knows the node, and nothing is there.
        :raises callfs.errors.MetadataUnavailable: the store doesn't answer.
        """
        return await drain.drain_batch(self._ports, instance_id, target, after, limit)

    async def forget_instance(self, instance_id: str, although_alive: bool = False) -> int:
        """
        Forget a node that was taken away for good.

        :param although_alive: also when its last sign of life is so young that it seems to run.
        :return: how many blobs on its disk were still to be deleted.
        :raises callfs.errors.BadRequest: it is this node.
        :raises callfs.errors.Conflict: files have copies on it still, or second copies are queued there; or it
            seems to run, so that it would make itself known again.
        """
        return await drain.forget_instance(self._ports, instance_id, although_alive)

    async def scan_replicas(self, after: str = "", limit: int = 1000, queue: bool = False) -> ReplicaScan:
        """
        Look through some of all files for those that lack their second copy; administrators' work.

        :param after: what the page before returned.
        :param queue: have the missing ones made; one that is queued already is tried at once.
        :raises callfs.errors.MetadataUnavailable: the store doesn't answer.
        """
        return await replicas.scan_replicas(self._ports, after, limit, queue)
