"""
What applying the log's commands costs a node: ``python -m benchmarks.replicated_apply [--entries N] [FOLDER]``.

One state, no raft: encoded commands are applied in batches of 1, 16 and 256, as they are committed. Prints the CPU
time per entry of the whole process (thread changes, sessions and the write-ahead log included), and how many
statements SQLite carried out for it.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from twisted.internet.task import react
from twisted.python.threadpool import ThreadPool

from callfs.cluster.interfaces import Step
from callfs.cluster.requests import Request
from callfs.metadata.commands import Command
from callfs.metadata.replicated_apply import METADATA
from callfs.metadata.replicated_codec import encode_command
from callfs.metadata.replicated_state import MetadataState
from callfs.metadata.sqlite import Unobserved
from tests.support.commands import Commands
from tests.support.single_log import MEMBERS

ENTRIES = 20_000
BATCHES = (256, 16, 1)
SMALL_PART = {256: 1, 16: 2, 1: 10}
"""Small batches take longer: this part of the entries says as much."""

_AT = 1_700_000_000_000_000
_CLIENT = 2


class Applying:
    """
    A state, and what is applied to it.

    :param state: new; opened by :meth:`open`.
    """

    def __init__(self, state: MetadataState) -> None:
        self._state = state
        self._indices = count(3)
        self._sequences = count(1)

    async def open(self) -> None:
        """Open the state, with a membership and a client."""
        await self._state.open()
        await self._state.apply([Step(1, 1, None, MEMBERS), Step(2, 1, Request(0, 0, 0, _AT, 1, b""))])

    async def cost(self, commands: Sequence[Command[Any]], batch: int) -> float:
        """Apply commands; the CPU time of one of them, in seconds."""
        steps = [self._step(command, batch) for command in commands]
        before = time.process_time()
        for start in range(0, len(steps), batch):
            await self._state.apply(steps[start : start + batch])
        return (time.process_time() - before) / len(steps)

    def _step(self, command: Command[Any], batch: int) -> Step:
        sequence = next(self._sequences)
        data = METADATA + encode_command(command)
        lowest = max(1, sequence - batch)
        return Step(next(self._indices), 1, Request(_CLIENT, sequence, lowest, _AT + sequence, 1, data))


def loads(make: Commands, folder: str, entries: int) -> Iterator[tuple[str, list[Command[Any]]]]:
    """What is measured, in the order in which one needs another."""
    every = range(entries)
    kinds: dict[str, Callable[[int], Command[Any]]] = {
        "make a directory in /": lambda n: make.make_directory(f"/{folder}-{n}"),
        "create a file": lambda n: make.create(f"/{folder}/files/{n}"),
        "replace its content": lambda n: make.put(f"/{folder}/files/{n}"),
        "rename it": lambda n: make.move(f"/{folder}/files/{n}", f"/{folder}/files/{n}-new"),
        "move it elsewhere": lambda n: make.move(
            f"/{folder}/files/{n}-new", f"/{folder}/others/{n}", create_parents=True
        ),
        "refuse to create it again": lambda n: make.create(f"/{folder}/others/{n}"),
        "remove it": lambda n: make.remove(f"/{folder}/others/{n}"),
    }
    for name, command in kinds.items():
        yield name, [command(n) for n in every]


async def measured(state: MetadataState, entries: int) -> None:
    """Measure everything, and print it."""
    applying = Applying(state)
    await applying.open()
    make = Commands()
    rows: dict[str, list[float]] = {}
    for batch in BATCHES:
        for name, commands in loads(make, f"by-{batch}", entries // SMALL_PART[batch]):
            rows.setdefault(name, []).append(await applying.cost(commands, batch) * 1e6)
    print(f"{'µs of CPU an entry, in batches of':<36}" + "".join(f"{batch:>8}" for batch in BATCHES))
    for name, costs in rows.items():
        print(f"{name:<36}" + "".join(f"{cost:8.1f}" for cost in costs))


async def main(reactor: Any, arguments: Sequence[str]) -> None:
    """Run all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replicated_apply")
    parser.add_argument("folder", nargs="?", help="a folder on the disk to measure; default: the temporary folder")
    parser.add_argument("--entries", type=int, default=ENTRIES, help="in batches of 256 (default: %(default)s)")
    options = parser.parse_args(arguments)
    pool = ThreadPool(0, 4)
    pool.start()
    try:
        with tempfile.TemporaryDirectory(prefix="callfs-benchmark-", dir=options.folder) as name:
            state = MetadataState(
                Path(name),
                reactor=reactor,
                pool=pool,
                query_pool=pool,
                token_bytes=secrets.token_bytes,
                op_timeout_seconds=60,
                observer=Unobserved(),
            )
            await measured(state, options.entries)
            await state.close()
    finally:
        pool.stop()


if __name__ == "__main__":
    react(main, (sys.argv[1:],))
