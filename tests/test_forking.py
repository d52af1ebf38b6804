"""Processes forked from one that has imported CallFS are as those of a fresh interpreter."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.forking import REPOSITORY, Forked, ForkServer, Process, begin, child_environment, run
from tests.support.forkserver import ReactorToCome
from tests.support.waiting import eventually, stays

SLEEP = "import time; time.sleep(1000)"

STATE = """
import json, locale, os, resource, signal, sys, threading
kept = ("Umask", "SigBlk", "SigIgn", "SigCgt", "Threads", "Uid", "Gid", "Groups", "CapEff", "NoNewPrivs")
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
streams = (sys.stdin, sys.stdout, sys.stderr)
print(json.dumps({
    "status": {name: status[name] for name in kept},
    "argv": sys.argv,
    "orig_argv": sys.orig_argv,
    "path": sys.path,
    "flags": str(sys.flags),
    "main": [__name__, sys.modules["__main__"].__dict__ is globals()],
    "descriptors": sorted(name for name in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + name)),
    "streams": [
        (one.encoding, one.errors, one.newlines, one.line_buffering, one.write_through, one.fileno(), one.closed)
        for one in streams
    ],
    "originals": [sys.__stdin__ is sys.stdin, sys.__stdout__ is sys.stdout, sys.__stderr__ is sys.stderr],
    "locale": locale.setlocale(locale.LC_ALL),
    "limits": [resource.getrlimit(number) for number in range(16)],
    "environment": dict(os.environ),
    "folder": os.getcwd(),
    "leads": [os.getpid() == os.getsid(0), os.getpid() == os.getpgid(0)],
    "threads": [thread.name for thread in threading.enumerate()],
    "reactor": "twisted.internet.reactor" in sys.modules,
    "interrupt": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
}))
"""


@pytest.fixture
def server() -> Iterator[ForkServer]:
    """One of this test alone, that has imported nothing."""
    server = ForkServer(preloaded=())
    yield server
    server.close()


def python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def begun(server: ForkServer, program: str, output: int | None = None) -> Forked:
    with open(os.devnull, "r+b", buffering=0) as nothing:
        out = nothing.fileno() if output is None else output
        return server.begin(
            ["-c", program], (nothing.fileno(), out, nothing.fileno()), Path("/"), child_environment()
        )


def is_there(pid: int) -> bool:
    """Whether a process runs; a zombie doesn't."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


