-- What a copy of the state carries besides the metadata: how far it goes, and the answers that may be asked for again.

CREATE TABLE raft_state (
    one           INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    applied_index INTEGER NOT NULL,
    applied_term  INTEGER NOT NULL,
    membership    BLOB    NOT NULL,
    -- The time of the log: the highest instant that a request brought.
    log_at        INTEGER NOT NULL,
    -- Written for its own sake, so that a commit makes all before it durable.
    settled       INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE raft_clients (
    client   INTEGER NOT NULL PRIMARY KEY,
    heard_at INTEGER NOT NULL,
    lowest   INTEGER NOT NULL
) STRICT;
CREATE INDEX raft_clients_by_time ON raft_clients (heard_at);

CREATE TABLE raft_results (
    client   INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    result   BLOB    NOT NULL,
    PRIMARY KEY (client, sequence)
) STRICT, WITHOUT ROWID;
