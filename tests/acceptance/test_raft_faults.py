"""Three daemons that keep the metadata themselves, at work while some of them die, freeze, or are restarted."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tests.acceptance.conftest import ROOMY_LIMITS, shown_on_failure
from tests.acceptance.test_cluster_outages import metadata_requests, timed
from tests.support.cluster import at_once
from tests.support.daemon import Daemon
from tests.support.raftcluster import ELECTION_SECONDS, RaftCluster, running_raft_cluster
from tests.support.userload import ENDING, LOST, UNAVAILABLE, Stream, check_tree, refusals, said
from tests.support.waiting import eventually, pace

APPLY_SECONDS = 4
BACK_SECONDS = 3 * ELECTION_SECONDS
"""After so long without its leader the cluster serves again."""
MEASURING_SECONDS = 1.0
"""What a busy machine may add to a time that is promised."""
SETTINGS = {"limits": ROOMY_LIMITS, "raft": {"apply_timeout": f"{APPLY_SECONDS}s"}}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RaftCluster]:
    """Three daemons that need nothing but themselves."""
    with running_raft_cluster(tmp_path_factory.mktemp("raft-faults"), settings=SETTINGS) as cluster:
        yield cluster


@pytest.fixture
def cluster(nodes: RaftCluster, request: pytest.FixtureRequest) -> Iterator[RaftCluster]:
    """All three running and of one mind; whatever a test does to them, they never have an unexpected error."""
    for node in nodes.nodes:
        shown_on_failure(request, node)
    nodes.whole()
    before = {node: len(node.log_text()) for node in nodes.nodes}
    yield nodes
    for node in nodes.nodes:
        assert "Traceback" not in node.log_text()[before[node] :]


@pytest.fixture
def home(cluster: RaftCluster) -> str:
    """A fresh directory of alice's."""
    return cluster.nodes[0].client().made(f"/{secrets.token_hex(6)}")


def unnoticed(stream: Stream, survivors: list[Daemon], since: float) -> None:
    """At these nodes nobody was refused anything."""
    steps = stream.at(survivors, since)
    assert steps
    assert refusals(steps) == set()


def back_in_time(stream: Stream, survivors: list[Daemon], since: float) -> None:
    """At these nodes clients saw at most 503s after that instant, and only for three election timeouts."""
    steps = stream.at(survivors, since)
    assert refusals(steps) <= {UNAVAILABLE}
    for node in survivors:
        served = min(step.ended for step in stream.at([node], since) if step.done and step.begun > since)
        waited = [step.seconds for step in stream.at([node], since) if step.begun <= since < step.ended]
        assert served - since < BACK_SECONDS + MEASURING_SECONDS, served - since
        assert max(waited, default=0.0) < BACK_SECONDS + MEASURING_SECONDS, waited


