"""Kinds of numbers: booleans, counts, rates, durations, sizes."""

from __future__ import annotations

import math
import re

from callfs.config.given import Origin, OutsideText
from callfs.config.kinds import Kind
from callfs.config.quantities import bytes_from_text, seconds_from_text

LONGEST_SECONDS = 366 * 86400.0
LARGEST_INTEGER = 2**63 - 1
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_NUMBER = re.compile(r"[+-]?[0-9]{1,20}(\.[0-9]{1,20})?")
_BOOLEANS = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


class Boolean(Kind):
    """True or false."""

    allowed = "true or false"

    def from_text(self, key: str, outside: OutsideText, origin: Origin) -> object:
        return _BOOLEANS.get(outside.text.strip().lower(), outside.text)

    def check(self, key: str, value: object, origin: Origin) -> bool:
        if not isinstance(value, bool):
            hint = "; without quotes" if isinstance(value, str) and value.lower() in _BOOLEANS else ""
            self.refuse(key, value, origin, self.allowed + hint)
        return value


class Whole(Kind):
    """A whole number."""

    def __init__(self, least: int = 0, most: int = LARGEST_INTEGER) -> None:
        self._least = least
        self._most = most
        limits = f"from {least} to {most}" if most < LARGEST_INTEGER else f"of at least {least}"
        self.allowed = f"a whole number {limits}"

    def from_text(self, key: str, outside: OutsideText, origin: Origin) -> object:
        text = outside.text.strip()
        return int(text) if _INTEGER.fullmatch(text) else outside.text

    def check(self, key: str, value: object, origin: Origin) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not self._least <= value <= self._most:
            self.refuse(key, value, origin)
        return value


class Rate(Kind):
    """How often in a second."""

    allowed = "a number above 0"

    def from_text(self, key: str, outside: OutsideText, origin: Origin) -> object:
        text = outside.text.strip()
        return float(text) if _NUMBER.fullmatch(text) else outside.text

    def check(self, key: str, value: object, origin: Origin) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
            self.refuse(key, value, origin)
        return float(value)


class Duration(Kind):
    """A duration, in seconds when parsed."""

    def __init__(self, zero: bool = False) -> None:
        """
        :param zero: whether 0 is allowed.
        """
        self._zero = zero
        limit = "at least 0" if zero else "above 0"
        self.allowed = f"a number of seconds or text like 250ms, 30s, 5m, 1h; {limit}, at most 366d"

    def check(self, key: str, value: object, origin: Origin) -> float:
        seconds = seconds_from_text(value) if isinstance(value, str) else value
        if (
            isinstance(seconds, bool)
            or not isinstance(seconds, int | float)
            or not math.isfinite(_bounded(seconds))
        ):
            self.refuse(key, value, origin)
        if not 0 <= seconds <= LONGEST_SECONDS or (seconds == 0 and not self._zero):
            self.refuse(key, value, origin)
        return float(seconds)


def _bounded(number: int | float) -> float:
    # An integer may be too large for a float.
    return math.inf if isinstance(number, int) and number.bit_length() > 64 else float(number)


class Size(Kind):
    """A number of bytes."""

    def __init__(self, least: int = 0) -> None:
        self._least = least
        self.allowed = f"a number of bytes or text like 64KiB, 10GiB; at least {least}"

    def check(self, key: str, value: object, origin: Origin) -> int:
        size = bytes_from_text(value) if isinstance(value, str) else value
        if isinstance(size, bool) or not isinstance(size, int) or not self._least <= size <= LARGEST_INTEGER:
            self.refuse(key, value, origin)
        return size
