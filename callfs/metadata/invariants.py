"""What CallFS relies on in the tables of a store, as queries that find what breaks it."""

# ruff: noqa: S608 -- the only thing put in is an expression of our own

from __future__ import annotations


def invariants(hash_as_text: str) -> tuple[tuple[str, str], ...]:
    """
    A sentence about a finding, and the query for the findings, for each invariant.

    :param hash_as_text: an expression for ``l.token_hash`` in hexadecimal.
    """
    return (
        (
            "the parent of {} is missing",
            "SELECT i.path FROM inodes i LEFT JOIN inodes p ON p.id = i.parent_id WHERE p.id IS NULL",
        ),
        (
            "the parent of {} is a file",
            "SELECT i.path FROM inodes i JOIN inodes p ON p.id = i.parent_id WHERE p.type <> 'directory'",
        ),
        (
            "{} isn't below the path of its parent",
            """SELECT i.path FROM inodes i JOIN inodes p ON p.id = i.parent_id WHERE i.path <> '/'
            AND i.path <> CASE p.path WHEN '/' THEN '/' || i.name ELSE p.path || '/' || i.name END""",
        ),
        (
            "the depth of {} is wrong",
            """SELECT path FROM inodes WHERE depth <> CASE path WHEN '/' THEN 0
            ELSE length(path) - length(replace(path, '/', '')) END""",
        ),
        (
            "the file {} has no blob",
            """SELECT i.path FROM inodes i LEFT JOIN blobs b ON b.inode_id = i.id AND b.role = 0
            WHERE i.type = 'file' AND b.blob_id IS NULL""",
        ),
        (
            "the directory {} has a blob",
            "SELECT i.path FROM blobs b JOIN inodes i ON i.id = b.inode_id WHERE i.type = 'directory'",
        ),
        (
            "the blob {} belongs to no file",
            "SELECT b.blob_id FROM blobs b LEFT JOIN inodes i ON i.id = b.inode_id WHERE i.id IS NULL",
        ),
        (
            "the blob {} is named and queued as garbage",
            "SELECT b.blob_id FROM blobs b JOIN garbage g ON g.blob_id = b.blob_id",
        ),
        (
            "the blob {} is named and condemned",
            "SELECT b.blob_id FROM blobs b JOIN condemned c ON c.blob_id = b.blob_id",
        ),
        (
            "the link {} belongs to no file",
            f"""SELECT {hash_as_text} FROM links l LEFT JOIN inodes i ON i.id = l.inode_id AND i.type = 'file'
            WHERE i.id IS NULL""",
        ),
        (
            "a copy of {} is queued to be made, but it is no file's first copy",
            """SELECT r.blob_id FROM replications r
            LEFT JOIN blobs b ON b.blob_id = r.blob_id AND b.inode_id = r.inode_id AND b.role = 0
            WHERE b.blob_id IS NULL""",
        ),
        ("{}", "SELECT 'the root is missing' WHERE NOT EXISTS (SELECT 1 FROM inodes WHERE path = '/')"),
    )
