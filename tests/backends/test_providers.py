"""No backend escapes the contract."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import callfs.backends
import tests.backends
from callfs.backends.interfaces import IBlobBackend
from tests.contract.backends import BlobBackendContract


def modules_of(package: object) -> list[object]:
    """All modules of a package."""
    path, name = package.__path__, package.__name__  # type: ignore[attr-defined]
    return [importlib.import_module(f"{name}.{module.name}") for module in pkgutil.iter_modules(path)]


def test_every_backend_is_bound_to_the_contract() -> None:
    """Each class that says it is a backend has a test case that holds it to the port's promises."""
    providers = {
        value
        for module in modules_of(callfs.backends)
        for value in vars(module).values()
        if inspect.isclass(value) and IBlobBackend.implementedBy(value)
    }
    bound = {
        value.provider
        for module in modules_of(tests.backends)
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, BlobBackendContract) and value is not BlobBackendContract
    }
    assert providers
    assert providers == bound
