"""Opens replicated stores for trial's test cases: real states, behind a log of one node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet import reactor

from callfs.metadata.interfaces import IMetadataStore
from callfs.metadata.replicated import ReplicatedStore
from callfs.metadata.replicated_state import MetadataState
from callfs.metadata.sqlite import Unobserved
from tests.metadata.ondisk import OnDisk
from tests.support.commands import Commands
from tests.support.single_log import SingleLog


class SingleLogBinding(OnDisk):
    """To be mixed, first, with trial's ``TestCase``: stores in folders that go away with the test."""

    _log: SingleLog | None = None
    _state: MetadataState | None = None

    def state(self, folder: Path, **options: Any) -> MetadataState:
        """A state that isn't open yet."""
        return MetadataState(
            folder,
            reactor=reactor,  # type: ignore[arg-type]
            pool=self.pool(),
            query_pool=self.pool(),
            token_bytes=Commands().token_bytes,
            op_timeout_seconds=20.0,
            observer=Unobserved(),
            **options,
        )

    async def open_store(self) -> IMetadataStore:
        """A store with an empty state."""
        state = self.state(self.folder())
        log = SingleLog(state)
        await log.start()
        self.addCleanup(log.stop)
        if self._log is None:
            self._log, self._state = log, state
        store = ReplicatedStore(log, state)
        await store.open()
        return store

    async def open_other(self) -> IMetadataStore:
        """Another store on the first one's log."""
        assert self._log is not None
        assert self._state is not None
        store = ReplicatedStore(self._log, self._state)
        await store.open()
        return store
