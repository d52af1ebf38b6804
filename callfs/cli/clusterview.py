"""What ``callfs cluster status`` shows: the views of all nodes that answered, put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

import msgspec

from callfs.cli.tables import table


class MemberView(msgspec.Struct, frozen=True):
    """A member, as any node knows it."""

    node_id: str
    voter: bool
    raft_addr: str
    api_endpoint: str


class PeerView(msgspec.Struct, frozen=True):
    """A follower, as its leader sees it."""

    node_id: str
    state: str
    match_index: int
    lag: int
    silent_seconds: float
    other_disk: bool


class NodeView(msgspec.Struct, frozen=True):
    """What a node answers of itself and of the cluster; see :func:`callfs.web.cluster.status_as_json`."""

    node_id: str
    cluster_id: str
    role: str
    term: int
    leader_id: str | None
    leader_silent_seconds: float
    removed: bool
    disk_full: bool
    stopped_because: str
    last_index: int
    commit_index: int
    applied_index: int
    members: tuple[MemberView, ...]
    peers: tuple[PeerView, ...]

    @property
    def leads(self) -> bool:
        """Whether it leads, as far as it knows itself."""
        return self.role == "leader" and not self.stopped_because


Ask = Callable[[Sequence[MemberView]], Mapping[str, NodeView | str]]
"""Asks members side by side: by id, what each answered, or why it didn't."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """
    A node.

    :param role: what it says of itself; ``unreachable`` when it didn't answer, ``removed`` and ``stopped`` when it
        takes no part.
    :param contact_seconds: since the leader heard it, or it the leader; ``None`` for the leader itself, and
        where nobody knows.
    :param lag: entries that it lacks of the leader's log; ``None`` when nobody knows.
    """

    node_id: str
    voter: bool
    role: str
    term: int | None = None
    contact_seconds: float | None = None
    last_index: int | None = None
    commit_index: int | None = None
    applied_index: int | None = None
    lag: int | None = None
    raft_addr: str
    api_endpoint: str


class ClusterView(msgspec.Struct, frozen=True, kw_only=True):
    """
    The cluster.

    :param leader_id: the newest leader among those that answered, or that those know of.
    :param findings: what isn't as it should be, a sentence each.
    """

    cluster_id: str
    leader_id: str | None
    term: int
    nodes: tuple[Row, ...]
    findings: tuple[str, ...]


def gathered(first: NodeView, ask: Ask) -> ClusterView:
    """
    The cluster as a node knows it, and as its members say of themselves.

    :param first: of the node that was asked; what it knows of the others may be old.
    """
    answers: dict[str, NodeView | str] = {first.node_id: first}
    members = first.members
    # Twice, because the leader may know members that the first one doesn't know yet.
    for _ in range(2):
        unasked = [member for member in members if member.node_id not in answers]
        if unasked:
            answers |= ask(unasked)
        members = _best(first, answers).members
    return _put_together(first, members, answers)


def _best(first: NodeView, answers: Mapping[str, NodeView | str]) -> NodeView:
    """Whose word counts: the newest leader's, else that of the one that was asked."""
    return max(_leaders(first, answers), key=lambda view: view.term, default=first)


def _leaders(first: NodeView, answers: Mapping[str, NodeView | str]) -> list[NodeView]:
    return [view for view in answers.values() if _is_of(view, first.cluster_id) and view.leads]


def _is_of(answer: NodeView | str, cluster_id: str) -> TypeGuard[NodeView]:
    return isinstance(answer, NodeView) and answer.cluster_id == cluster_id


def _put_together(
    first: NodeView, members: Sequence[MemberView], answers: Mapping[str, NodeView | str]
) -> ClusterView:
    best = _best(first, answers)
    leader = best if best.leads else None
    peers = {} if leader is None else {peer.node_id: peer for peer in leader.peers}
    rows = tuple(_row(member, answers.get(member.node_id, ""), leader, peers) for member in members)
    return ClusterView(
        cluster_id=best.cluster_id,
        leader_id=None if leader is None else leader.node_id,
        term=max(view.term for view in answers.values() if _is_of(view, first.cluster_id)),
        nodes=rows,
        findings=tuple(_findings(first, leader, members, answers, peers)),
    )


