"""
Python processes for the tests, at a tenth of the price: forked from one that has imported CallFS already, see
:mod:`tests.support.forkserver`. They are processes as all others, to be signalled, stopped and killed.

:func:`begin` and :func:`run` do this wherever it comes to the same thing as a fresh interpreter, and start one
where it doesn't: where another command stands in front, or the environment says something else to the interpreter
itself. What differs: processes forked from the same server hash their strings alike, and have modules that they
would have imported later, or never.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

REPOSITORY = Path(__file__).resolve().parents[2]
PRELOAD_SECONDS = 60.0
CLOSE_SECONDS = 20.0

PRELOADED = (
    "callfs.cli.server",
    "callfs.cli.cluster",
    "callfs.cli.config",
    "callfs.cli.fsck",
    "callfs.cli.metadata",
    "callfs.cli.node",
    "callfs.cli.replication",
    "callfs.service",
    "callfs.node_cluster",
    "callfs.backends.s3",
    "callfs.metadata.postgres",
    "encodings.idna",
    "encodings.utf_8_sig",
    "importlib.resources.readers",
    "twisted.internet.default",
    "twisted.plugins.twisted_core",
)
"""Not callfs.metadata.redis: txredisapi makes use of the reactor when it's imported."""

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class Process(Protocol):
    """What both kinds of process are, in the words of ``subprocess.Popen``."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None:
        """The exit status, negative for a signal; ``None`` while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; the exit status."""

    def send_signal(self, sig: int) -> None:
        """Send a signal, if it still runs."""

    def kill(self) -> None:
        """End it by SIGKILL."""


def die_with_parent() -> None:
    """
    In the child before exec: the process ends when the tests end, however they end.

    SIGINT, too, does what it does by default, though the tests were started in the background by a script, where
    it's ignored. A daemon honours that, as is usual.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


