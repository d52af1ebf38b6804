"""The engine in front of a metadata store, for the benchmarks of the stores: calls as requests make them."""

from __future__ import annotations

import time
from secrets import token_bytes
from typing import Any

from twisted.internet.defer import Deferred

from callfs.backends.memory import MemoryBackend
from callfs.engine.filesystem import Filesystem, Upload
from callfs.engine.settings import EngineSettings
from callfs.locks.local import LocalLocks
from callfs.metadata.commands import Written
from callfs.metadata.interfaces import IMetadataStore
from callfs.metrics import Metrics
from callfs.model import Inode, Principal

CLIENT = Principal("alice")


class ThroughEngine:
    """
    The two calls of a store that are measured, through a file system with its bytes in memory.

    A look-up is what HEAD does. A creation is what POST with a small body does: a blob staged and committed, the
    path locked, then the store's command, which decides about access and conflicts. The body is empty: what is
    measured is names.
    """

    def __init__(self, store: IMetadataStore, reactor: Any) -> None:
        self.store_id = store.store_id
        self._filesystem = Filesystem(
            metadata=store,
            backends={"localfs": MemoryBackend(now=_instant, name="localfs")},
            locks=LocalLocks(reactor),
            settings=EngineSettings(instance_id="node-1"),
            now=_instant,
            clock=reactor,
            token_bytes=token_bytes,
            metrics=Metrics(),
            link_secrets=[b"not used"],
        )

    def get(self, path: str) -> Deferred[Inode]:
        """Look a path up."""
        return Deferred.fromCoroutine(self._filesystem.stat(CLIENT, path))

    def create(self, path: str) -> Deferred[Written]:
        """Create a file."""
        upload = Upload(body=b"", max_size=0, declared_size=0)
        return Deferred.fromCoroutine(self._filesystem.create_file(CLIENT, path, upload))


def _instant() -> int:
    return time.time_ns() // 1000
