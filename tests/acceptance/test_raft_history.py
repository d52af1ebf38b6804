"""Several daemons: what clients are told while nodes die and freeze could have happened one after the other."""

from __future__ import annotations

import contextlib
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.acceptance.conftest import ROOMY_LIMITS, shown_on_failure
from tests.simulation.history import DONE, EXISTS, MISMATCH, MISSING, Kind, Operation, Request
from tests.simulation.linearizability import Judgement, check
from tests.support.alongside import Alongside
from tests.support.daemon import Daemon
from tests.support.http import Answer, Client
from tests.support.raftcluster import ELECTION_SECONDS, RaftCluster, running_raft_cluster
from tests.support.raftways import DetouredRaftCluster, Weather
from tests.support.waiting import eventually, pace

NODES = 5
PAIRS = 4
"""Files of one pair are moved to one another; pairs are independent, which keeps the search for an order short."""
WRITERS_AT_EACH = 2
WEATHER_SEED = 20
SETTINGS = {"limits": ROOMY_LIMITS, "raft": {"apply_timeout": "4s", "snapshot_threshold": 200}}
UNCHANGED = {
    *("METADATA_UNAVAILABLE", "SERVICE_UNAVAILABLE", "PEER_UNAVAILABLE", "RESOURCE_LOCKED", "LOCK_TIMEOUT"),
}
"""Refusals that promise that nothing was changed, and say nothing of what there is."""
ANSWERS = {
    Kind.CREATE: {201: DONE, 409: EXISTS, 412: EXISTS},
    Kind.WRITE: {200: DONE, 201: DONE},
    Kind.EXCHANGE: {200: DONE, 412: MISMATCH},
    Kind.MOVE: {200: DONE, 404: MISSING, 409: EXISTS},
    Kind.DELETE: {204: DONE, 404: MISSING},
}


@pytest.fixture
def cluster(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RaftCluster]:
    """Five daemons."""
    with running_raft_cluster(tmp_path, settings=SETTINGS, nodes=NODES) as cluster:
        for node in cluster.nodes:
            shown_on_failure(request, node)
        yield cluster
        for node in cluster.nodes:
            assert "Traceback" not in node.log_text()


class Record:
    """
    What all clients asked for and were told. A file's content is known by its size, which no other has: it can be
    looked at without the node that has the bytes.
    """

    def __init__(self, home: str) -> None:
        self.home = home
        self.names = [f"{pair}{side}" for pair in range(PAIRS) for side in "ab"]
        self.operations: list[Operation] = []
        self.tags: dict[str, str] = {}
        self.sizes = count(1)

    def add(self, request: Request, invoked: int, answer: str | None, client: str) -> None:
        """Somebody was told something."""
        self.operations.append(Operation(request, invoked, now(), answer, client))


def now() -> int:
    """Microseconds of a clock that never jumps."""
    return time.monotonic_ns() // 1000


class User:
    """A client of one node that asks for this and that."""

    def __init__(self, record: Record, node: Daemon, name: str) -> None:
        self._record = record
        self._client = node.client(timeout_seconds=40.0)
        self._name = name
        self._chance = random.Random(name)

    def work(self, ending: threading.Event) -> None:
        """Ask until it is to end."""
        with contextlib.closing(self._client):
            while not ending.is_set():
                self._ask()

    def _ask(self) -> None:
        kind = self._chance.choice([*ANSWERS, Kind.READ, Kind.READ, None])
        name = self._chance.choice(self._record.names)
        try:
            if kind is None:
                self._list()
            elif kind is Kind.READ:
                self._look(name)
            else:
                self._change(kind, name)
        except ConnectionRefusedError:
            pace(0.05)  # the node is gone: it never heard of this

    def _change(self, kind: Kind, name: str) -> None:
        record = self._record
        value = "" if kind in (Kind.MOVE, Kind.DELETE) else str(next(record.sizes))
        target = name[:-1] + ("b" if name.endswith("a") else "a") if kind is Kind.MOVE else ""
        expected = ""
        if kind is Kind.EXCHANGE:
            if not record.tags:
                return
            expected = self._chance.choice(list(record.tags)[-len(record.names) :])
        request = Request(kind, name, value, expected, target)
        invoked = now()
        try:
            answer = self._sent(request)
        except ConnectionRefusedError:
            raise
        except (OSError, EOFError):
            record.operations.append(Operation(request, invoked, client=self._name))
            return
        if answer.status in ANSWERS[kind]:
            record.add(request, invoked, ANSWERS[kind][answer.status], self._name)
            if value and answer.status in (200, 201) and answer.get("ETag"):
                record.tags[value] = answer["ETag"]
        elif answer.status == 504:
            record.operations.append(Operation(request, invoked, client=self._name))
        else:
            assert answer.code in UNCHANGED, (request, answer, answer.body)

    def _sent(self, request: Request) -> Answer:
        path = f"{self._record.home}/{request.path}"
        body = bytes(int(request.value or 0))
        match request.kind:
            case Kind.CREATE if self._chance.random() < 0.5:
                return self._client.post(path, body)
            case Kind.CREATE:
                return self._client.put(path, body, headers={"If-None-Match": "*"})
            case Kind.WRITE:
                return self._client.put(path, body)
            case Kind.EXCHANGE:
                return self._client.put(path, body, headers={"If-Match": self._record.tags[request.expected]})
            case Kind.MOVE:
                return self._client.patch(path, name=request.target)
            case _:
                return self._client.delete(path)

    def _look(self, name: str) -> None:
        invoked = now()
        try:
            answer = self._client.head(f"{self._record.home}/{name}")
        except ConnectionRefusedError:
            raise
        except (OSError, EOFError):
            return
        if answer.status in (200, 404):
            size = answer["X-CallFS-Size"] if answer.status == 200 else None
            if size is not None:
                self._record.tags[size] = answer["ETag"]
            self._record.add(Request(Kind.READ, name), invoked, size, self._name)
        else:
            assert answer.status == 503, answer

    def _list(self) -> None:
        """A listing is a look at every file, all between its request and its answer."""
        invoked = now()
        try:
            answer = self._client.directory(self._record.home)
        except ConnectionRefusedError:
            raise
        except (OSError, EOFError):
            return
        if answer.status != 200:
            assert answer.status == 503, answer
            return
        sizes = {str(entry["name"]): str(entry["size"]) for entry in answer.json()["items"]}
        for name in self._record.names:
            self._record.add(Request(Kind.READ, name), invoked, sizes.get(name), self._name)


