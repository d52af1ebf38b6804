"""
The contract suite for ``IMetadataStore``: what every provider does the same.

A provider's own test module binds it::

    class MyStoreTests(MyBinding, MetadataContract, TestCase): ...

where ``MyBinding`` has ``open_store`` and ``open_other`` of :class:`tests.contract.metadata_base.StoreTests`.
"""

from __future__ import annotations

from tests.contract.metadata_copies import RelocationContract, ReplicationContract
from tests.contract.metadata_files import CreationContract, RemovalContract, ReplacementContract
from tests.contract.metadata_machine import MachineContract
from tests.contract.metadata_moving import MovingContract
from tests.contract.metadata_nodes import NodesOfCopiesContract
from tests.contract.metadata_queues import GarbageContract, InstanceContract, LinkContract, SweepContract
from tests.contract.metadata_races import RaceContract
from tests.contract.metadata_reading import ListingContract, ReadingContract
from tests.contract.metadata_trees import MoveContract, TreeRemovalContract


class MetadataContract(
    CreationContract,
    ReplacementContract,
    RemovalContract,
    MoveContract,
    TreeRemovalContract,
    ReadingContract,
    ListingContract,
    LinkContract,
    GarbageContract,
    SweepContract,
    InstanceContract,
    RelocationContract,
    ReplicationContract,
    NodesOfCopiesContract,
    MovingContract,
    RaceContract,
    MachineContract,
):
    """All of it."""
