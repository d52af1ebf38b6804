"""
The SQL that SQLite and PostgreSQL both understand, with ``?`` for parameters.

What differs between the two (how replicas are gathered in one column, how NULL is compared, how sets are passed) is
with each store.
"""

# ruff: noqa: S608 -- statements are put together from constants and "?" alone

from __future__ import annotations

INODE_SOURCE = "inodes i LEFT JOIN blobs b ON b.inode_id = i.id AND b.role = 0"


def inode_columns(replicas: str) -> str:
    """
    What ``rows.inode_from_row`` takes, of :data:`INODE_SOURCE`.

    :param replicas: an expression for a JSON array of ``[role, blob_id, kind, instance_id]`` over ``blobs r``.
    """
    return f"""
    i.id, i.path, i.parent_id, i.type, i.mode, i.owner, i.mtime, i.ctime, i.created_at, i.generation,
    i.content_type, i.content_id, b.blob_id, b.size, b.sha256, b.kind, b.instance_id,
    (SELECT {replicas} FROM blobs r WHERE r.inode_id = b.inode_id AND r.role > 0)
"""


def inode_query(columns: str, rest: str, source: str = INODE_SOURCE) -> str:
    """A query for inodes."""
    return f"SELECT {columns} FROM {source} {rest}"


BY_PATH = "WHERE i.path = ?"
BY_ID = "WHERE i.id = ?"
CHILDREN = "WHERE i.parent_id = ? AND i.name > ? ORDER BY i.parent_id, i.name LIMIT ?"
SUBTREE = "WHERE i.path >= ? AND i.path < ? ORDER BY i.path LIMIT ?"

LINK = """SELECT token_hash, inode_id, created_by, created_at, expires_at, used_at FROM links
    WHERE token_hash = ?"""
CONDEMNED = """SELECT blob_id FROM condemned
    WHERE blob_id > ? AND condemned_at < ? ORDER BY blob_id LIMIT ?"""
INSTANCES = "SELECT id, root_id, api_endpoint, last_seen_at FROM instances ORDER BY id"
COUNT_INODES = (
    "SELECT count(*) FILTER (WHERE type = 'file'), count(*) FILTER (WHERE type = 'directory') FROM inodes"
)
SUM_OF_SIZES = "SELECT coalesce(sum(size), 0) FROM blobs WHERE role = 0"
COUNT_LINKS = "SELECT count(*) FROM links"
COUNT_GARBAGE = "SELECT count(*) FROM garbage"
COUNT_REPLICATIONS = "SELECT count(*) FROM replications"
REPLICATIONS = """SELECT blob_id, inode_id, kind, instance_id, made_by, queued_at, due_at, attempts
    FROM replications WHERE made_by = ? AND due_at <= ? ORDER BY made_by, due_at, blob_id LIMIT ?"""
REPLICATION_BACKLOG = """SELECT made_by, count(*), count(*) FILTER (WHERE attempts > 0), min(queued_at)
    FROM replications GROUP BY made_by ORDER BY made_by"""
ANYTHING = "SELECT 1 FROM inodes WHERE id <> ? LIMIT 1"

