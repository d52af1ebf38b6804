"""
Loading the configuration: defaults, a file, the environment; the later wins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from callfs.config.assembly import assemble, values_of_tree, with_implied
from callfs.config.compounds import OrNone
from callfs.config.environment import read_environment
from callfs.config.files import SYSTEM_FILE, find_file, read_file, read_text, read_value
from callfs.config.given import Given, Origin, UnreadableFile
from callfs.config.problems import ConfigurationError, Problem
from callfs.config.rules import rule_problems, rule_warnings
from callfs.config.schema import KINDS, Config
from callfs.config.texts import FilePath
from callfs.config.unbuilt import unbuilt_problems


@dataclass(frozen=True)
class Loaded:
    """
    A configuration that passed every check.

    :param sources: where each full key was given or what its value follows from, and each entry of a map under
        ``key.name``; what has its default isn't in it.
    :param warnings: what an operator should know, without a secret in it.
    :param path: the file that was read, if any.
    """

    config: Config
    sources: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    path: Path | None = None


def load(
    config_path: Path | None, environ: Mapping[str, str], cwd: Path, system_file: Path = SYSTEM_FILE
) -> Loaded:
    """
    Load and check the configuration. Reads files; blocks.

    :param config_path: the file to read; ``None``: the first of the known names in ``cwd``, else ``system_file``,
        else none.
    :param cwd: the folder from which relative paths of the environment, the command line and the defaults count.
    :raises callfs.config.problems.ConfigurationError: it can't be used; with every problem.
    """
    path = find_file(config_path, cwd, system_file)
    in_file, unusable = _given_in_file(path)
    environment = read_environment(environ, cwd, read_value)
    config, sources, problems = assemble(in_file or {}, environment, cwd)
    problems = [*unusable, *problems]
    if in_file is not None:
        refused = {problem.key for problem in problems}
        found = [*rule_problems(config), *unbuilt_problems(config, sources), *_missing_files(config)]
        problems += [_with_source(problem, sources) for problem in found if not _follows(problem.key, refused)]
    if problems:
        raise ConfigurationError(dict.fromkeys(problems))
    config, sources = with_implied(config, sources)
    return Loaded(config, sources, (*environment.warnings, *rule_warnings(config)), path)


def _given_in_file(path: Path | None) -> tuple[dict[str, Given] | None, tuple[Problem, ...]]:
    """The values in the file, ``None`` if it can't be read at all: then no rule can be judged."""
    if path is None:
        return {}, ()
    try:
        file = read_file(path)
    except ConfigurationError as error:
        return None, error.problems
    values, problems = values_of_tree(file.tree, Origin(str(path), path.parent, read_value, file.lines))
    return values, tuple(problems)


def _follows(key: str, refused: set[str]) -> bool:
    """Whether a rule's problem only follows from values that were refused on their own."""
    return any(other == key or other.startswith((f"{key}.", f"{key}[", f"{key} ")) for other in refused if other)


def _missing_files(config: Config) -> Iterator[Problem]:
    for key, value in config.items():
        kind = KINDS[key]
        needed = isinstance(kind, OrNone) and isinstance(kind.kind, FilePath) and kind.kind.must_exist
        if not needed or value is None:
            continue
        try:
            read_text(value)
        except UnreadableFile as error:
            yield Problem(key, f"the file {value} can't be read: {error}")


def _with_source(problem: Problem, sources: Mapping[str, str]) -> Problem:
    """Where the key was given, or what it is in."""
    if problem.source:
        return problem
    key = problem.key
    while key and key not in sources:
        key = key[: max(key.rfind("."), key.rfind("["), 0)]
    return replace(problem, source=sources.get(key, ""))
