"""The contract suite bound to the replicated store, with a log of one node in place of a cluster."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from callfs.metadata.replicated import ReplicatedStore
from tests.contract.metadata import MetadataContract
from tests.metadata.replicated_binding import SingleLogBinding


class ReplicatedTests(SingleLogBinding, MetadataContract, TestCase):
    """A state behind a log."""

    provider = ReplicatedStore
    machine_examples = 5
