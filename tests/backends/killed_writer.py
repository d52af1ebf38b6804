"""A process that writes one blob and kills itself at a step of it: ``python -m ... ROOT ID SIZE STEP``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.python.threadpool import ThreadPool

from callfs.backends.localfs import LocalBackend
from tests.contract.backends import Instant, content, put


def main(reactor: Any, root: str, blob_id: str, size: str, last_step: str) -> Deferred[None]:
    """Write; no clean-up runs after a SIGKILL."""

    def reached(step: str) -> None:
        if step == last_step:
            os.kill(os.getpid(), signal.SIGKILL)

    pool = ThreadPool(0, 4)
    pool.start()
    backend = LocalBackend(Path(root), reactor=reactor, pool=pool, now=Instant(), min_free_bytes=0, reached=reached)

    async def write() -> None:
        await put(backend, content(int(size)), blob_id)

    return Deferred.fromCoroutine(write())


if __name__ == "__main__":
    react(main, sys.argv[1:])
