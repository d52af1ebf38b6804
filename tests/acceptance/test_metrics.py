"""Prometheus metrics (HTTP API, sections 8 and 10)."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.acceptance.conftest import StartDaemon
from tests.support.daemon import Daemon
from tests.support.http import Answer, Client
from tests.support.waiting import eventually

NAMES = {
    "callfs_http_requests_total": "counter",
    "callfs_http_request_duration_seconds": "histogram",
    "callfs_internal_requests_total": "counter",
    "callfs_backend_ops_total": "counter",
    "callfs_backend_op_duration_seconds": "histogram",
    "callfs_metadata_db_queries_total": "counter",
    "callfs_metadata_db_query_duration_seconds": "histogram",
    "callfs_single_use_link_generations_total": "counter",
    "callfs_single_use_link_consumptions_total": "counter",
    "callfs_lock_operations_total": "counter",
    "callfs_lock_operation_duration_seconds": "histogram",
    "callfs_active_locks": "gauge",
    "callfs_file_operations_total": "counter",
    "callfs_errors_total": "counter",
}

Labels = dict[str, str]


def samples(text: str) -> Iterator[tuple[str, Labels, float]]:
    """Name, labels and value of every sample of the Prometheus text format."""
    for line in text.splitlines():
        if line and not line.startswith("#"):
            match = re.fullmatch(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)", line)
            assert match, line
            labels = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match[2] or ""))
            yield match[1], labels, float(match[3])


@pytest.fixture
def counted(start_daemon: StartDaemon) -> Daemon:
    """A daemon of its own, whose counters start from nothing."""
    return start_daemon()


def metrics_of(daemon: Daemon) -> str:
    answer = daemon.client().request("GET", "/metrics")
    assert answer.status == 200
    return answer.body.decode()


def value(daemon: Daemon, name: str, **labels: str) -> float:
    """The sum of all samples of that name that have these labels."""
    found = samples(metrics_of(daemon))
    return sum(number for sample, its, number in found if sample == name and labels.items() <= its.items())


def test_names_and_types(counted: Daemon) -> None:
    """Every promised metric is there under its name and type from the start."""
    text = metrics_of(counted)
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    assert {name: types.get(name) for name in NAMES} == NAMES


def test_prometheus_text(counted: Daemon) -> None:
    """The format is Prometheus text, every line of it, without _created series."""
    counted.client().stored("/f")
    answer = counted.client().request("GET", "/metrics")
    assert answer["Content-Type"].startswith("text/plain; version=")
    assert list(samples(answer.body.decode()))
    assert "_created" not in answer.body.decode()


def test_authentication(nobody: Client) -> None:
    """On the API /metrics needs a key."""
    nobody.request("GET", "/metrics").refused(401, "AUTHENTICATION_FAILED")


def test_listener(counted: Daemon) -> None:
    """metrics.listen_addr serves the same without a key, and nothing else."""
    scraper = Client(("127.0.0.1", counted.metrics_port), counted.keys["alice"])
    answer = Client(scraper.address, None).request("GET", "/metrics")
    assert answer.status == 200
    types = re.findall(r"^# TYPE (\S+)", answer.body.decode(), re.MULTILINE)
    assert set(NAMES) <= set(types)
    for client in (scraper, Client(scraper.address, None)):
        for target in ("/v1/files/", "/v1/internal/x", "/v1/files/ws/x", "/health", "/download/a.b", "/"):
            client.request("GET", target).refused(404, "NOT_FOUND")
        client.request("POST", "/metrics").refused(405, "METHOD_NOT_ALLOWED")


def test_listener_off(start_daemon: StartDaemon) -> None:
    """An empty metrics.listen_addr turns the listener off."""
    daemon = start_daemon({"metrics": {"listen_addr": ""}})
    with pytest.raises(ConnectionRefusedError):
        Client(("127.0.0.1", daemon.metrics_port), None).request("GET", "/metrics")
    assert metrics_of(daemon)


def test_requests(counted: Daemon) -> None:
    """Requests are counted by method, route pattern and status; a raw path is never a label."""
    client = counted.client()
    for number in range(3):
        client.stored(f"/secret-name-{number}")
    client.get("/secret-name-0")
    client.get("/missing-name")
    client.request("GET", "/nothing/like/this")
    client.request("BREW", "/v1/files/secret-name-0")

    def counts() -> dict[tuple[str, str], float]:
        found: dict[tuple[str, str], float] = {}
        for name, labels, number in samples(metrics_of(counted)):
            if name == "callfs_http_requests_total":
                assert set(labels) == {"method", "path", "status_code"}
                key = (labels["method"], labels["status_code"])
                found[key] = found.get(key, 0) + number
        return found

    eventually(lambda: counts().get(("PUT", "201")) == 3, what="the counts")
    assert counts()["GET", "404"] == 2
    text = metrics_of(counted)
    assert not re.search("secret-name|missing-name|like/this|BREW", text)
    durations = value(counted, "callfs_http_request_duration_seconds_count", method="PUT")
    assert durations == 3


def test_operations(counted: Daemon) -> None:
    """File operations, links, backends, metadata and locks are counted as they happen."""
    client, nobody = counted.client(), counted.client(None)
    client.stored("/f", b"x")
    client.stored("/f", b"y")
    client.get("/f")
    token = client.link("/f").json()["token"]

    def redeem(which: str) -> Answer:
        return nobody.request("GET", f"/download/{which}")

    redeem(token)
    redeem(token)
    redeem("a.b")
    client.patch("/f", name="g")
    client.delete("/g")
    for operation in ("create", "read", "update", "move", "delete"):
        eventually(
            lambda operation=operation: value(counted, "callfs_file_operations_total", operation=operation) >= 1,
            what=f"a counted {operation}",
        )
    assert value(counted, "callfs_file_operations_total", backend_type="localfs") >= 5
    assert value(counted, "callfs_single_use_link_generations_total") == 1
    assert value(counted, "callfs_single_use_link_consumptions_total", status="success") == 1
    statuses = {
        labels["status"]
        for name, labels, _ in samples(metrics_of(counted))
        if name == "callfs_single_use_link_consumptions_total"
    }
    assert statuses <= {"success", "expired", "invalid", "not_found"}
    assert value(counted, "callfs_single_use_link_consumptions_total") == 3
    assert value(counted, "callfs_backend_ops_total", backend_type="localfs") >= 3
    assert value(counted, "callfs_backend_op_duration_seconds_count", backend_type="localfs") >= 3
    assert value(counted, "callfs_metadata_db_queries_total") >= 5
    assert value(counted, "callfs_metadata_db_query_duration_seconds_count") >= 5
    assert value(counted, "callfs_lock_operations_total") >= 1
    assert value(counted, "callfs_active_locks") == 0


def test_errors(counted: Daemon) -> None:
    """Errors are counted with component and type, and a client's mistakes add no series without bound."""
    client = counted.client()
    for number in range(30):
        client.get(f"/missing-{number}")
    before = len(metrics_of(counted).splitlines())
    for number in range(30, 60):
        client.get(f"/missing-{number}")
        client.request("GET", f"/route-{number}")
    assert len(metrics_of(counted).splitlines()) <= before + 60
    for name, labels, _ in samples(metrics_of(counted)):
        if name == "callfs_errors_total":
            assert set(labels) == {"component", "error_type"}
