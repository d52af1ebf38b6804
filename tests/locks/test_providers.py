"""No lock service escapes the contract."""

from __future__ import annotations

import callfs.locks
import tests.locks
from callfs.locks.interfaces import ILockService
from tests.contract.locks import LockServiceContract
from tests.support.providers import held_to, providers


def test_every_lock_service_is_bound_to_the_contract() -> None:
    """Each class that says it is a lock service has a test case that holds it to the port's promises."""
    found = providers(callfs.locks, ILockService)
    assert found
    assert found == held_to(LockServiceContract, tests.locks)
