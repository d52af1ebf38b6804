"""No metadata store escapes the contract suite."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import ModuleType

import callfs.metadata
import tests.metadata
from callfs.metadata.interfaces import IMetadataStore
from tests.contract.metadata import MetadataContract


def modules(package: ModuleType) -> list[ModuleType]:
    """All modules of a package."""
    return [
        importlib.import_module(f"{package.__name__}.{info.name}")
        for info in pkgutil.iter_modules(package.__path__)
    ]


def test_every_provider_is_bound() -> None:
    """Each class that says it is a metadata store has a test class that binds the contract to it."""
    providers = {
        value
        for module in modules(callfs.metadata)
        for value in vars(module).values()
        if inspect.isclass(value) and IMetadataStore.implementedBy(value)
    }
    bound = {
        value.provider
        for module in modules(tests.metadata)
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, MetadataContract) and hasattr(value, "provider")
    }
    assert providers
    assert providers == bound
