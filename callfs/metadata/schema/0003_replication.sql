-- The replication queue: first copies of files of which one more copy is to be made, at kind and instance_id, by the node
-- made_by. An entry goes in the transaction that ends its reason. And what is on a node's own disk, to be found by it.

CREATE TABLE replications (
    blob_id     TEXT    NOT NULL PRIMARY KEY,
    inode_id    TEXT    NOT NULL UNIQUE REFERENCES inodes (id),
    kind        TEXT    NOT NULL,
    instance_id TEXT,
    made_by     TEXT    NOT NULL,
    queued_at   INTEGER NOT NULL,
    due_at      INTEGER NOT NULL,
    attempts    INTEGER NOT NULL,
    CHECK ((kind = 'localfs') = (instance_id IS NOT NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX replications_by_node ON replications (made_by, due_at, blob_id);

CREATE INDEX blobs_by_instance ON blobs (instance_id, blob_id) WHERE instance_id IS NOT NULL;
