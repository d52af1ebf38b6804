"""
The memory of a daemon while many large files go both ways.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.clients import download, upload
from benchmarks.figures import MIB, Figure, Scale
from benchmarks.large import make_source
from benchmarks.servers import daemon

TRANSFERS = 8


def measure(folder: Path, scale: Scale) -> Iterator[Figure]:
    """Eight uploads and eight downloads at once: the peak less what was resident before, as the kernel counts."""
    source = make_source(folder / "source", scale.large_bytes)
    with daemon(folder / "daemon") as (node, server):
        upload(server, "/v1/files/warm", source)
        download(server, "/v1/files/warm", scale.large_bytes)
        before = node.resident_bytes()
        node.forget_peak()
        with ThreadPoolExecutor(2 * TRANSFERS) as threads:
            transfers = [
                transfer
                for number in range(TRANSFERS)
                for transfer in (
                    threads.submit(upload, server, f"/v1/files/{number}", source),
                    threads.submit(download, server, "/v1/files/warm", scale.large_bytes),
                )
            ]
            for transfer in transfers:
                transfer.result()
        growth = (node.resident_bytes(peak=True) - before) / MIB
    yield Figure(
        name=f"memory, {TRANSFERS} uploads and {TRANSFERS} downloads at once",
        value=growth,
        target=100,
        detail=f"of resident memory, from {before / MIB:.0f} MiB before",
        at_most=True,
        unit="MiB",
    )
