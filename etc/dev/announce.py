"""Wait until the development daemon is ready, then print a curl line that works."""

from __future__ import annotations

import os
import sys
import time
import urllib.request
from pathlib import Path

from callfs.config.loader import load

PATIENCE_SECONDS = 30


def is_ready(url: str) -> bool:
    """Whether the daemon answers."""
    try:
        with urllib.request.urlopen(f"{url}/health/ready", timeout=1) as answer:  # noqa: S310 - our own address
            return bool(answer.status == 200)
    except OSError:
        return False


def main() -> None:
    """Announce the daemon of the configuration that is named on the command line."""
    config = load(Path(sys.argv[1]), os.environ, Path.cwd()).config
    key = next(iter(config.auth.keys_by_user().values()))[0].reveal()
    deadline = time.monotonic() + PATIENCE_SECONDS
    daemon = os.getppid()
    while not is_ready(config.external_url):
        if time.monotonic() > deadline or os.getppid() != daemon:
            return
        time.sleep(0.1)
    url = f"{config.external_url}/v1/directories/"
    print(f"\nCallFS runs. Try:\n\n    curl -H 'Authorization: Bearer {key}' {url}\n", flush=True)


if __name__ == "__main__":
    main()
