"""Moving to and from the PostgreSQL store: everything it has in one view, and an unfinished import cleared away."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

from callfs.errors import MetadataUnavailable
from callfs.metadata import sql
from callfs.metadata.commands import Purged
from callfs.metadata.importing import ClearImport
from callfs.metadata.postgres_queries import EVERY_INODE, Connection, adapted, snapshot
from callfs.metadata.sql_export import PAGE_ROWS, record_pages
from callfs.metadata.transfer import Record
from callfs.model import ROOT_INODE_ID

LOCKED_IMPORT = f"{sql.UNFINISHED_IMPORT} FOR UPDATE"
"""Steps of an import, and what must not happen during one, go one after the other."""

_LAST_INODES = adapted(sql.LAST_INODES)
_CLEAR_INODES = (
    "DELETE FROM links WHERE inode_id = ANY(%s)",
    "DELETE FROM replications WHERE inode_id = ANY(%s)",
    "DELETE FROM blobs WHERE inode_id = ANY(%s)",
    "DELETE FROM inodes WHERE id = ANY(%s)",
)
_CLEAR_QUEUES = tuple(map(adapted, (sql.CLEAR_GARBAGE, sql.CLEAR_CONDEMNED, sql.CLEAR_REPLICATIONS)))


class Export:
    """
    One export, given out once at most.

    :param consume: takes the records, on the thread that reads.
    :ivar refused: what ``consume`` raised.
    """

    def __init__(self, consume: Callable[[Sequence[Record]], None]) -> None:
        self._consume = consume
        self._begun = False
        self.refused: Exception | None = None

    def run(self, connection: Connection) -> None:
        """
        Read it all.

        :raises callfs.errors.MetadataUnavailable: it was begun before, on a connection that was lost.
        """
        if self._begun:
            raise MetadataUnavailable("the connection was lost during the export: begin it again")
        with (
            snapshot(connection, whole_store=True),
            closing(record_pages(EVERY_INODE, lambda query: _pages(connection, query))) as pages,
        ):
            # The consumer may take its time.
            connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            for records in pages:
                self._begun = True
                try:
                    self._consume(records)
                except Exception as error:
                    self.refused = error
                    return


def _pages(connection: Connection, query: str) -> Iterator[Sequence[Sequence[Any]]]:
    with connection.cursor(name="callfs_export") as cursor:
        cursor.execute(query)
        while rows := cursor.fetchmany(PAGE_ROWS):
            yield rows


def clear_import(connection: Connection, command: ClearImport) -> Purged:
    """Apply :class:`callfs.metadata.importing.ClearImport`."""
    row = connection.execute(LOCKED_IMPORT).fetchone()
    if row is None or row[0] != command.import_id:
        return Purged(0)
    ids = [row[0] for row in connection.execute(_LAST_INODES, (ROOT_INODE_ID, command.limit)).fetchall()]
    for statement in _CLEAR_INODES:
        connection.execute(statement, (ids,))
    count = len(ids) + sum(connection.execute(text, (command.limit,)).rowcount for text in _CLEAR_QUEUES)
    return Purged(count + connection.execute(sql.CLEAR_INSTANCES).rowcount)
