"""The metadata cluster, for peers and commands: ``/v1/internal/raft``. Answered before the daemon is ready."""

from __future__ import annotations

import re
from collections.abc import Awaitable
from typing import Any, TypeVar

import msgspec
from klein import Klein

from callfs.cluster.interfaces import ChangeRefused, ClusterStatus, IReplicator
from callfs.config.addresses import base_url, parse_host_port
from callfs.errors import BadRequest, Conflict, NotFound
from callfs.raft.boundary import PeerStatus
from callfs.raft.membership import Member
from callfs.web.bodies import decode
from callfs.web.messages import Request, Response
from callfs.web.routes import Access, route
from callfs.web.smallbodies import json_response

T = TypeVar("T")

_NODE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MAX_BODY_BYTES = 4096
_MAX_ADDRESS_LENGTH = 512
_UNCACHED = {"Cache-Control": "no-store"}


class _Joining(msgspec.Struct, frozen=True):
    node_id: str
    raft_addr: str
    api_endpoint: str = ""


class _Chosen(msgspec.Struct, frozen=True):
    node_id: str


class ClusterResource:
    """
    Membership and state of the metadata cluster, on any of its nodes.

    :param replicator: this node's part in it; ``None`` on a node whose metadata is elsewhere.
    :param tick_seconds: how long one of the ticks is that silence is counted in
        (:attr:`callfs.cluster.settings.ClusterSettings.tick_seconds`).
    """

    router = Klein()

    def __init__(self, replicator: IReplicator | None, tick_seconds: float = 0.0) -> None:
        self._replicator = replicator
        self._tick_seconds = tick_seconds

    @route(router, "/v1/internal/raft/join", methods=("POST",), access=Access.INTERNAL)
    async def join(self, request: Request) -> Response:
        """Let a node in, as a learner first; joining twice changes nothing."""
        replicator = self._present()
        asked = decode(await request.body.read(_MAX_BODY_BYTES), _Joining)
        address, endpoint = _raft_address(asked.raft_addr), _endpoint(asked.api_endpoint)
        await _carried_out(replicator.join(_node_id(asked.node_id), address, endpoint))
        return json_response(request, {"status": "joined", "leader_id": replicator.status().raft.leader})

    @route(router, "/v1/internal/raft/status", access=Access.INTERNAL)
    async def status(self, request: Request) -> Response:
        """What this node knows of the cluster and of itself; it asks nobody, so it answers without a quorum."""
        found = status_as_json(self._present().status(), self._tick_seconds)
        return json_response(request, found, headers=_UNCACHED)

    @route(router, "/v1/internal/raft/remove", methods=("POST",), access=Access.INTERNAL)
    async def remove(self, request: Request) -> Response:
        """Remove a node for good; removing twice changes nothing."""
        replicator = self._present()
        asked = decode(await request.body.read(_MAX_BODY_BYTES), _Chosen)
        membership = await _carried_out(replicator.remove(_node_id(asked.node_id)))
        left = sorted(member.node_id for member in membership.members)
        leader = replicator.status().raft.leader
        return json_response(request, {"status": "removed", "leader_id": leader, "members": left})

    @route(router, "/v1/internal/raft/transfer-leader", methods=("POST",), access=Access.INTERNAL)
    async def transfer(self, request: Request) -> Response:
        """Hand the leadership to a voter."""
        replicator = self._present()
        asked = decode(await request.body.read(_MAX_BODY_BYTES), _Chosen)
        await _carried_out(replicator.transfer(_node_id(asked.node_id)))
        return json_response(request, {"status": "transferred", "leader_id": asked.node_id})

    def _present(self) -> IReplicator:
        if self._replicator is None:
            raise NotFound("this node belongs to no metadata cluster: its metadata_store.type isn't raft")
        return self._replicator


def status_as_json(status: ClusterStatus, tick_seconds: float) -> dict[str, Any]:
    """
    A node's view of the cluster as it is answered.

    :param tick_seconds: how long a tick is.
    :return: ``peers`` is empty on a node that doesn't lead.
    """
    raft = status.raft
    return {
        "node_id": raft.node_id,
        "cluster_id": status.cluster_id,
        "disk_id": status.disk_id,
        "role": raft.role.value,
        "term": raft.term,
        "leader_id": raft.leader,
        "leader_silent_seconds": round(raft.leader_silent_ticks * tick_seconds, 3),
        "removed": raft.removed,
        "writable": raft.writable,
        "disk_full": status.disk_full,
        "stopped_because": status.stopped_because,
        "first_index": raft.first_index,
        "last_index": raft.last_index,
        "durable_index": raft.durable,
        "commit_index": raft.commit,
        "applied_index": raft.applied,
        "log_bytes": raft.log_bytes,
        "transferring_to": raft.transferring_to,
        "refused_conflicts": raft.refused_conflicts,
        "connected": sorted(status.connected),
        "members": [_member(member) for member in raft.membership.members],
        "peers": [_peer(peer, raft.last_index, tick_seconds) for peer in raft.peers],
    }


def _member(member: Member) -> dict[str, Any]:
    return {
        "node_id": member.node_id,
        "voter": member.voter,
        "raft_addr": member.raft_address,
        "api_endpoint": member.api_endpoint,
        "disk_id": member.disk_id,
        "version": member.version,
    }


def _peer(peer: PeerStatus, last_index: int, tick_seconds: float) -> dict[str, Any]:
    return {
        "node_id": peer.node_id,
        "state": peer.state,
        "match_index": peer.match,
        "lag": max(last_index - peer.match, 0),
        "silent_seconds": round(peer.silent_ticks * tick_seconds, 3),
        "other_disk": peer.other_disk,
    }


async def _carried_out(change: Awaitable[T]) -> T:
    """
    A change's result.

    :raises Conflict: it was refused; ``reason`` in the details is the refusal's code.
    """
    try:
        return await change
    except ChangeRefused as refused:
        raise Conflict(refused.message, reason=refused.reason) from refused


def _node_id(text: str) -> str:
    if _NODE_ID.fullmatch(text) is None:
        raise BadRequest("a node's id has 1 to 64 of A-Z a-z 0-9 . _ -")
    return text


def _raft_address(text: str) -> str:
    address = parse_host_port(text) if len(text) <= _MAX_ADDRESS_LENGTH else None
    if address is None or not address.host or not address.port:
        raise BadRequest("raft_addr must be the host and port where the node's peers reach it, like 10.0.0.2:7000")
    return text


def _endpoint(text: str) -> str:
    if not text:
        return ""
    url = base_url(text, "") if "://" in text and len(text) <= _MAX_ADDRESS_LENGTH else None
    if url is None:
        raise BadRequest("api_endpoint must be a base URL, like https://node-2.example:8443")
    return url
