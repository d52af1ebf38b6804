"""
What a node is asked to do in ``benchmarks.raft``, and how it is told: a line of JSON each way on its standard
streams.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.support.forking import REPOSITORY, die_with_parent

ENTRY_BYTES = 200
ANSWER_SECONDS = 60.0

Ended = Callable[[], None]


class Load:
    """
    Keeps so many requests under way for a while; all of them have been answered when it ends.

    :param start: begins one, and calls what it is given once it has been answered.
    :param ended: called with the rate (requests per second).
    """

    def __init__(
        self, start: Callable[[Ended], None], in_flight: int, seconds: float, ended: Callable[[float], None]
    ) -> None:
        self._start = start
        self._under_way = in_flight
        self._ended = ended
        self._count = 0
        self._began = time.perf_counter()
        self._until = self._began + seconds
        for _ in range(in_flight):
            start(self._again)

    def _again(self) -> None:
        self._count += 1
        now = time.perf_counter()
        if now < self._until:
            self._start(self._again)
            return
        self._under_way -= 1
        if not self._under_way:
            self._ended(self._count / (now - self._began))


class Alone:
    """
    One request after the other.

    :param ended: called with how long each took, in seconds.
    """

    def __init__(
        self, start: Callable[[Ended], None], count: int, ended: Callable[[Sequence[float]], None]
    ) -> None:
        self._start = start
        self._count = count
        self._ended = ended
        self._took: list[float] = []
        self._next()

    def _next(self) -> None:
        self._began = time.perf_counter()
        self._start(self._again)

    def _again(self) -> None:
        self._took.append(time.perf_counter() - self._began)
        if len(self._took) < self._count:
            self._next()
        else:
            self._ended(self._took)


class NodeProcess:
    """
    A node in a process of its own.

    :param module: is run with the arguments; it answers on its standard output.
    :param log: gets what it writes to its standard error.
    """

    def __init__(self, module: str, arguments: Sequence[str], log: Path) -> None:
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=REPOSITORY,
                preexec_fn=die_with_parent,
                text=True,
            )
        self._log = log

    def ask(self, do: str, **details: Any) -> Any:
        """Let it do something, and wait for the answer."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps({"do": do, **details}) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            line = ""
        else:
            line = process.stdout.readline()
        if not line:
            raise SystemExit(f"a node has ended: {self._log.read_text()[-2000:]}")
        return json.loads(line)

    def stop(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


class Trio:
    """Three nodes, one of which leads."""

    def __init__(self, nodes: Sequence[NodeProcess]) -> None:
        self._nodes = nodes

    def __enter__(self) -> Trio:
        return self

    def __exit__(self, *_: object) -> None:
        for node in self._nodes:
            node.stop()

    def leader(self) -> NodeProcess:
        """The one that leads and answers; waited for."""
        return self._who(leads=True)

    def follower(self) -> NodeProcess:
        """One that doesn't lead, while another does."""
        self.leader()
        return self._who(leads=False)

    def cpu_seconds(self) -> float:
        """What all three have used."""
        return sum(float(node.ask("cpu")) for node in self._nodes)

    def _who(self, leads: bool) -> NodeProcess:
        given_up_at = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < given_up_at:
            for node in self._nodes:
                if node.ask("leads") is leads:
                    return node
            time.sleep(0.05)
        raise SystemExit("three nodes found no leader")
