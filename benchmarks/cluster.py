"""
Large files through a node that doesn't have them, against the node that does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.clients import download, upload
from benchmarks.figures import GIB, MIB, Figure, Scale, alternating, compared
from benchmarks.large import make_source
from benchmarks.servers import Server, two_nodes
from tests.support.daemon import Daemon

_TARGET = "/v1/files/big"


def measure(folder: Path, scale: Scale) -> Iterator[Figure]:
    """One large file of the first of two nodes: read, then replaced, through either; one transfer at a time."""
    source = make_source(folder / "source", scale.large_bytes)
    with two_nodes(folder / "nodes") as ((_, holder), (between, other)):
        upload(holder, _TARGET, source)
        growths: dict[str, float] = {}

        def get(server: Server) -> float:
            return download(server, _TARGET, scale.large_bytes) / GIB

        def put(server: Server) -> float:
            return upload(server, _TARGET, source) / GIB

        def watched(name: str, transfer: Callable[[Server], float]) -> float:
            rate, growth = _growth_during(between, lambda: transfer(other))
            growths[name] = max(growth, growths.get(name, growth))
            return rate

        for warm in (put, get):
            warm(other)
        os.sync()
        for name, transfer in (("download", get), ("upload", put)):
            rates = alternating(scale.rounds, partial(watched, name, transfer), partial(transfer, holder))
            yield compared(f"one large {name} through another node", 0.5, rates, "GiB/s", "the direct one")
    for name, growth in growths.items():
        yield _memory(name, growth)


def _growth_during(node: Daemon, transfer: Callable[[], float]) -> tuple[float, float]:
    """What a transfer returns, and MiB at the peak above what was resident before."""
    before = node.resident_bytes()
    node.forget_peak()
    rate = transfer()
    return rate, (node.resident_bytes(peak=True) - before) / MIB


def _memory(name: str, growth: float) -> Figure:
    return Figure(
        name=f"memory of the node between, one large {name}",
        value=growth,
        target=64,
        detail="of resident memory, above what it was before",
        at_most=True,
        unit="MiB",
    )
