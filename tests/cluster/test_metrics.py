"""What is counted of the cluster, and under which names."""

from __future__ import annotations

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from callfs.cluster.metrics import ClusterMetrics
from callfs.metrics import Metrics
from callfs.raft.boundary import PeerStatus, Role, Status
from callfs.raft.membership import NOBODY, Member, Membership


def samples(metrics: Metrics) -> dict[str, float]:
    """Every sample of the cluster, by name and label."""
    _, body = metrics.render()
    return {
        sample.name + "".join(f"[{value}]" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
        if sample.name.startswith(("callfs_raft", "callfs_errors"))
    }


def status(*peers: PeerStatus, role: Role = Role.LEADER) -> Status:
    return Status(
        node_id="n1",
        role=role,
        term=7,
        leader="n1",
        removed=False,
        writable=True,
        commit=90,
        applied=80,
        durable=95,
        last_index=100,
        first_index=11,
        log_bytes=4000,
        leader_silent_ticks=0,
        transferring_to=None,
        refused_conflicts=0,
        membership=NOBODY,
        peers=peers,
    )


def peer(name: str, match: int) -> PeerStatus:
    return PeerStatus(
        node_id=name,
        voter=True,
        state="replicate",
        match=match,
        next_index=match + 1,
        inflight=0,
        silent_ticks=0,
        other_disk=False,
    )


def test_a_status_shows_role_positions_and_lag() -> None:
    """What an operator's dashboard is made of."""
    metrics = Metrics()
    cluster = ClusterMetrics(metrics.registry, metrics.error)
    cluster.raft_status(status(peer("n2", 97), peer("n3", 100)), 0.25)
    shown = samples(metrics)
    assert shown["callfs_raft_role[leader]"] == 1
    assert shown["callfs_raft_role[follower]"] == 0
    assert shown["callfs_raft_term"] == 7
    assert shown["callfs_raft_has_leader"] == 1
    assert shown["callfs_raft_index[committed]"] == 90
    assert shown["callfs_raft_index[applied]"] == 80
    assert shown["callfs_raft_index[durable]"] == 95
    assert shown["callfs_raft_index[last]"] == 100
    assert shown["callfs_raft_index[first]"] == 11
    assert shown["callfs_raft_log_bytes"] == 4000
    assert shown["callfs_raft_last_contact_seconds"] == 0.25
    assert shown["callfs_raft_peer_lag_entries[n2]"] == 3
    assert shown["callfs_raft_peer_lag_entries[n3]"] == 0


def test_a_node_that_leads_no_more_shows_no_lag() -> None:
    """Old figures of peers don't stay."""
    metrics = Metrics()
    cluster = ClusterMetrics(metrics.registry, metrics.error)
    cluster.raft_status(status(peer("n2", 97)), 0)
    cluster.raft_status(status(role=Role.FOLLOWER), 0)
    assert "callfs_raft_peer_lag_entries[n2]" not in samples(metrics)


def test_what_happens_is_counted() -> None:
    """Proposals, elections, writes, snapshots, connections, errors."""
    metrics = Metrics()
    cluster = ClusterMetrics(metrics.registry, metrics.error)
    cluster.raft_applied([0.01, 0.3, 0.0005])
    cluster.raft_proposal("unknown", 40)
    cluster.raft_election()
    cluster.raft_leader_changed()
    cluster.raft_log_written(0.002)
    cluster.raft_snapshot("sent")
    cluster.peer_connected("n2", True)
    cluster.peer_message_lost("n2")
    cluster.error("raft", "disk_full")
    shown = samples(metrics)
    assert shown["callfs_raft_proposals_total[applied]"] == 3
    assert shown["callfs_raft_proposals_total[unknown]"] == 1
    assert shown["callfs_raft_proposal_duration_seconds_count"] == 4
    assert shown["callfs_raft_proposal_duration_seconds_sum"] == 40.3105
    assert [
        shown[f"callfs_raft_proposal_duration_seconds_bucket[{bound}]"]
        for bound in ("0.0005", "0.001", "0.01", "0.25", "0.5", "30.0", "+Inf")
    ] == [1, 1, 2, 2, 3, 3, 4]
    assert shown["callfs_raft_elections_total"] == 1
    assert shown["callfs_raft_leader_changes_total"] == 1
    assert shown["callfs_raft_log_write_duration_seconds_count"] == 1
    assert shown["callfs_raft_snapshots_total[sent]"] == 1
    assert shown["callfs_raft_peer_connected[n2]"] == 1
    assert shown["callfs_raft_messages_lost_total[n2]"] == 1
    assert shown["callfs_errors_total[raft][disk_full]"] == 1


def test_a_stranger_cannot_make_series() -> None:
    """A reason that the other side made up is counted as another one."""
    metrics = Metrics()
    cluster = ClusterMetrics(metrics.registry, metrics.error)
    cluster.peer_refused("secret")
    cluster.peer_refused("made up")
    cluster.peer_connected("", True)
    shown = samples(metrics)
    assert shown["callfs_raft_connections_refused_total[secret]"] == 1
    assert shown["callfs_raft_connections_refused_total[other]"] == 1
    assert not any(name.startswith("callfs_raft_peer_connected") for name in shown)


def test_connections_are_those_of_the_members() -> None:
    """One that was never reached is a reason for an alarm; one that has left the cluster isn't any more."""
    metrics = Metrics()
    cluster = ClusterMetrics(metrics.registry, metrics.error)
    cluster.peer_connected("n2", True)
    cluster.peer_connected("n4", True)
    cluster.raft_status(status(), 0.1)
    members = tuple(Member(name, f"disk-{name}", f"{name}:7000", "", True) for name in ("n1", "n2", "n3"))
    left = msgspec.structs.replace(status(), membership=Membership("c", members))
    cluster.raft_status(left, 0.1)
    name = "callfs_raft_peer_connected"
    shown = samples(metrics)
    assert [shown.get(f"{name}[{node}]") for node in ("n1", "n2", "n3", "n4")] == [None, 1, 0, 1]
    cluster.peer_connected("n4", False)
    cluster.raft_status(left, 0.1)
    assert f"{name}[n4]" not in samples(metrics)
    cluster.peer_connected("n4", True)
    assert samples(metrics)[f"{name}[n4]"] == 1
