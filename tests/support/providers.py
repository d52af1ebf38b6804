"""Who provides a port, and who is held to its contract."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType

from zope.interface.interface import InterfaceClass


def classes_in(package: ModuleType) -> Iterator[type]:
    """Everything in all modules of a package that is a class."""
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        yield from filter(inspect.isclass, vars(importlib.import_module(module.name)).values())


def providers(package: ModuleType, port: InterfaceClass) -> set[type]:
    """The classes of a package that say they provide a port."""
    return {cls for cls in classes_in(package) if port.implementedBy(cls)}


def held_to(contract: type, package: ModuleType) -> set[type]:
    """The providers that the test cases of a package hold to a contract: a test case names its ``provider``."""
    return {cls.provider for cls in classes_in(package) if issubclass(cls, contract) and hasattr(cls, "provider")}
