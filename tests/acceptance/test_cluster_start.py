"""A daemon's start and stop beside its metadata server: before it, without it, with the wrong key to it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import StartDaemon
from tests.support.cluster import KINDS, Cluster, MetadataServer, metadata_server
from tests.support.daemon import Daemon, merged
from tests.support.waiting import eventually, stays

OP_TIMEOUT_SECONDS = 1
SHUTDOWN_SECONDS = 5
SETTINGS = {
    "log": {"level": "debug"},
    "server": {"metadata_op_timeout": f"{OP_TIMEOUT_SECONDS}s", "shutdown_timeout": f"{SHUTDOWN_SECONDS}s"},
}
WRONG_PASSWORD = "open-sesame-please"


@pytest.fixture(scope="module", params=KINDS)
def kept_server(request: pytest.FixtureRequest) -> Iterator[MetadataServer]:
    """A server that isn't running."""
    server = metadata_server(request.param, durable=True)
    try:
        yield server
    finally:
        server.resume()
        server.close()


@pytest.fixture
def server(kept_server: MetadataServer) -> Iterator[MetadataServer]:
    """A server that isn't running; a test may leave it as it likes."""
    yield kept_server
    kept_server.resume()
    kept_server.kill()


def settings(server: MetadataServer, password: str | None = None) -> dict[str, Any]:
    """The configuration of a node of its own upon that server."""
    node = {"instance_discovery": {"instance_id": f"node-{secrets.token_hex(4)}"}}
    return merged(merged(server.settings(password), SETTINGS), node)


def silent_about(daemon: Daemon, *passwords: str) -> None:
    """Its log, at its most talkative, has no secret in it."""
    text = daemon.log_text()
    for secret in (*passwords, *daemon.secrets()):
        assert secret not in text
    assert "Traceback" not in text


def status_of(daemon: Daemon, target: str) -> int:
    """What a health check answers; 0 where nobody does."""
    answer = daemon.health(target)
    return 0 if answer is None else answer.status


def still_waits(daemon: Daemon) -> None:
    """It isn't ready, and doesn't give up, for longer than one operation may take."""
    seconds = 1.8 * OP_TIMEOUT_SECONDS
    assert stays(lambda: daemon.running and status_of(daemon, "/health/ready") == 503, for_seconds=seconds)


def test_server_comes_later(start_daemon: StartDaemon, server: MetadataServer) -> None:
    """
    A daemon that is there first waits: alive, not ready, 503 to everybody, until the server is there. (A fresh
    interpreter: what such a server needs is imported where it is chosen.)
    """
    daemon = start_daemon(settings(server), start=False, fresh=True).launch()
    eventually(lambda: status_of(daemon, "/health") == 200, what="an answer")
    still_waits(daemon)
    client = daemon.client()
    client.get("/").refused(503, "SERVICE_UNAVAILABLE")
    client.put("/f", b"x").refused(503, "SERVICE_UNAVAILABLE")
    assert "waiting for the metadata store" in daemon.log_text()
    server.start()
    assert daemon.wait_ready(10)
    assert client.put(f"/{secrets.token_hex(6)}/f", b"x").status == 201
    silent_about(daemon, server.password)


def test_server_wakes_up_later(start_daemon: StartDaemon, server: MetadataServer) -> None:
    """A server that takes connections and answers nothing is waited for all the same."""
    server.start()
    server.pause()
    daemon = start_daemon(settings(server), start=False).launch()
    eventually(lambda: status_of(daemon, "/health") == 200, what="an answer")
    still_waits(daemon)
    server.resume()
    assert daemon.wait_ready(10)


def test_wrong_password(start_daemon: StartDaemon, server: MetadataServer) -> None:
    """A daemon with the wrong password doesn't start, and says why, but neither password."""
    server.start()
    daemon = start_daemon(settings(server, WRONG_PASSWORD), start=False)
    _, said = daemon.refuses_to_start()
    assert "password" in said
    silent_about(daemon, server.password, WRONG_PASSWORD)


@pytest.mark.parametrize("state", ["killed", "paused"])
def test_stop_while_it_waits(start_daemon: StartDaemon, server: MetadataServer, state: str) -> None:
    """SIGTERM ends a daemon that still waits for its server."""
    if state == "paused":
        server.start()
        server.pause()
    daemon = start_daemon(settings(server), start=False).launch()
    eventually(lambda: status_of(daemon, "/health") == 200, what="an answer")
    assert daemon.terminate(SHUTDOWN_SECONDS) == 0
    silent_about(daemon, server.password)


@pytest.mark.parametrize("state", ["killed", "paused"])
def test_stop_without_server(start_daemon: StartDaemon, server: MetadataServer, state: str) -> None:
    """SIGTERM ends a daemon within ``shutdown_timeout`` although changes wait for a server that is gone."""
    server.start()
    daemon = start_daemon(settings(server))
    home = daemon.client().made(f"/{secrets.token_hex(6)}")
    daemon.client().stored(f"{home}/before")
    if state == "paused":
        server.pause()
    else:
        server.kill()
    with ExitStack() as stack:
        wires = [stack.enter_context(daemon.client().connect()) for _ in range(4)]
        for number, wire in enumerate(wires):
            headers = {**daemon.client().authorization(), "Content-Length": "1"}
            wire.send_request("PUT", f"/v1/files{home}/{number}", headers)
            wire.send(b"x")
        assert not wires[0].readable(OP_TIMEOUT_SECONDS / 4)
        assert daemon.terminate(SHUTDOWN_SECONDS) == 0
        assert [wire.read_answer().code for wire in wires] == ["METADATA_UNAVAILABLE"] * 4
    silent_about(daemon, server.password)


def test_lock_server_gone(tmp_path: Path) -> None:
    """With locks in a Redis of their own: without it changes are refused in time, reads go on; it comes back."""
    metadata, locks = metadata_server("postgres"), metadata_server("redis")
    with ExitStack() as stack:
        for server in (metadata, locks):
            stack.callback(server.close)
            server.start()
        cluster = Cluster(tmp_path, metadata, {**SETTINGS, "dlm": locks.settings()["dlm"]}, nodes=2)
        stack.callback(cluster.close)
        cluster.start()
        clients = cluster.clients()
        path = clients[0].stored("/d/f", b"content")
        locks.kill()
        for client in clients:
            began = time.monotonic()
            client.post("/d/g", b"x").refused(503, "METADATA_UNAVAILABLE")
            assert time.monotonic() - began < OP_TIMEOUT_SECONDS + 1
            assert client.names("/d") == ["f"]
        assert clients[0].content(path) == b"content"
        locks.start()
        for number, client in enumerate(clients):
            eventually(lambda client=client, number=number: client.put(f"/d/{number}", b"x").status == 201)
        for node in cluster.nodes:
            silent_about(node, metadata.password, locks.password)
