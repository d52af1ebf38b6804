"""Starting, stopping, reloading, and what an operator sees: signals, command line, logs."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import random
import re
import secrets
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from tests.acceptance.conftest import StartDaemon
from tests.support.daemon import Daemon, callfs
from tests.support.http import Client, Wire
from tests.support.waiting import eventually, pace, stays

ACCESS_FIELDS = {
    "method", "route", "status", "bytes_in", "bytes_out", "duration_seconds", "request_id", "user",
    "client_address",
}  # fmt: skip


def refuses_connections(daemon: Daemon) -> bool:
    try:
        Wire(daemon.address, timeout_seconds=2).close()
    except OSError:
        return True
    return False


class TestTermination:
    def test_download_under_way(self, start_daemon: StartDaemon) -> None:
        """On SIGTERM no new connection is taken, a download under way finishes, and the exit status is 0."""
        daemon = start_daemon()
        client = daemon.client()
        content = random.Random(11).randbytes(24 << 20)
        client.stored("/f", content)
        with client.connect(receive_buffer_bytes=32_768) as wire:
            wire.send_request("GET", "/v1/files/f", client.authorization())
            assert wire.read_head().status == 200
            received = wire.read_exactly(100_000)
            daemon.signal(signal.SIGTERM)
            eventually(lambda: refuses_connections(daemon), what="closed doors")
            assert daemon.running
            received += wire.read_exactly(len(content) - len(received))
        assert received == content
        assert daemon.wait_ended() == 0

    def test_upload_under_way(self, start_daemon: StartDaemon) -> None:
        """On SIGTERM an upload under way finishes, is answered, and is there after the restart."""
        daemon = start_daemon()
        client = daemon.client()
        with client.connect() as wire:
            head = {**client.authorization(), "Content-Length": "10", "Expect": "100-continue"}
            wire.send_request("PUT", "/v1/files/f", head)
            assert wire.read_head().status == 100
            wire.send(b"01234")
            daemon.signal(signal.SIGTERM)
            eventually(lambda: refuses_connections(daemon), what="closed doors")
            wire.send(b"56789")
            answer = wire.read_answer()
            assert answer.status == 201
            assert answer.closes
        assert daemon.wait_ended() == 0
        daemon.start()
        assert daemon.client().content("/f") == b"0123456789"

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_idle_connections(self, start_daemon: StartDaemon, number: signal.Signals) -> None:
        """Idle connections don't hold the end up (fresh interpreters: signals are what Python makes them)."""
        daemon = start_daemon(fresh=True)
        with Wire(daemon.address) as fresh, Wire(daemon.address) as used:
            used.send_request("GET", "/health")
            assert used.read_answer().status == 200
            daemon.signal(number)
            assert daemon.wait_ended(8) == 0
            assert fresh.ends()

    def test_timeout(self, start_daemon: StartDaemon) -> None:
        """A transfer that doesn't finish within shutdown_timeout is cut; nothing of it is stored."""
        daemon = start_daemon({"server": {"shutdown_timeout": "1s"}})
        client = daemon.client()
        with client.connect() as wire:
            wire.send_request("PUT", "/v1/files/f", {**client.authorization(), "Content-Length": "10"})
            wire.send(b"01234")
            began = time.monotonic()
            assert daemon.terminate(10) == 0
            assert time.monotonic() - began < 6
        daemon.start()
        assert not daemon.client().exists("/f")

    @pytest.mark.parametrize("attempt", range(4))
    def test_under_load(self, start_daemon: StartDaemon, attempt: int) -> None:
        """A signal that comes in the middle of whatever the daemon does, its own logging included, ends it."""
        daemon = start_daemon({"log": {"level": "debug"}})
        done = threading.Event()

        def ask() -> None:
            client = daemon.client(None, timeout_seconds=5)
            with contextlib.suppress(OSError, EOFError):
                while not done.is_set():
                    client.request("GET", "/health")
            client.close()

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        eventually(lambda: len(daemon.log_text()) > 20_000 * (attempt + 1), what="some load")
        try:
            assert daemon.terminate(10) == 0
        finally:
            done.set()
            for thread in threads:
                thread.join(10)

    def test_clean_after_stop(self, start_daemon: StartDaemon) -> None:
        """Between an orderly stop and the next start nothing changes."""
        daemon = start_daemon()
        tag = daemon.client().put("/d/f", b"x")["ETag"]
        daemon.restart()
        answer = daemon.client().get("/d/f")
        assert (answer.body, answer["ETag"], answer["X-CallFS-Owner"]) == (b"x", tag, "alice")

    def test_frozen_and_woken(self, start_daemon: StartDaemon) -> None:
        """A daemon that was frozen for a while goes on where it was."""
        daemon = start_daemon({"server": {"read_timeout": "10s"}})
        client = daemon.client()
        client.stored("/f", b"x")
        daemon.stop()
        with client.connect() as wire:
            wire.send_request("GET", "/v1/files/f", client.authorization())
            assert not wire.readable(0.5)
            daemon.cont()
            assert wire.read_answer().body == b"x"


