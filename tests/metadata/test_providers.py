"""No metadata store escapes the contract suite."""

from __future__ import annotations

import callfs.metadata
import tests.metadata
from callfs.metadata.interfaces import IMetadataStore
from tests.contract.metadata import MetadataContract
from tests.support.providers import held_to, providers


def test_every_provider_is_bound() -> None:
    """Each class that says it is a metadata store has a test class that binds the contract to it."""
    found = providers(callfs.metadata, IMetadataStore)
    assert found
    assert found == held_to(MetadataContract, tests.metadata)
