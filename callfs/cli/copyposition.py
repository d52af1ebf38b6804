"""How far a node's own copy of replicated metadata goes, which a tool beside the daemon reads as it is."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from callfs.cluster.interfaces import SnapshotMeta, StateUnusable
from callfs.metadata.interfaces import StoreUnusable
from callfs.metadata.replicated_file import current_state, recorded
from callfs.metadata.sqlite_file import DatabaseFile

_BUSY_SECONDS = 10.0


def copy_position(data_dir: Path, node_id: str) -> str:
    """
    What whoever takes the copy for all of the metadata has to know.

    :param data_dir: ``raft.data_dir``.
    :raises StoreUnusable: there is no copy, or it is that of a node that was never part of a cluster.
    """
    path = current_state(data_dir)
    if path is None:
        raise StoreUnusable(f"there is no copy of the metadata in {data_dir}: start the daemon once")
    found = _recorded(path)
    if not found.membership.members:
        raise StoreUnusable(
            f"node {node_id} has nothing of a metadata cluster in {data_dir}: export on a node that "
            "'callfs cluster status' shows as a member"
        )
    return (
        f"This is node {node_id}'s own copy, up to entry {found.index} of the metadata cluster's log. What the "
        "cluster has beyond that isn't in it: 'callfs cluster status' shows how far the leader has applied."
    )


def _recorded(path: Path) -> SnapshotMeta:
    file = DatabaseFile(path, read_only=True, busy_seconds=_BUSY_SECONDS)
    try:
        connection = file.reader(may_wait=True)
        try:
            return recorded(connection)
        finally:
            connection.close()
    except (sqlite3.Error, StateUnusable) as error:
        raise StoreUnusable(f"the copy of the metadata {path} can't be read: {error}") from error
