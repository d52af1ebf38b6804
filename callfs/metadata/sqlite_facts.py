"""What a decision may ask, answered inside a transaction of the SQLite store."""

from __future__ import annotations

from collections.abc import Sequence

from callfs import paths
from callfs.metadata import sql
from callfs.metadata import sqlite_queries as queries
from callfs.metadata.facts import Holdings, TreeFacts
from callfs.metadata.rows import LOCAL_KIND, instance_from_row
from callfs.metadata.sqlite_view import View
from callfs.model import ROOT_INODE_ID, Inode, Instance, Link

COUNT_GARBAGE_ON = "SELECT count(*) FROM garbage WHERE kind = ? AND instance_id = ?"
LONGEST_PATH = "SELECT coalesce(max(length(CAST(path AS BLOB))), 0) FROM inodes WHERE path > ? AND path < ?"


class SqliteFacts:
    """See :class:`callfs.metadata.facts.Facts`."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._above: dict[str, tuple[str, ...]] = {}

    def inode(self, inode_id: str) -> Inode | None:
        """The inode with this id."""
        known = self._view.known
        inode = known.by_id(inode_id)
        if inode is None:
            inode = queries.get_by_id(self._view.connection, inode_id)
            if inode is not None:
                known.learn(inode)
        return inode

    def chain(self, path: str) -> Sequence[Inode]:
        """What exists of ``path`` and its ancestors."""
        wanted = (*self._ancestors(path), path)
        known = self._view.known
        try:
            return known.chain(wanted)
        except KeyError:
            self._view.look_up(wanted)
            return known.chain(wanted)

    def _ancestors(self, path: str) -> tuple[str, ...]:
        """Made once for many paths in the same directory."""
        if path == paths.ROOT:
            return ()
        folder = paths.parent(path)
        above = self._above.get(folder)
        if above is None:
            above = self._above[folder] = tuple(paths.ancestors(path))
        return above

    def has_children(self, directory_id: str) -> bool:
        """Whether anything is in the directory."""
        return bool(self._view.connection.execute(sql.ANY_CHILD, (directory_id,)).fetchall())

    def tree(self, directory: str, user: str) -> TreeFacts:
        """What lies below ``directory``."""
        bounds = (paths.subtree_start(directory), paths.subtree_end(directory))
        rows = self._view.connection.execute(sql.TREE, (user, *bounds)).fetchall()
        return TreeFacts(*rows[0])

    def longest_path_bytes(self, directory: str) -> int:
        """The length of the longest path below ``directory``."""
        bounds = (paths.subtree_start(directory), paths.subtree_end(directory))
        rows = self._view.connection.execute(LONGEST_PATH, bounds).fetchall()
        return int(rows[0][0])

    def any_condemned(self, blob_ids: Sequence[str]) -> bool:
        """Whether one of the blobs is condemned."""
        return self._view.filled.condemned and any(
            self._view.connection.execute("SELECT 1 FROM condemned WHERE blob_id = ?", (blob_id,)).fetchall()
            for blob_id in blob_ids
        )

    def link(self, token_hash: bytes) -> Link | None:
        """The link with this hash."""
        return queries.get_link(self._view.connection, token_hash)

    def instance(self, instance_id: str) -> Instance | None:
        """The node with this id."""
        rows = self._view.connection.execute(
            "SELECT id, root_id, api_endpoint, last_seen_at FROM instances WHERE id = ?", (instance_id,)
        ).fetchall()
        return instance_from_row(rows[0]) if rows else None

    def holdings(self, instance_id: str) -> Holdings:
        """What there is on the node, or waits for it."""
        copies = self._view.connection.execute(sql.COPIES_ON, (instance_id,)).fetchall()
        waiting = self._view.connection.execute(sql.REPLICATIONS_ON, (instance_id, instance_id)).fetchall()
        count = self._view.connection.execute(COUNT_GARBAGE_ON, (LOCAL_KIND, instance_id)).fetchall()[0][0]
        return Holdings(bool(copies), bool(waiting), count)

    def unfinished_import(self) -> str | None:
        """The import that was begun and not finished."""
        return queries.unfinished_import(self._view.connection)

    def is_empty(self) -> bool:
        """Whether nothing but the root is there."""
        return bool(self._view.connection.execute(sql.IS_EMPTY, (ROOT_INODE_ID,)).fetchall()[0][0])
