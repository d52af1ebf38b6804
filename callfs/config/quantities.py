"""Durations and sizes as operators write them."""

from __future__ import annotations

import re
from decimal import Decimal

_DURATION_UNITS = {
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
}
_DURATION_PART = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?(ms|s|m|h|d)")
_NUMBER = re.compile(r"[0-9]{1,20}(?:\.[0-9]{1,9})?")
_SIZE = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,9})?) ?([a-z]*)", re.IGNORECASE)
_SIZE_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgtpe", start=1):
    _SIZE_UNITS[_letter + "ib"] = 1024**_power
    _SIZE_UNITS[_letter + "b"] = 1000**_power


def seconds_from_text(text: str) -> float | None:
    """
    ``250ms``, ``30s``, ``5m``, ``1h``, ``7d``, sums of them such as ``1h30m``, or a bare number of seconds.

    :return: seconds, or ``None`` when ``text`` is no duration.
    """
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return float(text)
    total, position = Decimal(0), 0
    while match := _DURATION_PART.match(text, position):
        total += Decimal(match[1]) * _DURATION_UNITS[match[2]]
        position = match.end()
    return float(total) if text and position == len(text) else None


def bytes_from_text(text: str) -> int | None:
    """
    ``64KiB``, ``10GiB`` (powers of 1024), ``5MB`` (powers of 1000), or a bare number of bytes; case doesn't matter.

    :return: bytes, or ``None`` when ``text`` is no size or no whole number of bytes.
    """
    match = _SIZE.fullmatch(text.strip())
    unit = _SIZE_UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        return None
    size = Decimal(match[1]) * unit
    return int(size) if size == size.to_integral_value() else None


def text_from_seconds(seconds: float) -> str:
    """The shortest text that :func:`seconds_from_text` reads back."""
    milliseconds = round(seconds * 1000)
    if milliseconds == 0 or abs(milliseconds / 1000 - seconds) > 1e-9:
        return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"
    for unit in ("h", "m", "s"):
        whole, rest = divmod(milliseconds, int(_DURATION_UNITS[unit] * 1000))
        if rest == 0:
            return f"{whole}{unit}"
    return f"{milliseconds}ms"


def text_from_bytes(size: int) -> str:
    """The shortest exact text that :func:`bytes_from_text` reads back."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        whole, rest = divmod(size, _SIZE_UNITS[unit.lower()])
        if whole and not rest:
            return f"{whole}{unit}"
    return str(size)
