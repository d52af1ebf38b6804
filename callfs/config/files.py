"""
The configuration's files: which one, and what is in it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from callfs.config.given import UnreadableFile, type_name
from callfs.config.json_text import InvalidJson, parse_json
from callfs.config.problems import ConfigurationError, Problem
from callfs.config.yaml_text import InvalidYaml, Steps, parse_yaml

NAMES = ("config.yaml", "config.yml", "config.json")
SYSTEM_FILE = Path("/etc/callfs/config.yaml")
LARGEST_BYTES = 1024 * 1024


@dataclass(frozen=True)
class ConfigFile:
    """
    What a configuration file says.

    :param tree: its content; a map.
    :param lines: the lines of what is in it; empty for JSON.
    """

    path: Path
    tree: Mapping[Any, Any]
    lines: Mapping[Steps, int] = field(default_factory=dict)


def find_file(given: Path | None, cwd: Path, system_file: Path = SYSTEM_FILE) -> Path | None:
    """
    The file to read: the one given, else the first of the known names that is there, else none.

    One that is there and can't be read is chosen all the same: it is a problem, not a reason to take another.
    """
    if given is not None:
        return cwd / given
    return next((path for path in (*(cwd / name for name in NAMES), system_file) if _is_there(path)), None)


def _is_there(path: Path) -> bool:
    """Whether something has this name, as far as can be told: in a folder that is closed to us it may."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def read_file(path: Path) -> ConfigFile:
    """
    Read a configuration file, as YAML or JSON by its ending.

    :raises callfs.config.problems.ConfigurationError: it can't be read, or isn't what its ending says.
    """
    try:
        text = read_text(path)
        tree, lines = parse_yaml(text) if path.suffix.lower() in (".yaml", ".yml") else _parse_json(path, text)
    except UnreadableFile as error:
        raise ConfigurationError([Problem("", f"the configuration can't be read: {error}", str(path))]) from None
    except InvalidYaml as error:
        where = f"{path}, line {error.line}" if error.line else str(path)
        raise ConfigurationError([Problem("", f"not usable as YAML: {error}", where)]) from None
    except InvalidJson as error:
        raise ConfigurationError([Problem("", f"not usable as JSON: {error}", str(path))]) from None
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        message = f"{type_name(tree)} given, allowed: a map of sections such as server: and auth:"
        raise ConfigurationError([Problem("", message, str(path))])
    return ConfigFile(path, tree, lines)


def _parse_json(path: Path, text: str) -> tuple[Any, dict[Steps, int]]:
    if path.suffix.lower() != ".json":
        raise UnreadableFile("its name must end in .yaml, .yml or .json")
    return (parse_json(text) if text.strip() else None), {}


def read_text(path: Path) -> str:
    """
    The text of a file, in UTF-8, with or without a byte order mark.

    :raises callfs.config.given.UnreadableFile: it isn't there, isn't for us, is too large, or isn't UTF-8.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise UnreadableFile(_reason(error)) from None
    if len(content) > LARGEST_BYTES:
        raise UnreadableFile(f"it is larger than {LARGEST_BYTES} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UnreadableFile(f"it isn't UTF-8 (line {line})") from None


def read_value(path: Path) -> str:
    """
    The value that a file holds: its text without the line ends at its end.

    :raises callfs.config.given.UnreadableFile: as :func:`read_text`; or it is empty.
    """
    text = read_text(path).rstrip("\r\n")
    if not text:
        raise UnreadableFile("it is empty")
    return text


def _reason(error: OSError) -> str:
    known = {
        errno.ENOENT: "no such file",
        errno.EACCES: "permission denied",
        errno.EISDIR: "it is a directory",
        errno.ENOTDIR: "no such file",
    }
    return known.get(error.errno or 0, error.strerror or "unknown reason")
