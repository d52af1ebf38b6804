"""
Configuration in environment variables: ``CALLFS_`` and the key, ``__`` between its levels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from callfs.config.compounds import MapOf
from callfs.config.given import Given, Origin, OutsideText
from callfs.config.schema import KINDS

PREFIX = "CALLFS_"
FOREIGN_PREFIXES = ("CALLFS_TEST_",)
FILE_SUFFIX = "__FILE"


@dataclass(frozen=True)
class EnvironmentValues:
    """
    What the environment gives.

    :param values: by full key.
    :param entries: single entries of maps, by full key and name.
    :param warnings: about variables that look like ours and aren't.
    """

    values: Mapping[str, Given]
    entries: Mapping[str, Mapping[str, Given]]
    warnings: tuple[str, ...]


def read_environment(environ: Mapping[str, str], base: Path, read_text: Callable[[Path], str]) -> EnvironmentValues:
    """
    Pick our variables out of the environment.

    The last part of a map entry's variable is the name in lower case. With ``__FILE`` at its end a variable is the
    path of a file that holds the value; given as well as the variable itself it wins.

    :param base: the folder from which relative paths count.
    """
    values: dict[str, Given] = {}
    entries: dict[str, dict[str, Given]] = {}
    warnings = []
    for variable in sorted(_ours(environ), key=lambda name: (name.endswith(FILE_SUFFIX), name)):
        stem = variable.removesuffix(FILE_SUFFIX)
        target = _target(stem)
        if target is None:
            warnings.append(_unknown(variable, stem))
            continue
        text = OutsideText(environ[variable])
        value = {"file": text} if variable != stem else text
        given = Given(value, Origin(f"environment {variable}", base, read_text))
        key, name = target
        if name is None:
            values[key] = given
        else:
            entries.setdefault(key, {})[name] = given
    return EnvironmentValues(values, entries, tuple(warnings))


def _ours(environ: Mapping[str, str]) -> Iterator[str]:
    return (name for name in environ if name.startswith(PREFIX) and not name.startswith(FOREIGN_PREFIXES))


def variable_of(key: str) -> str:
    """The environment variable of a full key."""
    return PREFIX + key.upper().replace(".", "__")


_BY_VARIABLE = {variable_of(key): key for key in KINDS}


def _target(stem: str) -> tuple[str, str | None] | None:
    """The full key that a variable is about and, for an entry of a map, the entry's name."""
    if key := _BY_VARIABLE.get(stem):
        return key, None
    for variable, key in _BY_VARIABLE.items():
        name = stem.removeprefix(variable + "__")
        if isinstance(KINDS[key], MapOf) and name not in (stem, ""):
            return key, name.lower()
    return None


def _unknown(variable: str, stem: str) -> str:
    near = get_close_matches(stem, _BY_VARIABLE, n=1)
    hint = f"; the nearest known one is {near[0]}" if near else ""
    return f"the environment variable {variable} is unknown and has no effect{hint}"
