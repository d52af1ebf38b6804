"""
A real ``callfs server`` process in a temporary folder: started, spoken to, killed, started again on the same
folders; never left behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.support.forking import Process, begin, child_environment, run
from tests.support.http import Address, Answer, Client
from tests.support.ports import free_port
from tests.support.waiting import eventually

SERVER = (sys.executable, "-m", "callfs", "server")
START_SECONDS = 60.0
USERS = ("alice", "bob", "carol")
ADMINS = ("carol",)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes`` laid over it, section by section."""
    result = dict(base)
    for name, value in changes.items():
        if isinstance(value, Mapping) and isinstance(result.get(name), Mapping):
            result[name] = merged(result[name], value)
        else:
            result[name] = value
    return result


def callfs(
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    timeout_seconds: float = 30.0,
    fresh: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run a ``callfs`` command to its end and capture what it says; see :class:`Daemon` for ``fresh``."""
    return run(
        [sys.executable, "-m", "callfs", *arguments],
        folder=folder,
        environment=child_environment(environment),
        timeout_seconds=timeout_seconds,
        fresh=fresh,
    )


@contextlib.contextmanager
def callfs_begun(*arguments: str) -> Iterator[Process]:
    """Begin a ``callfs`` command; it has ended, by itself or by force, at the end of the block."""
    process = begin([sys.executable, "-m", "callfs", *arguments])
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


class Daemon:
    """
    One node with its folders.

    :param folder: an empty folder for configuration, bytes, metadata and log.
    :param settings: configuration that replaces or adds to :attr:`settings`, by section.
    :param host: the address that it listens on.
    :param launcher: the command that starts the server; ``-c <configuration>`` is added.
    :param wrapper: a command in front of the launcher (it must end in an exec), for instance ``nsenter``.
    :param environment: more environment variables.
    :param fresh: an interpreter of its own that imports everything, where the start itself is tested; others are
        forked, see :mod:`tests.support.forking`.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any] | None = None,
        *,
        host: str = "127.0.0.1",
        launcher: Sequence[str] = SERVER,
        wrapper: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        fresh: bool = False,
    ) -> None:
        self.folder = folder
        self.host = host
        self.port = free_port(host)
        self.metrics_port = free_port(host)
        self.root = folder / "root"
        self.database = folder / "callfs.sqlite3"
        self.config_path = folder / "config.yaml"
        self.log_path = folder / "daemon.log"
        self.keys = {user: f"{user}-{secrets.token_hex(16)}" for user in USERS}
        self.internal_secret = f"internal-{secrets.token_hex(16)}"
        self.link_secret = f"links-{secrets.token_hex(16)}"
        self.launcher = tuple(launcher)
        self.wrapper = tuple(wrapper)
        self.environment = dict(environment or {})
        self.fresh = fresh
        self.settings = merged(self._plain_settings(), settings or {})
        self.process: Process | None = None
        self.write_config()

    def _plain_settings(self) -> dict[str, Any]:
        return {
            "server": {"listen_addr": f"{self.host}:{self.port}", "min_free_bytes": "16MiB"},
            "auth": {
                "api_key_users": dict(self.keys),
                "admins": list(ADMINS),
                "internal_proxy_secret": self.internal_secret,
                "single_use_link_secret": self.link_secret,
            },
            "metrics": {"listen_addr": f"{self.host}:{self.metrics_port}"},
            "backend": {"localfs_root_path": str(self.root)},
            "metadata_store": {"sqlite_path": str(self.database)},
            "instance_discovery": {"instance_id": "node-1"},
        }

    def write_config(self, changes: Mapping[str, Any] | None = None) -> None:
        """Write the configuration file, after ``changes`` have been taken into the settings."""
        self.settings = merged(self.settings, changes or {})
        self.config_path.write_text(yaml.safe_dump(self.settings))

    # who speaks to it

    @property
    def address(self) -> Address:
        """Where the API is."""
        return (self.host, self.port)

    @property
    def origin(self) -> str:
        """The API's address as a URL."""
        return f"http://{self.host}:{self.port}"

    def client(self, user: str | None = "alice", **options: Any) -> Client:
        """A client of that user; None is nobody."""
        return Client(self.address, None if user is None else self.keys[user], **options)

    def health(self, target: str = "/health/ready") -> Answer | None:
        """What the health check says; None when nobody answers."""
        client = self.client(None, timeout_seconds=5.0)
        try:
            return client.request("GET", target)
        except (OSError, EOFError):
            return None
        finally:
            client.close()

    def secrets(self) -> list[str]:
        """Every secret of its configuration: none of them may ever be shown."""
        return [*self.keys.values(), self.internal_secret, self.link_secret]

    # its life

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self.process is not None
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self.process is not None and self.process.poll() is None

    def launch(self, *, launcher: Sequence[str] | None = None) -> Daemon:
        """Start the process and don't wait for anything."""
        assert not self.running
        command = [*self.wrapper, *(launcher or self.launcher), "-c", str(self.config_path)]
        with self.log_path.open("ab") as log:
            self.process = begin(
                command,
                stdout=log.fileno(),
                stderr=log.fileno(),
                folder=self.folder,
                environment=child_environment(self.environment),
                fresh=self.fresh,
            )
        return self

    def start(self, *, launcher: Sequence[str] | None = None) -> Daemon:
        """Start the process and wait until it is ready; fails with its log when it ends instead."""
        self.launch(launcher=launcher)
        assert self.wait_ready(), (
            f"the daemon ended with {self.process and self.process.returncode}:\n{self.tail()}"
        )
        return self

    def wait_ready(self, within_seconds: float = START_SECONDS) -> bool:
        """Wait until it is ready (True) or has ended (False)."""

        def ready_or_ended() -> str:
            if not self.running:
                return "ended"
            answer = self.health()
            return "ready" if answer is not None and answer.status == 200 else ""

        return eventually(ready_or_ended, within_seconds=within_seconds, what="a ready daemon") == "ready"

    def wait_ended(self, within_seconds: float = 20.0) -> int:
        """Wait until the process has ended; its exit status, negative for a signal."""
        assert self.process is not None
        try:
            return self.process.wait(within_seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the daemon still runs after {within_seconds} s:\n{self.tail()}") from None

    def refuses_to_start(self, within_seconds: float = 20.0) -> tuple[int, str]:
        """Start it where it must refuse: its exit status and what it said this time."""
        before = len(self.log_text())
        self.launch()
        status = self.wait_ended(within_seconds)
        assert status > 0, f"exit status {status}:\n{self.tail()}"
        return status, self.log_text()[before:]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self.running, self.tail()
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it as a crash would: SIGKILL."""
        if self.running:
            os.kill(self.pid, signal.SIGKILL)
            self.wait_ended()

    def terminate(self, within_seconds: float = 20.0) -> int:
        """End it as an operator would: SIGTERM; its exit status."""
        self.signal(signal.SIGTERM)
        return self.wait_ended(within_seconds)

    def stop(self) -> None:
        """Freeze it (SIGSTOP): the sockets are there, nobody answers."""
        self.signal(signal.SIGSTOP)

    def cont(self) -> None:
        """Let it go on (SIGCONT)."""
        self.signal(signal.SIGCONT)

    def restart(self, *, launcher: Sequence[str] | None = None) -> Daemon:
        """End it in the ordinary way if it still runs, and start it on the same folders."""
        if self.running:
            assert self.terminate() == 0, self.tail()
        return self.start(launcher=launcher)

    def close(self) -> None:
        """Leave nothing behind that runs."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGCONT)
            self.kill()

    # what an operator sees

    def log_text(self) -> str:
        """All it ever said."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def tail(self, lines: int = 25) -> str:
        """The end of its log."""
        return "\n".join(self.log_text().splitlines()[-lines:])

    def events(self) -> Iterator[dict[str, Any]]:
        """Its log as JSON, line by line; a line that is none fails the test."""
        for line in self.log_text().splitlines():
            event = json.loads(line)
            assert isinstance(event, dict), line
            yield event

    def access_events(self, request_id: str | None = None) -> list[dict[str, Any]]:
        """The access events, or those of one request."""
        found = [event for event in self.events() if "duration_seconds" in event and "request_id" in event]
        return [event for event in found if request_id in (None, event["request_id"])]

    def open_descriptors(self) -> int:
        """How many descriptors the process has."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def resident_bytes(self, *, peak: bool = False) -> int:
        """Its resident memory, now or at most since :meth:`forget_peak`."""
        name = "VmHWM:" if peak else "VmRSS:"
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith(name)).split()[1]) * 1024

    def forget_peak(self) -> None:
        """Let the peak of its resident memory start from now."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def fsck(self, *options: str) -> subprocess.CompletedProcess[str]:
        """``callfs fsck`` on its folders."""
        command = [*self.wrapper, sys.executable, "-m", "callfs", "fsck", *options, "-c", str(self.config_path)]
        return run(command, folder=self.folder, environment=child_environment(self.environment))

    def blob_of(self, content: bytes) -> Path:
        """The one file under the root folder that has these bytes."""
        found = [path for path in self.blobs() if path.read_bytes() == content]
        assert len(found) == 1, f"{len(found)} files have these bytes"
        return found[0]

    def blobs(self) -> list[Path]:
        """The files that hold stored bytes."""
        return sorted(path for path in (self.root / "blobs").rglob("*") if path.is_file())
