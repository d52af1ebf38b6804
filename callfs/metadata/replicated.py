"""Metadata that the nodes of a cluster replicate among themselves, with Raft."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail
from zope.interface import implementer

from callfs.cluster.interfaces import Applied, IReplicator
from callfs.deferreds import returns_deferred
from callfs.errors import MetadataUnavailable
from callfs.metadata import sqlite_queries as queries
from callfs.metadata.commands import Command
from callfs.metadata.interfaces import IMetadataStore, ReplicationBacklog, UnfinishedImport
from callfs.metadata.replicated_apply import METADATA
from callfs.metadata.replicated_codec import decode_answer, encode_command, version_of
from callfs.metadata.replicated_state import MetadataState
from callfs.metadata.sqlite_readers import Readers
from callfs.metadata.sqlite_reads import SqliteReads
from callfs.metadata.transfer import Record

R = TypeVar("R")


@implementer(IMetadataStore)
class ReplicatedStore(SqliteReads):
    """
    The store of a node in a cluster.

    A command goes through the log of all nodes. A read asks first how far the log was when it began, waits until
    this node's copy is there, and then reads the copy: so it sees all that was acknowledged before, on any node.

    :param replicator: the cluster; started and stopped by whoever made it.
    :param state: this node's copy, which the replicator opens and closes.
    """

    def __init__(self, replicator: IReplicator, state: MetadataState) -> None:
        self.store_id = ""
        self.was_empty = False
        self._replicator = replicator
        self._state = state
        self._open = False

    @returns_deferred
    async def open(self, importing: bool = False) -> None:
        """
        Wait until the cluster answers.

        :param importing: open also a store with an unfinished import.
        :raises callfs.metadata.interfaces.UnfinishedImport: there is one.
        :raises callfs.errors.MetadataUnavailable: this node belongs to no cluster yet, or that has no leader now.
        """
        readers = await self._up_to_date()
        self.store_id = await readers.inline(_store_id)
        self.was_empty = await readers.threaded(queries.is_empty)
        if not importing and await readers.inline(queries.unfinished_import) is not None:
            raise UnfinishedImport
        self._open = True

    @returns_deferred
    async def close(self) -> None:
        """Take no more; what is under way ends with the replicator."""
        self._open = False

    @returns_deferred
    async def check(self) -> None:
        """
        Fires when a majority answers.

        :raises callfs.errors.MetadataUnavailable: otherwise.
        """
        await self._up_to_date()

    def apply(self, command: Command[R]) -> Deferred[R]:
        """Apply a command: durable on a majority when the Deferred fires. A cancelled one may have been applied."""
        if not self._open:
            return fail(_not_open())
        proposed = self._replicator.propose(METADATA + encode_command(command), version_of(command))

        def answer(applied: Applied) -> R:
            result: R = decode_answer(command, applied.result)
            return result

        return proposed.addCallback(answer)

    def replication_backlog(self) -> Deferred[Sequence[ReplicationBacklog]]:
        """What waits in the replication queue, by node, within the time limit of reads."""
        return self._threaded(queries.replication_backlog)

    def export(self, consume: Callable[[Sequence[Record]], None]) -> Deferred[None]:
        """Give out everything, in one view; ``consume`` is called on a thread of the pool."""
        return self._export(consume)

    async def _up_to_date(self) -> Readers:
        """This node's copy, once it has all that was acknowledged before the call."""
        await self._replicator.read_barrier()
        return self._state.readers or await self._state.reading()

    @returns_deferred
    async def _export(self, consume: Callable[[Sequence[Record]], None]) -> None:
        self._check_open()
        readers = await self._up_to_date()
        await readers.threaded(queries.export, consume, limited=False)

    def _check_open(self) -> None:
        if not self._open:
            raise _not_open()

    def _inline(self, query: Callable[..., R], *args: Any) -> Deferred[R]:
        if not self._open:
            return fail(_not_open())
        return self._replicator.read_barrier().addCallback(self._answer, query, args)

    def _answer(self, _index: int, query: Callable[..., R], args: tuple[Any, ...]) -> R | Deferred[R]:
        """Without a coroutine, which would cost as much as the query: most reads are these."""
        readers = self._state.readers
        if readers is not None:
            # What is in the way now needn't be the next time, and is explained then.
            with suppress(sqlite3.Error, MetadataUnavailable):
                return readers.at_once(query, *args)
        return self._asked(lambda readers: readers.inline(query, *args))

    def _threaded(self, query: Callable[..., R], *args: Any, limited: bool = True) -> Deferred[R]:
        return self._read(lambda readers: readers.threaded(query, *args, limited=limited))

    def _page(self, limit: int, query: Callable[..., Sequence[R]], *args: Any) -> Deferred[Sequence[R]]:
        return self._read(lambda readers: readers.page(limit, query, *args))

    def _read(self, ask: Callable[[Readers], Deferred[R]]) -> Deferred[R]:
        if not self._open:
            return fail(_not_open())
        return self._replicator.read_barrier().addCallback(lambda _: self._asked(ask))

    @returns_deferred
    async def _asked(self, ask: Callable[[Readers], Deferred[R]]) -> R:
        """Ask this node's copy; once more if another one takes its place meanwhile, which contains no less."""
        readers = self._state.readers or await self._state.reading()
        while True:
            try:
                return await ask(readers)
            except MetadataUnavailable:
                if readers is self._state.readers:
                    raise
            readers = await self._state.reading()


def _not_open() -> MetadataUnavailable:
    return MetadataUnavailable("the metadata store isn't open")


def _store_id(connection: Any) -> str:
    return str(connection.execute("SELECT id FROM store").fetchall()[0][0])
