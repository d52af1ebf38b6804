"""
CallFS's raft against PySyncObj, and against the disk: ``python -m benchmarks.raft [--quick] [FOLDER]``.

Three processes of each on 127.0.0.1, in the same run and in turns. Ours synchronise every entry on a majority
before they answer; PySyncObj's keep all in memory. It is measured twice: as it comes, which is what the target is
about, and with whichever of its settings was the fastest just before, which is told beside it. Prints a table; the
exit status is 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import Figure, table
from benchmarks.raft_loads import NodeProcess, Trio
from tests.support.ports import free_port

IN_FLIGHT = 256
AS_IT_COMES_MILLISECONDS = 100
"""Between two batches of PySyncObj when nobody sets anything."""

PERIODS_MILLISECONDS = (0, 1, 5, 20, AS_IT_COMES_MILLISECONDS)
"""Of PySyncObj's batches; 0 for none."""

_FSYNC_BYTES = 4096


@dataclass(frozen=True)
class Scale:
    """
    How much is done.

    :param rounds: in which what is compared takes turns.
    :param seconds: of one load.
    :param alone: requests one after the other, in a round.
    """

    rounds: int
    seconds: float
    alone: int


FULL = Scale(rounds=7, seconds=2.0, alone=100)
QUICK = Scale(rounds=2, seconds=1.0, alone=30)


def ours(kind: str, folder: Path) -> Trio:
    """Three nodes with that state."""
    place = folder / kind
    place.mkdir()
    names = ("n1", "n2", "n3")
    peers = [f"{name}=127.0.0.1:{free_port()}" for name in names]
    return Trio(
        [
            NodeProcess("benchmarks.raft_node", [kind, str(place / name), name, *peers], place / f"{name}.log")
            for name in names
        ]
    )


def theirs(period_milliseconds: int, folder: Path) -> Trio:
    """Three nodes of PySyncObj."""
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(3)]
    return Trio(
        [
            NodeProcess(
                "benchmarks.raft_pysyncobj",
                [str(period_milliseconds), own, *(each for each in addresses if each != own)],
                folder / "pysyncobj.log",
            )
            for own in addresses
        ]
    )


def fastest_period(folder: Path, seconds: float) -> int:
    """PySyncObj's best setting on this machine, now."""
    rates = {}
    for period in PERIODS_MILLISECONDS:
        with theirs(period, folder) as trio:
            rates[period] = written(trio, seconds)
    shown = ", ".join(f"{period} ms {rate:,.0f}/s" for period, rate in rates.items())
    print(f"PySyncObj by time between batches (0: no batches): {shown}", file=sys.stderr)
    return max(rates, key=lambda period: rates[period])


def written(trio: Trio, seconds: float) -> float:
    """Entries per second, asked for on the leader."""
    return float(trio.leader().ask("load", what="write", in_flight=IN_FLIGHT, seconds=seconds))


