"""
The effective configuration as YAML, secrets masked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from callfs.config.compounds import OrNone
from callfs.config.given import DEFAULT
from callfs.config.kinds import Kind
from callfs.config.numbers import Duration, Size
from callfs.config.quantities import text_from_bytes, text_from_seconds
from callfs.config.schema import KINDS, Config
from callfs.config.secret import MASK, Secret


def shown(config: Config, sources: Mapping[str, str] | None = None) -> str:
    """
    The configuration as YAML that can be read back, but for its masked secrets.

    :param sources: where each key was given: written behind each value as a comment; ``None``: no comments.
    """
    return "".join(f"{line}\n" for line in _lines(config, sources))


def _lines(config: Config, sources: Mapping[str, str] | None) -> Iterator[str]:
    last = None
    for key, value in config.items():
        section, _, name = key.partition(".")
        if section != last:
            yield f"{section}:"
            last = section
        if isinstance(value, Mapping) and value:
            yield f"  {name}:"
            for entry, content in value.items():
                yield f"    {json.dumps(entry)}: {_text(content)}{_comment(f'{key}.{entry}', sources)}"
        else:
            yield f"  {name}: {_text(_written(KINDS[key], value))}{_comment(key, sources)}"


def _comment(key: str, sources: Mapping[str, str] | None) -> str:
    if sources is None:
        return ""
    source = sources.get(key, DEFAULT)
    return f"  # {source if source.isprintable() else json.dumps(source)}"


def _written(kind: Kind, value: Any) -> Any:
    """Durations and sizes as an operator would write them."""
    if isinstance(kind, OrNone):
        kind = kind.kind
    if isinstance(kind, Duration) and value is not None:
        return text_from_seconds(value)
    return text_from_bytes(value) if isinstance(kind, Size) and value is not None else value


def _text(value: Any) -> str:
    """A value in YAML's flow style, for which JSON will do."""
    return json.dumps(_plain(value))


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Secret):
        return MASK
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, tuple):
        # One secret in a list of one is what most people write as a plain value.
        return _plain(value[0]) if len(value) == 1 and isinstance(value[0], Secret) else [_plain(v) for v in value]
    return str(value)
