"""A real PostgreSQL server from Debian's packages, on a free port, in a temporary folder."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import psycopg

from tests.support.mounts import SmallDisk
from tests.support.ports import free_port
from tests.support.waiting import eventually

PASSWORD = "correct-horse-battery-staple"


class PostgresMissing(RuntimeError):
    """The server isn't installed."""


def binaries() -> Path:
    """
    Where the server's programs are, the newest version.

    :raises PostgresMissing: nowhere.
    """
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if not found:
        on_path = shutil.which("initdb")
        if on_path is None:
            raise PostgresMissing(
                "these tests need a PostgreSQL server. Install it with: apt-get install postgresql"
            )
        return Path(on_path).parent
    return max(found, key=lambda folder: int(folder.parent.name))


class PostgresServer:
    """
    A server of one's own.

    :param durable: whether it forces its log to the disk, as it does everywhere but in tests.
    :param disk: a file system that only it sees, at the same place.
    :param settings: what differs from the defaults.
    """

    def __init__(self, durable: bool = False, disk: SmallDisk | None = None, **settings: object) -> None:
        self.port = free_port()
        self._disk = disk
        self._binaries = binaries()
        self._settings = {
            "fsync": durable,
            "synchronous_commit": durable,
            "full_page_writes": durable,
            "max_connections": 60,
            "shared_buffers": "32MB",
            "autovacuum": False,
            "unix_socket_directories": "",
            "listen_addresses": "127.0.0.1",
            "port": self.port,
        } | settings
        self.folder = Path(tempfile.mkdtemp(prefix="callfs-postgres-"))
        self._user = self._owner()
        if disk is not None and self._user:
            os.chown(disk.inside, self._user["user"], self._user["group"])
        self._process: subprocess.Popen[bytes] | None = None
        self._schemas = count(1)
        self._initialise()

    def _owner(self) -> Mapping[str, Any]:
        """initdb refuses root: then an unprivileged user runs the server."""
        if os.geteuid() != 0:
            return {}
        entry = pwd.getpwnam("nobody")
        os.chown(self.folder, entry.pw_uid, entry.pw_gid)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._binaries / program, *arguments], check=True, capture_output=True, cwd=self.folder, **self._user
        )

    def _initialise(self) -> None:
        password = self.folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        # The locale sorts otherwise than bytes do: what relies on bytes has to say so itself.
        version = int(self._binaries.parent.name) if self._binaries.parent.name.isdigit() else 0
        collation = ("--locale-provider", "icu", "--icu-locale", "en-US") if version >= 15 else ()
        self._run(
            *("initdb", "-D", str(self.data), "-U", "callfs", "--pwfile", str(password)),
            *("-A", "scram-sha-256", "-E", "UTF8", "--no-sync", "--locale", "C.UTF-8", *collation),
        )

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """What the server writes about itself."""
        return self.folder / "log"

    def dsn(self, **parameters: object) -> str:
        """What leads to it."""
        words = {"host": "127.0.0.1", "port": self.port, "user": "callfs", "dbname": "postgres"}
        words |= {"password": PASSWORD} | parameters
        return " ".join(f"{key}='{value}'" for key, value in words.items())

    def new_schema(self) -> str:
        """What leads to an empty schema."""
        name = f"store_{next(self._schemas)}"
        self.execute(f"CREATE SCHEMA {name}")
        return self.dsn(options=f"-csearch_path={name}")

    def connect(self, dsn: str | None = None) -> psycopg.Connection[Any]:
        """A connection that commits by itself."""
        return psycopg.connect(dsn or self.dsn(), autocommit=True)

    def execute(self, statement: str, *parameters: object) -> list[Any]:
        """Run one statement; its rows, if it has any."""
        with self.connect() as connection:
            cursor = connection.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        """Run it, and wait until it takes connections."""
        options = [f"-c{key}={_text(value)}" for key, value in self._settings.items()]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._entering(), self._binaries / "postgres", "-D", str(self.data), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
                **(self._user if self._disk is None else {}),
            )
        eventually(self._answers, within_seconds=30, what="an answer of PostgreSQL")

    def _entering(self) -> list[str]:
        """The command that puts the server where its disk is, and there makes it anybody but root."""
        if self._disk is None:
            return []
        if not self._user:
            return [*self._disk.wrapper, "unshare", "--user", "--map-user=1000", "--map-group=1000"]
        ids = (f"--reuid={self._user['user']}", f"--regid={self._user['group']}")
        return [*self._disk.wrapper, "setpriv", *ids, "--clear-groups"]

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()[-2000:]
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def processes(self) -> list[int]:
        """The server's own process and those that it started for its connections and chores."""
        assert self._process is not None
        return [self._process.pid, *_children(self._process.pid)]

    def _signal(self, number: int) -> None:
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def pause(self) -> None:
        """Stop all of it where it is; connections stay, nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """``kill -9`` for every process at once, as when the machine loses power."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Kill it and start it again, on the same port."""
        self.kill()
        self.start()

    def configure(self, **settings: object) -> None:
        """Change settings of a running server that a reload is enough for; connections from before are ended."""
        with self.connect() as connection:
            for key, value in settings.items():
                connection.execute(f"ALTER SYSTEM SET {key} = '{_text(value)}'")
            connection.execute("SELECT pg_reload_conf()")

        def known() -> bool:
            return all(self.execute(f"SHOW {key}") == [(_text(value),)] for key, value in settings.items())

        eventually(known, what="the new settings")
        self.cut_connections()

    def cut_connections(self) -> None:
        """``pg_terminate_backend`` for everybody's connections."""
        self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )

    def close(self) -> None:
        """End it and remove its folder."""
        if self._process is not None:
            self.resume()
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def _text(value: object) -> str:
    return {True: "on", False: "off"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


_SERVERS: list[PostgresServer] = []


@cache
def shared_server() -> PostgresServer:
    """The server that tests share, each in a schema of its own, for as long as the tests run."""
    server = PostgresServer()
    _SERVERS.append(server)
    server.start()
    return server


@cache
def harried_server() -> PostgresServer:
    """A durable server that tests share which kill, stop and cut it, and leave it running as it was."""
    server = PostgresServer(durable=True, max_connections=20, superuser_reserved_connections=1)
    _SERVERS.append(server)
    server.start()
    return server


def end_shared_servers() -> None:
    """At the end of the run."""
    while _SERVERS:
        _SERVERS.pop().close()
    shared_server.cache_clear()
    harried_server.cache_clear()


@contextlib.contextmanager
def running(**options: Any) -> Iterator[PostgresServer]:
    """A server for the time of a block."""
    server = PostgresServer(**options)
    try:
        server.start()
        yield server
    finally:
        server.close()
