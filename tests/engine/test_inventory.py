"""What should be there, against what is listed."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from callfs.backends.interfaces import BlobStat
from callfs.engine.inventory import Inventory
from callfs.errors import InsufficientStorage
from callfs.model import BlobRef, S3Placement


def blob(number: int, size: int = 7) -> BlobRef:
    """A blob that is named."""
    return BlobRef(id=f"{number:026}", size=size, sha256=bytes(32), placement=S3Placement())


def there(number: int, size: int = 7) -> BlobStat:
    """One that is listed."""
    return BlobStat(id=f"{number:026}", size=size, modified_at=0)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process grows beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def inventory() -> Iterator[Inventory]:
    """An empty one."""
    inventory = Inventory()
    yield inventory
    inventory.close()


def test_the_difference(inventory: Inventory) -> None:
    """In whatever order, what isn't listed with its size is left; what nobody expects changes nothing."""
    for start in range(0, 3000, 500):
        inventory.expect([blob(number) for number in range(start, start + 500)])
    listed = [number for number in reversed(range(4000)) if number not in (0, 1234, 2999)]
    struck = sum(
        inventory.strike([there(number, 8 if number == 77 else 7) for number in listed[start : start + 1000]])
        for start in range(0, len(listed), 1000)
    )
    assert struck == 2996
    assert len(inventory) == 4
    left = [f"{number:026}" for number in (0, 77, 1234, 2999)]
    assert inventory.missing("", 3) == left[:3]
    assert inventory.missing(left[2], 3) == left[3:]
    assert inventory.missing(left[3], 3) == []


def test_the_same_again(inventory: Inventory) -> None:
    """What is expected or listed twice counts once: pages of lists may overlap."""
    inventory.expect([blob(1), blob(2)])
    inventory.expect([blob(2)])
    assert len(inventory) == 2
    assert inventory.strike([there(2), there(2)]) == 1
    assert inventory.strike([there(2)]) == 0
    assert inventory.missing("", 9) == [f"{1:026}"]


def test_no_room_for_it() -> None:
    """A temporary folder that is full is no internal error, and it is said which it is."""
    inventory = Inventory(cache_kib=64)
    try:
        with largest_file(256 * 1024), pytest.raises(InsufficientStorage, match="TMPDIR"):
            inventory.expect([blob(number) for number in range(50_000)])
    finally:
        inventory.close()