class TestLikeAFreshOne:
    def test_state(self, tmp_path: Path) -> None:
        """Signals, limits, streams, path, environment, descriptors are those of a fresh interpreter."""
        (tmp_path / "state.py").write_text(STATE)
        for command in (python("-c", STATE, "a", "-b"), python("-m", "state", "-c", "d")):
            forked, fresh = (
                json.loads(run(command, folder=tmp_path, fresh=is_fresh).stdout) for is_fresh in (False, True)
            )
            assert forked == fresh

    @pytest.mark.parametrize(
        ("program", "status"),
        [
            ("pass", 0),
            ("raise SystemExit", 0),
            ("raise SystemExit(3)", 3),
            ("raise SystemExit('a text')", 1),
            ("raise SystemExit(-1)", 255),
            ("raise SystemExit(True)", 1),
            ("raise KeyboardInterrupt", -signal.SIGINT),
            ("import sys; sys.stdout.close(); raise SystemExit(6)", 6),
            ("1 / 0", 1),
            ("import os; os._exit(255)", 255),
            ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
            ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
            ("import os, signal; os.kill(os.getpid(), signal.SIGINT)", -signal.SIGINT),
            ("import os; os.abort()", -signal.SIGABRT),
        ],
    )
    def test_exit_status(self, program: str, status: int) -> None:
        """However a program ends, its status is the one that a fresh interpreter would have given."""
        assert run(python("-c", program)).returncode == status
        assert run(python("-c", program), fresh=True).returncode == status

    def test_output(self) -> None:
        """What is said gets out, by threads that outlive the program and at exit as well; so does a traceback."""
        program = """
import atexit, sys, threading, time
print(sys.stdin.read().upper())
atexit.register(print, "at exit")
threading.Thread(target=lambda: (time.sleep(0.2), print("late"))).start()
print("error", file=sys.stderr)
raise ValueError("bad")
"""
        done = run(python("-c", program), given=b"hello\n")
        assert done.stdout == "HELLO\n\nlate\nat exit\n"
        assert done.stderr.startswith("error\n")
        assert done.stderr.endswith("ValueError: bad\n")

    def test_nothing_is_handed_on(self) -> None:
        """What one process has, the next hasn't: variables, modules, chance."""
        changing = "import os, sys, random; os.environ['X'] = '1'; sys.modules['left'] = os; print(random.random())"
        looking = (
            "import os, sys, random; print(os.environ.get('X'), 'left' in sys.modules); print(random.random())"
        )
        first = run(python("-c", changing))
        second, third = (run(python("-c", looking)).stdout.splitlines() for _ in range(2))
        assert second[0] == third[0] == "None False"
        assert len({first.stdout.strip(), second[1], third[1], str(random.random())}) == 4

    def test_interpreter_settings(self) -> None:
        """An environment that says something to the interpreter itself is given to a fresh one."""
        environment = child_environment({"PYTHONUTF8": "1", "PYTHONWARNINGS": "error"})
        program = "import sys; print(sys.flags.utf8_mode, sys.warnoptions)"
        assert run(python("-c", program), environment=environment).stdout == "1 ['error']\n"

    def test_command_in_front(self) -> None:
        """What stands in front of the interpreter is run."""
        done = run(["env", "X=1", *python("-c", "import os; print(os.environ['X'])")])
        assert done.stdout == "1\n"

    @pytest.mark.parametrize("is_fresh", [False, True])
    def test_ignored_interrupt(self, is_fresh: bool) -> None:
        """Tests that a script started in the background, where SIGINT is ignored, start processes that heed it."""
        program = f"""
import sys
from tests.support.forking import run
state = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
print(run([sys.executable, "-c", state], fresh={is_fresh}).stdout)
"""
        background = f"trap '' INT; exec {sys.executable} -c '{program}'"
        done = subprocess.run(["sh", "-c", background], cwd=REPOSITORY, capture_output=True, text=True)
        assert done.stdout.strip() == "True", done.stderr


class TestLife:
    def test_signals(self) -> None:
        """A process is stopped, goes on, and is killed by its id."""
        process = begin(python("-c", SLEEP))
        os.kill(process.pid, signal.SIGSTOP)
        state = Path(f"/proc/{process.pid}/stat")
        eventually(lambda: state.read_text().rsplit(")", 1)[1].split()[0] == "T", what="a stopped process")
        assert process.poll() is None
        os.kill(process.pid, signal.SIGCONT)
        process.kill()
        assert process.wait(10) == -signal.SIGKILL
        process.kill()
        assert process.poll() == process.returncode == -signal.SIGKILL

    def test_end_is_heard_of_at_once(self) -> None:
        """Who waits for an end needn't wait for longer; who asks hears of it as soon."""
        process = begin(python("-c", SLEEP))
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.05)
        with ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(process.wait, 20) for _ in range(2)]
            assert stays(lambda: not any(one.done() for one in waiting), for_seconds=0.1)
            killed_at = time.monotonic()
            os.kill(process.pid, signal.SIGTERM)
            assert [one.result() for one in waiting] == [-signal.SIGTERM] * 2
            assert time.monotonic() - killed_at < 5
        asked = begin(python("-c", "raise SystemExit(7)"))
        assert eventually(asked.poll, what="an end") == 7

    def test_id_is_kept(self) -> None:
        """A process's id is its own until its end is known, and free afterwards."""
        process = begin(python("-c", "pass"))
        eventually(lambda: not is_there(process.pid), what="an end")
        assert stays(lambda: Path(f"/proc/{process.pid}").exists(), for_seconds=0.2)
        assert process.poll() == 0
        eventually(lambda: not Path(f"/proc/{process.pid}").exists(), what="the end of the zombie")

    def test_forgotten(self) -> None:
        """One whose end nobody waits for leaves nothing behind either."""
        pid = begin(python("-c", "pass")).pid
        eventually(lambda: not Path(f"/proc/{pid}").exists(), what="the end of the zombie")

    def test_too_long(self) -> None:
        """A command that takes too long is killed."""
        with pytest.raises(subprocess.TimeoutExpired):
            run(python("-c", SLEEP), timeout_seconds=0.2)

    def test_many_at_once(self, server: ForkServer) -> None:
        """Many are begun by many threads, and each says and returns its own."""

        def one(number: int) -> tuple[int, int, bytes]:
            reading, writing = os.pipe()
            process = begun(server, f"import os; print({number}, os.getpid()); os._exit({number})", writing)
            os.close(writing)
            with open(reading, "rb") as said:
                return process.wait(30), process.pid, said.read()

        with ThreadPoolExecutor(8) as pool:
            for number, (status, pid, said) in enumerate(pool.map(one, range(40))):
                assert (status, said) == (number, b"%d %d\n" % (number, pid))

    def test_sockets_are_ones_own(self, server: ForkServer) -> None:
        """A process that is begun while another listens doesn't hold the other's port, nor what it writes to."""
        listening = "import socket, time; one = socket.create_server(('127.0.0.1', 0)); "
        reading, writing = os.pipe()
        listener = begun(server, listening + "print(one.getsockname()[1]); time.sleep(1000)", writing)
        os.close(writing)
        with open(reading, "rb") as said:
            port = int(said.readline())
            other = begun(server, SLEEP)
            listener.kill()
            assert listener.wait(10) == -signal.SIGKILL
            assert said.read() == b""
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        assert other.poll() is None