OF_INODE = "inode_id = ?"
IN_TREE = "SELECT id FROM inodes WHERE path > ? AND path < ?"
ADD_INODE = """INSERT INTO inodes (path, parent_id, name, depth, type, mode, owner, mtime, ctime, created_at,
    generation, content_type, content_id, id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
CHANGE_INODE = """UPDATE inodes SET path = ?, parent_id = ?, name = ?, depth = ?, type = ?, mode = ?, owner = ?,
    mtime = ?, ctime = ?, created_at = ?, generation = ?, content_type = ?, content_id = ? WHERE id = ?"""
TOUCH_DIRECTORY = "UPDATE inodes SET mtime = ?, ctime = ?, generation = generation + 1 WHERE id = ?"
ADD_BLOB = """INSERT INTO blobs (inode_id, role, blob_id, kind, instance_id, size, sha256)
    VALUES (?, ?, ?, ?, ?, ?, ?)"""
MOVE_TREE = "UPDATE inodes SET path = ? || substr(path, ?), depth = depth + ? WHERE path > ? AND path < ?"
TREE = "SELECT count(*), count(*) FILTER (WHERE owner <> ?) FROM inodes WHERE path > ? AND path < ?"
ANY_CHILD = "SELECT 1 FROM inodes WHERE parent_id = ? AND name > '' LIMIT 1"
ADD_LINK = """INSERT INTO links (token_hash, inode_id, created_by, created_at, expires_at, used_at)
    VALUES (?, ?, ?, ?, ?, ?)"""
USE_LINK = "UPDATE links SET used_at = ? WHERE token_hash = ?"
OLD_LINKS = """SELECT token_hash FROM links WHERE expires_at < ?
    UNION ALL SELECT token_hash FROM links WHERE used_at < ? AND expires_at >= ? LIMIT ?"""
ADD_CONDEMNED = "INSERT INTO condemned (blob_id, condemned_at) VALUES (?, ?) ON CONFLICT DO NOTHING"
FORGET_CONDEMNED = "DELETE FROM condemned WHERE condemned_at < ?"

UNFINISHED_IMPORT = "SELECT import_id FROM store"
MARK_IMPORT = "UPDATE store SET import_id = ?"
TAKE_IDENTITY = "UPDATE store SET id = ?, import_id = NULL"
IS_EMPTY = """SELECT NOT EXISTS (SELECT 1 FROM inodes WHERE id <> ?) AND NOT EXISTS (SELECT 1 FROM links)
    AND NOT EXISTS (SELECT 1 FROM garbage) AND NOT EXISTS (SELECT 1 FROM condemned)
    AND NOT EXISTS (SELECT 1 FROM instances)"""
ADD_GARBAGE = """INSERT INTO garbage (blob_id, kind, instance_id, size, sha256, not_before_at)
    VALUES (?, ?, ?, ?, ?, ?)"""
LAST_INODES = "SELECT id FROM inodes WHERE id <> ? ORDER BY path DESC LIMIT ?"
CLEAR_GARBAGE = "DELETE FROM garbage WHERE id IN (SELECT id FROM garbage ORDER BY id LIMIT ?)"
CLEAR_CONDEMNED = "DELETE FROM condemned WHERE blob_id IN (SELECT blob_id FROM condemned ORDER BY blob_id LIMIT ?)"
CLEAR_REPLICATIONS = """DELETE FROM replications
    WHERE blob_id IN (SELECT blob_id FROM replications ORDER BY blob_id LIMIT ?)"""
CLEAR_INSTANCES = "DELETE FROM instances"

QUEUE_REPLICATION = """INSERT INTO replications
    (blob_id, inode_id, kind, instance_id, made_by, queued_at, due_at, attempts) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
POSTPONE = """UPDATE replications SET due_at = ?, made_by = coalesce(?, made_by), attempts = attempts + 1
    WHERE blob_id = ?"""
COPIES_ON = "SELECT 1 FROM blobs WHERE instance_id = ? LIMIT 1"
REPLICATIONS_ON = "SELECT 1 FROM replications WHERE made_by = ? OR instance_id = ? LIMIT 1"
DROP_GARBAGE_ON = "DELETE FROM garbage WHERE kind = ? AND instance_id = ?"
FORGET_INSTANCE = "DELETE FROM instances WHERE id = ?"


def bury(whose: str) -> str:
    """
    The statement that queues blobs of some inodes as garbage: kind of local ones, their instant, that of others.

    :param whose: a condition on ``inode_id``.
    """
    return f"""INSERT INTO garbage (blob_id, kind, instance_id, size, sha256, not_before_at)
    SELECT blob_id, kind, instance_id, size, sha256, CASE kind WHEN ? THEN ? ELSE ? END
    FROM blobs WHERE {whose} ORDER BY blob_id"""


def unname_blobs(whose: str) -> str:
    """The statement that takes the blobs of some inodes away from them; ``whose`` as for :func:`bury`."""
    return f"DELETE FROM blobs WHERE {whose}"


def unqueue(whose: str) -> str:
    """The statement that takes some inodes out of the replication queue; ``whose`` as for :func:`bury`."""
    return f"DELETE FROM replications WHERE {whose}"


def unlink(whose: str) -> str:
    """The statement that ends the links of some inodes; ``whose`` as for :func:`bury`."""
    return f"DELETE FROM links WHERE {whose}"


REMOVE_INODE = "DELETE FROM inodes WHERE id = ?"
REMOVE_TREE = "DELETE FROM inodes WHERE path > ? AND path < ?"
