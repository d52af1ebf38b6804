"""
One large file at a time against nginx.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from benchmarks.clients import answered, download, upload
from benchmarks.figures import GIB, Figure, Scale, alternating, compared
from benchmarks.servers import Server, daemon, nginx

_BLOCK_BYTES = 1 << 24


def make_source(path: Path, size: int) -> Path:
    """A file of random bytes."""
    block = os.urandom(_BLOCK_BYTES)
    with path.open("wb") as file:
        for _ in range(size // _BLOCK_BYTES):
            file.write(block)
    return path


def measure(folder: Path, scale: Scale) -> Iterator[Figure]:
    """Uploads, then downloads of what was uploaded."""
    source = make_source(folder / "source", scale.large_bytes)
    with daemon(folder / "daemon") as (_, ours), nginx(folder / "nginx") as theirs:
        yield _uploads(ours, theirs, source, scale)
        yield _downloads(ours, theirs, scale)


def _uploads(ours: Server, theirs: Server, source: Path, scale: Scale) -> Figure:
    """With SHA-256 and fsync, against WebDAV's PUT, which does neither. Each goes where no file is."""
    for server, target in ((ours, "/v1/files/big"), (theirs, "/big")):
        upload(server, target, source)

    def put(server: Server, target: str) -> float:
        answered(server, "DELETE", target)
        os.sync()
        return upload(server, target, source) / GIB

    rates = alternating(scale.rounds, lambda: put(ours, "/v1/files/big"), lambda: put(theirs, "/big"))
    return compared("one large upload, of nginx's WebDAV PUT", 0.5, rates, "GiB/s", "nginx")


def _downloads(ours: Server, theirs: Server, scale: Scale) -> Figure:
    def get(server: Server, target: str) -> float:
        return download(server, target, scale.large_bytes) / GIB

    rates = alternating(scale.rounds, lambda: get(ours, "/v1/files/big"), lambda: get(theirs, "/big"))
    return compared("one large download, of nginx", 0.7, rates, "GiB/s", "nginx")
