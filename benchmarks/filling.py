"""
Puts files into the database of a daemon that is down: ``python -m benchmarks.filling DATABASE DIRECTORY COUNT``.

Their bytes are nowhere: it is for listings alone.
"""

from __future__ import annotations

import secrets
import sys
import time
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.internet.task import react
from twisted.python.threadpool import ThreadPool

from callfs.identifiers import new_blob_id, new_content_id, new_inode_id
from callfs.metadata.commands import CreateFile
from callfs.metadata.sqlite import SqliteStore
from callfs.model import BlobRef, LocalPlacement, Principal

OWNER = "alice"
_TOGETHER = 500


def creation(path: str) -> CreateFile:
    """A command as the engine makes it."""
    now = time.time_ns() // 1000
    return CreateFile(
        at=now,
        principal=Principal(OWNER),
        path=path,
        inode_id=new_inode_id(secrets.token_bytes),
        content_id=new_content_id(secrets.token_bytes),
        blob=BlobRef(new_blob_id(now, secrets.token_bytes), 1024, bytes(32), LocalPlacement("node-1")),
        content_type="text/plain",
        parent_ids=(new_inode_id(secrets.token_bytes),),
    )


async def main(reactor: Any, database: str, directory: str, count: str) -> None:
    """For ``react``."""
    pool = ThreadPool(0, 2)
    pool.start()
    store = SqliteStore(
        database, reactor=reactor, pool=pool, token_bytes=secrets.token_bytes, op_timeout_seconds=60
    )
    try:
        await store.open()
        for start in range(0, int(count), _TOGETHER):
            end = min(start + _TOGETHER, int(count))
            await gatherResults([store.apply(creation(f"{directory}/{n:06}")) for n in range(start, end)])
    finally:
        await store.close()
        pool.stop()


if __name__ == "__main__":
    react(main, sys.argv[1:])
