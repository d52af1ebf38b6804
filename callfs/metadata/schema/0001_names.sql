-- Names, blobs, links and queues. Text compares bytewise (BINARY), instants are microseconds since 1970.

CREATE TABLE store (
    id      TEXT    NOT NULL PRIMARY KEY,
    -- Written for its own sake after a commit failed, so that what may be left of that commit is overwritten.
    settled INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE inodes (
    number       INTEGER PRIMARY KEY,
    id           TEXT    NOT NULL UNIQUE,
    path         TEXT    NOT NULL UNIQUE,
    parent_id    TEXT    NOT NULL REFERENCES inodes (id),
    name         TEXT    NOT NULL,
    depth        INTEGER NOT NULL,
    type         TEXT    NOT NULL CHECK (type IN ('file', 'directory')),
    mode         INTEGER NOT NULL,
    owner        TEXT    NOT NULL,
    mtime        INTEGER NOT NULL,
    ctime        INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    generation   INTEGER NOT NULL,
    content_type TEXT,
    content_id   TEXT,
    CHECK ((type = 'file') = (content_id IS NOT NULL)),
    UNIQUE (parent_id, name)
) STRICT;

-- role 0 is the first copy, 1 and up are the replicas; a blob id names one copy in one place.
CREATE TABLE blobs (
    inode_id    TEXT    NOT NULL REFERENCES inodes (id),
    role        INTEGER NOT NULL,
    blob_id     TEXT    NOT NULL UNIQUE,
    kind        TEXT    NOT NULL,
    instance_id TEXT,
    size        INTEGER NOT NULL,
    sha256      BLOB    NOT NULL,
    CHECK ((kind = 'localfs') = (instance_id IS NOT NULL)),
    PRIMARY KEY (inode_id, role)
) STRICT, WITHOUT ROWID;

CREATE TABLE links (
    token_hash BLOB    NOT NULL PRIMARY KEY,
    inode_id   TEXT    NOT NULL REFERENCES inodes (id),
    created_by TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at    INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX links_by_inode ON links (inode_id);
CREATE INDEX links_by_expiry ON links (expires_at);
CREATE INDEX links_by_use ON links (used_at) WHERE used_at IS NOT NULL;

-- AUTOINCREMENT: an id that was dropped is never given to other bytes.
CREATE TABLE garbage (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    blob_id       TEXT    NOT NULL UNIQUE,
    kind          TEXT    NOT NULL,
    instance_id   TEXT,
    size          INTEGER NOT NULL,
    sha256        BLOB    NOT NULL,
    not_before_at INTEGER NOT NULL
) STRICT;
CREATE INDEX garbage_by_place ON garbage (kind, instance_id, not_before_at, id);

CREATE TABLE condemned (
    blob_id      TEXT    NOT NULL PRIMARY KEY,
    condemned_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE instances (
    id           TEXT    NOT NULL PRIMARY KEY,
    root_id      TEXT,
    api_endpoint TEXT    NOT NULL,
    last_seen_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO inodes (id, path, parent_id, name, depth, type, mode, owner, mtime, ctime, created_at, generation)
VALUES ('00000000000000000000000000000000', '/', '00000000000000000000000000000000', '', 0, 'directory', 493, 'root',
        0, 0, 0, 1);
