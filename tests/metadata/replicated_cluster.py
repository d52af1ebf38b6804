"""Three nodes in one process that replicate real metadata states, over sockets or over a network in memory."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.python.threadpool import ThreadPool

from callfs.locks.replicated import LOCKS
from callfs.locks.replicated_table import LockTable
from callfs.metadata.interfaces import IMetadataStore
from callfs.metadata.replicated import ReplicatedStore
from callfs.metadata.replicated_state import MetadataState
from callfs.metadata.sqlite import Unobserved
from tests.cluster.nodes import Cluster, Place
from tests.support.raft import Network

ELECTION_SECONDS = 0.2
"""Short: all nodes are in one process, so that a busy machine holds all of them up alike."""
TMPFS = Path("/dev/shm")
"""What is durable isn't tested here."""


class MetadataPlace(Place):
    """A node with a metadata state, and locks in it."""

    def __init__(self, node_id: str, folder: Path, pool: ThreadPool, network: Network | None) -> None:
        super().__init__(node_id, folder, pool, network)
        self.pool = pool

    def make_state(self) -> Any:
        """The state, in the node's folder."""
        self.table = LockTable()
        return MetadataState(
            self.folder,
            reactor=reactor,  # type: ignore[arg-type]
            pool=self.pool,
            query_pool=self.pool,
            token_bytes=secrets.token_bytes,
            op_timeout_seconds=20.0,
            observer=Unobserved(),
            parts={LOCKS: self.table},
        )

    async def store(self) -> ReplicatedStore:
        """The store of this node, open."""
        store = ReplicatedStore(self.node, self.state)
        await store.open()
        return store


class MetadataCluster(Cluster):
    """Its nodes have metadata states."""

    async def form(self) -> None:
        """Start the nodes; the first forms the cluster when the others are there, so that it needn't look twice."""
        first, *others = self.places.values()
        addresses = {place.node_id: place.address for place in self.places.values()}
        for place in self.places.values():
            place.options = {"peers": addresses, **place.options}
        first.options = {**first.options, "bootstrap": True}
        await gatherResults([place.start() for place in others])
        await first.start()
        await self.known_to_all()

    def place(self, node_id: str) -> MetadataPlace:
        """Room for one more node."""
        place = MetadataPlace(node_id, self.folder / node_id, self.pool, self.network)
        place.options = {
            "election_timeout_seconds": ELECTION_SECONDS,
            "heartbeat_interval_seconds": ELECTION_SECONDS / 10,
            "apply_timeout_seconds": 20.0,
            "forward_timeout_seconds": 20.0,
        }
        self.places[node_id] = place
        return place


class ClusterBinding:
    """
    To be mixed, first, with trial's ``TestCase``: a cluster of three for each test.

    :cvar over_sockets: whether the nodes have real connections.
    """

    timeout = 100
    over_sockets = True
    addCleanup: Callable[..., None]
    cluster: MetadataCluster | None = None

    async def formed(self) -> MetadataCluster:
        """A cluster of three that ends with the test."""
        folder = Path(tempfile.mkdtemp(prefix="callfs-cluster-", dir=TMPFS))
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        network = None if self.over_sockets else Network(reactor)
        cluster = MetadataCluster(folder, 3, network)
        self.addCleanup(cluster.stop)
        await cluster.form()
        return cluster

    async def open_store(self) -> IMetadataStore:
        """The store of a follower in a cluster of its own."""
        cluster = await self.formed()
        if self.cluster is None:
            self.cluster = cluster
        place: Any = await cluster.follower()
        return await self._opened(place)

    async def open_other(self) -> IMetadataStore:
        """The store of the leader."""
        assert self.cluster is not None
        place: Any = await self.cluster.leader()
        return await self._opened(place)

    async def _opened(self, place: MetadataPlace) -> IMetadataStore:
        store = await place.store()
        self.addCleanup(store.close)
        return store
