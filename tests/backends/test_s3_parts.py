"""How uploads are cut, within the limits of S3."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callfs.backends.s3_gathering import Gathering
from callfs.backends.s3_parts import GIB, MIB, MOST_PARTS, CopyLimits, copy_ranges, memory_bytes, part_bytes

TIB = 1 << 40
LARGEST = 5 * TIB


def cut(size: int, declared: int | None) -> list[int]:
    """The parts of an upload."""
    parts: list[int] = []
    before = 0
    while before < size:
        part = min(part_bytes(len(parts) + 1, before, declared), size - before)
        parts.append(part)
        before += part
    return parts


@settings(deadline=None)
@given(st.integers(1, LARGEST), st.booleans())
def test_any_size_fits(size: int, known: bool) -> None:
    """Whatever S3 can hold goes into 10,000 parts, none but the last under 5 MiB, none over 5 GiB."""
    parts = cut(size, size if known else None)
    assert sum(parts) == size
    assert len(parts) <= MOST_PARTS
    assert all(5 * MIB <= part <= 5 * GIB for part in parts[:-1])


@pytest.mark.parametrize("size", [9 * MIB, 10 * GIB, 78 * GIB])
def test_small_parts_as_long_as_they_do(size: int) -> None:
    """A known size is cut into parts of 8 MiB if 10,000 of them suffice: four are 32 MiB in memory."""
    assert set(cut(size, size)[:-1]) == {8 * MIB}
    assert memory_bytes(8 * MIB) == 32 * MIB


def test_memory_of_large_parts() -> None:
    """Of larger parts fewer are in memory: the one that gathers, and one that is sent."""
    assert memory_bytes(16 * MIB) == 32 * MIB
    assert memory_bytes(525 * MIB) == 1050 * MIB


def test_unknown_sizes() -> None:
    """Without a known size the first 7.8 GiB are in parts of 8 MiB."""
    assert set(cut(7 * GIB, None)[:-1]) == {8 * MIB}


@settings(deadline=None)
@given(st.integers(5 * GIB + 1, LARGEST))
def test_copies(size: int) -> None:
    """The parts of a copy cover everything once, in at most 10,000 parts of at most 5 GiB."""
    ranges = copy_ranges(size, CopyLimits())
    assert [start for start, _ in ranges] == [0, *(end for _, end in ranges[:-1])]
    assert ranges[-1][1] == size
    assert len(ranges) <= MOST_PARTS
    assert all(5 * MIB <= end - start <= 5 * GIB for start, end in ranges[:-1])


@settings(deadline=None)
@given(st.lists(st.integers(0, 70_000).map(lambda size: bytes([size % 256]) * size), max_size=20))
def test_gathering(pieces: list[bytes]) -> None:
    """What is gathered comes out in order, in few pieces, and only once."""
    gathering = Gathering()
    for piece in pieces:
        gathering.add(piece)
    assert gathering.size == sum(map(len, pieces))
    taken = gathering.take()
    assert b"".join(taken) == b"".join(pieces)
    assert gathering.take() == ()
    assert gathering.size == 0
