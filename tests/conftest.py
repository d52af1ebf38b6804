"""What all tests share."""

from __future__ import annotations

import gc
from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect without garbage collection: all the thousands of tests are kept, so that it would find nothing."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
