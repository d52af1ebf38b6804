"""
A node of PySyncObj in ``benchmarks.raft``: ``python -m benchmarks.raft_pysyncobj MILLISECONDS OWN OTHER OTHER``.

It keeps everything in memory and never synchronises. One thread does all, since a second one would only compete for
the interpreter's lock. ``MILLISECONDS`` is between two batches (``appendEntriesPeriod``, by default 100); 0 sends
each entry alone and at once.
"""

from __future__ import annotations

import json
import math
import os
import select
import sys
import time
from typing import Any

from pysyncobj import SyncObj, SyncObjConf, replicated  # type: ignore[import-untyped]

from benchmarks.raft_loads import ENTRY_BYTES, Alone, Ended, Load

_IDLE_SECONDS = 0.01
_ACTIVE_SECONDS = 0.2
_ONE_BY_ONE_PERIOD_SECONDS = 0.05


class Counting(SyncObj):  # type: ignore[misc]
    """Counts entries."""

    def __init__(self, own: str, others: list[str], period_seconds: float) -> None:
        super().__init__(
            own,
            others,
            SyncObjConf(
                autoTick=False,
                appendEntriesUseBatch=period_seconds > 0,
                appendEntriesPeriod=period_seconds or _ONE_BY_ONE_PERIOD_SECONDS,
                # Nobody stands for election because the machine is busy.
                raftMinTimeout=1.0,
                raftMaxTimeout=2.0,
                connectionRetryTime=0.2,
            ),
        )
        self.count = 0

    @replicated  # type: ignore[untyped-decorator]
    def put(self, data: bytes) -> int:
        """One entry."""
        self.count += 1
        return self.count


class Node:
    """Does what standard input says."""

    def __init__(self, node: Counting, wait_seconds: float) -> None:
        self._node = node
        self._wait_seconds = wait_seconds
        self._entry = os.urandom(ENTRY_BYTES)
        self._applied = 0
        self._active_until = 0.0

    def run(self) -> None:
        """Until nobody asks any more."""
        while True:
            self._node.doTick(self._wait_seconds if self._is_active() else _IDLE_SECONDS)
            if select.select([sys.stdin], [], [], 0)[0]:
                line = sys.stdin.readline()
                if not line:
                    return
                self._do(json.loads(line))

    def _do(self, asked: dict[str, Any]) -> None:
        if asked["do"] == "load":
            self._active_until = math.inf
            Load(self._put, asked["in_flight"], asked["seconds"], self._ended)
        elif asked["do"] == "alone":
            self._active_until = math.inf
            Alone(self._put, asked["count"], self._ended)
        elif asked["do"] == "leads":
            leader = self._node._getLeader()
            _answer(self._node.isReady() and leader == self._node.selfNode if leader is not None else None)
        else:
            _answer(time.process_time())

    def _ended(self, answer: Any) -> None:
        self._active_until = 0.0
        _answer(answer)

    def _is_active(self) -> bool:
        """While others are measured a node takes no more of the processor than it has to."""
        now = time.monotonic()
        if self._node.count != self._applied:
            self._applied = self._node.count
            self._active_until = max(self._active_until, now + _ACTIVE_SECONDS)
        return now < self._active_until

    def _put(self, ended: Ended) -> None:
        def done(result: object, error: int) -> None:
            if error:
                raise SystemExit(f"PySyncObj refused an entry: {error}")
            ended()

        self._node.put(self._entry, callback=done)


def _answer(answer: Any) -> None:
    print(json.dumps(answer), flush=True)


def main(milliseconds: str, own: str, *others: str) -> None:
    """Run until killed."""
    period_seconds = float(milliseconds) / 1000
    Node(Counting(own, list(others), period_seconds), min(period_seconds, _IDLE_SECONDS) or _IDLE_SECONDS).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
