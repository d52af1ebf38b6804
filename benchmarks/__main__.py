"""
All benchmarks of the daemon, one after the other: ``python -m benchmarks [--quick] [--only NAME] [FOLDER]``.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks import cluster, large, memory, pages, s3, small
from benchmarks.figures import FULL, QUICK, Figure, Scale, table
from benchmarks.servers import require_nginx

_NEEDED_BYTES_PER_LARGE_FILE = 12

_BENCHMARKS: Mapping[str, Callable[[Path, Scale], Iterator[Figure]]] = {
    "large": large.measure,
    "small": small.measure,
    "pages": pages.measure,
    "memory": memory.measure,
    "s3": s3.measure,
    "cluster": cluster.measure,
}


def main(arguments: Sequence[str]) -> int:
    """Measure, print the table; 1 when a target is missed."""
    options = _options(arguments)
    if "large" in options.only:
        require_nginx()
    scale = QUICK if options.quick else FULL
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="callfs-benchmark-", dir=options.folder) as name:
        _check_room(Path(name), scale)
        for benchmark in options.only:
            print(f"{benchmark} ...", file=sys.stderr, flush=True)
            folder = Path(name) / benchmark
            folder.mkdir()
            figures += _BENCHMARKS[benchmark](folder, scale)
            shutil.rmtree(folder)
    print(table(figures))
    return 0 if all(figure.met for figure in figures) else 1


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="How a daemon does against simple programs on the same machine."
    )
    parser.add_argument("folder", nargs="?", help="a folder on the disk to measure; default: the temporary folder")
    parser.add_argument("--quick", action="store_true", help="smaller sizes and fewer rounds: a look, not a figure")
    parser.add_argument(
        "--only", action="append", choices=_BENCHMARKS, metavar="NAME", help=f"one of {', '.join(_BENCHMARKS)}"
    )
    options = parser.parse_args(arguments)
    options.only = options.only or list(_BENCHMARKS)
    return options


def _check_room(folder: Path, scale: Scale) -> None:
    needed = _NEEDED_BYTES_PER_LARGE_FILE * scale.large_bytes
    if shutil.disk_usage(folder).free < needed:
        raise SystemExit(f"the benchmarks need {needed >> 30} GiB free on the disk of {folder}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