def fsyncs(folder: Path, count: int) -> list[float]:
    """How long it takes to make a block at the end of a file durable, in seconds."""
    took = []
    descriptor = os.open(folder / "fsyncs", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for _ in range(count):
            began = time.perf_counter()
            os.write(descriptor, bytes(_FSYNC_BYTES))
            os.fsync(descriptor)
            took.append(time.perf_counter() - began)
    finally:
        os.close(descriptor)
    return took


class Comparison:
    """
    All figures of our nodes with one state.

    :param name: of that state.
    :param period: PySyncObj's fastest.
    """

    def __init__(self, name: str, folder: Path, scale: Scale, period: int) -> None:
        self._name = name
        self._folder = folder
        self._scale = scale
        self._period = period
        self._ours: list[float] = []
        self._plain: list[float] = []
        self._tuned: list[float] = []
        self._reads: list[float] = []
        self._their_reads: list[float] = []
        self._alone: list[float] = []
        self._fsyncs: list[float] = []
        self._cpu = [0.0, 0.0, 0.0, 0.0]

    def figures(self) -> list[Figure]:
        """Measure."""
        with (
            ours(self._name, self._folder) as trio,
            theirs(AS_IT_COMES_MILLISECONDS, self._folder) as plain,
            theirs(self._period, self._folder) as tuned,
        ):
            entry_bytes = trio.leader().ask("entry_bytes")
            for _ in range(self._scale.rounds):
                self._round(trio, plain, tuned)
        return [self._throughput(entry_bytes), self._latency(), self._reading()]

    def _round(self, trio: Trio, plain: Trio, tuned: Trio) -> None:
        seconds = self._scale.seconds
        loads = ((trio, self._ours), (plain, self._plain), (tuned, self._tuned))
        for number, (nodes, rates) in enumerate(loads):
            before = nodes.cpu_seconds()
            rates.append(written(nodes, seconds))
            self._cpu[number] += (nodes.cpu_seconds() - before) / (rates[-1] * seconds) / self._scale.rounds
        self._fsyncs += fsyncs(self._folder, self._scale.alone)
        self._alone += trio.leader().ask("alone", what="write", count=self._scale.alone)
        follower = trio.follower()
        before = trio.cpu_seconds()
        self._reads.append(follower.ask("load", what="read", in_flight=IN_FLIGHT, seconds=seconds))
        self._cpu[3] += (trio.cpu_seconds() - before) / (self._reads[-1] * seconds) / self._scale.rounds
        # The only read of PySyncObj that is linearizable: through its log, like a write.
        self._their_reads.append(tuned.follower().ask("load", what="write", in_flight=IN_FLIGHT, seconds=seconds))

    def _throughput(self, entry_bytes: int) -> Figure:
        ratios = [one / other for one, other in zip(self._ours, self._plain, strict=True)]
        best = [one / other for one, other in zip(self._ours, self._tuned, strict=True)]
        one, plain, tuned = (statistics.median(rates) for rates in (self._ours, self._plain, self._tuned))
        own_cpu, plain_cpu, tuned_cpu = (f"{seconds * 1e6:,.0f}" for seconds in self._cpu[:3])
        detail = (
            f"{one:,.0f} of {plain:,.0f} a second; {_range(ratios)}. Of PySyncObj with its best setting "
            f"({self._period} ms, {tuned:,.0f} a second) {statistics.median(best):.2f}; {_range(best)}. "
            f"CPU of all three {own_cpu} µs an entry, PySyncObj's {plain_cpu} and {tuned_cpu}"
        )
        return Figure(
            f"{self._name}: entries of {entry_bytes} bytes, {IN_FLIGHT} in flight, of PySyncObj as it comes",
            statistics.median(ratios),
            3,
            detail,
        )

    def _latency(self) -> Figure:
        fsync = statistics.median(self._fsyncs) * 1000
        return Figure(
            f"{self._name}: one entry at a time, p50",
            statistics.median(self._alone) * 1000,
            round(3 * fsync + 1, 1),
            f"three fsyncs of {fsync:.2f} ms and 1 ms",
            at_most=True,
            unit="ms",
        )

    def _reading(self) -> Figure:
        ratios = [one / other for one, other in zip(self._reads, self._their_reads, strict=True)]
        return Figure(
            f"{self._name}: linearizable reads on a follower, {IN_FLIGHT} waiting",
            statistics.median(self._reads),
            10_000,
            f"rounds from {min(self._reads):,.0f} to {max(self._reads):,.0f}; "
            f"{statistics.median(ratios):.1f} times what PySyncObj reads through its log there; "
            f"CPU of all three {self._cpu[3] * 1e6:,.0f} µs a read",
            unit="/s",
        )


def _range(ratios: Sequence[float]) -> str:
    return f"rounds from {min(ratios):.2f} to {max(ratios):.2f}"


def main(arguments: Sequence[str]) -> int:
    """Measure, print the table; 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.raft", description=str(__doc__).split("\n\n")[0])
    parser.add_argument("folder", nargs="?", help="a folder on the disk to measure; default: the temporary folder")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a look, not a figure")
    options = parser.parse_args(arguments)
    scale = QUICK if options.quick else FULL
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="callfs-benchmark-", dir=options.folder) as name:
        folder = Path(name)
        period = fastest_period(folder, scale.seconds)
        for kind in ("light", "metadata"):
            figures += Comparison(kind, folder, scale, period).figures()
    print(table(figures))
    return 0 if all(figure.met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
