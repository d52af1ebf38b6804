"""Ports for what tests start."""

from __future__ import annotations

import os
import random
import re
import socket
from collections.abc import Iterator
from itertools import cycle

_FIRST, _BEYOND = 10_000, 32_000
"""Below those that systems give to outgoing connections, which would take one between its choice and its use."""
_SHARES = 16
"""So many test processes can run side by side without getting into each other's way."""


def _candidates() -> Iterator[int]:
    """The share of this test process, again and again, begun anywhere: each is offered once in a long time."""
    worker = re.search(r"\d+$", os.environ.get("PYTEST_XDIST_WORKER", ""))
    share = int(worker[0]) % _SHARES if worker else _SHARES - 1
    size = (_BEYOND - _FIRST) // _SHARES
    first = _FIRST + share * size
    begin = random.randrange(size)
    return cycle([first + (begin + offset) % size for offset in range(size)])


_ports = _candidates()


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on, and that nobody else is given soon."""
    for port in _ports:
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
        return port
    raise AssertionError("unreachable: the candidates never end")
