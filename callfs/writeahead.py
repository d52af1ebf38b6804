"""
Whether a write-ahead log of SQLite has lost commits that were durable.

SQLite takes the first frame whose checksum is wrong for the end of its log. After a power failure that is right:
each commit was synchronised before the next one began, so what is torn is the last one, and nobody was told of it.
But when a frame has gone bad since, everything behind it vanishes without a word: entries that were acknowledged,
terms and votes. Both can be told apart. Each frame's checksum continues the one before it, so frames that follow on
a finished commit prove that it once was whole. (The format: https://sqlite.org/fileformat2.html, section 4.)
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

_HEADER = struct.Struct(">8I")
_FRAME = struct.Struct(">6I")
_HEADER_SUMMED = 24
_FRAME_SUMMED = 8
_MAGIC = 0x377F0682
_WORD = 0xFFFFFFFF
_PAGE_SIZES = frozenset(1 << power for power in range(9, 17))

Sums = tuple[int, int]


class _Frame(NamedTuple):
    """
    :ivar fits: its checksum is right, and continues that which the frame before it has, right or not.
    :ivar ends_commit: it says that it is the last one of a commit.
    """

    fits: bool
    ends_commit: bool


def first_lost_frame(database: Path) -> int | None:
    """
    Look for a bad frame with the proof of a finished commit behind it; it blocks, and changes nothing.

    To be asked before anybody opens the database: SQLite removes the evidence. What somebody is writing to
    meanwhile isn't judged.

    :param database: one that was written with ``synchronous=FULL``; its log is in the file beside it.
    :return: the number of the frame, from 1 (0 is the header); ``None`` when nothing is lost.
    :raises OSError: the disk failed.
    """
    try:
        file = database.with_name(database.name + "-wal").open("rb")
    except FileNotFoundError:
        return None
    with file:
        before = _state(file)
        found = _first_lost(file)
        return found if _state(file) == before else None


def _state(file: BinaryIO) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def _first_lost(file: BinaryIO) -> int | None:
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    magic, _, page_size, _, *salts, first, second = _HEADER.unpack(header)
    order = ">" if magic & 1 else "<"
    is_whole = _summed(header[:_HEADER_SUMMED], (0, 0), order) == (first, second)
    if magic & ~1 != _MAGIC or page_size not in _PAGE_SIZES or not is_whole:
        # It is synchronised before the first frame is written.
        return 0 if any(file.read(_FRAME.size)) else None
    bad: int | None = None
    before = _Frame(fits=False, ends_commit=False)
    for number, frame in enumerate(_frames(file, page_size, tuple(salts), (first, second), order), 1):
        if bad is not None and before.ends_commit and frame.fits:
            return bad
        if bad is None and not frame.fits:
            bad = number
        before = frame
    return None


def _frames(file: BinaryIO, page_size: int, salts: tuple[int, ...], sums: Sums, order: str) -> Iterator[_Frame]:
    while len(data := file.read(_FRAME.size + page_size)) == _FRAME.size + page_size:
        _, pages_after, first_salt, second_salt, first, second = _FRAME.unpack_from(data)
        content = _page_summed(data[_FRAME.size :], _summed(data[:_FRAME_SUMMED], sums, order), order)
        # Older frames, of before the log was begun anew, have other salts.
        own = (first_salt, second_salt) == salts
        yield _Frame(own and content == (first, second), own and pages_after != 0)
        sums = (first, second)


def _summed(data: bytes, sums: Sums, order: str) -> Sums:
    """A few words; SQLite's "s0 += x[i] + s1; s1 += x[i+1] + s0"."""
    one, two = sums
    for even, odd in struct.iter_unpack(f"{order}2I", data):
        one = (one + even + two) & _WORD
        two = (two + odd + one) & _WORD
    return one, two


def _page_summed(data: bytes, sums: Sums, order: str) -> Sums:
    """The same in larger steps: after a crash under load there are millions of words."""
    one, two = sums
    for a, b, c, d, e, f, g, h in struct.iter_unpack(f"{order}8I", data):
        one += a + two
        two += b + one
        one += c + two
        two += d + one
        one += e + two
        two += f + one
        one = (one + g + two) & _WORD
        two = (two + h + one) & _WORD
    return one, two