class TestKilled:
    """SIGKILL under load."""

    def test_leader(self, cluster: RaftCluster, home: str) -> None:
        """
        The leader is gone: the others serve again within three election timeouts, nobody saw more than a 503,
        nothing acknowledged is lost, nothing was done twice; when it is back it serves like the others.
        """
        leader = cluster.leader()
        survivors = cluster.others(leader)
        with Stream(cluster, home) as stream:
            stream.goes_on(cluster.nodes)
            killed = time.monotonic()
            leader.kill()
            stream.goes_on(survivors)
            leader.start()
            stream.goes_on(cluster.nodes)
        cluster.whole()
        check_tree(cluster, home, stream)
        back_in_time(stream, survivors, killed)

    def test_follower(self, cluster: RaftCluster, home: str) -> None:
        """A follower is gone: at the others there isn't one error, and it catches up when it is back."""
        victim = cluster.followers()[0]
        with Stream(cluster, home) as stream:
            stream.goes_on(cluster.nodes)
            killed = time.monotonic()
            victim.kill()
            stream.goes_on(cluster.others(victim), 20)
            victim.start()
            stream.goes_on(cluster.nodes)
        cluster.whole()
        check_tree(cluster, home, stream)
        unnoticed(stream, cluster.others(victim), killed)

    def test_majority(self, cluster: RaftCluster, home: str) -> None:
        """
        Both followers are gone: whatever needs metadata is refused in time, reads as well, since nobody knows what
        others wrote meanwhile; with one of them all goes on.
        """
        leader = cluster.leader()
        here = leader.client()
        file = here.stored(f"{home}/f", b"content")
        token = here.link(file).json()["token"]
        followers = cluster.others(leader)
        for node in followers:
            node.kill()
        eventually(lambda: cluster.leader_as_seen(leader) is None, within_seconds=15, what="the leader's retreat")
        outcomes = at_once([partial(timed, request) for request in metadata_requests(here, file, token)])
        assert {outcome for outcome, _ in outcomes} == {UNAVAILABLE, (503, "")}, outcomes
        assert max(seconds for _, seconds in outcomes) < APPLY_SECONDS + MEASURING_SECONDS, outcomes
        answer = leader.health()
        assert answer is not None
        assert answer.status == 503
        assert answer.json()["parts"]["metadata"]["ok"] is False
        alive = leader.health("/health")
        assert alive is not None
        assert alive.status == 200
        followers[0].start()
        for node in (leader, followers[0]):
            assert node.wait_ready()
            assert node.client().content(file) == b"content"
            assert node.client().names(home) == ["f"]
            node.client().stored(file, b"content")

    def test_all(self, cluster: RaftCluster, home: str) -> None:
        """All are gone at once: everything that was acknowledged is there."""
        with Stream(cluster, home) as stream:
            stream.goes_on(cluster.nodes)
            for node in cluster.nodes:
                node.kill()
            for node in cluster.nodes:
                node.launch()
            stream.goes_on(cluster.nodes)
        cluster.whole()
        check_tree(cluster, home, stream)

    def test_majority_and_then_the_rest_ends(self, cluster: RaftCluster, home: str) -> None:
        """Both followers are gone, and the last one is told to end: it doesn't wait for what can't come."""
        last = cluster.leader()
        followers = cluster.others(last)
        for node in followers:
            node.kill()
        eventually(lambda: cluster.leader_as_seen(last) is None, within_seconds=15, what="the leader's retreat")
        with ThreadPoolExecutor(1) as thread:
            waiting = thread.submit(last.client().put, f"{home}/f", b"content")
            pace(0.2)
            ending = time.monotonic()
            assert last.terminate() == 0, last.tail()
            assert time.monotonic() - ending < BACK_SECONDS + MEASURING_SECONDS
            assert said(waiting.result()) == UNAVAILABLE
        for node in cluster.nodes:
            node.launch()


class TestFrozen:
    """SIGSTOP under load: the sockets are there, nobody answers; and SIGCONT, when the others are further."""

    def test_leader(self, cluster: RaftCluster, home: str) -> None:
        """The others elect another one in time; who led before goes on as a follower, and had told nobody a lie."""
        leader = cluster.leader()
        survivors = cluster.others(leader)
        with Stream(cluster, home) as stream:
            stream.goes_on(cluster.nodes)
            frozen = time.monotonic()
            leader.stop()
            stream.goes_on(survivors, 30)
            new = survivors[0].client()
            content = secrets.token_bytes(9)
            new.stored(f"{home}-new", content)
            leader.cont()
            assert leader.client().content(f"{home}-new") == content
            stream.goes_on(cluster.nodes)
        cluster.whole()
        check_tree(cluster, home, stream)
        back_in_time(stream, survivors, frozen)

    def test_follower(self, cluster: RaftCluster, home: str) -> None:
        """The others don't notice; when it goes on, its first answer is up to date."""
        victim = cluster.followers()[0]
        survivors = cluster.others(victim)
        with Stream(cluster, home) as stream:
            stream.goes_on(cluster.nodes)
            frozen = time.monotonic()
            victim.stop()
            stream.goes_on(survivors, 30)
            pace(2 * ELECTION_SECONDS)
            content = secrets.token_bytes(9)
            survivors[0].client().stored(f"{home}-new", content)
            victim.cont()
            assert victim.client().content(f"{home}-new") == content
            stream.goes_on(cluster.nodes)
        cluster.whole()
        check_tree(cluster, home, stream)
        unnoticed(stream, survivors, frozen)


class TestRestarted:
    """SIGTERM under load, one node after the other."""

    def test_rolling(self, cluster: RaftCluster, home: str) -> None:
        """At the nodes that run nobody is refused anything: the leader hands over before it goes."""
        with Stream(cluster, home) as stream:
            for node in cluster.nodes:
                stream.goes_on(cluster.nodes)
                ending = time.monotonic()
                assert node.terminate() == 0, node.tail()
                stream.goes_on(cluster.others(node))
                unnoticed(stream, cluster.others(node), ending)
                slowest = max(step.seconds for step in stream.at(cluster.others(node), ending))
                assert slowest < ELECTION_SECONDS + MEASURING_SECONDS
                node.start()
            stream.goes_on(cluster.nodes)
        assert refusals(stream.steps) <= {ENDING, LOST}
        cluster.whole()
        check_tree(cluster, home, stream)
