"""The metadata server fails under two daemons at work: killed, restarted, stopped where it is."""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.acceptance.conftest import ROOMY_LIMITS, shown_on_failure
from tests.support.cluster import KINDS, Cluster, MetadataServer, at_once, running_cluster
from tests.support.daemon import Daemon
from tests.support.http import Answer, Client
from tests.support.userload import UNAVAILABLE, UNKNOWN, Said, Stream, check_tree, refusals, said
from tests.support.waiting import eventually

OP_TIMEOUT_SECONDS = 1
SETTINGS = {
    "limits": ROOMY_LIMITS,
    "log": {"level": "debug"},
    "server": {"metadata_op_timeout": f"{OP_TIMEOUT_SECONDS}s", "file_op_timeout": f"{3 * OP_TIMEOUT_SECONDS}s"},
}


@pytest.fixture(scope="module", params=KINDS)
def nodes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two daemons on one server that keeps what it acknowledged."""
    folder = tmp_path_factory.mktemp(f"outages-{request.param}")
    with running_cluster(folder, request.param, durable=True, settings=SETTINGS, nodes=2) as cluster:
        yield cluster


@pytest.fixture
def cluster(nodes: Cluster, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The two daemons, which have to survive every test as they are, and never say the server's password."""
    for node in nodes.nodes:
        shown_on_failure(request, node)
    processes = [node.pid for node in nodes.nodes]
    yield nodes
    assert [node.pid for node in nodes.nodes if node.running] == processes
    for node in nodes.nodes:
        assert nodes.server.password not in node.log_text()
        assert "Traceback" not in node.log_text()


@pytest.fixture
def home(cluster: Cluster) -> str:
    """A fresh directory of alice's."""
    return cluster.nodes[0].client().made(f"/{secrets.token_hex(6)}")


def readiness(node: Daemon) -> Answer:
    """What ``/health/ready`` answers."""
    answer = node.health()
    assert answer is not None
    return answer


def all_say(cluster: Cluster, status: int) -> None:
    """Wait until every node's readiness has this status."""

    def every_one() -> bool:
        return {answer.status for answer in at_once([partial(readiness, node) for node in cluster.nodes])} == {
            status
        }

    eventually(every_one, within_seconds=15, what=f"readiness {status}")


def is_refused(stream: Stream, cluster: Cluster) -> None:
    """Wait until both nodes have refused something."""

    def refused() -> bool:
        return all(any(not step.done for step in stream.at([node])) for node in cluster.nodes)

    eventually(refused, within_seconds=20, what="a refusal of each node")


def check(cluster: Cluster, home: str, stream: Stream) -> None:
    """Both nodes show what they answered, which was in time, and no refusal but that they can't or don't know."""
    check_tree(cluster, home, stream)
    assert refusals(stream.steps) <= {UNAVAILABLE, UNKNOWN}
    for step in stream.steps:
        # Whether a change that got no answer was made is looked up for as long again.
        looked_up = UNKNOWN in step.answers()
        assert step.seconds < OP_TIMEOUT_SECONDS * (2 if looked_up else 1) + 1, step


def timed(action: Callable[[], Answer]) -> tuple[Said, float]:
    """What was said, and after how many seconds."""
    began = time.monotonic()
    answer = action()
    return said(answer), time.monotonic() - began


def metadata_requests(client: Client, file: str, token: str) -> list[Callable[[], Answer]]:
    """One request of every kind that needs metadata, each on a connection of its own."""
    home = file.rpartition("/")[0]
    order = json.dumps({"path": file, "expiry_seconds": 9}).encode()
    wanted: list[tuple[str, str, bytes | None]] = [
        ("GET", f"/v1/files{file}", None),
        ("HEAD", f"/v1/files{file}", None),
        ("PUT", f"/v1/files{file}", b"x"),
        ("POST", f"/v1/files{home}/new", b"x"),
        ("POST", f"/v1/files{home}/directory/", None),
        ("POST", f"/v1/files{home}/copy?copy_from={file}", None),
        ("PATCH", f"/v1/files{file}", b'{"name": "g"}'),
        ("DELETE", f"/v1/files{file}", None),
        ("GET", f"/v1/directories{home}?recursive=true", None),
        ("POST", "/v1/links/generate", order),
        ("GET", f"/download/{token}", None),
    ]
    return [partial(client.twin().request, method, target, body) for method, target, body in wanted]


@contextlib.contextmanager
def outage(server: MetadataServer, kind: str) -> Iterator[None]:
    """The server is gone, or silent, for the time of a block."""
    if kind == "paused":
        server.pause()
        try:
            yield
        finally:
            server.resume()
    else:
        server.kill()
        try:
            yield
        finally:
            server.start()


@pytest.mark.parametrize("kind", ["killed", "paused"])
def test_outage(cluster: Cluster, home: str, kind: str) -> None:
    """
    An outage longer than the time limit: every request is refused in time, ``/health/ready`` says it, and
    afterwards all goes on by itself, with all that was acknowledged and nothing that was refused.
    """
    here = cluster.nodes[0].client()
    file = here.stored(f"{here.made(f'{home}-more')}/f", b"content")
    token = here.link(file).json()["token"]
    with Stream(cluster, home, writers_at_each=3) as stream:
        stream.goes_on(cluster.nodes, 20)
        with outage(cluster.server, kind):
            all_say(cluster, 503)
            for node in cluster.nodes:
                alive = node.health("/health")
                assert alive is not None
                assert alive.status == 200
            assert readiness(cluster.nodes[0]).json()["parts"]["metadata"]["ok"] is False
            is_refused(stream, cluster)
            outcomes = at_once([partial(timed, request) for request in metadata_requests(here, file, token)])
            assert {outcome for outcome, _ in outcomes} == {UNAVAILABLE, (503, "")}, outcomes
            assert max(seconds for _, seconds in outcomes) < OP_TIMEOUT_SECONDS + 1, outcomes
        all_say(cluster, 200)
        stream.goes_on(cluster.nodes, 20)
    check(cluster, home, stream)
    assert here.names(f"{home}-more") == ["f"]
    assert here.content(file) == b"content"
    assert here.request("GET", f"/download/{token}").body == b"content"
    assert 'callfs_errors_total{component="metadata"' in here.request("GET", "/metrics").body.decode()


def test_restarts(cluster: Cluster, home: str) -> None:
    """The server is killed and comes back at once, again and again: nothing is lost or done twice."""
    with Stream(cluster, home, writers_at_each=3) as stream:
        for _ in range(2):
            stream.goes_on(cluster.nodes, 10)
            cluster.server.kill()
            cluster.server.start()
        stream.goes_on(cluster.nodes, 20)
    check(cluster, home, stream)