class TestReload:
    def test_keys(self, start_daemon: StartDaemon) -> None:
        """SIGHUP takes new keys and drops old ones without dropping a connection."""
        daemon = start_daemon()
        client = daemon.client()
        with client.connect() as wire:
            wire.send_request("GET", "/v1/files/", client.authorization())
            assert wire.read_answer().status == 200
            new_key = secrets.token_hex(20)
            daemon.write_config({"auth": {"api_key_users": {"alice": new_key}}})
            daemon.signal(signal.SIGHUP)
            renewed = Client(daemon.address, new_key)
            eventually(lambda: renewed.get("/").status == 200, what="the new key")
            wire.send_request("GET", "/v1/files/", client.authorization())
            assert wire.read_answer().status == 401

    def test_rotation(self, start_daemon: StartDaemon) -> None:
        """A user may have several keys at once."""
        daemon = start_daemon()
        second = secrets.token_hex(20)
        daemon.write_config({"auth": {"api_key_users": {"alice": [daemon.keys["alice"], second]}}})
        daemon.signal(signal.SIGHUP)
        renewed = Client(daemon.address, second)
        eventually(lambda: renewed.get("/").status == 200, what="the second key")
        path = daemon.client().stored("/f")
        assert renewed.put(path, b"y").status == 200

    def test_log_level(self, start_daemon: StartDaemon) -> None:
        """SIGHUP takes a new log level."""
        daemon = start_daemon()
        client = daemon.client()
        first = client.get("/")["X-Request-ID"]
        eventually(lambda: daemon.access_events(first), what="its access event")
        daemon.write_config({"log": {"level": "error"}})
        daemon.signal(signal.SIGHUP)

        def silent() -> bool:
            request_id = client.get("/")["X-Request-ID"]
            return stays(lambda: not daemon.access_events(request_id), for_seconds=0.3)

        eventually(silent, what="silence")

    def test_limits(self, start_daemon: StartDaemon) -> None:
        """SIGHUP takes new limits."""
        limits = {"link_generate_rate": 1000, "link_generate_burst": 1000}
        daemon = start_daemon({"limits": limits})
        client = daemon.client()
        path = client.stored("/f")
        assert all(client.link(path).status == 201 for _ in range(20))
        daemon.write_config({"limits": {"link_generate_rate": 0.1, "link_generate_burst": 1}})
        daemon.signal(signal.SIGHUP)
        eventually(lambda: client.link(path).status == 429, what="the new limit")

    @pytest.mark.parametrize("content", ["server: [", "log: {level: loud}\n", None])
    def test_invalid(self, start_daemon: StartDaemon, content: str | None) -> None:
        """A file that is now invalid, or gone, is reported and changes nothing."""
        daemon = start_daemon()
        client = daemon.client()
        before = len(daemon.log_text())
        if content is None:
            daemon.config_path.unlink()
        else:
            daemon.config_path.write_text(content)
        daemon.signal(signal.SIGHUP)

        def reported() -> bool:
            said = daemon.log_text()[before:]
            return str(daemon.config_path) in said or "log.level" in said

        eventually(reported, what="the report")
        assert client.get("/").status == 200
        assert client.put("/f", b"x").status == 201
        assert "Traceback" not in daemon.log_text()

    def test_nothing_new(self, start_daemon: StartDaemon) -> None:
        """SIGHUP without a change disturbs nobody, however often."""
        daemon = start_daemon()
        client = daemon.client()
        for number in range(10):
            daemon.signal(signal.SIGHUP)
            assert client.put("/f", b"%d" % number).status in (200, 201)


