"""What a node of the cluster counts, in the registry of the node's other metrics. The names are a contract, too."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from callfs.cluster.durations import Durations
from callfs.raft.boundary import Role, Status

# Seconds. An fsync takes from 20 microseconds (a disk with a protected cache) to a second (one that is failing).
LOG_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
PROPOSAL_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

_REASONS = frozenset(
    {"certificate", "cluster", "crowded", "handshake_timeout", "idle", "malformed", "node", "replaced", "secret"}
    | {"self", "stopped", "too_long", "twin", "version"}
)


class ClusterMetrics:
    """
    A :class:`callfs.cluster.observing.ClusterObserver`.

    :param registry: where the series go.
    :param error: counts errors by component and type.
    """

    def __init__(self, registry: CollectorRegistry, error: Callable[[str, str], None]) -> None:
        self._error = error
        self._role = Gauge("callfs_raft_role", "1 for the role that the node has.", ["role"], registry=registry)
        self._term = Gauge("callfs_raft_term", "The newest term that the node knows.", registry=registry)
        self._has_leader = Gauge("callfs_raft_has_leader", "1 while the node knows who leads.", registry=registry)
        self._positions = Gauge(
            "callfs_raft_index",
            "Positions in the log: last, durable here, committed, applied here, first that isn't cut.",
            ["position"],
            registry=registry,
        )
        self._log_bytes = Gauge("callfs_raft_log_bytes", "Data of the log since the last cut.", registry=registry)
        self._contact = Gauge(
            "callfs_raft_last_contact_seconds", "Since the node heard from its leader.", registry=registry
        )
        self._lag = Gauge(
            "callfs_raft_peer_lag_entries",
            "On the leader: entries that a peer lacks.",
            ["peer"],
            registry=registry,
        )
        self._connected = Gauge(
            "callfs_raft_peer_connected",
            "1 while there is a proven connection to a peer.",
            ["peer"],
            registry=registry,
        )
        self._ways: dict[str, bool] = {}
        self._lost = Counter(
            "callfs_raft_messages_lost_total",
            "Messages thrown away, because a peer was slow or out of reach.",
            ["peer"],
            registry=registry,
        )
        self._refused = Counter(
            "callfs_raft_connections_refused_total",
            "Connections between peers that were refused or dropped.",
            ["reason"],
            registry=registry,
        )
        self._proposals = Counter(
            "callfs_raft_proposals_total", "Proposals that have ended, by how.", ["outcome"], registry=registry
        )
        self._proposal_seconds = Durations(
            "callfs_raft_proposal_duration_seconds",
            "From a proposal to its result.",
            buckets=PROPOSAL_BUCKETS,
            registry=registry,
        )
        self._elections = Counter(
            "callfs_raft_elections_total", "Elections that this node stood for.", registry=registry
        )
        self._leader_changes = Counter(
            "callfs_raft_leader_changes_total", "Leaders that the node saw come.", registry=registry
        )
        self._log_seconds = Histogram(
            "callfs_raft_log_write_duration_seconds",
            "How long a group of writes took to be durable, fsync included.",
            buckets=LOG_BUCKETS,
            registry=registry,
        )
        self._snapshots = Counter(
            "callfs_raft_snapshots_total",
            "Copies of the state, by what became of them.",
            ["event"],
            registry=registry,
        )
        self._peers: set[str] = set()
        # Looked up once: the library's own look-up costs more than the counting.
        self._applied = self._proposals.labels("applied")

    def peer_connected(self, node_id: str, connected: bool) -> None:
        """The way to a peer is open, or isn't any more."""
        if node_id:
            self._ways[node_id] = connected
            self._connected.labels(node_id).set(int(connected))

    def peer_message_lost(self, node_id: str) -> None:
        """A message to a peer was thrown away."""
        self._lost.labels(node_id).inc()

    def peer_refused(self, reason: str) -> None:
        """A connection was refused; what the other side says can't make series."""
        self._refused.labels(reason if reason in _REASONS else "other").inc()

    def raft_proposal(self, outcome: str, seconds: float) -> None:
        """A proposal has ended without a result."""
        self._proposals.labels(outcome).inc()
        self._proposal_seconds.observe((seconds,))

    def raft_applied(self, seconds: Sequence[float]) -> None:
        """Proposals have been applied."""
        self._applied.inc(len(seconds))
        self._proposal_seconds.observe(seconds)

    def raft_snapshot(self, event: str) -> None:
        """Something became of a copy."""
        self._snapshots.labels(event).inc()

    def raft_election(self) -> None:
        """This node stood for election."""
        self._elections.inc()

    def raft_leader_changed(self) -> None:
        """Somebody else leads."""
        self._leader_changes.inc()

    def raft_log_written(self, seconds: float) -> None:
        """A group of writes became durable."""
        self._log_seconds.observe(seconds)

    def raft_status(self, status: Status, heartbeat_seconds: float) -> None:
        """How the node is."""
        for role in Role:
            self._role.labels(role.value).set(int(role is status.role))
        self._term.set(status.term)
        self._has_leader.set(int(status.leader is not None))
        for position, index in (
            ("last", status.last_index),
            ("durable", status.durable),
            ("committed", status.commit),
            ("applied", status.applied),
            ("first", status.first_index),
        ):
            self._positions.labels(position).set(index)
        self._log_bytes.set(status.log_bytes)
        self._contact.set(heartbeat_seconds)
        self._show_peers(status)
        self._show_ways(status)

    def error(self, component: str, error_type: str) -> None:
        """Something went wrong that the operator should know."""
        self._error(component, error_type)

    def _show_peers(self, status: Status) -> None:
        """A node that doesn't lead knows nothing of the others, and says nothing."""
        for peer in status.peers:
            self._lag.labels(peer.node_id).set(max(0, status.last_index - peer.match))
        now = {peer.node_id for peer in status.peers}
        for gone in self._peers - now:
            self._lag.remove(gone)
        self._peers = now

    def _show_ways(self, status: Status) -> None:
        """A member that was never reached shows, too; one that has left is no reason for an alarm any more."""
        members = {member.node_id for member in status.membership.members} - {status.node_id}
        for node_id in members:
            self._connected.labels(node_id).set(int(self._ways.setdefault(node_id, False)))
        for node_id in [each for each, connected in self._ways.items() if members and not connected]:
            if node_id not in members:
                del self._ways[node_id]
                self._connected.remove(node_id)
