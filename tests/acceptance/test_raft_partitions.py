"""
Three daemons on three machines, at work while the network between them is cut, in both directions or one. Who isn't
root can't make machines: there the daemons are on one, and what they say to each other is held up on its way.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator, Sequence

import pytest

from tests.acceptance.conftest import ROOMY_LIMITS, shown_on_failure
from tests.support.alongside import Alongside, again_and_again
from tests.support.daemon import Daemon
from tests.support.http import Client
from tests.support.namespaces import SpreadRaftCluster
from tests.support.raftcluster import ELECTION_SECONDS, raft_view, running_raft_cluster
from tests.support.raftways import DetouredRaftCluster
from tests.support.userload import UNAVAILABLE, UNKNOWN, Stream, check_tree, refusals
from tests.support.waiting import eventually, pace

AnyCluster = SpreadRaftCluster | DetouredRaftCluster

APPLY_SECONDS = 4
MEASURING_SECONDS = 2.0
"""What a busy machine may add to a time that is promised."""
SETTINGS = {"limits": ROOMY_LIMITS, "raft": {"apply_timeout": f"{APPLY_SECONDS}s"}}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AnyCluster]:
    """Three daemons, each on a machine of its own if that can be."""
    folder = tmp_path_factory.mktemp("raft-partitions")
    make = SpreadRaftCluster if os.geteuid() == 0 else DetouredRaftCluster
    with running_raft_cluster(folder, settings=SETTINGS, make=make) as cluster:
        assert isinstance(cluster, SpreadRaftCluster | DetouredRaftCluster)
        yield cluster


@pytest.fixture
def cluster(nodes: AnyCluster, request: pytest.FixtureRequest) -> Iterator[AnyCluster]:
    """All of one mind."""
    for node in nodes.nodes:
        shown_on_failure(request, node)
    nodes.whole()
    before = {node: len(node.log_text()) for node in nodes.nodes}
    yield nodes
    nodes.network.heal()
    for node in nodes.nodes:
        assert "Traceback" not in node.log_text()[before[node] :]


@pytest.fixture
def home(cluster: AnyCluster) -> str:
    """A fresh directory of alice's."""
    return cluster.nodes[0].client().made(f"/{secrets.token_hex(6)}")


class Growth:
    """
    A file that grows by a byte with every write through one node, while its size is looked at through another. What
    is seen there may never be less than what was acknowledged before the look.
    """

    def __init__(self, writer: Client, reader: Client, path: str) -> None:
        self.seen: list[tuple[float, int]] = []
        self.refused = 0
        self.longest_seconds = 0.0
        self._writer = writer
        self._reader = reader
        self._path = path
        self._acknowledged = 0
        self._working = Alongside(map(again_and_again, (self._write, self._read)))

    def __enter__(self) -> Growth:
        self._writer.stored(self._path, b"")
        self._working.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._working.__exit__(*error)

    def _write(self) -> None:
        size = self._acknowledged + 1
        if self._writer.put(self._path, bytes(size)).status == 200:
            self._acknowledged = size

    def _read(self) -> None:
        floor, begun = self._acknowledged, time.monotonic()
        answer = self._reader.head(self._path)
        self.longest_seconds = max(self.longest_seconds, time.monotonic() - begun)
        if answer.status == 200:
            size = int(answer["X-CallFS-Size"])
            assert size >= floor, f"{size} was read after {floor} had been acknowledged"
            self.seen.append((time.monotonic(), size))
        else:
            assert answer.status == 503
            self.refused += 1


def cut_off(cluster: AnyCluster, one: Daemon, ways: str) -> None:
    """Cut a node from all others."""
    for other in cluster.others(one):
        if ways != "inwards":
            cluster.network.cut(one.host, other.host)
        if ways != "outwards":
            cluster.network.cut(other.host, one.host)


def acknowledged(stream: Stream, node: Daemon, since: float, until: float) -> Sequence[object]:
    """What a node said was done, of what was asked for and answered within a time."""
    return [step for step in stream.at([node], since) if step.begun > since and step.ended < until and step.done]


@pytest.mark.parametrize("ways", ["both", "outwards", "inwards"])
def test_leader_cut_off(cluster: AnyCluster, home: str, ways: str) -> None:
    """
    The leader is cut off: the others go on under another one, and what was the leader neither serves a stale read
    nor acknowledges anything, and refuses its readers in time, also where it hears who leads; healed, it catches
    up, and all is there that anybody was told.
    """
    leader = cluster.leader()
    majority = cluster.others(leader)
    growth = Growth(majority[0].client(), leader.client(), f"{home}-size")
    with Stream(cluster, home) as stream:
        with growth:
            stream.goes_on(cluster.nodes)
            cut_off(cluster, leader, ways)
            cut = time.monotonic()
            stream.goes_on(majority, 20)
            new = cluster.leader(*majority)
            eventually(
                lambda: growth.refused > 0,
                within_seconds=ELECTION_SECONDS + APPLY_SECONDS + MEASURING_SECONDS,
                what="a refusal",
            )
            healed = time.monotonic()
            cluster.network.heal()
            stream.goes_on(cluster.nodes)
            pace(ELECTION_SECONDS / 4)
        assert new is not leader
        assert growth.longest_seconds < APPLY_SECONDS + MEASURING_SECONDS
        assert growth.seen[-1][0] > healed
    cluster.whole()
    check_tree(cluster, home, stream)
    assert refusals(stream.at(majority)) <= {UNAVAILABLE, UNKNOWN}
    if ways == "both":
        assert not acknowledged(stream, leader, cut, healed)


def test_follower_cut_off(cluster: AnyCluster, home: str) -> None:
    """A follower is cut off: the others don't notice, also when it is back; the leader and the term stay."""
    leader, victim = cluster.leader(), cluster.followers()[0]
    before = raft_view(leader)
    with Stream(cluster, home) as stream:
        with Growth(leader.client(), victim.client(), f"{home}-size") as growth:
            stream.goes_on(cluster.nodes)
            cut_off(cluster, victim, "both")
            pace(3 * ELECTION_SECONDS)
            stream.goes_on(cluster.others(victim))
            cluster.network.heal()
            stream.goes_on(cluster.nodes)
        assert growth.seen
    cluster.whole()
    check_tree(cluster, home, stream)
    assert refusals(stream.at(cluster.others(victim))) == set()
    after = raft_view(leader)
    assert before is not None
    assert after is not None
    assert (after["role"], after["term"]) == ("leader", before["term"])
