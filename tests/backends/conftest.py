"""What the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.s3 import end_shared_servers


@pytest.fixture(scope="session", autouse=True)
def _servers_end() -> Iterator[None]:
    """Servers that tests share end with the run."""
    yield
    end_shared_servers()
