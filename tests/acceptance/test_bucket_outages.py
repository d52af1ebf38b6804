"""A node whose bucket can't be reached: what it serves and says meanwhile, and that it stops when it is told to."""

from __future__ import annotations

import secrets
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.acceptance.conftest import StartDaemon
from tests.acceptance.test_metrics import value
from tests.support.daemon import Daemon
from tests.support.s3 import S3Server
from tests.support.tcpswitch import TcpSwitch
from tests.support.waiting import eventually

SHUTDOWN_SECONDS = 2


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    """A real S3 server."""
    server = S3Server(own=True).start()
    yield server
    server.stop()


class Bucket:
    """A prefix in a server that can be out of reach, or fall silent."""

    def __init__(self, server: S3Server) -> None:
        self._server = server
        self._switch = TcpSwitch(urlsplit(server.endpoint).port or 0)
        self.prefix = f"outages/{secrets.token_hex(4)}/"
        self.up, self.down = self._switch.up, self._switch.down

    def settings(self, **backend: Any) -> dict[str, Any]:
        """The configuration of a node."""
        return {
            "server": {"shutdown_timeout": f"{SHUTDOWN_SECONDS}s"},
            "backend": {
                "s3_bucket_name": self._server.bucket,
                "s3_key_prefix": self.prefix,
                "s3_endpoint": f"http://127.0.0.1:{self._switch.port}",
                "s3_addressing": "path",
                "s3_access_key": self._server.access_key,
                "s3_secret_key": self._server.secret_key,
                **backend,
            },
        }

    def mark_as_of(self, store_id: str) -> None:
        """Let the prefix belong to a metadata store."""
        body = f'{{"store_id": "{store_id}", "version": 1}}'.encode()
        key = f"{self.prefix}callfs-store"
        self._server.client().put_object(Bucket=self._server.bucket, Key=key, Body=body)

    def contents(self) -> set[bytes]:
        """What all blobs there contain."""
        client, name = self._server.client(), self._server.bucket
        keys = self._server.keys(f"{self.prefix}blobs/")
        return {client.get_object(Bucket=name, Key=key)["Body"].read() for key in keys}

    @contextmanager
    def silence(self) -> Iterator[None]:
        """Connections are taken and nothing is ever answered."""
        self.down()
        try:
            with socket.create_server(("127.0.0.1", self._switch.port), backlog=128):
                yield
        finally:
            self.up()


@pytest.fixture
def bucket(server: S3Server) -> Iterator[Bucket]:
    """A bucket that can be reached."""
    bucket = Bucket(server)
    yield bucket
    bucket.down()


def s3_state(daemon: Daemon) -> Any:
    """What readiness says of S3; nothing as long as nobody answers."""
    answer = daemon.health()
    return None if answer is None else answer.json()["parts"]["backends"].get("s3")


