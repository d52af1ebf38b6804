"""Who is told what happens in the cluster, and how it gets into the log of events."""

from __future__ import annotations

from typing import Protocol

from twisted.logger import Logger

from callfs.cluster.link import LinkObserver
from callfs.cluster.proposals import ProposalObserver
from callfs.cluster.snapshot_sending import SnapshotObserver
from callfs.raft.boundary import Role, Standing, Status
from callfs.raft.membership import Membership


class ClusterObserver(LinkObserver, ProposalObserver, SnapshotObserver, Protocol):
    """What metrics are made of; called on the reactor's thread."""

    def raft_status(self, status: Status, heartbeat_seconds: float) -> None:
        """How the node is, every second; ``heartbeat_seconds`` is how long ago it last heard from its leader."""

    def raft_election(self) -> None:
        """This node stood for election."""

    def raft_leader_changed(self) -> None:
        """Another node leads, or this one began to."""

    def raft_log_written(self, seconds: float) -> None:
        """A group of writes became durable, after so long."""

    def error(self, component: str, error_type: str) -> None:
        """Something went wrong that the operator should know."""


class Chronicle:
    """Tells of elections and of the membership, in events of the log and to the observer."""

    _log = Logger()

    def __init__(self, node_id: str, observer: ClusterObserver) -> None:
        self._node_id = node_id
        self._observer = observer
        self._last: Standing | None = None

    def standing(self, now: Standing) -> None:
        """Roles, terms or leaders changed."""
        before, self._last = self._last, now
        if now.role is Role.CANDIDATE and (
            before is None or before.term != now.term or before.role is not now.role
        ):
            self._observer.raft_election()
            self._log.info("standing for election in term {term}", event="raft_election", term=now.term)
        if now.leader is not None and (before is None or before.leader != now.leader):
            self._observer.raft_leader_changed()
            self._log.info("{leader} leads in term {term}", event="raft_leader", leader=now.leader, term=now.term)
        elif now.leader is None and before is not None and before.leader is not None:
            self._log.warn("the metadata cluster has no leader", event="raft_no_leader", term=now.term)
        if now.removed and (before is None or not before.removed):
            self._observer.error("raft", "removed")
            self._log.error(
                "this node was removed from the cluster: it takes no part any more", event="raft_removed"
            )

    def membership(self, membership: Membership) -> None:
        """The members changed."""
        if membership.members:
            self._log.info(
                "the cluster's members: {members}",
                event="raft_membership",
                members=", ".join(
                    member.node_id if member.voter else f"{member.node_id} (learner)"
                    for member in membership.members
                ),
            )
