"""Kinds made of other kinds: nothing or one, lists, maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from callfs.config.given import Origin, OutsideText
from callfs.config.json_text import InvalidJson, parse_json
from callfs.config.kinds import Kind
from callfs.config.problems import ConfigurationError, Problem


class OrNone(Kind):
    """Another kind, or nothing: null and empty text."""

    def __init__(self, kind: Kind, nothing: Any = None) -> None:
        """
        :param nothing: the parsed value of nothing.
        """
        self.kind = kind
        self._nothing = nothing
        self.allowed = f"{kind.allowed}; or nothing"
        self.secret = kind.secret

    def from_text(self, key: str, outside: OutsideText, origin: Origin) -> object:
        return self.kind.from_text(key, outside, origin) if outside.text else None

    def check(self, key: str, value: object, origin: Origin) -> Any:
        return self._nothing if value is None or value == "" else self.kind.check(key, value, origin)


class ListOf(Kind):
    """A list of one kind, a tuple when parsed."""

    def __init__(self, item: Kind) -> None:
        self.item = item
        self.secret = item.secret
        self.allowed = f"a list, each entry {item.allowed}"

    def from_text(self, key: str, outside: OutsideText, origin: Origin) -> object:
        text = outside.text.strip()
        if text.startswith("["):
            return _json(key, text, origin, self.allowed)
        return [OutsideText(part.strip(), outside.from_file) for part in text.split(",")] if text else []

    def check(self, key: str, value: object, origin: Origin) -> tuple[Any, ...]:
        if value is None:
            return ()
        if not isinstance(value, list):
            self.refuse(key, value, origin)
        return tuple(_read_all(partial(self._read_item, key, i, entry, origin) for i, entry in enumerate(value)))

    def _read_item(self, key: str, i: int, entry: object, origin: Origin) -> Any:
        return self.item.read(f"{key}[{i}]", entry, origin.inside(i))


class OneOrMore(ListOf):
    """One value, or a list of at least one; a tuple when parsed."""

    def __init__(self, item: Kind) -> None:
        super().__init__(item)
        self.allowed = f"{item.allowed}; or a list of such"

    def from_text(self, key: str, outside: OutsideText, origin: Origin) -> object:
        if outside.from_file:
            return [OutsideText(line, from_file=True) for line in outside.text.splitlines()] or ""
        return super().from_text(key, outside, origin) or ""

    def check(self, key: str, value: object, origin: Origin) -> tuple[Any, ...]:
        if isinstance(value, list):
            return super().check(key, value, origin) if value else self.refuse(key, "", origin)
        return (self.item.check(key, value, origin),)


class MapOf(Kind):
    """Values of one kind by name, a dict when parsed."""

    def __init__(self, name: Kind, item: Kind) -> None:
        self.name = name
        self.item = item
        self.secret = item.secret
        self.allowed = f"a map, name: {name.allowed}; value: {item.allowed}"

    def from_text(self, key: str, outside: OutsideText, origin: Origin) -> object:
        text = outside.text.strip()
        return _json(key, text, origin, "a JSON object") if text else {}

    def check(self, key: str, value: object, origin: Origin) -> dict[str, Any]:
        entries = self.entries(key, value, origin)
        return dict(_read_all(partial(self.read_entry, key, n, v, origin.inside(n)) for n, v in entries.items()))

    def entries(self, key: str, value: object, origin: Origin) -> dict[Any, object]:
        """The unread entries of a given map."""
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.refuse(key, value, origin)
        return value

    def read_entry(self, key: str, name: object, value: object, origin: Origin) -> tuple[str, Any]:
        """Read one entry."""
        checked: str = self.name.check(f"{key} (a name in it)", name, origin)
        return checked, self.item.read(f"{key}.{checked}", value, origin)


def _json(key: str, text: str, origin: Origin, allowed: str) -> object:
    try:
        return parse_json(text)
    except InvalidJson as error:
        message = f"text that is no JSON ({error}) given, allowed: {allowed}"
        raise ConfigurationError([Problem(key, message, str(origin))]) from None


def _read_all(readings: Iterable[Callable[[], Any]]) -> list[Any]:
    """The results of all, or the problems of all."""
    results: list[Any] = []
    problems: list[Problem] = []
    for reading in readings:
        try:
            results.append(reading())
        except ConfigurationError as error:
            problems += error.problems
    if problems:
        raise ConfigurationError(problems)
    return results