def test_configuration_warning(start_daemon: StartDaemon) -> None:
    """A warning about the configuration is an event in the log, once, and nothing beside it."""
    daemon = start_daemon(environment={"CALLFS_NONSENSE": "x"})
    daemon.stop()
    assert all(line.startswith("{") for line in daemon.log_text().splitlines())
    warnings = [event["warning"] for event in daemon.events() if event.get("event") == "configuration_warning"]
    assert len(warnings) == 1
    assert "CALLFS_NONSENSE" in warnings[0]


def test_twistd(start_daemon: StartDaemon) -> None:
    """twistd callfs -c runs the same daemon."""
    twistd = (str(Path(sys.executable).parent / "twistd"), "-n", "--pidfile=", "callfs")
    daemon = start_daemon(launcher=twistd)
    client = daemon.client()
    client.stored("/f", b"x")
    assert client.content("/f") == b"x"
    # twistd, once all is stopped, ends by the signal it was stopped with
    assert daemon.terminate() in (0, -signal.SIGTERM)
    assert daemon.start().client().content("/f") == b"x"


def test_plain_callfs(start_daemon: StartDaemon) -> None:
    """Plain callfs runs the server (a fresh interpreter: the start itself is looked at)."""
    daemon = start_daemon(launcher=(sys.executable, "-m", "callfs"), fresh=True)
    assert daemon.health("/health") is not None
    assert daemon.terminate() == 0


class TestConfigCommands:
    @pytest.fixture
    def configured(self, start_daemon: StartDaemon) -> Daemon:
        """Folders and a configuration, not started."""
        return start_daemon(start=False)

    @pytest.mark.parametrize(
        "arguments",
        [
            ["config", "validate", "-c", "{path}"],
            ["config", "validate", "--config", "{path}"],
            ["-c", "{path}", "config", "validate"],
            ["config", "-c", "{path}", "validate"],
        ],
    )
    def test_validate(self, configured: Daemon, arguments: list[str]) -> None:
        """config validate says so, shows the effective settings, masks secrets, and exits with 0."""
        done = callfs(*(argument.format(path=configured.config_path) for argument in arguments))
        assert done.returncode == 0, done.stderr
        assert "Configuration is valid" in done.stdout
        assert str(configured.root) in done.stdout
        for secret in configured.secrets():
            assert secret not in done.stdout + done.stderr

    def test_validate_invalid(self, configured: Daemon) -> None:
        """config validate lists every problem and exits with 2."""
        configured.write_config(
            {"log": {"level": "loud"}, "server": {"read_timeout": "soon"}, "nonsense": {"x": 1}}
        )
        done = callfs("config", "validate", "-c", str(configured.config_path))
        assert done.returncode == 2
        said = done.stdout + done.stderr
        assert all(key in said for key in ("log.level", "server.read_timeout", "nonsense"))
        assert "Configuration is valid" not in said

    def test_show(self, configured: Daemon) -> None:
        """config show prints the effective configuration as YAML, with where each value came from."""
        environment = {"CALLFS_LOG__LEVEL": "warn"}
        done = callfs("config", "show", "-c", str(configured.config_path), environment=environment)
        assert done.returncode == 0, done.stderr
        shown = yaml.safe_load(done.stdout)
        assert shown["log"]["level"] == "warn"
        assert shown["server"]["listen_addr"] == f"127.0.0.1:{configured.port}"
        lines = {line.split(":")[0].strip(): line for line in done.stdout.splitlines()}
        assert "CALLFS_LOG__LEVEL" in lines["level"] or "environment" in lines["level"]
        assert "default" in lines["pool_size"]
        for secret in configured.secrets():
            assert secret not in done.stdout

    def test_environment(self, configured: Daemon) -> None:
        """The environment wins over the file, is checked like it, and an unknown variable is only a warning."""
        path = str(configured.config_path)
        wrong = callfs("config", "validate", "-c", path, environment={"CALLFS_LOG__LEVEL": "loud"})
        assert wrong.returncode == 2
        assert "LOG__LEVEL" in wrong.stdout + wrong.stderr or "log.level" in wrong.stdout + wrong.stderr
        unknown = callfs("config", "validate", "-c", path, environment={"CALLFS_NO__SUCH_KEY": "x"})
        assert unknown.returncode == 0
        assert "CALLFS_NO__SUCH_KEY" in unknown.stdout + unknown.stderr

    def test_secret_from_a_file(self, configured: Daemon, tmp_path: Path) -> None:
        """A secret can be read from a file that the environment names."""
        key = secrets.token_hex(20)
        (tmp_path / "key").write_text(key + "\n")
        configured.environment["CALLFS_AUTH__API_KEY_USERS__DORA__FILE"] = str(tmp_path / "key")
        configured.start()
        assert Client(configured.address, key).put("/f", b"x").status == 201
        assert configured.client().head("/f")["X-CallFS-Owner"] == "dora"

    def test_json_file(self, configured: Daemon, tmp_path: Path) -> None:
        """A configuration may be JSON."""
        path = tmp_path / "config.json"
        path.write_text(json.dumps(configured.settings))
        assert callfs("config", "validate", "-c", str(path)).returncode == 0

    @pytest.mark.parametrize("name", ["config.yaml", "config.yml", "config.json"])
    def test_in_the_working_directory(self, configured: Daemon, tmp_path: Path, name: str) -> None:
        """Without --config the file in the working directory is taken."""
        folder = tmp_path / "here"
        folder.mkdir()
        (folder / name).write_text(json.dumps(configured.settings))
        done = callfs("config", "validate", folder=folder)
        assert done.returncode == 0, done.stderr
        assert str(configured.root) in done.stdout