class TestStart:
    def test_local_files_meanwhile(self, start_daemon: StartDaemon, bucket: Bucket) -> None:
        """
        Without S3 what is on the disk is served, and readiness says what lacks; S3 joins when it is there. (A fresh
        interpreter: what S3 needs is imported where it is chosen.)
        """
        bucket.down()
        daemon = start_daemon(bucket.settings(), start=False, fresh=True).launch()
        client = daemon.client()
        eventually(lambda: s3_state(daemon), within_seconds=30, what="a node that serves")
        client.stored("/local", b"on the disk")
        assert client.content("/local") == b"on the disk"
        client.post("/f", b"x", "backend=s3").refused(503, "PEER_UNAVAILABLE")
        assert not client.exists("/f")
        ready = daemon.health()
        assert ready is not None
        assert ready.status == 503
        parts = ready.json()["parts"]
        assert "S3 hasn't answered" in parts["backends"]["s3"]["message"]
        assert parts["metadata"]["ok"] is parts["backends"]["localfs"]["ok"] is True
        bucket.up()
        assert daemon.wait_ready()
        assert client.post("/f", b"x", "backend=s3").status == 201
        assert client.content("/f") == b"x"

    def test_second_copies(self, start_daemon: StartDaemon, bucket: Bucket) -> None:
        """Copies that couldn't be made again and again are made as soon as S3 joins, not when their turn comes."""
        bucket.down()
        copying = {"ha": {"replication_enabled": True, "replica_backend": "s3"}}
        daemon = start_daemon(bucket.settings() | copying, start=False).launch()
        client = daemon.client()
        eventually(lambda: s3_state(daemon), within_seconds=30, what="a node that serves")
        contents = [secrets.token_bytes(100) for _ in range(10)]
        for number, content in enumerate(contents):
            client.stored(f"/{number}", content)
        # Having failed three times they would wait for twenty seconds.
        failed = 3 * len(contents)
        made = "callfs_replications_total"
        eventually(lambda: value(daemon, made, status="failed") >= failed, within_seconds=60, what="the failures")
        bucket.up()
        assert daemon.wait_ready()
        eventually(lambda: value(daemon, made, status="made") == len(contents), what="the copies")
        assert bucket.contents() == set(contents)

    def test_another_store(self, start_daemon: StartDaemon, bucket: Bucket) -> None:
        """A bucket that turns out to be another store's ends the node, and was never written to."""
        bucket.down()
        bucket.mark_as_of("5" * 32)
        daemon = start_daemon(bucket.settings(), start=False).launch()
        eventually(lambda: s3_state(daemon), within_seconds=30, what="a node that serves")
        bucket.up()
        assert daemon.wait_ended() == 1
        assert "5" * 32 in daemon.log_text()

    def test_stopped_meanwhile(self, start_daemon: StartDaemon, bucket: Bucket) -> None:
        """A node that waits for an answer of S3 stops at once when it is told to."""
        with bucket.silence():
            daemon = start_daemon(bucket.settings(), start=False).launch()
            eventually(lambda: daemon.health("/health"), what="an answer")
            began = time.monotonic()
            assert daemon.terminate() == 0
            assert time.monotonic() - began < SHUTDOWN_SECONDS + 4
        assert "Traceback" not in daemon.log_text()


class TestStop:
    def test_silent(self, start_daemon: StartDaemon, bucket: Bucket) -> None:
        """A write that S3 never answers is cut when shutdown_timeout is over, and isn't there after the restart."""
        daemon = start_daemon(bucket.settings())
        client = daemon.client()
        with bucket.silence(), client.connect() as wire:
            wire.send_request("POST", "/v1/files/f?backend=s3", {**client.authorization(), "Content-Length": "5"})
            wire.send(b"01234")
            time.sleep(0.3)
            began = time.monotonic()
            assert daemon.terminate() == 0
            assert time.monotonic() - began < SHUTDOWN_SECONDS + 4
        assert "Traceback" not in daemon.log_text()
        daemon.start()
        assert not daemon.client().exists("/f")

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_second_signal(self, start_daemon: StartDaemon, number: signal.Signals) -> None:
        """A second signal changes nothing, and is no fault: what is under way has its time all the same."""
        daemon = start_daemon({"server": {"shutdown_timeout": "20s"}})
        client = daemon.client()
        with client.connect() as wire:
            wire.send_request("PUT", "/v1/files/f", {**client.authorization(), "Content-Length": "10"})
            wire.send(b"01234")
            daemon.signal(number)
            eventually(lambda: '"stopping"' in daemon.log_text(), what="the end's beginning")
            for again in (signal.SIGTERM, signal.SIGINT):
                daemon.signal(again)
                eventually(lambda: "a further signal" in daemon.log_text(), what="a word about it")
            wire.send(b"56789")
            assert wire.read_answer().status == 201
        assert daemon.wait_ended() == 0
        assert "ReactorNotRunning" not in daemon.log_text()
        assert "Traceback" not in daemon.log_text()
