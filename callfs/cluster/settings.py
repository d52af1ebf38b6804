"""How a node of the cluster behaves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from callfs.raft.boundary import Settings

TICKS_PER_HEARTBEAT = 2


@dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """
    The section ``raft`` of the configuration, as far as the cluster itself is concerned.

    :param node_id: this node.
    :param raft_address: ``host:port`` where its peers reach it.
    :param api_endpoint: the base URL of its API; may be empty.
    :param bootstrap: form a cluster out of this node and ``peers``, if there is no log yet.
    :param peers: node id to raft address.
    :param api_peer_endpoints: node id to the base URL of its API, for a cluster that is formed.
    :param apply_timeout_seconds: how long a caller waits.
    :param forward_timeout_seconds: how long a leader is waited for.
    :param snapshot_interval_seconds: the log is cut as often, if there is anything to cut.
    :param snapshot_threshold: and whenever so many entries were applied since.
    """

    node_id: str
    raft_address: str
    api_endpoint: str = ""
    bootstrap: bool = False
    peers: Mapping[str, str] = field(default_factory=dict)
    api_peer_endpoints: Mapping[str, str] = field(default_factory=dict)
    apply_timeout_seconds: float = 10.0
    forward_timeout_seconds: float = 10.0
    election_timeout_seconds: float = 1.0
    heartbeat_interval_seconds: float = 0.1
    snapshot_interval_seconds: float = 60.0
    snapshot_threshold: int = 8192

    @property
    def tick_seconds(self) -> float:
        """What the core counts time in."""
        return self.heartbeat_interval_seconds / TICKS_PER_HEARTBEAT

    def core_settings(self) -> Settings:
        """For the core."""
        return Settings(
            election_ticks=max(2, math.ceil(self.election_timeout_seconds / self.tick_seconds)),
            heartbeat_ticks=TICKS_PER_HEARTBEAT,
            keep_entries=max(1, self.snapshot_threshold // 2),
        )
