"""
One large upload to S3 against boto3, on the same server in the same run.
"""

from __future__ import annotations

import json
import os
import random
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.python.threadpool import ThreadPool

from benchmarks.figures import GIB, MIB, Figure, Scale, alternating, compared
from benchmarks.large import make_source
from callfs.backends.s3 import S3Backend
from callfs.backends.s3_settings import S3Settings
from callfs.config.secret import Secret
from callfs.identifiers import new_blob_id
from tests.support.forking import die_with_parent
from tests.support.s3 import S3Server

_CHUNK_BYTES = 64 * 1024
_ROUNDS = 3
_DISK_THREADS = 8


def measure(folder: Path, scale: Scale) -> Iterator[Figure]:
    """
    Through the backend, with SHA-256 of all content and of every part, against ``upload_fileobj``. Each upload is
    of a process of its own; the time is from its first byte to the last reply.
    """
    source = make_source(folder / "source", scale.large_bytes)
    server = S3Server().start()
    growths: list[float] = []

    def upload(side: str) -> float:
        took, growth = _in_a_process(side, source, server)
        if side == "ours":
            growths.append(growth)
        client = server.client()
        for key in server.keys("benchmark/"):
            client.delete_object(Bucket=server.bucket, Key=key)
        return scale.large_bytes / took / GIB

    try:
        rounds = min(scale.rounds, _ROUNDS)
        rates = alternating(rounds, lambda: upload("ours"), lambda: upload("boto3"))
    finally:
        server.stop()
    yield compared("one large upload to S3, of boto3", 0.6, rates, "GiB/s", "boto3")
    yield Figure(
        name="memory, one large upload to S3",
        value=max(growths),
        target=64,
        detail="of resident memory, above what it was before",
        at_most=True,
        unit="MiB",
    )


def _in_a_process(side: str, source: Path, server: S3Server) -> tuple[float, float]:
    """Seconds, and MiB of memory at the peak above what it was before."""
    words = [side, str(source), server.endpoint, server.bucket, server.region, server.access_key, server.encryption]
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.s3", *words],
        capture_output=True,
        check=True,
        env=os.environ | {"CALLFS_BENCHMARK_S3_SECRET": server.secret_key},
        preexec_fn=die_with_parent,
    )
    took, growth = json.loads(run.stdout)
    return took, growth


class _Watch:
    """Time and memory of what goes on between its beginning and :meth:`report`."""

    def __init__(self) -> None:
        # Forgets the peak so far (proc_pid_clear_refs(5)).
        Path("/proc/self/clear_refs").write_text("5")
        self._before = _resident_bytes("VmRSS")
        self._began = time.perf_counter()

    def report(self) -> None:
        """For :func:`_in_a_process`."""
        took = time.perf_counter() - self._began
        print(json.dumps([took, (_resident_bytes("VmHWM") - self._before) / MIB]))


def _resident_bytes(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def _boto3(source: Path, settings: S3Settings) -> None:
    """Warm: one small upload before."""
    import io

    import boto3

    assert settings.access_key is not None
    assert settings.secret_key is not None
    client = boto3.client(
        "s3",
        endpoint_url=settings.endpoint,
        region_name=settings.region,
        aws_access_key_id=settings.access_key.reveal(),
        aws_secret_access_key=settings.secret_key.reveal(),
    )
    client.upload_fileobj(io.BytesIO(b"warm"), settings.bucket, "benchmark/warm")
    watch = _Watch()
    with source.open("rb") as file:
        client.upload_fileobj(file, settings.bucket, "benchmark/boto3")
    watch.report()


async def _through_the_backend(reactor: Any, source: Path, settings: S3Settings) -> None:
    pool = ThreadPool(0, _DISK_THREADS)
    pool.start()
    backend = S3Backend(
        settings, reactor=reactor, pool=pool, now=_instant, clock=reactor, random=random.SystemRandom().random
    )
    try:
        await _upload(backend, [b"warm"], 4)
        watch = _Watch()
        with source.open("rb", buffering=0) as file:
            await _upload(backend, iter(lambda: file.read(_CHUNK_BYTES), b""), os.fstat(file.fileno()).st_size)
        watch.report()
    finally:
        await backend.close()
        pool.stop()


async def _upload(backend: S3Backend, chunks: Any, size: int) -> None:
    staged = await backend.stage(new_blob_id(_instant(), secrets.token_bytes), size)
    for chunk in chunks:
        await staged.write(chunk)
    await staged.commit()


def _instant() -> int:
    return time.time_ns() // 1000


def main(side: str, source: str, endpoint: str, bucket: str, region: str, access_key: str, encryption: str) -> None:
    """One upload, in a process of its own."""
    settings = S3Settings(
        bucket=bucket,
        key_prefix="benchmark/",
        access_key=Secret(access_key),
        secret_key=Secret(os.environ["CALLFS_BENCHMARK_S3_SECRET"]),
        region=region,
        endpoint=endpoint,
        server_side_encryption=encryption,
    )
    if side == "boto3":
        _boto3(Path(source), settings)
        return
    run: Callable[[Any], Deferred[None]] = lambda reactor: Deferred.fromCoroutine(  # noqa: E731
        _through_the_backend(reactor, Path(source), settings)
    )
    react(run, [])


if __name__ == "__main__":
    main(*sys.argv[1:])