def trouble(cluster: RaftCluster) -> None:
    """Everything that may happen to nodes, one after the other, two of five at most at a time."""
    first = cluster.leader()
    first.kill()
    second = cluster.leader()
    second.stop()
    pace(2 * ELECTION_SECONDS)
    first.launch()
    second.cont()
    assert first.wait_ready()
    followers = cluster.followers()
    followers[0].kill()
    followers[1].stop()
    pace(ELECTION_SECONDS)
    followers[1].cont()
    followers[0].launch()
    third = cluster.leader()
    assert third.terminate() == 0, third.tail()
    cluster.leader()
    third.launch()
    cluster.whole()


def test_history(cluster: RaftCluster) -> None:
    """
    Creates, conditional and other replaces, moves, removals, looks and listings through all nodes: there is an
    order of them that explains every answer and agrees with the time of each.
    """
    lived_through(cluster, lambda: trouble(cluster))


def test_history_in_bad_weather(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The same while what nodes say to each other comes late, and connections break in the middle of a word."""
    with running_raft_cluster(tmp_path, settings=SETTINGS, make=DetouredRaftCluster) as cluster:
        assert isinstance(cluster, DetouredRaftCluster)
        for node in cluster.nodes:
            shown_on_failure(request, node)
        weather = Weather(WEATHER_SEED, longest_seconds=0.15, break_chance=0.01)

        def storm() -> None:
            cluster.network.weather = weather
            pace(6 * ELECTION_SECONDS)
            cluster.network.weather = None
            cluster.whole()

        lived_through(cluster, storm)
        assert weather.broken > 0
        for node in cluster.nodes:
            assert "Traceback" not in node.log_text()


def lived_through(cluster: RaftCluster, happening: Callable[[], None]) -> None:
    """Users ask all nodes for this and that while something happens, and what they were told is examined."""
    record = Record(cluster.nodes[0].client().made(f"/{secrets.token_hex(6)}"))
    users = [
        User(record, node, f"{number}-{each}")
        for number, node in enumerate(cluster.nodes, 1)
        for each in range(WRITERS_AT_EACH)
    ]
    with Alongside((user.work for user in users), end_seconds=45):
        happening()
        before = len(record.operations)
        eventually(
            lambda: len(record.operations) > before + 20 * len(cluster.nodes),
            within_seconds=20,
            what="further answers",
        )
    for name in record.names:
        for client in cluster.clients():
            final(record, client, name)
    kinds = {operation.request.kind for operation in record.operations if operation.known}
    assert kinds == {*ANSWERS, Kind.READ}
    verdict = check(record.operations)
    assert verdict.judgement is Judgement.LINEARIZABLE, str(verdict)


def final(record: Record, client: Client, name: str) -> None:
    """What is there in the end, metadata and bytes, is part of the history."""
    invoked = now()
    answer = client.get(f"{record.home}/{name}")
    assert answer.status in (200, 404), answer
    record.add(
        Request(Kind.READ, name), invoked, str(len(answer.body)) if answer.status == 200 else None, "in the end"
    )
