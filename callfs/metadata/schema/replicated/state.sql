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

-- A start of a node each, and forgotten after an hour of silence: so few that an index would cost more than it spares.
CREATE TABLE raft_clients (
    client   INTEGER NOT NULL PRIMARY KEY,
    heard_at INTEGER NOT NULL,
    lowest   INTEGER NOT NULL
) STRICT;

-- What became of the commands of one batch, packed together: lowest and highest are the numbers that are in it. A pack stays until
-- nobody can ask for any of its results.
CREATE TABLE raft_results (
    client  INTEGER NOT NULL,
    highest INTEGER NOT NULL,
    lowest  INTEGER NOT NULL,
    results BLOB    NOT NULL,
    PRIMARY KEY (client, highest)
) STRICT, WITHOUT ROWID;
