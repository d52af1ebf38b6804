"""
Real Redis servers, each on a port of its own in a temporary folder, from Debian's package.

They are stopped, killed, paused and started again as a test wants.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.support.ports import free_port
from tests.support.waiting import eventually

DURABLE = {"appendonly": "yes", "appendfsync": "always"}
_START_SECONDS = 10.0


class RedisServer:
    """
    One server.

    :param options: lines of its configuration; without any it keeps nothing on disk.
    :ivar port: on 127.0.0.1, the same after a restart.
    """

    def __init__(self, **options: str) -> None:
        program = shutil.which("redis-server")
        if program is None:
            raise AssertionError("redis-server is missing: apt-get install redis-server")
        self._program = program
        self.folder = Path(tempfile.mkdtemp(prefix="callfs-redis-"))
        self.port = free_port()
        self.options = {"save": '""', "appendonly": "no"} | options
        self.password = options.get("requirepass")
        self._process: subprocess.Popen[bytes] | None = None
        self._paused = False

    @property
    def address(self) -> str:
        """As the configuration has it."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> RedisServer:
        """Start, also again after an end, and wait until it answers."""
        lines = [f"{key.replace('_', '-')} {value}" for key, value in self.options.items()]
        lines += [f"port {self.port}", "bind 127.0.0.1", f"dir {self.folder}", "daemonize no"]
        (self.folder / "redis.conf").write_text("\n".join(lines) + "\n")
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen([self._program, str(self.folder / "redis.conf")], stdout=log)
        eventually(self._answers, within_seconds=_START_SECONDS, what="the Redis server's start")
        return self

    def _answers(self) -> bool:
        try:
            return self.command("PING") == "PONG"
        except (OSError, RuntimeError):
            return False

    def kill(self) -> None:
        """As a crash of the server does."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """The server stays connected and answers nothing."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        self._paused = True

    def resume(self) -> None:
        """It goes on with what has come meanwhile."""
        if self._paused and self._process is not None:
            os.kill(self._process.pid, signal.SIGCONT)
        self._paused = False

    def stop(self) -> None:
        """End it and remove its folder."""
        self.resume()
        self._end(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self, number: int) -> None:
        if self._process is not None:
            os.kill(self._process.pid, number)
            self._process.wait(10)
            self._process = None

    def command(self, *words: str | bytes | int) -> Any:
        """A command on a connection of its own: its reply; texts as ``str``."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            stream = connection.makefile("rwb")
            if self.password is not None:
                _send(stream, ("AUTH", self.password))
                _reply(stream)
            _send(stream, words)
            return _reply(stream)

    def begin(self, *words: str | bytes | int) -> None:
        """Send a command without waiting for its reply."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=5)
        with connection, connection.makefile("rwb") as stream:
            _send(stream, words)

    def configure(self, **options: str) -> None:
        """Change settings of the running server."""
        for key, value in options.items():
            self.command("CONFIG", "SET", key.replace("_", "-"), value)

    def cut_connections(self) -> None:
        """Close all connections of clients."""
        self.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        self.command("CLIENT", "KILL", "TYPE", "pubsub")

    def all_keys(self) -> set[str]:
        """All keys."""
        return set(self.command("KEYS", "*"))


def _send(stream: Any, words: tuple[str | bytes | int, ...]) -> None:
    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    stream.write(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts))
    stream.flush()


def _reply(stream: Any) -> Any:
    line = stream.readline()
    if not line:
        raise RuntimeError("the server closed the connection")
    kind, rest = line[:1], line[1:-2]
    if kind == b"-":
        raise RuntimeError(rest.decode())
    if kind == b"+":
        return rest.decode()
    if kind == b":":
        return int(rest)
    if kind == b"*":
        return [_reply(stream) for _ in range(int(rest))]
    length = int(rest)
    return None if length < 0 else stream.read(length + 2)[:-2].decode("utf-8", "backslashreplace")
