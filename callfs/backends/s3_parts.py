"""
How an upload is cut into parts, within the limits of S3: at most 10,000 parts of at least 5 MiB.
"""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20
GIB = 1 << 30
FIRST_PART_BYTES = 8 * MIB
MOST_PARTS = 10_000
MEMORY_BYTES = 4 * FIRST_PART_BYTES
"""What an upload has in memory, as long as two parts fit into it."""


_GROW_AFTER_PARTS = 1000


@dataclass(frozen=True)
class CopyLimits:
    """
    How the server copies.

    :param most_bytes: what CopyObject takes; what is larger is copied in parts.
    :param part_bytes: of those, as long as 10,000 of them suffice.
    """

    most_bytes: int = 5 * GIB
    part_bytes: int = 512 * MIB


def part_bytes(number: int, before_bytes: int, declared_size: int | None) -> int:
    """
    How large a part is to be.

    As long as what was declared holds, all parts have one size, and the smallest that suffices. Otherwise the size
    doubles every 1,000 parts: 7.8 GiB in parts of 8 MiB, and 8 TiB, more than S3 keeps in one object, in 10,000.

    :param number: of the part, from 1.
    :param before_bytes: in the parts before it.
    """
    if declared_size is not None and before_bytes < declared_size:
        return max(FIRST_PART_BYTES, _in_whole_mib(declared_size, MOST_PARTS))
    return FIRST_PART_BYTES << (number - 1) // _GROW_AFTER_PARTS


def memory_bytes(next_part_bytes: int) -> int:
    """What an upload may have in memory: four parts, fewer where they had to grow, but one that is sent and one
    that gathers."""
    return max(MEMORY_BYTES, 2 * next_part_bytes)


def copy_ranges(size: int, limits: CopyLimits) -> list[tuple[int, int]]:
    """The parts of a copy: first byte, and the byte after the last."""
    step = max(limits.part_bytes, _in_whole_mib(size, MOST_PARTS))
    return [(start, min(start + step, size)) for start in range(0, size, step)]


def _in_whole_mib(size: int, parts: int) -> int:
    """What a part has to have, rounded up."""
    return -(-size // (parts * MIB)) * MIB
