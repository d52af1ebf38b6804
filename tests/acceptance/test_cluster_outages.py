"""The metadata server fails under two daemons at work: killed, restarted, stopped where it is."""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import pytest

from tests.acceptance.conftest import ROOMY_LIMITS, shown_on_failure
from tests.support.cluster import KINDS, Cluster, MetadataServer, at_once, running_cluster
from tests.support.daemon import Daemon
from tests.support.http import Answer, Client
from tests.support.waiting import eventually

OP_TIMEOUT_SECONDS = 1
SETTINGS = {
    "limits": ROOMY_LIMITS,
    "log": {"level": "debug"},
    "server": {"metadata_op_timeout": f"{OP_TIMEOUT_SECONDS}s", "file_op_timeout": f"{3 * OP_TIMEOUT_SECONDS}s"},
}
UNAVAILABLE = (503, "METADATA_UNAVAILABLE")
UNKNOWN = (504, "OUTCOME_UNKNOWN")


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


@dataclass(frozen=True)
class Step:
    """A file that was created and then renamed, and what the daemon said to that."""

    name: str
    created: tuple[int, str]
    renamed: tuple[int, str] | None
    seconds: float

    @property
    def new_name(self) -> str:
        """After the renaming."""
        return f"renamed-{self.name}"

    @property
    def done(self) -> bool:
        """Whether all of it was acknowledged."""
        return self.created[0] == 201 and self.renamed == (200, "")

    def possible(self) -> list[set[str]]:
        """What may be there after these answers: 503 promises that nothing was changed, 504 promises nothing."""
        old, new, nothing = {self.name}, {self.new_name}, set[str]()
        if self.created != (201, ""):
            return {UNAVAILABLE: [nothing], UNKNOWN: [nothing, old]}[self.created]
        assert self.renamed is not None
        return {(200, ""): [new], UNAVAILABLE: [old], UNKNOWN: [old, new]}[self.renamed]


def said(answer: Answer) -> tuple[int, str]:
    """The status, and the code of an error."""
    return answer.status, answer.code if answer.body and answer.status >= 400 else ""


class Stream:
    """
    Users who create and rename files without a pause, through all nodes.

    :param home: the directory that they fill; nobody else touches it.
    """

    def __init__(self, cluster: Cluster, home: str, writers_at_each: int = 3) -> None:
        self.steps: list[Step] = []
        self._home = home
        self._ending = threading.Event()
        self._faults: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._write, args=(node, f"{number}-{writer}"))
            for number, node in enumerate(cluster.nodes)
            for writer in range(writers_at_each)
        ]

    def __enter__(self) -> Stream:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive(), "a request hangs"
        assert not self._faults, self._faults

    def _write(self, node: Daemon, name: str) -> None:
        client = node.client()
        try:
            for number in range(100_000):
                if self._ending.is_set():
                    break
                self.steps.append(self._step(client, f"{name}-{number}"))
        except BaseException as fault:
            self._faults.append(fault)
        finally:
            client.close()

    def _step(self, client: Client, name: str) -> Step:
        path = f"{self._home}/{name}"
        began = time.monotonic()
        created = said(client.post(path, name.encode()))
        seconds = time.monotonic() - began
        renamed = None
        if created[0] == 201:
            began = time.monotonic()
            renamed = said(client.patch(path, name=f"renamed-{name}"))
            seconds = max(seconds, time.monotonic() - began)
        return Step(name, created, renamed, seconds)

    def goes_on(self, count: int = 20) -> None:
        """Wait until each node has acknowledged that many more steps."""
        before = len(self.steps)

        def enough() -> bool:
            done = [step for step in self.steps[before:] if step.done]
            return all(sum(step.name.startswith(number) for step in done) >= count for number in "01")

        eventually(enough, within_seconds=20, what="further acknowledged creates on both nodes")

    def is_refused(self) -> None:
        """Wait until both nodes have refused something."""

        def refused() -> bool:
            failed = [step for step in self.steps if not step.done]
            return all(any(step.name.startswith(number) for step in failed) for number in "01")

        eventually(refused, within_seconds=20, what="a refusal of each node")

    def check(self, names: list[str]) -> None:
        """Compare all answers with what is in the directory in the end: nothing lost, nothing done twice."""
        assert len(names) == len(set(names))
        rest = set(names)
        for step in self.steps:
            there = {step.name, step.new_name} & rest
            assert there in step.possible(), f"{step} left {there}"
            rest -= there
        assert not rest
        for step in self.steps:
            # Whether a change that got no answer was made is looked up for as long again.
            looked_up = UNKNOWN in (step.created, step.renamed)
            assert step.seconds < OP_TIMEOUT_SECONDS * (2 if looked_up else 1) + 1, step


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


def check_tree(cluster: Cluster, home: str, stream: Stream) -> None:
    """Both nodes show what the answers said, and the bytes of what they acknowledged."""
    listings = [node.client().directory(home).json()["items"] for node in cluster.nodes]
    assert listings[0] == listings[1]
    stream.check([entry["name"] for entry in listings[0]])
    clients = {"node-1": cluster.nodes[0].client(), "node-2": cluster.nodes[1].client()}
    for entry in listings[0][:: max(1, len(listings[0]) // 50)]:
        content = clients[entry["instance_id"]].content(entry["path"])
        assert content.decode() == entry["name"].removeprefix("renamed-")


def timed(action: Callable[[], Answer]) -> tuple[tuple[int, str], float]:
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
    with Stream(cluster, home) as stream:
        stream.goes_on()
        with outage(cluster.server, kind):
            all_say(cluster, 503)
            for node in cluster.nodes:
                alive = node.health("/health")
                assert alive is not None
                assert alive.status == 200
            assert readiness(cluster.nodes[0]).json()["parts"]["metadata"]["ok"] is False
            stream.is_refused()
            outcomes = at_once([partial(timed, request) for request in metadata_requests(here, file, token)])
            assert {outcome for outcome, _ in outcomes} == {UNAVAILABLE, (503, "")}, outcomes
            assert max(seconds for _, seconds in outcomes) < OP_TIMEOUT_SECONDS + 1, outcomes
        all_say(cluster, 200)
        stream.goes_on()
    check_tree(cluster, home, stream)
    assert here.names(f"{home}-more") == ["f"]
    assert here.content(file) == b"content"
    assert here.request("GET", f"/download/{token}").body == b"content"
    assert 'callfs_errors_total{component="metadata"' in here.request("GET", "/metrics").body.decode()


def test_restarts(cluster: Cluster, home: str) -> None:
    """The server is killed and comes back at once, again and again: nothing is lost or done twice."""
    with Stream(cluster, home) as stream:
        for _ in range(2):
            stream.goes_on(10)
            cluster.server.kill()
            cluster.server.start()
        stream.goes_on()
    check_tree(cluster, home, stream)
