-- Names, blobs, links and queues. Text compares bytewise (COLLATE "C"), whatever the database's own collation, so
-- that ranges of paths are ranges of an index. Instants are microseconds since 1970.

CREATE TABLE store (
    id text COLLATE "C" PRIMARY KEY
);

CREATE TABLE inodes (
    id           text COLLATE "C" CONSTRAINT inodes_id PRIMARY KEY,
    path         text COLLATE "C" NOT NULL CONSTRAINT inodes_path UNIQUE,
    parent_id    text COLLATE "C" NOT NULL CONSTRAINT inodes_parent REFERENCES inodes (id),
    name         text COLLATE "C" NOT NULL,
    depth        integer NOT NULL,
    type         text    NOT NULL CHECK (type IN ('file', 'directory')),
    mode         integer NOT NULL,
    owner        text    NOT NULL,
    mtime        bigint  NOT NULL,
    ctime        bigint  NOT NULL,
    created_at   bigint  NOT NULL,
    generation   bigint  NOT NULL,
    content_type text,
    content_id   text,
    CHECK ((type = 'file') = (content_id IS NOT NULL)),
    CONSTRAINT inodes_name UNIQUE (parent_id, name)
);

-- role 0 is the first copy, 1 and up are the replicas; a blob id names one copy in one place. There is no reference to
-- inodes: rows come and go under the lock on their inode's row, and the check would only make large removals slower.
CREATE TABLE blobs (
    inode_id    text COLLATE "C" NOT NULL,
    role        integer NOT NULL,
    blob_id     text COLLATE "C" NOT NULL CONSTRAINT blobs_id UNIQUE,
    kind        text    NOT NULL,
    instance_id text COLLATE "C",
    size        bigint  NOT NULL,
    sha256      bytea   NOT NULL,
    CHECK ((kind = 'localfs') = (instance_id IS NOT NULL)),
    CONSTRAINT blobs_role PRIMARY KEY (inode_id, role)
);

CREATE TABLE links (
    token_hash bytea CONSTRAINT links_hash PRIMARY KEY,
    inode_id   text COLLATE "C" NOT NULL CONSTRAINT links_inode REFERENCES inodes (id),
    created_by text   NOT NULL,
    created_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    used_at    bigint
);
CREATE INDEX links_by_inode ON links (inode_id);
CREATE INDEX links_by_expiry ON links (expires_at);
CREATE INDEX links_by_use ON links (used_at) WHERE used_at IS NOT NULL;

-- An identity is never given twice: an id that was dropped never comes to other bytes.
CREATE TABLE garbage (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    blob_id       text COLLATE "C" NOT NULL CONSTRAINT garbage_blob UNIQUE,
    kind          text   NOT NULL,
    instance_id   text COLLATE "C",
    size          bigint NOT NULL,
    sha256        bytea  NOT NULL,
    not_before_at bigint NOT NULL
);
CREATE INDEX garbage_by_place ON garbage (kind, instance_id, not_before_at, id);

CREATE TABLE condemned (
    blob_id      text COLLATE "C" PRIMARY KEY,
    condemned_at bigint NOT NULL
);

CREATE TABLE instances (
    id           text COLLATE "C" CONSTRAINT instances_id PRIMARY KEY,
    root_id      text,
    api_endpoint text   NOT NULL,
    last_seen_at bigint NOT NULL
);

-- One row for each transaction of a command, written by it, so that a COMMIT whose answer was lost can be looked up.
-- A row without result was put there by whoever looked: the transaction with this id didn't commit, and can't any more.
CREATE TABLE applied_commands (
    id     bytea CONSTRAINT applied_commands_id PRIMARY KEY,
    at     timestamptz NOT NULL DEFAULT now(),
    result bytea
);
CREATE INDEX applied_commands_by_age ON applied_commands (at);

INSERT INTO inodes (id, path, parent_id, name, depth, type, mode, owner, mtime, ctime, created_at, generation)
VALUES ('00000000000000000000000000000000', '/', '00000000000000000000000000000000', '', 0, 'directory', 493, 'root',
        0, 0, 0, 1);
