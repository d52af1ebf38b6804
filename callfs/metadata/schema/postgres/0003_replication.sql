-- The replication queue: first copies of files of which one more copy is to be made, at kind and instance_id, by the node
-- made_by. An entry goes in the transaction that ends its reason; as with blobs there is no reference to inodes. And what
-- is on a node's own disk, to be found by it.

CREATE TABLE replications (
    blob_id     text COLLATE "C" CONSTRAINT replications_blob PRIMARY KEY,
    inode_id    text COLLATE "C" NOT NULL CONSTRAINT replications_inode UNIQUE,
    kind        text    NOT NULL,
    instance_id text COLLATE "C",
    made_by     text COLLATE "C" NOT NULL,
    queued_at   bigint  NOT NULL,
    due_at      bigint  NOT NULL,
    attempts    integer NOT NULL,
    CHECK ((kind = 'localfs') = (instance_id IS NOT NULL))
);
CREATE INDEX replications_by_node ON replications (made_by, due_at, blob_id);

CREATE INDEX blobs_by_instance ON blobs (instance_id, blob_id) WHERE instance_id IS NOT NULL;
