"""No backend escapes the contract."""

from __future__ import annotations

import callfs.backends
import tests.backends
from callfs.backends.interfaces import IBlobBackend
from tests.contract.backends import BlobBackendContract
from tests.support.providers import held_to, providers


def test_every_backend_is_bound_to_the_contract() -> None:
    """Each class that says it is a backend has a test case that holds it to the port's promises."""
    found = providers(callfs.backends, IBlobBackend)
    assert found
    assert found == held_to(BlobBackendContract, tests.backends)
