"""
The process that Python processes of the tests are forked from:
``python -m tests.support.forkserver SOCKET MODULE...``

Nearly all of the processor time that a daemon needs to start goes into importing modules. This process has
imported them once, and each process forked from it has them. Until then it must be as a fresh interpreter is: one
thread, no reactor, no descriptors but its own, which :func:`serve` makes sure of.

It speaks to :class:`tests.support.forking.ForkServer`. A message on ``SOCKET`` asks for a process, with a socket of
that process's own, and its standard input, output and error. On the socket go out its id, and, when it has ended,
its exit status. It stays a zombie until that end of the socket is closed: as long as somebody may send it a
signal, no other process may get its id. When ``SOCKET`` is closed all end.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import io
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

MESSAGE_BYTES = 1 << 20
STREAMS = 3

_REACTOR = "twisted.internet.reactor"
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class ReactorToCome:
    """
    Stands for the reactor in modules that were imported before there was one (klein does no more than to import
    it). Nothing is known of it while modules are imported; afterwards it is the reactor of the process.
    """

    def __init__(self) -> None:
        self._importing = True

    def imported(self) -> None:
        """All modules are there: forget this object where the reactor will be looked for."""
        self._importing = False
        del sys.modules[_REACTOR]
        del vars(importlib.import_module("twisted.internet"))["reactor"]

    def __getattr__(self, name: str) -> Any:
        if self._importing:
            raise AttributeError(f"{name} of the reactor is used while modules are imported")
        return getattr(importlib.import_module(_REACTOR), name)


def preload(modules: Sequence[str]) -> None:
    """Import them without a reactor."""
    to_come: Any = ReactorToCome()
    sys.modules[_REACTOR] = to_come
    vars(importlib.import_module("twisted.internet"))["reactor"] = to_come
    for name in modules:
        importlib.import_module(name)
    to_come.imported()
    # What is here stays, in all of the processes: a collection needn't look at it, nor write to its pages.
    gc.collect()
    gc.freeze()


def open_descriptors() -> set[int]:
    """The descriptors of this process."""
    return {int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")}


def check_is_as_fresh(descriptors: set[int]) -> None:
    """Make sure that forking gives what a fresh interpreter with these descriptors would be."""
    assert _REACTOR not in sys.modules, "there is a reactor"
    assert threading.enumerate() == [threading.main_thread()], threading.enumerate()
    assert len(os.listdir("/proc/self/task")) == 1, "there are threads that Python doesn't know"
    assert open_descriptors() == descriptors, f"{open_descriptors()} are open, not {descriptors}"


@dataclass(frozen=True)
class Launch:
    """
    What a process is to do.

    :param arguments: as those of ``python``: ``-m MODULE ...`` or ``-c PROGRAM ...``.
    :param folder: its working directory.
    :param environment: all of it.
    """

    arguments: list[str]
    folder: str
    environment: dict[str, str]


class Children:
    """
    The processes that were forked, each with the socket that tells of it.

    :param control: where processes are asked for.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._running: dict[int, socket.socket] = {}
        self._ended: dict[int, socket.socket] = {}
        self._woken, self._wake = socket.socketpair()
        for end in (self._woken, self._wake):
            end.setblocking(False)

    def serve(self) -> Launch | None:
        """
        Fork a process for each message.

        :return: in a new process, what it is to do; ``None`` when no more are wanted, and all have ended.
        """
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        try:
            while True:
                ready = self._ready()
                self._reap(ready)
                if self._woken.fileno() in ready:
                    self._tell_ends()
                if self._control.fileno() in ready:
                    data, descriptors, _, _ = socket.recv_fds(self._control, MESSAGE_BYTES, 1 + STREAMS)
                    if not data:
                        self._end()
                        return None
                    asking = socket.socket(fileno=descriptors[0])
                    if self._fork(asking, descriptors[1:]):
                        return Launch(**json.loads(data))
        finally:
            signal.set_wakeup_fd(-1)
            for end in (self._control, self._woken, self._wake, *self._running.values(), *self._ended.values()):
                end.close()

    def _ready(self) -> set[int]:
        poll = select.poll()
        for end in (self._control, self._woken, *self._ended.values()):
            poll.register(end, select.POLLIN)
        return {descriptor for descriptor, _ in poll.poll()}

    def _fork(self, asking: socket.socket, streams: list[int]) -> bool:
        """Make a process; true in it."""
        server = os.getpid()
        child = os.fork()
        if child:
            self._running[child] = asking
            _tell(asking, child)
        else:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != server:
                os._exit(1)
            asking.close()
            for number, descriptor in enumerate(streams):
                os.dup2(descriptor, number)
        for descriptor in streams:
            os.close(descriptor)
        return child == 0

    def _tell_ends(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._woken.recv(4096):
                pass
        for child in list(self._running):
            # WNOWAIT: it isn't reaped before somebody has heard of it.
            end = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if end is not None:
                self._ended[child] = self._running.pop(child)
                _tell(self._ended[child], end.si_status if end.si_code == os.CLD_EXITED else -end.si_status)

    def _reap(self, ready: set[int]) -> None:
        for child, asking in list(self._ended.items()):
            if asking.fileno() in ready:
                os.waitpid(child, 0)
                self._ended.pop(child).close()

    def _end(self) -> None:
        for child in (*self._running, *self._ended):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _tell(asking: socket.socket, number: int) -> None:
    # Nobody may be there any more.
    with contextlib.suppress(OSError):
        asking.send(str(number).encode())


def become(launch: Launch) -> None:
    """In the new process: be what a fresh interpreter would be before its program runs."""
    os.setsid()
    os.chdir(launch.folder)
    os.environ.clear()
    os.environ.update(launch.environment)
    _default_signals()
    _open_streams()
    # As the interpreter does it: the working directory is searched first, named with -m and empty with -c.
    sys.path[0] = os.getcwd() if launch.arguments[0] == "-m" else ""
    sys.orig_argv[1:] = launch.arguments
    check_is_as_fresh({0, 1, 2})


def _default_signals() -> None:
    ignored = {signal.SIGPIPE, signal.SIGXFSZ}
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if number in ignored:
            signal.signal(number, signal.SIG_IGN)
        elif number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
        elif number < signal.SIGRTMIN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _open_streams() -> None:
    """Standard input, output and error as an interpreter with PYTHONUNBUFFERED makes them."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        earlier = getattr(sys, name)
        raw: Any = io.FileIO(number, "w" if number else "r", closefd=False)
        buffer = raw if number else io.BufferedReader(raw)
        stream = io.TextIOWrapper(buffer, earlier.encoding, earlier.errors, newline="\n", write_through=True)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def run(arguments: list[str]) -> NoReturn:
    """
    Run the program and end as the interpreter does, but for the last of it: all those modules, which are the
    server's, aren't taken apart object by object. That takes as long as all else together.
    """
    status = 0
    try:
        _run(arguments)
    except SystemExit as end:
        status = _status_of(end.code)
    except KeyboardInterrupt:
        # The interpreter ends by the signal itself.
        raise
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(ValueError):
            stream.flush()
    os._exit(status)


def _status_of(code: object) -> int:
    if code is None or isinstance(code, int):
        return (code or 0) & 0xFF
    print(code, file=sys.stderr)
    return 1


def _run(arguments: list[str]) -> None:
    kind, program, *more = arguments
    sys.argv = [kind, *more]
    if kind == "-m":
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        main_module = types.ModuleType("__main__")
        sys.modules["__main__"] = main_module
        exec(compile(program, "<string>", "exec"), vars(main_module))


def serve(control: socket.socket, modules: Sequence[str]) -> Launch | None:
    """
    Import modules and serve.

    :return: in a new process, what it is to do; ``None`` at the end of the server.
    """
    preload(modules)
    check_is_as_fresh({0, 1, 2, control.fileno()})
    return Children(control).serve()


if __name__ == "__main__":
    launch = serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:])
    if launch is not None:
        become(launch)
        run(launch.arguments)
