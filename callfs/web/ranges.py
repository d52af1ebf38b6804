"""
Byte ranges: which part of a file a ``Range`` header asks for, and how several are framed (RFC 9110, section 14).

- malformed, another unit, more than :data:`MAX_RANGES`, or more bytes in all than the file has: the whole file;
- no range that lies in the file: 416;
- one: its bytes under ``Content-Range``; several: ``multipart/byteranges``, in the order asked for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from callfs.errors import RangeNotSatisfiable
from callfs.model import ByteRange

MAX_RANGES = 16

_SPEC = re.compile(r"([0-9]*)-([0-9]*)")
_LAST_OFFSET = (1 << 63) - 1
_MOST_DIGITS = 18


def select(header: str | None, size: int) -> tuple[ByteRange, ...] | None:
    """
    The ranges to send.

    :param header: the value of ``Range``, or ``None`` without one.
    :param size: bytes of the file.
    :return: at least one range, each within the file and not empty; ``None`` for the whole file.
    :raises RangeNotSatisfiable: the header is well formed and nothing of the file is asked for.
    """
    specs = None if header is None else _parse(header)
    if specs is None:
        return None
    if size == 0 and any(first is None and last for first, last in specs):
        return None  # the last n bytes of an empty file are all of it, which no Content-Range can say
    ranges = tuple(found for first, last in specs if (found := _resolve(first, last, size)) is not None)
    if not ranges:
        raise RangeNotSatisfiable(f"no part of the range lies in the file, which has {size} bytes", size=size)
    if len(ranges) > MAX_RANGES or sum(found.length for found in ranges) > size:
        return None  # a small request must not make a large answer (RFC 9110, section 17.15)
    return ranges


def _parse(header: str) -> list[tuple[int | None, int | None]] | None:
    """The (first, last) of each range, ``(None, n)`` for a suffix; ``None`` if anything is malformed."""
    unit, equals, text = header.partition("=")
    if not equals or unit.strip(" \t").lower() != "bytes":
        return None
    specs: list[tuple[int | None, int | None]] = []
    for element in text.split(","):
        if not (stripped := element.strip(" \t")):
            continue  # empty list elements are to be ignored (RFC 9110, section 5.6.1.2)
        match = _SPEC.fullmatch(stripped)
        if match is None:
            return None
        first, last = _number(match[1]), _number(match[2])
        if (first is None and last is None) or (first is not None and last is not None and last < first):
            return None
        specs.append((first, last))
    return specs or None


def _number(digits: str) -> int | None:
    """A number of any length; one beyond every file is as good as the largest offset."""
    if not digits:
        return None
    significant = digits.lstrip("0") or "0"
    return int(significant) if len(significant) <= _MOST_DIGITS else _LAST_OFFSET


def _resolve(first: int | None, last: int | None, size: int) -> ByteRange | None:
    if first is None:
        start, end = max(0, size - (last or 0)), size
    else:
        start, end = first, size if last is None else min(last + 1, size)
    return ByteRange(start, end) if start < end else None


def content_range(part: ByteRange, size: int) -> str:
    """The value of ``Content-Range`` for a part of a file of ``size`` bytes."""
    return f"bytes {part.start}-{part.end - 1}/{size}"


def multipart(
    ranges: Sequence[ByteRange], size: int, content_type: str, boundary: str
) -> tuple[bytes | ByteRange, ...]:
    """
    Frame several ranges as ``multipart/byteranges`` (RFC 9110, section 14.6).

    :param boundary: at most 70 characters that the file is sure not to have after a line end and ``--``.
    :return: the pieces of the body, framing as bytes between the ranges.
    """
    pieces: list[bytes | ByteRange] = []
    line_end = ""
    for part in ranges:
        head = (
            f"{line_end}--{boundary}\r\n"
            f"Content-Type: {content_type}\r\n"
            f"Content-Range: {content_range(part, size)}\r\n\r\n"
        )
        pieces += [head.encode("latin-1"), part]
        line_end = "\r\n"
    pieces.append(f"\r\n--{boundary}--\r\n".encode("latin-1"))
    return tuple(pieces)