def child_environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without its own ``CALLFS_`` variables, and with the tests importable."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CALLFS_")}
    return {**inherited, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1", **(changes or {})}


class Forked:
    """
    A process that was forked from the server.

    :param pid: its id. It is nobody else's until :attr:`returncode` is known.
    :param ending: says the exit status.
    """

    def __init__(self, pid: int, ending: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ending = ending
        self._lock = threading.RLock()

    def poll(self) -> int | None:
        """The exit status, negative for a signal; ``None`` while it runs."""
        with self._lock:
            if self.returncode is None:
                with contextlib.suppress(BlockingIOError):
                    # Without a status the server has died, and killed its children by that.
                    self.returncode = int(self._ending.recv(16, socket.MSG_DONTWAIT) or -signal.SIGKILL)
                    self._ending.shutdown(socket.SHUT_RDWR)
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """
        Wait for its end.

        :param timeout: how many seconds.
        :return: the exit status, negative for a signal.
        :raises subprocess.TimeoutExpired: it still runs.
        """
        poll = select.poll()
        poll.register(self._ending, select.POLLIN)
        if self.returncode is None:
            poll.poll(None if timeout is None else timeout * 1000)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired(["python"], timeout or 0)
        return status

    def send_signal(self, sig: int) -> None:
        """Send a signal, if it still runs."""
        with self._lock:
            if self.poll() is None:
                os.kill(self.pid, sig)

    def kill(self) -> None:
        """End it by SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def __del__(self) -> None:
        self._ending.close()


@dataclass(frozen=True)
class _Started:
    """A server's process, where it's asked, what it says when it dies, and what its interpreter was told."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    errors: IO[bytes]
    environment: Mapping[str, str]

    def said(self) -> str:
        """Why it died."""
        self.errors.seek(0)
        return self.errors.read().decode()

    def close(self) -> None:
        """End it and all that it forked."""
        self.control.close()
        self.process.wait(CLOSE_SECONDS)
        self.errors.close()


class ForkServer:
    """
    The server, from its first process on; ends with this process at the latest, and all that it forked with it.

    :param preloaded: modules that are there when a process begins.
    """

    def __init__(self, preloaded: Sequence[str] = PRELOADED) -> None:
        self._preloaded = preloaded
        self._lock = threading.Lock()
        self._started: _Started | None = None

    @property
    def pid(self) -> int:
        """The server's own process id."""
        assert self._started is not None
        return self._started.process.pid

    def understands(self, environment: Mapping[str, str]) -> bool:
        """Whether an interpreter that starts with this environment would be as the server's was."""
        with self._lock:
            return _for_the_interpreter(environment) == self._running().environment

    def begin(
        self,
        arguments: Sequence[str],
        streams: tuple[int, int, int],
        folder: Path,
        environment: Mapping[str, str],
    ) -> Forked:
        """
        Fork a process.

        :param arguments: as those of ``python``: ``-m MODULE ...`` or ``-c PROGRAM ...``.
        :param streams: descriptors of its standard input, output and error.
        :param folder: its working directory.
        :param environment: all of it.
        """
        assert folder.is_dir()
        launch = {"arguments": [*arguments], "folder": str(folder), "environment": {**environment}}
        message = json.dumps(launch).encode()
        ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        ours.settimeout(PRELOAD_SECONDS)
        with theirs, self._lock:
            server = self._running()
            # Whether it is there is known when it answers.
            with contextlib.suppress(ConnectionError):
                socket.send_fds(server.control, [message], [theirs.fileno(), *streams])
        pid = ours.recv(16)
        if not pid:
            ours.close()
            raise AssertionError(f"the fork server died:\n{server.said()}")
        ours.settimeout(None)
        return Forked(int(pid), ours)

    def _running(self) -> _Started:
        """The server's process; a new one, if it isn't there any more."""
        if self._started is None or self._started.process.poll() is not None:
            self._forget()
            self._started = self._start()
        return self._started

    def _start(self) -> _Started:
        control, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        errors = tempfile.TemporaryFile()  # noqa: SIM115
        environment = child_environment()
        with theirs:
            # Not die_with_parent: it would end with the thread that happens to start it.
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.forkserver", str(theirs.fileno()), *self._preloaded],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                cwd=REPOSITORY,
                env=environment,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        return _Started(process, control, errors, _for_the_interpreter(environment))

    def _forget(self) -> None:
        if self._started is not None:
            self._started.close()
            self._started = None

    def close(self) -> None:
        """End the server and all that it forked."""
        with self._lock:
            self._forget()


def _for_the_interpreter(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that may be read before a program runs: all that aren't known to be CallFS's, or pytest's."""
    ours = ("CALLFS_", "PYTEST_")
    return {name: value for name, value in environment.items() if not name.startswith(ours)}


@functools.cache
def shared_server() -> ForkServer:
    """The one of this process."""
    server = ForkServer()
    atexit.register(server.close)
    return server


def begin(
    command: Sequence[str],
    *,
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    fresh: bool = False,
) -> Process:
    """
    Begin a process in a session of its own, that ends with the tests at the latest.

    :param command: ``sys.executable -m MODULE ...`` and ``sys.executable -c PROGRAM ...`` are forked.
    :param stdin: a descriptor; ``None`` is /dev/null, here as for ``stdout`` and ``stderr``.
    :param folder: its working directory, if not this process's.
    :param environment: all of it; by default :func:`child_environment`.
    :param fresh: an interpreter that imports all by itself.
    """
    complete = child_environment() if environment is None else environment
    python, *arguments = command
    forkable = not fresh and python == sys.executable and arguments[:1] in (["-m"], ["-c"])
    with open(os.devnull, "r+b", buffering=0) as nothing:
        inward, outward, errors = (
            nothing.fileno() if descriptor is None else descriptor for descriptor in (stdin, stdout, stderr)
        )
        if forkable and shared_server().understands(complete):
            streams = (inward, outward, errors)
            return shared_server().begin(arguments, streams, folder or Path.cwd(), complete)
        return subprocess.Popen(
            command,
            stdin=inward,
            stdout=outward,
            stderr=errors,
            cwd=folder,
            env=complete,
            preexec_fn=die_with_parent,
            start_new_session=True,
        )


def run(
    command: Sequence[str],
    *,
    given: bytes = b"",
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout_seconds: float = 60.0,
    fresh: bool = False,
) -> subprocess.CompletedProcess[str]:
    """
    Run a process to its end and capture what it says.

    :param command: see :func:`begin`.
    :param given: its standard input.
    :raises subprocess.TimeoutExpired: it still ran after ``timeout_seconds``; it was killed.
    """
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        stdin.write(given)
        stdin.seek(0)
        process = begin(
            command,
            stdin=stdin.fileno(),
            stdout=out.fileno(),
            stderr=err.fileno(),
            folder=folder,
            environment=environment,
            fresh=fresh,
        )
        try:
            status = process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        said = []
        for stream in (out, err):
            stream.seek(0)
            said.append(stream.read().decode())
    return subprocess.CompletedProcess([*command], status, *said)
