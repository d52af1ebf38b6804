"""Other processes that use a database: they hold its lock, or are the daemon that is killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support.forking import run

_HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    connection.execute(statement).fetchall()
print("ready", flush=True)
sys.stdin.read()
"""


class DatabaseUser:
    """
    A process that runs statements on a database and stays until :meth:`end`.

    :param statements: for instance ``BEGIN IMMEDIATE``.
    """

    def __init__(self, database: Path, *statements: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _HOLDER, str(database), *statements],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def end(self) -> None:
        """End the process, and with it its locks; a second time does nothing."""
        self._process.communicate()


_STORE = """
import os, resource, secrets, signal, sys
from twisted.internet import reactor, task
from twisted.python.threadpool import ThreadPool
from callfs.metadata.sqlite import SqliteStore
from tests.support.commands import Commands

{reached}

async def main(reactor):
    pool = ThreadPool(0, 2)
    pool.start()
    try:
        make = Commands()
        store = SqliteStore(
            sys.argv[1], reactor=reactor, pool=pool, token_bytes=secrets.token_bytes, op_timeout_seconds=20,
            reached=reached,
        )
        await store.open()
        try:
{body}
        finally:
            await store.close()
    finally:
        pool.stop()

task.react(main)
"""


def run_store(
    database: Path, body: str, reached: str = "def reached(step): pass", wrapper: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """
    Run a process that opens a store and does something with it.

    :param body: lines of an ``async def`` with ``store`` and ``make``.
    :param reached: defines ``reached(step)``.
    :param wrapper: the command that runs the process, for instance in another namespace.
    """
    lines = "".join(f"            {line}\n" for line in body.strip().splitlines())
    return run([*wrapper, sys.executable, "-c", _STORE.format(reached=reached, body=lines), str(database)])
