"""
From given values to a configuration: every key read by its kind, all problems collected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from callfs.config.compounds import MapOf
from callfs.config.environment import EnvironmentValues
from callfs.config.given import Given, Origin, type_name
from callfs.config.problems import ConfigurationError, Problem
from callfs.config.schema import KINDS, SECTIONS, Config

Sources = dict[str, str]


def values_of_tree(tree: Mapping[Any, Any], origin: Origin) -> tuple[dict[str, Given], list[Problem]]:
    """
    The values in a file, by full key, and what in it is no known key.

    :param origin: of the file's top.
    """
    values: dict[str, Given] = {}
    problems = []
    for section, content in tree.items():
        where = origin.inside(section)
        if section not in SECTIONS:
            problems.append(_unknown(str(section), SECTIONS, where))
        elif content is not None and not isinstance(content, dict):
            problems.append(Problem(section, f"{type_name(content)} given, allowed: a map of keys", str(where)))
        else:
            for name, value in (content or {}).items():
                key = f"{section}.{name}"
                if key in KINDS and isinstance(name, str):
                    values[key] = Given(value, where.inside(name))
                else:
                    problems.append(_unknown(key, KINDS, where.inside(name)))
    return values, problems


def _unknown(key: str, known: Mapping[str, Any], origin: Origin) -> Problem:
    near = _nearest(key, known)
    return Problem(key, f"unknown; the nearest known one is {near}" if near else "unknown", str(origin))


def _nearest(key: str, known: Mapping[str, Any]) -> str | None:
    """The known key of the same name in another section, else the one that is written most alike."""
    name = key.rpartition(".")[2]
    same = [other for other in known if other.rpartition(".")[2] == name]
    return next(iter(same or get_close_matches(key, known, n=1)), None)


def assemble(
    in_file: Mapping[str, Given], environment: EnvironmentValues, base: Path
) -> tuple[Config, Sources, list[Problem]]:
    """
    Read every value that was given; what is later wins, and entries of the environment go into the maps.

    :param base: the folder from which relative paths among the defaults count.
    :return: the configuration, with defaults in place of what can't be used; where each key was given (entries of
        maps also under ``key.name``), without those that have their default; the problems.
    """
    read: dict[str, Any] = {}
    sources: Sources = {}
    problems: list[Problem] = []
    for key, kind in KINDS.items():
        whole = environment.values.get(key) or in_file.get(key)
        entries = environment.entries.get(key, {})
        if whole is None and not entries:
            continue
        sources[key] = str(whole.origin if whole else next(iter(entries.values())).origin)
        try:
            if isinstance(kind, MapOf):
                read[key], refused = _read_map(key, kind, whole, entries, sources)
                problems += refused
            elif whole is not None:
                read[key] = kind.read(key, whole.value, whole.origin)
        except ConfigurationError as error:
            problems += error.problems
    return _built(read, base), sources, problems


def with_implied(config: Config, sources: Mapping[str, str]) -> tuple[Config, Sources]:
    """
    What follows from other settings, written out, so that what is shown is what is done.

    :return: the configuration, and the sources with what such a value follows from.
    """
    found = dict(sources)
    if config.raft_metadata and not config.raft.enabled:
        config = replace(config, raft=replace(config.raft, enabled=True))
        found["raft.enabled"] = "implied by metadata_store.type"
    if config.raft_metadata and config.metadata_store.type != "raft":
        config = replace(config, metadata_store=replace(config.metadata_store, type="raft"))
        found["metadata_store.type"] = "implied by raft.enabled"
    return config, found


def _read_map(
    key: str, kind: MapOf, whole: Given | None, entries: Mapping[str, Given], sources: Sources
) -> tuple[dict[str, Any], list[Problem]]:
    """The map given as a whole, with single entries on top; and what is wrong with those that can't be read."""
    given: dict[Any, Given] = {}
    if whole is not None:
        plain = kind.entries(key, kind.plain(key, whole.value, whole.origin), whole.origin)
        given = {name: Given(value, whole.origin.inside(name)) for name, value in plain.items()}
    given.update(entries)
    read: dict[str, Any] = {}
    problems: list[Problem] = []
    for given_name, entry in given.items():
        try:
            name, value = kind.read_entry(key, given_name, entry.value, entry.origin)
        except ConfigurationError as error:
            problems += error.problems
        else:
            read[name] = value
            sources[f"{key}.{name}"] = str(entry.origin)
    return read, problems


def _built(read: Mapping[str, Any], base: Path) -> Config:
    sections = {}
    for section, cls in SECTIONS.items():
        given = {key.partition(".")[2]: value for key, value in read.items() if key.startswith(section + ".")}
        sections[section] = cls(**{**_absolute_defaults(cls(), base), **given})
    return Config(**sections)


def _absolute_defaults(section: Any, base: Path) -> dict[str, Any]:
    return {name: base / value for name, value in vars(section).items() if isinstance(value, Path)}
