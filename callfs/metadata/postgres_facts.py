"""What a decision may ask of the PostgreSQL store, answered inside the transaction."""

from __future__ import annotations

from collections.abc import Sequence

from callfs import paths
from callfs.metadata import postgres_queries as queries
from callfs.metadata import sql
from callfs.metadata.facts import Holdings, TreeFacts
from callfs.metadata.postgres_moving import LOCKED_IMPORT
from callfs.metadata.postgres_queries import Connection, adapted
from callfs.metadata.rows import LOCAL_KIND, inode_from_row, instance_from_row, link_from_row
from callfs.model import ROOT_INODE_ID, Inode, Instance, Link

LONGEST_PATH = adapted("SELECT coalesce(max(octet_length(path)), 0) FROM inodes WHERE path > ? AND path < ?")
TREE = adapted(sql.TREE)
IS_EMPTY = adapted(sql.IS_EMPTY)
ANY_CHILD = adapted(sql.ANY_CHILD)
ANY_CONDEMNED = "SELECT 1 FROM condemned WHERE blob_id = ANY(%s) LIMIT 1"
CHAIN_AND_CONDEMNED = queries.CHAIN.replace(
    "SELECT ", "SELECT EXISTS (SELECT 1 FROM condemned WHERE blob_id = ANY(%s)), ", 1
)
LOCKED_LINK = f"{queries.LINK} FOR UPDATE"
COPIES_ON = adapted(sql.COPIES_ON)
_REPLICATIONS_ON = adapted(sql.REPLICATIONS_ON)
LOCKED_GARBAGE_ON = """SELECT count(*) FROM
    (SELECT id FROM garbage WHERE kind = %s AND instance_id = %s ORDER BY id FOR UPDATE) g"""


class PostgresFacts:
    """
    What a decision may ask, answered inside the transaction.

    :param blob_ids: of blobs whose condemnation will be asked about after a path: both come in one answer.
    """

    def __init__(self, connection: Connection, blob_ids: Sequence[str] = ()) -> None:
        self._connection = connection
        self._blob_ids = list(blob_ids)
        self._any_of_them_condemned: bool | None = None

    def inode(self, inode_id: str) -> Inode | None:
        """The inode with this id."""
        return queries.get_by_id(self._connection, inode_id)

    def chain(self, path: str) -> Sequence[Inode]:
        """What exists of ``path`` and its ancestors."""
        if not self._blob_ids:
            return queries.get_chain(self._connection, path)
        rows = self._connection.execute(CHAIN_AND_CONDEMNED, (self._blob_ids, queries.chain_of(path))).fetchall()
        self._any_of_them_condemned = rows[0][0]  # there is always a row: the root's
        return [inode_from_row(row[1:]) for row in rows]

    def has_children(self, directory_id: str) -> bool:
        """Whether anything is in the directory."""
        return self._connection.execute(ANY_CHILD, (directory_id,)).fetchone() is not None

    def tree(self, directory: str, user: str) -> TreeFacts:
        """What lies below ``directory``."""
        rows = self._connection.execute(TREE, (user, *bounds(directory))).fetchall()
        return TreeFacts(*rows[0])

    def longest_path_bytes(self, directory: str) -> int:
        """The length of the longest path below ``directory``."""
        return int(self._connection.execute(LONGEST_PATH, bounds(directory)).fetchall()[0][0])

    def any_condemned(self, blob_ids: Sequence[str]) -> bool:
        """Whether one of the blobs is condemned; while names are locked none comes to be."""
        if self._any_of_them_condemned is not None and list(blob_ids) == self._blob_ids:
            return self._any_of_them_condemned
        return self._connection.execute(ANY_CONDEMNED, (list(blob_ids),)).fetchone() is not None

    def link(self, token_hash: bytes) -> Link | None:
        """The link with this hash, which nobody else changes until this transaction ends."""
        row = self._connection.execute(LOCKED_LINK, (token_hash,)).fetchone()
        return None if row is None else link_from_row(row)

    def instance(self, instance_id: str) -> Instance | None:
        """The node with this id; no other registers until this transaction ends."""
        self._connection.execute("LOCK TABLE instances IN SHARE ROW EXCLUSIVE MODE")
        row = self._connection.execute(
            "SELECT id, root_id, api_endpoint, last_seen_at FROM instances WHERE id = %s", (instance_id,)
        ).fetchone()
        return None if row is None else instance_from_row(row)

    def holdings(self, instance_id: str) -> Holdings:
        """What there is on the node, or waits for it; the garbage stays until this transaction ends."""
        copies = self._connection.execute(COPIES_ON, (instance_id,)).fetchone()
        waiting = self._connection.execute(_REPLICATIONS_ON, (instance_id, instance_id)).fetchone()
        garbage = self._connection.execute(LOCKED_GARBAGE_ON, (LOCAL_KIND, instance_id)).fetchall()
        return Holdings(copies is not None, waiting is not None, garbage[0][0])

    def unfinished_import(self) -> str | None:
        """The import that was begun and not finished; none begins or ends until this transaction does."""
        (import_id,) = self._connection.execute(LOCKED_IMPORT).fetchall()[0]
        return None if import_id is None else str(import_id)

    def is_empty(self) -> bool:
        """Whether nothing but the root is there."""
        return bool(self._connection.execute(IS_EMPTY, (ROOT_INODE_ID,)).fetchall()[0][0])


def bounds(directory: str) -> tuple[str, str]:
    """Paths before the first and after the last below a directory."""
    return paths.subtree_start(directory), paths.subtree_end(directory)
