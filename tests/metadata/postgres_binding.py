"""Opens PostgreSQL stores for trial's test cases."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

from twisted.internet import reactor

from callfs.metadata.interfaces import IMetadataStore
from callfs.metadata.postgres import PostgresStore
from tests.support.commands import Commands
from tests.support.postgres import PostgresServer, shared_server

_seeds = count(1000)


class PostgresBinding:
    """To be mixed, first, with trial's ``TestCase``: stores in schemas of their own on a shared server."""

    timeout = 100
    dsn: str | None = None
    addCleanup: Callable[..., None]

    def server(self) -> PostgresServer:
        """The server."""
        return shared_server()

    def postgres_store(self, dsn: str, **options: Any) -> PostgresStore:
        """A store that isn't open yet."""
        # Two nodes never make the same ids.
        given: dict[str, Any] = {
            "token_bytes": Commands(next(_seeds)).token_bytes,
            "op_timeout_seconds": 20.0,
            "pool_size": 6,
        }
        return PostgresStore(dsn, reactor=reactor, **(given | options))

    async def opened(self, dsn: str, **options: Any) -> PostgresStore:
        """A store that is closed with the test."""
        store = self.postgres_store(dsn, **options)
        await store.open()
        self.addCleanup(store.close)
        return store

    async def open_store(self) -> IMetadataStore:
        """A store in an empty schema."""
        dsn = self.server().new_schema()
        if self.dsn is None:
            self.dsn = dsn
        return await self.opened(dsn)

    async def open_other(self) -> IMetadataStore:
        """A second node on the first store's schema."""
        assert self.dsn is not None
        return await self.opened(self.dsn)
