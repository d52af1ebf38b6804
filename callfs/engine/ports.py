"""What the flows of the engine work with: the ports, the settings, time, chance, and who is told about it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from callfs.backends.interfaces import IBlobBackend, IPeers
from callfs.deferreds import returns_deferred
from callfs.engine.claims import claimed
from callfs.engine.routing import backend_of, holder
from callfs.engine.settings import EngineSettings, microseconds
from callfs.engine.unattended import UnattendedWork
from callfs.errors import BadRequest, PeerUnavailable
from callfs.identifiers import TokenBytes, new_inode_id
from callfs.locks.interfaces import ILease, ILockService
from callfs.metadata.interfaces import IMetadataStore
from callfs.metrics import FileOperation
from callfs.model import LocalPlacement, Placement
from callfs.paths import depth

_log = Logger()


class ErrorMetrics(Protocol):
    """Who counts what goes wrong."""

    def error(self, component: str, error_type: str) -> None:
        """Something went wrong that isn't the client's fault."""


class FileMetrics(ErrorMetrics, Protocol):
    """Who counts what the engine does."""

    def file_operation(self, operation: FileOperation, backend_type: str) -> None:
        """An operation succeeded; directories are of type ``metadata``."""

    def upload_started(self) -> None:
        """A body begins to flow into a stage."""

    def upload_ended(self) -> None:
        """A started body is complete, or broke off."""


def ignore(_point: str) -> None:
    """The failpoint of a daemon that isn't under test."""


def nobody() -> None:
    """Told about work where nobody does it."""


@dataclass(frozen=True, kw_only=True)
class Storage:
    """
    What names and bytes are reached through: the collaborators of everything that copies.

    :param backends: this node's own, by name, as requests and ``X-CallFS-Backend`` call them.
    :param peers: the other nodes.
    :param now: the wall clock, an instant.
    :param reached: called at named points of a flow; a test can end the process there.
    :param unattended: shields what must go on to its end.
    """

    metadata: IMetadataStore
    backends: Mapping[str, IBlobBackend]
    peers: IPeers
    settings: EngineSettings
    now: Callable[[], int]
    clock: IReactorTime
    token_bytes: TokenBytes
    metrics: ErrorMetrics
    reached: Callable[[str], None] = ignore
    unattended: UnattendedWork = field(default_factory=UnattendedWork)

    def own_blobs(self, placement: Placement) -> IBlobBackend | None:
        """The backend of this node that has the blobs of a placement; ``None`` when none has."""
        here = self.settings.instance_id
        return self.backends.get(backend_of(placement)) if holder(placement, here) == here else None

    def blobs_at(self, placement: Placement) -> Deferred[IBlobBackend]:
        """
        The one way from a placement to its blobs: a backend of this node, or another node.

        :raises callfs.errors.PeerUnavailable: the placement can't be reached from here, or not just now.
        """
        own = self.own_blobs(placement)
        if own is not None:
            return succeed(own)
        if isinstance(placement, LocalPlacement) and placement.instance_id != self.settings.instance_id:
            return self.peers.blobs(placement.instance_id)
        return fail(PeerUnavailable(f"this node has no backend {backend_of(placement)}"))

    def known_backend(self, name: str) -> str:
        """
        A backend's name, checked.

        :raises callfs.errors.BadRequest: this node has no such backend.
        """
        if name not in self.backends:
            raise BadRequest(f"there is no backend {name!r} here; known are: {', '.join(sorted(self.backends))}")
        return name

    def garbage_not_before(self, at: int) -> int:
        """When bytes that become garbage at the instant ``at`` may be deleted where readers need them still."""
        return at + microseconds(self.settings.garbage_delay_seconds)


@dataclass(frozen=True, kw_only=True)
class Ports(Storage):
    """
    The collaborators of every flow.

    :param garbage_made: called when a command may have queued garbage for this node.
    :param copies_ordered: called when a command may have ordered a second copy.
    """

    locks: ILockService
    metrics: FileMetrics
    garbage_made: Callable[[], None]
    copies_ordered: Callable[[], None] = nobody

    def parent_ids(self, path: str) -> tuple[str, ...]:
        """New inode ids, enough for every directory above ``path``."""
        return tuple(new_inode_id(self.token_bytes) for _ in range(depth(path)))


@asynccontextmanager
async def locked(ports: Ports, *paths: str) -> AsyncIterator[None]:
    """
    Hold the locks of ``paths``.

    :raises callfs.errors.ResourceLocked: not all could be got within ``file_op_timeout``.
    """
    leases = await claimed(
        ports.locks.acquire(tuple(paths), ports.settings.file_op_timeout_seconds), lambda late: _released(late)
    )
    try:
        yield
    finally:
        # Not waited for: a lock server that falls silent now has no say in when the client gets its answer.
        ports.unattended.shield(_released(leases))


@returns_deferred
async def _released(leases: tuple[ILease, ...]) -> None:
    for lease, released in [(lease, lease.release()) for lease in leases]:
        try:
            await released
        except Exception:
            # The lease runs out by itself, and what was done under it stands: the command has decided.
            _log.failure("a lock could not be released: {key}", event="lock_release_failed", key=lease.key)
