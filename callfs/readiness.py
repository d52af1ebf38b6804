"""Whether a node can serve: what ``/health/ready`` asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThreadPool

from callfs.backends.identity import Identity
from callfs.backends.rootfolder import RootUnusable
from callfs.backends.s3_unusable import S3Unusable
from callfs.config.schema import Config
from callfs.deferreds import returns_deferred, with_timeout
from callfs.engine.routing import LOCAL_BACKEND, S3_BACKEND
from callfs.errors import CallFSError, MetadataUnavailable
from callfs.node import Node
from callfs.node_storage import LocalDisk, SharedBucket

if TYPE_CHECKING:
    from callfs.node_cluster import Membership

BUCKET_SECONDS = 5.0
"""How long an answer of S3 is believed: a load balancer asks every second or two, and from several sides."""


class ReadinessChecks:
    """
    Looks at each part of a node.

    :ivar identity: of the root folder, once it was recognised; what is there later has to be the same.
    """

    def __init__(self, node: Node, config: Config, reactor: Any) -> None:
        self._node = node
        self._config = config
        self._reactor = reactor
        self.identity: Identity | None = None
        self._waiting: list[Deferred[Mapping[str, Mapping[str, Any]]]] = []
        self._bucket_state: Mapping[str, Any] | None = None
        self._bucket_asked_at = 0.0

    def parts(self) -> Deferred[Mapping[str, Mapping[str, Any]]]:
        """
        Each part by name: ``ok``, and what else there is to say of it.

        Who asks while a look is under way shares it: anybody may ask, and each look asks the store and S3.
        """
        waiting: Deferred[Mapping[str, Mapping[str, Any]]] = Deferred()
        self._waiting.append(waiting)
        if len(self._waiting) == 1:
            self._look().addBoth(self._looked)
        return waiting

    def _looked(self, outcome: Any) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.called:
                each.callback(outcome)

    @returns_deferred
    async def _look(self) -> Mapping[str, Mapping[str, Any]]:
        ready = self._node.site.ready
        metadata: dict[str, Any] = {"ok": ready, "type": self._config.metadata_store.type}
        locks: dict[str, Any] = {"ok": ready, "type": self._config.dlm.type}
        backends: dict[str, Any] = {"ok": ready}
        if ready:
            # Side by side: each may need its whole time limit, and whoever asks doesn't wait for their sum.
            looking = (self._state_of_store(), self._state_of_locks(), self._state_of_backends())
            states = await gatherResults([Deferred.fromCoroutine(each) for each in looking], consumeErrors=True)
            for part, state in zip((metadata, locks, backends), states, strict=True):
                part |= state
        parts = {"metadata": metadata, "locks": locks, "backends": backends}
        if self._node.membership is not None:
            parts["raft"] = _state_of_member(self._node.membership)
        return parts

    async def _state_of_store(self) -> Mapping[str, Any]:
        return await _state_of(self._node.store.check())

    async def _state_of_locks(self) -> Mapping[str, Any]:
        return await _state_of(self._node.locks.service.check())

    async def _state_of_backends(self) -> Mapping[str, Any]:
        states: dict[str, Any] = {}
        if self._node.disk is not None:
            states[LOCAL_BACKEND] = await _state_of(self._check_root(self._node.disk))
        if self._node.bucket is not None:
            states[S3_BACKEND] = await self._state_of_bucket(self._node.bucket)
        return {"ok": all(state["ok"] for state in states.values()), **states}

    async def _state_of_bucket(self, bucket: SharedBucket) -> Mapping[str, Any]:
        """S3 takes money for each question: what was found is good for a while."""
        if not bucket.gate.is_open:
            return {
                "ok": False,
                "message": "S3 hasn't answered since this node started: what is there can't be reached",
            }
        now_seconds = self._reactor.seconds()
        if self._bucket_state is None or now_seconds >= self._bucket_asked_at + BUCKET_SECONDS:
            self._bucket_state = await _state_of(bucket.bucket.check())
            self._bucket_asked_at = self._reactor.seconds()
        return self._bucket_state

    @returns_deferred
    async def _check_root(self, disk: LocalDisk) -> None:
        """
        See whether the root folder is still what it was when the node started.

        :raises RootUnusable: it isn't; the message names no path, because whoever asks isn't authenticated.
        """
        looking = deferToThreadPool(self._reactor, self._node.pools.queries, disk.root.identity)
        patience_seconds = self._config.server.file_op_timeout
        try:
            identity = await with_timeout(
                looking, patience_seconds, self._reactor, lambda: RootUnusable("the disk doesn't answer")
            )
        except RootUnusable as error:
            raise RootUnusable("the root folder can't be read") from error
        if identity != self.identity:
            raise RootUnusable("the root folder isn't the one that was there at the start: is its disk mounted?")


async def _state_of(check: Deferred[None]) -> dict[str, Any]:
    """What readiness says of a part."""
    try:
        await check
    except CallFSError as error:
        return {"ok": False, "message": error.message}
    except (RootUnusable, S3Unusable) as error:
        return {"ok": False, "message": str(error)}
    return {"ok": True}


def _state_of_member(membership: Membership) -> dict[str, Any]:
    """What readiness says of the node's part in the cluster."""
    try:
        status = membership.raft.status()
    except MetadataUnavailable as error:
        return {"ok": False, "message": error.message}
    raft = status.raft
    found = {"role": raft.role.value, "leader": raft.leader, "term": raft.term, "applied_index": raft.applied}
    if status.stopped_because:
        # Why may name files and nodes, and whoever asks isn't authenticated: that is in the log.
        return {"ok": False, "message": "this node doesn't take part in its metadata cluster any more", **found}
    return {"ok": raft.leader is not None and not raft.removed, **found}
