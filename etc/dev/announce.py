"""Wait until the development daemon is ready, then print a curl line that works."""

from __future__ import annotations

import os
import sys
import time
import urllib.request
from pathlib import Path

from callfs.config.loader import load

PATIENCE_SECONDS = 30


def answers(url: str, key: str) -> bool:
    """Whether what is announced works: another daemon at this address wouldn't know the key."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"})  # noqa: S310 - our own address
    try:
        with urllib.request.urlopen(request, timeout=1) as answer:  # noqa: S310 - our own address
            return bool(answer.status == 200)
    except OSError:
        return False


def main() -> None:
    """Announce the daemon of the configuration that is named on the command line."""
    config = load(Path(sys.argv[1]), os.environ, Path.cwd()).config
    key = next(iter(config.auth.keys_by_user().values()))[0].reveal()
    deadline = time.monotonic() + PATIENCE_SECONDS
    daemon = os.getppid()
    url = f"{config.external_url}/v1/directories/"
    while not answers(url, key):
        if time.monotonic() > deadline or os.getppid() != daemon:
            return
        time.sleep(0.1)
    print(f"\nCallFS runs. Try:\n\n    curl -H 'Authorization: Bearer {key}' {url}\n", flush=True)


if __name__ == "__main__":
    main()