class TestCommands:
    def test_version(self) -> None:
        """--version tells the version that is installed (a fresh interpreter finds all that a command needs)."""
        done = callfs("--version", fresh=True)
        assert done.returncode == 0
        assert importlib.metadata.version("callfs") in done.stdout

    @pytest.mark.parametrize(
        "arguments",
        [["--help"], ["server", "--help"], ["config", "--help"], ["fsck", "--help"], ["config", "show", "--help"]],
    )
    def test_help(self, arguments: list[str]) -> None:
        """Every command explains itself (a fresh interpreter finds all that a command needs)."""
        done = callfs(*arguments, fresh=True)
        assert done.returncode == 0
        assert len(done.stdout) > 100

    @pytest.mark.parametrize(
        "arguments", [["nonsense"], ["--nonsense"], ["fsck", "--nonsense"], ["config", "nonsense"]]
    )
    def test_usage(self, arguments: list[str]) -> None:
        """A wrong usage is exit status 2, without a traceback."""
        done = callfs(*arguments)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


class TestFsck:
    @pytest.fixture
    def stopped(self, start_daemon: StartDaemon) -> Daemon:
        """A daemon with two files, stopped."""
        daemon = start_daemon()
        daemon.client().stored("/d/kept", b"kept" * 1000)
        daemon.client().stored("/d/harmed", b"harmed" * 1000)
        assert daemon.terminate() == 0
        return daemon

    @pytest.mark.parametrize("options", [[], ["--deep"]])
    @pytest.mark.parametrize("running", [False, True])
    def test_clean(self, stopped: Daemon, options: list[str], running: bool) -> None:
        """What is in order is exit status 0, also beside a running daemon."""
        if running:
            stopped.start()
        done = stopped.fsck(*options)
        assert done.returncode == 0, done.stdout + done.stderr

    def test_missing_blob(self, stopped: Daemon) -> None:
        """An inode whose blob is gone is found, by its path: exit status 1."""
        stopped.blob_of(b"harmed" * 1000).unlink()
        done = stopped.fsck()
        assert done.returncode == 1
        assert "/d/harmed" in done.stdout
        assert "/d/kept" not in done.stdout

    @pytest.mark.parametrize("change", [b"x", b"harmed" * 1001])
    def test_wrong_size(self, stopped: Daemon, change: bytes) -> None:
        """A blob of another size is found with --deep, by its path."""
        stopped.blob_of(b"harmed" * 1000).write_bytes(change)
        done = stopped.fsck("--deep")
        assert done.returncode == 1
        assert "/d/harmed" in done.stdout

    def test_wrong_bytes(self, stopped: Daemon) -> None:
        """A blob with one wrong byte is found with --deep, by its path."""
        stopped.blob_of(b"harmed" * 1000).write_bytes(b"Harmed" + b"harmed" * 999)
        done = stopped.fsck("--deep")
        assert done.returncode == 1
        assert "/d/harmed" in done.stdout
        assert "/d/kept" not in done.stdout

    def test_changes_nothing(self, stopped: Daemon) -> None:
        """Without --repair nothing is changed, whatever is found."""
        stopped.blob_of(b"harmed" * 1000).unlink()
        before = {path: path.read_bytes() for path in stopped.blobs()}
        assert stopped.fsck("--deep").returncode == 1
        assert {path: path.read_bytes() for path in stopped.blobs()} == before
        assert stopped.fsck("--deep").returncode == 1

    def test_invalid_configuration(self, tmp_path: Path) -> None:
        """A configuration that can't be used is exit status 2."""
        assert callfs("fsck", "-c", str(tmp_path / "nowhere.yaml")).returncode == 2

    def test_lost_blob_in_the_api(self, stopped: Daemon) -> None:
        """A file whose bytes are lost is an error for its reader, and for nobody else."""
        stopped.blob_of(b"harmed" * 1000).unlink()
        stopped.start()
        client = stopped.client()
        assert 500 <= client.get("/d/harmed").status < 600
        assert client.content("/d/kept") == b"kept" * 1000
        assert client.put("/d/harmed", b"new").status == 200
        assert client.content("/d/harmed") == b"new"