class TestEndOfAll:
    def test_server_closed(self, server: ForkServer) -> None:
        """When the server is closed, all that it forked has ended."""
        processes = [begun(server, SLEEP) for _ in range(3)]
        server.close()
        assert not any(is_there(process.pid) for process in processes)
        assert [process.wait(5) for process in processes] == [-signal.SIGKILL] * 3

    def test_server_killed(self, server: ForkServer) -> None:
        """When the server is killed, all that it forked ends, and the next process is forked from a new one."""
        processes = [begun(server, SLEEP) for _ in range(3)]
        os.kill(processes[0].pid, signal.SIGSTOP)
        os.kill(server.pid, signal.SIGKILL)
        assert [process.wait(5) for process in processes] == [-signal.SIGKILL] * 3
        eventually(lambda: not any(is_there(process.pid) for process in processes), what="their end")
        assert begun(server, "raise SystemExit(4)").wait(10) == 4

    def test_server_that_cannot_start(self) -> None:
        """When the server can't start, because a module can't be imported, its reason is told."""
        server = ForkServer(preloaded=["no_such_module"])
        with pytest.raises(AssertionError, match="No module named 'no_such_module'"):
            begun(server, "pass")
        server.close()

    def test_owner_killed(self) -> None:
        """When the process that asked for them is killed, the server and all that it forked end."""
        program = f"""
import sys, time
from tests.support.forking import begin, shared_server
processes = [begin([sys.executable, "-c", {SLEEP!r}]) for _ in range(2)]
print(*(process.pid for process in processes), shared_server().pid, flush=True)
time.sleep(1000)
"""
        owner = subprocess.Popen(python("-c", program), cwd=REPOSITORY, stdout=subprocess.PIPE)
        assert owner.stdout is not None
        with owner.stdout:
            pids = [int(word) for word in owner.stdout.readline().split()]
        assert len(pids) == 3
        assert all(map(is_there, pids))
        owner.kill()
        owner.wait()
        eventually(lambda: not any(map(is_there, pids)), what="their end")


class TestReactorToCome:
    def test_while_importing(self) -> None:
        """A module that makes use of the reactor when it's imported can't be imported in advance."""
        with pytest.raises(AttributeError, match="callLater of the reactor is used"):
            _ = ReactorToCome().callLater

    def test_afterwards(self) -> None:
        """Modules that were imported before there was a reactor use the one of their process."""
        program = """
import sys, klein._app
assert "twisted.internet.reactor" not in sys.modules
early = klein._app.reactor
early.callWhenRunning(early.stop)
from twisted.internet import reactor
assert early.callLater == reactor.callLater
reactor.run()
print("ran")
"""
        done = run(python("-c", program))
        assert done.stdout == "ran\n", done.stderr


def test_protocol() -> None:
    """Both kinds of process serve alike."""
    both: list[Process] = [begin(python("-c", "raise SystemExit(5)"), fresh=is_fresh) for is_fresh in (False, True)]
    assert [process.wait(20) for process in both] == [5, 5]
    assert [process.poll() for process in both] == [5, 5]
