"""Administration of nodes and of second copies, for commands: ``/v1/internal/nodes`` and ``.../replication``."""

from __future__ import annotations

import msgspec
from klein import Klein

from callfs.engine.filesystem import Filesystem
from callfs.errors import BadRequest, NotFound
from callfs.metadata.interfaces import IMetadataStore
from callfs.model import LocalPlacement, Placement, S3Placement
from callfs.web.bodies import decode
from callfs.web.messages import Request, Response
from callfs.web.routes import Access, route
from callfs.web.smallbodies import json_response
from callfs.web.timestamps import rfc3339

MAX_DRAIN_BATCH = 1000
MAX_SCAN_PAGE = 10_000

_MAX_BODY_BYTES = 16 * 1024
_PAGE = 1000
_UNCACHED = {"Cache-Control": "no-store"}


class _Draining(msgspec.Struct, frozen=True):
    """At most one of ``to_instance`` and ``to_s3`` is given; without, the other nodes share it."""

    instance_id: str
    to_instance: str | None = None
    to_s3: bool = False
    after: str = ""
    limit: int = 64


class _Forgetting(msgspec.Struct, frozen=True):
    instance_id: str
    force: bool = False


class _Scanning(msgspec.Struct, frozen=True):
    after: str = ""
    limit: int = _PAGE
    queue: bool = False


class NodeResource:
    """
    Taking nodes away, and second copies.

    :param filesystem: does the work.
    :param metadata: knows the nodes, what they hold, and the replication queue.
    :param replica_backend: where second copies go; ``None`` for none.
    """

    router = Klein()

    def __init__(self, filesystem: Filesystem, metadata: IMetadataStore, replica_backend: str | None) -> None:
        self._filesystem = filesystem
        self._metadata = metadata
        self._replica_backend = replica_backend

    @route(router, "/v1/internal/nodes/{id}/copies", access=Access.INTERNAL)
    async def copies(self, request: Request) -> Response:
        """How much a node's local disk holds by the metadata: first copies and second ones."""
        instance_id = request.captured["id"]
        await self._check_known(instance_id)
        count = size = 0
        after = ""
        while page := await self._metadata.list_blobs(after, _PAGE, instance_id):
            count += len(page)
            size += sum(blob.size for blob, _ in page)
            after = page[-1][0].id
        return json_response(request, {"copies": count, "bytes": size}, headers=_UNCACHED)

    @route(router, "/v1/internal/nodes/drain", methods=("POST",), access=Access.INTERNAL)
    async def drain(self, request: Request) -> Response:
        """Relocate a batch of what a node's local disk holds; ``after`` in the answer begins the next one."""
        asked = decode(await request.body.read(_MAX_BODY_BYTES), _Draining)
        _check_limit(asked.limit, MAX_DRAIN_BATCH)
        target = _target(asked)
        await self._check_known(asked.instance_id)
        progress = await self._filesystem.drain_batch(asked.instance_id, target, asked.after, asked.limit)
        failed = [{"path": path, "reason": reason} for path, reason in progress.failed]
        answer = {"moved": progress.moved, "bytes": progress.bytes, "skipped": progress.skipped}
        return json_response(request, {**answer, "failed": failed, "after": progress.after})

    @route(router, "/v1/internal/nodes/forget", methods=("POST",), access=Access.INTERNAL)
    async def forget(self, request: Request) -> Response:
        """Forget a node that is gone for good and holds nothing; ``force``: also one that seems to run."""
        asked = decode(await request.body.read(_MAX_BODY_BYTES), _Forgetting)
        await self._check_known(asked.instance_id)
        garbage = await self._filesystem.forget_instance(asked.instance_id, asked.force)
        return json_response(request, {"status": "forgotten", "garbage": garbage})

    @route(router, "/v1/internal/replication", access=Access.INTERNAL)
    async def replication(self, request: Request) -> Response:
        """What waits in the replication queue, by the node that has to make the copies."""
        backlog = [
            {
                "instance_id": each.by,
                "waiting": each.waiting,
                "failing": each.failing,
                "oldest_queued_at": rfc3339(each.oldest_queued_at),
            }
            for each in await self._metadata.replication_backlog()
        ]
        answer = {"replica_backend": self._replica_backend, "backlog": backlog}
        return json_response(request, answer, headers=_UNCACHED)

    @route(router, "/v1/internal/replication/files", access=Access.INTERNAL)
    async def files(self, request: Request) -> Response:
        """How many files there are to look through; counted anew."""
        statistics = await self._metadata.statistics()
        return json_response(request, {"files": statistics.files}, headers=_UNCACHED)

    @route(router, "/v1/internal/replication/scan", methods=("POST",), access=Access.INTERNAL)
    async def scan(self, request: Request) -> Response:
        """Look through a page of all files for those without their second copy, and queue it if asked to."""
        asked = decode(await request.body.read(_MAX_BODY_BYTES), _Scanning)
        _check_limit(asked.limit, MAX_SCAN_PAGE)
        found = await self._filesystem.scan_replicas(asked.after, asked.limit, asked.queue)
        answer = {"files": found.files, "lacking": found.lacking, "queued": found.queued, "after": found.after}
        return json_response(request, answer)

    async def _check_known(self, instance_id: str) -> None:
        """A mistyped id would look like a node that holds nothing."""
        known = sorted(instance.id for instance in await self._metadata.instances())
        if instance_id not in known:
            raise NotFound(f"there is no node {instance_id[:64]!r}; known are {', '.join(known) or 'none'}")


def _target(asked: _Draining) -> Placement | None:
    if asked.to_s3 and asked.to_instance is not None:
        raise BadRequest("only one of to_instance and to_s3 can be given")
    if asked.to_s3:
        return S3Placement()
    return None if asked.to_instance is None else LocalPlacement(asked.to_instance)


def _check_limit(limit: int, most: int) -> None:
    if not 1 <= limit <= most:
        raise BadRequest(f"limit must be from 1 to {most}")
