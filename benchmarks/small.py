"""
Many small files over 32 connections: reading against a bare Klein route, writing against the disk itself.
"""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.clients import answered, rate
from benchmarks.figures import Figure, Scale, alternating, compared
from benchmarks.servers import Server, bare_klein, daemon

_CONTENT = b"x" * 1024
_READ_FILES = 1000


def measure(folder: Path, scale: Scale) -> Iterator[Figure]:
    """GET, then PUT."""
    with daemon(folder / "daemon") as (_, ours):
        yield _gets(ours, folder, scale)
        yield _puts(ours, folder, scale)


def _gets(ours: Server, folder: Path, scale: Scale) -> Figure:
    """Different files, one after the other, so that nothing is remembered of the request before."""
    targets = [f"/v1/files/read/{number:04}" for number in range(_READ_FILES)]
    for target in targets:
        answered(ours, "PUT", target, _CONTENT)
    our_requests = itertools.cycle([ours.head("GET", target) for target in targets])
    with bare_klein(folder / "klein") as theirs:
        their_requests = itertools.repeat(theirs.head("GET", "/small"))
        rates = alternating(
            scale.load_rounds,
            lambda: rate(ours, our_requests, scale.load_seconds),
            lambda: rate(theirs, their_requests, scale.load_seconds),
        )
    return compared("GET of 1 KiB, 32 connections, of a bare Klein route", 0.5, rates, "a second", "Klein")


def _puts(ours: Server, folder: Path, scale: Scale) -> Figure:
    """New files, each durable with its name when it is answered."""
    plain = folder / "plain"
    plain.mkdir()
    requests = _put_requests(ours)
    written = 0.0
    # The first writes make the 1,024 folders of a root; what counts is a root that has them.
    while written < scale.warm_files:
        written += rate(ours, requests, 1.0)
    rates = alternating(
        scale.load_rounds,
        lambda: rate(ours, requests, scale.load_seconds),
        lambda: _create_and_fsync(plain, scale.load_seconds),
    )
    shutil.rmtree(plain)
    return compared("PUT of 1 KiB, 32 connections, of create + fsync", 0.4, rates, "a second", "the loop")


def _put_requests(server: Server) -> Iterator[bytes]:
    for number in itertools.count():
        head = server.head("PUT", f"/v1/files/written/{number:08}", f"Content-Length: {len(_CONTENT)}\r\n")
        yield head + _CONTENT


def _create_and_fsync(folder: Path, seconds: float) -> float:
    """Files a second of one process that creates and fsyncs in a loop; the names are durable now and then."""
    began = time.perf_counter()
    count = 0
    while time.perf_counter() - began < seconds:
        fd = os.open(folder / f"{time.monotonic_ns()}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(fd, _CONTENT)
        os.fsync(fd)
        os.close(fd)
        count += 1
    return count / (time.perf_counter() - began)
