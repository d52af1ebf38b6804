"""
A daemon that kills itself: ``python -m tests.support.failing_daemon STEP N -c CONFIG``.

It is the ordinary server with one collaborator more: when the step is reached for the N-th time (counted from 1,
over all threads) the process ends by SIGKILL, as when it is killed from outside.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from callfs.cli.server import run_server


def killer(step: str, occurrence: int) -> Callable[[str], None]:
    """A failpoint that ends the process at the ``occurrence``-th reaching of ``step``."""
    lock = threading.Lock()
    seen = 0

    def reached(current: str) -> None:
        nonlocal seen
        if current != step:
            return
        with lock:
            seen += 1
            if seen == occurrence:
                os.kill(os.getpid(), signal.SIGKILL)

    return reached


def main() -> None:
    """Parse the three arguments and run."""
    step, occurrence, flag, config = sys.argv[1:]
    if flag != "-c":
        raise SystemExit("usage: failing_daemon STEP N -c CONFIG")
    sys.exit(run_server(Path(config), reached=killer(step, int(occurrence))))


if __name__ == "__main__":
    main()
