"""A process that writes a raft log until it is killed: entry after entry, each number said once it is durable."""

from __future__ import annotations

import os
import resource
import secrets
import signal
import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor

from callfs.cluster.disklog import DiskLog
from callfs.raft.boundary import HardState, Write
from callfs.raft.messages import Entry, EntryKind

reactor: Any = global_reactor


class Writing:
    """
    Writes 50 entries at a time.

    :param log: started.
    :param total: how many writes in all.
    """

    def __init__(self, log: DiskLog, total: int) -> None:
        self._log = log
        self._total = total
        self._written = 0
        self._durable = 0

    def begin(self) -> None:
        """Queue the first few; each that is durable brings another."""
        for _ in range(3):
            self._write_next()

    def _write_next(self) -> None:
        if self._written == self._total:
            return
        first = self._written * 50
        self._written += 1
        entries = tuple(Entry(first + each, 1, EntryKind.COMMAND, b"x" * 500) for each in range(1, 51))
        self._log.write(Write(number=self._written, entries=entries, hard_state=HardState(1, "n1", 0)))

    def log_persisted(self, number: int, seconds: float) -> None:
        """Say so."""
        print("durable", number, flush=True)
        for _ in range(number - self._durable):
            self._write_next()
        self._durable = number
        if number == self._total:
            self._log.close().addCallback(lambda _: reactor.stop())

    def log_full(self, full: bool) -> None:
        """Say so."""
        print("full" if full else "room", flush=True)

    def log_failed(self, reason: str) -> None:
        """Say so, and end."""
        print("failed", reason, flush=True)
        reactor.stop()


def main(folder: str, total: str, kill_at: str, largest_file: str = "") -> None:
    """
    Write.

    :param kill_at: the step and its number at which this process kills itself.
    :param largest_file: in bytes: a write beyond it is an I/O error.
    """
    steps = 0
    if largest_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(largest_file), int(largest_file)))

    def reached(step: str) -> None:
        nonlocal steps
        steps += 1
        if kill_at != "never" and f"{step} {steps}" == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    log = DiskLog(
        Path(folder),
        "n1",
        reactor=reactor,
        token_bytes=secrets.token_bytes,
        seconds=time.monotonic,
        reached=reached,
    )
    log.open()
    writing = Writing(log, int(total))
    log.start(writing)
    reactor.callWhenRunning(writing.begin)
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
