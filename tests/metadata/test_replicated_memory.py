"""The contract suite bound to a follower's store in a cluster of three, over a network in memory."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from callfs.metadata.replicated import ReplicatedStore
from tests.contract.metadata import MetadataContract
from tests.metadata.replicated_cluster import ClusterBinding


class ReplicatedInMemoryTests(ClusterBinding, MetadataContract, TestCase):
    """The other store is that of the leader."""

    provider = ReplicatedStore
    over_sockets = False
    machine_examples = 2