class TestLogs:
    def test_access_events(self, start_daemon: StartDaemon) -> None:
        """Each request has exactly one access event, with what was asked, answered and moved."""
        daemon = start_daemon()
        client, nobody = daemon.client(), daemon.client(None)
        cases = [
            (client.put("/f", b"hello"), "PUT", "alice", 201, 5, None),
            (client.get("/f"), "GET", "alice", 200, 0, 5),
            (client.get("/f", headers={"Range": "bytes=1-2"}), "GET", "alice", 206, 0, 2),
            (client.head("/f"), "HEAD", "alice", 200, 0, 0),
            (client.get("/missing"), "GET", "alice", 404, 0, None),
            (nobody.get("/f"), "GET", None, 401, 0, None),
            (nobody.request("GET", "/health"), "GET", None, 200, 0, None),
            (nobody.request("GET", "/nothing"), "GET", None, 404, 0, None),
        ]
        for answer, method, user, status, bytes_in, bytes_out in cases:
            request_id = answer["X-Request-ID"]
            (event,) = eventually(lambda request_id=request_id: daemon.access_events(request_id), what="the event")
            assert set(event) >= ACCESS_FIELDS
            assert (event["method"], event["status"], event["bytes_in"]) == (method, status, bytes_in)
            assert bytes_out is None or event["bytes_out"] == bytes_out
            assert user is None or event["user"] == user
            assert event["client_address"].startswith("127.0.0.1")
            assert 0 <= event["duration_seconds"] < 10
            assert event["route"] is None or "missing" not in event["route"]
        assert daemon.terminate() == 0
        assert all(len(daemon.access_events(answer["X-Request-ID"])) == 1 for answer, *_ in cases)

    def test_route_is_the_pattern(self, start_daemon: StartDaemon) -> None:
        """The route of an access event is the route's pattern, never the raw path."""
        daemon = start_daemon()
        client = daemon.client()
        for target, route in (
            ("/v1/files/some/name", "/v1/files/{path}"),
            ("/v1/directories/some/name", "/v1/directories/{path}"),
            ("/download/some.token", "/download/{token}"),
            ("/health/ready", "/health/ready"),
        ):
            request_id = client.request("GET", target)["X-Request-ID"]
            (event,) = eventually(lambda request_id=request_id: daemon.access_events(request_id), what="the event")
            assert event["route"] == route

    def test_event_comes_at_the_end(self, start_daemon: StartDaemon) -> None:
        """The access event is written when the transfer has ended, with its whole duration; an abort has one."""
        daemon = start_daemon()
        client = daemon.client()
        client.stored("/f", bytes(16 << 20))
        with client.connect(receive_buffer_bytes=32_768) as wire:
            wire.send_request("GET", "/v1/files/f", client.authorization())
            request_id = wire.read_head()["X-Request-ID"]
            pace(0.5)
            assert not daemon.access_events(request_id)
            wire.read_exactly(16 << 20)
        (event,) = eventually(lambda: daemon.access_events(request_id), what="the event")
        assert event["duration_seconds"] >= 0.5
        assert event["bytes_out"] == 16 << 20
        with client.connect(receive_buffer_bytes=32_768) as wire:
            wire.send_request("GET", "/v1/files/f", client.authorization())
            request_id = wire.read_head()["X-Request-ID"]
            wire.reset()
        (event,) = eventually(lambda: daemon.access_events(request_id), what="the event of the abort")
        assert event["bytes_out"] < 16 << 20

    def test_json_lines(self, start_daemon: StartDaemon) -> None:
        """With log.format json every line is one JSON object, from the start of a fresh interpreter to its end."""
        daemon = start_daemon({"log": {"level": "debug"}}, fresh=True)
        daemon.client().stored("/f")
        daemon.signal(signal.SIGHUP)
        assert daemon.terminate() == 0
        assert len(list(daemon.events())) > 1

    def test_console(self, start_daemon: StartDaemon) -> None:
        """With log.format console the lines are for people."""
        daemon = start_daemon({"log": {"format": "console"}})
        answer = daemon.client().get("/")
        eventually(lambda: answer["X-Request-ID"] in daemon.log_text(), what="the access line")
        assert not any(line.startswith("{") for line in daemon.log_text().splitlines())

    def test_no_line_can_be_forged(self, start_daemon: StartDaemon) -> None:
        """Nothing a client sends can start a line of its own in the log."""
        daemon = start_daemon({"log": {"format": "console", "level": "debug"}})
        client = daemon.client()
        for target in ("/v1/files/a%0Aforged-line", "/a%0D%0Aforged-line", "/v1/files/a\u2028forged-line"):
            client.request("GET", target, None, {"User-Agent": "x\u0085forged-line"})
        assert daemon.terminate() == 0
        assert not re.search(r"^\s*forged-line", daemon.log_text(), re.MULTILINE)

    @pytest.mark.parametrize("log_format", ["json", "console"])
    def test_no_secrets(self, start_daemon: StartDaemon, log_format: str) -> None:
        """No key, token or secret is ever in the log, wherever a client puts it."""
        daemon = start_daemon({"log": {"level": "debug", "format": log_format}})
        client, nobody = daemon.client(), daemon.client(None)
        key, wrong = client.key or "", secrets.token_hex(20)
        path = client.stored("/f")
        token = str(client.link(path).json()["token"])
        client.request("GET", f"/v1/files/f?access_token={key}")
        client.request("GET", f"/v1/files/f?key={wrong}", None, {"Referer": f"http://x/?key={key}"})
        nobody.request("GET", "/v1/files/f", None, {"Authorization": f"Bearer {wrong}"})
        nobody.request("GET", "/v1/files/f", None, {"Authorization": f"Token {key}"})
        nobody.request("GET", f"/download/{token}", None)
        nobody.request("GET", f"/download/{token}/x", None)
        nobody.request("GET", f"/download/{token}", None)
        with nobody.connect() as wire:
            wire.send(f"GET /health HTTP/1.1\r\nAuthorization Bearer {key}\r\n\r\n".encode())
            wire.read_to_end()
        daemon.signal(signal.SIGHUP)
        client.get("/f")
        assert daemon.terminate() == 0
        text = daemon.log_text()
        for secret in (*daemon.secrets(), wrong, token, token.split(".")[0]):
            assert secret not in text
