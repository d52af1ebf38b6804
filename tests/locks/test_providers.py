"""No lock service escapes the contract."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import callfs.locks
import tests.locks
from callfs.locks.interfaces import ILockService
from tests.contract.locks import LockServiceContract


def modules_of(package: object) -> list[object]:
    """All modules of a package."""
    path, name = package.__path__, package.__name__  # type: ignore[attr-defined]
    return [importlib.import_module(f"{name}.{module.name}") for module in pkgutil.iter_modules(path)]


def test_every_lock_service_is_bound_to_the_contract() -> None:
    """Each class that says it is a lock service has a test case that holds it to the port's promises."""
    providers = {
        value
        for module in modules_of(callfs.locks)
        for value in vars(module).values()
        if inspect.isclass(value) and ILockService.implementedBy(value)
    }
    bound = {
        value.provider
        for module in modules_of(tests.locks)
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, LockServiceContract) and value is not LockServiceContract
    }
    assert providers
    assert providers == bound
