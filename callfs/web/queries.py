"""
Values of query parameters and option headers: what was given is understood or refused, never ignored.
"""

from __future__ import annotations

import re

from callfs.errors import BadRequest

_TRUE = frozenset(["true", "1", "yes"])
_FALSE = frozenset(["false", "0", "no"])
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")


def boolean(name: str, text: str | None, default: bool = False) -> bool:
    """
    ``true``, ``1``, ``yes`` or ``false``, ``0``, ``no``, whatever the case.

    :param text: ``None`` for the default.
    :raises BadRequest: anything else.
    """
    if text is None:
        return default
    lowered = text.strip().lower()
    if lowered in _TRUE:
        return True
    if lowered in _FALSE:
        return False
    raise BadRequest(f"{name} must be true or false")


def integer(name: str, text: str, minimum: int, maximum: int) -> int:
    """
    A whole number.

    :raises BadRequest: it is none, or not between ``minimum`` and ``maximum``, both allowed.
    """
    number = integer_or_none(text)
    if number is None or not minimum <= number <= maximum:
        raise BadRequest(f"{name} must be a whole number from {minimum} to {maximum}")
    return number


def integer_or_none(text: str | None) -> int | None:
    """A whole number, or ``None`` for what is none."""
    if text is None or _INTEGER.fullmatch(text.strip()) is None:
        return None
    return int(text)