def _row(member: MemberView, answer: NodeView | str, leader: NodeView | None, peers: Mapping[str, PeerView]) -> Row:
    peer = peers.get(member.node_id)
    # A leader knows nothing of a node that hasn't answered it since its election.
    position = peer if peer is not None and peer.match_index else None
    row = Row(
        node_id=member.node_id,
        voter=member.voter,
        role="unreachable",
        contact_seconds=None if peer is None else peer.silent_seconds,
        last_index=None if position is None else position.match_index,
        lag=None if position is None else position.lag,
        raft_addr=member.raft_addr,
        api_endpoint=member.api_endpoint,
    )
    if isinstance(answer, str):
        return row
    contact = row.contact_seconds
    if contact is None and leader is None and answer.leader_id not in (None, member.node_id):
        contact = answer.leader_silent_seconds
    return msgspec.structs.replace(
        row,
        role=_role(member, answer),
        term=answer.term,
        contact_seconds=contact,
        last_index=answer.last_index,
        commit_index=answer.commit_index,
        applied_index=answer.applied_index,
        lag=None if leader is None else max(leader.last_index - answer.last_index, 0),
    )


def _role(member: MemberView, answer: NodeView) -> str:
    if answer.stopped_because:
        return "stopped"
    if answer.removed:
        return "removed"
    return answer.role if member.voter else "learner"


def _findings(
    first: NodeView,
    leader: NodeView | None,
    members: Sequence[MemberView],
    answers: Mapping[str, NodeView | str],
    peers: Mapping[str, PeerView],
) -> list[str]:
    if not first.cluster_id:
        return [f"node {first.node_id} belongs to no cluster yet: it waits to be joined ('callfs cluster join')"]
    found = []
    if leader is None:
        found.append("no leader is known: less than a majority answers each other, or an election is under way")
    if first.node_id not in {member.node_id for member in members}:
        found.append(f"node {first.node_id}, which was asked, is no member")
    for member in members:
        name, answer = member.node_id, answers.get(member.node_id, "it wasn't asked")
        if isinstance(answer, str):
            found.append(f"node {name} doesn't answer: {answer}")
            continue
        if answer.cluster_id != first.cluster_id:
            found.append(f"node {name} says that it belongs to another cluster ({answer.cluster_id or 'none'})")
        if answer.stopped_because:
            found.append(f"node {name} takes no part any more: {answer.stopped_because}")
        if answer.removed:
            found.append(f"node {name} was told that it is removed")
        if answer.disk_full:
            found.append(f"node {name} has no room left for its metadata")
    found += [
        f"node {peer.node_id} answers from another disk than it joined with, or lacks what it acknowledged, so it "
        "doesn't count: remove it, empty its raft.data_dir, and let it join again"
        for peer in peers.values()
        if peer.other_disk
    ]
    return found


def rendered(view: ClusterView) -> str:
    """For people: a table, and below it what isn't as it should be."""
    head = f"Cluster {view.cluster_id or '-'}, leader {view.leader_id or 'unknown'}, term {view.term}"
    columns = ("NODE", "ROLE", "TERM", "CONTACT", "LOG END", "COMMITTED", "APPLIED", "LAG", "RAFT", "API")
    lines = [
        (
            row.node_id,
            row.role,
            _shown(row.term),
            "-" if row.contact_seconds is None else f"{row.contact_seconds:.1f} s",
            _shown(row.last_index),
            _shown(row.commit_index),
            _shown(row.applied_index),
            _shown(row.lag),
            row.raft_addr,
            row.api_endpoint or "-",
        )
        for row in view.nodes
    ]
    findings = [f"! {finding}" for finding in view.findings]
    return "\n".join([head, *table(columns, lines, right=(2, 3, 4, 5, 6, 7)), *findings])


def parsed(answer: Any) -> NodeView:
    """
    A node's answer.

    :raises msgspec.ValidationError: it isn't one.
    """
    return msgspec.convert(answer, NodeView)


def _shown(number: int | None) -> str:
    return "-" if number is None else str(number)
