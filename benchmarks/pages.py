"""
A page of a large directory against one of a small directory.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.clients import answered
from benchmarks.figures import Figure, Scale
from benchmarks.servers import Server, daemon
from tests.support.forking import child_environment

PAGE = 1000
_PAGES_A_ROUND = 10


def measure(folder: Path, scale: Scale) -> Iterator[Figure]:
    """Over HTTP: the first page of each, and one from the middle of the large directory."""
    with daemon(folder / "daemon") as (node, server):
        # Over HTTP this would take minutes, and how the files got there doesn't matter to a listing.
        node.terminate()
        _fill(node.database, "/small", PAGE)
        _fill(node.database, "/large", scale.directory_entries)
        node.start()
        targets = {
            "small": f"/v1/directories/small?limit={PAGE}",
            "first": f"/v1/directories/large?limit={PAGE}",
            "middle": _middle(server, scale),
        }
        times: dict[str, list[float]] = {name: [] for name in targets}
        for _ in range(scale.rounds * _PAGES_A_ROUND):
            for name, target in targets.items():
                began = time.perf_counter()
                page = answered(server, "GET", target)
                times[name].append(time.perf_counter() - began)
                assert json.loads(page)["count"] == PAGE
    yield _figure(times, scale)


def _figure(times: dict[str, list[float]], scale: Scale) -> Figure:
    """The slower of the large directory's pages counts."""
    medians = {name: statistics.median(found) for name, found in times.items()}
    return Figure(
        name=f"page of {PAGE:,} of {scale.directory_entries:,} entries, of one of {PAGE:,}",
        value=max(medians["first"], medians["middle"]) / medians["small"],
        target=1.5,
        detail="; ".join(f"{name} {median * 1000:.1f} ms" for name, median in medians.items()),
        at_most=True,
    )


def _fill(database: Path, directory: str, count: int) -> None:
    command = [sys.executable, "-m", "benchmarks.filling", str(database), directory, str(count)]
    subprocess.run(command, check=True, env=child_environment())


def _middle(server: Server, scale: Scale) -> str:
    """The page that follows half of the large directory."""
    first = f"/v1/directories/large?limit={PAGE}"
    target = first
    for _ in range(scale.directory_entries // 2 // PAGE):
        target = f"{first}&cursor={json.loads(answered(server, 'GET', target))['next_cursor']}"
    return target
