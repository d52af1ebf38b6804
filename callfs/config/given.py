"""
Values as they were given, before they are checked: what, and where.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

from callfs.config.problems import ConfigurationError, Problem

DEFAULT = "default"
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class OutsideText:
    """
    Text from the environment or from a value's own file: its key decides what it is read as.

    :param from_file: it is the content of a file: a secret is taken line by line, not split at commas.
    """

    text: str
    from_file: bool = False


@dataclass(frozen=True)
class Origin:
    """
    Where a value was given.

    :param name: the file's path or ``environment NAME``.
    :param base: the folder from which relative paths count.
    :param read_text: reads the file of a ``{file: path}``, without the line ends at its end; its
        :class:`UnreadableFile` becomes a problem.
    :param lines: line numbers in the file, by the steps from its top.
    :param path: the steps to this value.
    """

    name: str
    base: Path
    read_text: Callable[[Path], str]
    lines: Mapping[tuple[str | int, ...], int] = field(default_factory=dict)
    path: tuple[str | int, ...] = ()

    def inside(self, step: str | int) -> Origin:
        """Where an entry of this value was given."""
        return replace(self, path=(*self.path, step))

    def __str__(self) -> str:
        for length in range(len(self.path), -1, -1):
            if line := self.lines.get(self.path[:length]):
                return f"{self.name}, line {line}"
        return self.name


@dataclass(frozen=True)
class Given:
    """A value and where it was given."""

    value: object
    origin: Origin


class UnreadableFile(Exception):
    """A file can't be read; the message says why, without its path."""


def refuse(key: str, value: object, allowed: str, origin: Origin, secret: bool = False) -> NoReturn:
    """
    Refuse a value.

    :param allowed: what would have been right.
    :param secret: name the value's type alone.
    :raises callfs.config.problems.ConfigurationError: always.
    """
    raise ConfigurationError([Problem(key, f"{described(value, secret)} given, allowed: {allowed}", str(origin))])


def described(value: object, secret: bool = False) -> str:
    """What was given: the type, and for a plain value that is no secret the value."""
    if isinstance(value, OutsideText):
        value = value.text
    kind = type_name(value)
    if secret or value is None or not isinstance(value, str | bool | int | float) or value == "":
        return kind
    shown = json.dumps(value) if isinstance(value, str | bool) else _number_text(value)
    return f"{kind} {shown if len(shown) <= _SHOWN_CHARACTERS else shown[:_SHOWN_CHARACTERS] + '...'}"


def _number_text(value: int | float) -> str:
    # Python refuses to print integers of thousands of digits.
    return f"of {value.bit_length()} bits" if isinstance(value, int) and value.bit_length() > 256 else repr(value)


def type_name(value: object) -> str:
    """What kind of value this is, in an operator's words."""
    if isinstance(value, str):
        return "text" if value else "empty text"
    # A boolean is an int, so the order counts.
    for types, name in (
        (type(None), "nothing"),
        (bool, "a boolean"),
        ((int, float), "a number"),
        (dict, "a map"),
        (list, "a list"),
    ):
        if isinstance(value, types):
            return name
    return f"a {type(value).__name__}"
