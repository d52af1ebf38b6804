"""
The kinds of values that keys have: what each takes and what it makes of it.

A kind reads what was given, whether as YAML or JSON, as text from the environment, or as the content of a
``{file: path}``, and makes the parsed value or says what would have been allowed.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeGuard

from callfs.config.addresses import base_url, is_listen_address, parse_host_port
from callfs.config.given import Origin, OutsideText, UnreadableFile, described, refuse
from callfs.config.json_text import InvalidJson, parse_json
from callfs.config.problems import ConfigurationError, Problem
from callfs.config.quantities import bytes_from_text, seconds_from_text
from callfs.config.secret import Secret

LONGEST_SECONDS = 366 * 86400.0
LARGEST_INTEGER = 2**63 - 1
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
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


class Kind:
    """What a value may be."""

    allowed: str = ""
    secret: bool = False

    def read(self, key: str, value: object, origin: Origin) -> Any:
        """
        Make the parsed value of what was given.

        :param key: the full key, for messages.
        :raises callfs.config.problems.ConfigurationError: it isn't allowed; with every problem inside it.
        """
        return self.check(key, self.plain(key, value, origin), origin)

    def plain(self, key: str, value: object, origin: Origin) -> object:
        """What was given, after reading the file that it names and the text that came from outside."""
        if is_file_reference(value):
            value = _content(key, value["file"], origin, self.secret)
        return self.from_text(key, value, origin) if isinstance(value, OutsideText) else value

    def from_text(self, key: str, outside: OutsideText, origin: Origin) -> object:
        """What text from outside stands for; by default itself."""
        return outside.text

    def check(self, key: str, value: object, origin: Origin) -> Any:
        """Make the parsed value of a plain one."""
        raise NotImplementedError

    def refuse(self, key: str, value: object, origin: Origin, allowed: str | None = None) -> NoReturn:
        """Say what was given and what is allowed."""
        refuse(key, value, self.allowed if allowed is None else allowed, origin, self.secret)


def is_file_reference(value: object) -> TypeGuard[dict[str, str | OutsideText]]:
    """Whether a value is ``{file: path}``."""
    return isinstance(value, dict) and value.keys() == {"file"} and isinstance(value["file"], str | OutsideText)


def _content(key: str, path: str | OutsideText, origin: Origin, secret: bool) -> OutsideText:
    name = path.text if isinstance(path, OutsideText) else path
    # Somebody may have put the secret itself where its file's path belongs.
    shown = "its file" if secret and "/" not in name else f"the file {described(name)[5:]}"
    try:
        return OutsideText(origin.read_text(origin.base / name), from_file=True)
    except (UnreadableFile, ValueError) as error:
        raise ConfigurationError([Problem(key, f"{shown} can't be read: {error}", str(origin))]) from None


class Text(Kind):
    """Text without control characters."""

    def __init__(
        self,
        allowed: str = "text",
        accepts: Callable[[str], bool] = bool,
        secret: bool = False,
        empty: bool = False,
    ) -> None:
        """
        :param accepts: whether a non-empty text is allowed.
        :param empty: whether empty text is.
        """
        self.allowed = allowed
        self.secret = secret
        self._accepts = accepts
        self._empty = empty

    def check(self, key: str, value: object, origin: Origin) -> str:
        if not isinstance(value, str):
            self.refuse(key, value, origin, self.allowed + _quotes_needed(value))
        if _CONTROL.search(value):
            self.refuse(key, value, origin, f"{self.allowed}; it has control characters in it, or isn't UTF-8")
        if not (self._accepts(value) if value else self._empty):
            self.refuse(key, value, origin)
        return value


def _quotes_needed(value: object) -> str:
    if isinstance(value, bool):
        return "; YAML takes yes, no, on, off, true and false for booleans: put text in quotes"
    if isinstance(value, int | float):
        return "; text of digits must be in quotes"
    return "" if value is None or isinstance(value, dict | list) else "; put it in quotes"


class Matching(Text):
    """Text of a pattern."""

    def __init__(self, pattern: str, allowed: str, secret: bool = False) -> None:
        compiled = re.compile(pattern)
        super().__init__(allowed, lambda text: compiled.fullmatch(text) is not None, secret)


class Choice(Text):
    """One of a few words."""

    def __init__(self, *words: str) -> None:
        super().__init__(
            ", ".join(word or "empty" for word in words), lambda text: text in words, empty="" in words
        )


class SecretText(Kind):
    """A secret."""

    secret = True

    def __init__(self, bearer: bool = False) -> None:
        """
        :param bearer: it is sent as a bearer token: visible ASCII characters alone.
        """
        pattern = re.compile(r"[\x21-\x7e]+" if bearer else r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]+")
        self.allowed = "visible ASCII characters without blanks" if bearer else "text without control characters"
        self._text = Text(self.allowed, lambda text: pattern.fullmatch(text) is not None, secret=True)

    def check(self, key: str, value: object, origin: Origin) -> Secret:
        return Secret(self._text.check(key, value, origin))


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


class FilePath(Kind):
    """
    A path; a relative one counts from the folder of the file it stands in.

    :param must_exist: a file that has to be there and readable when the configuration is loaded.
    """

    def __init__(self, must_exist: bool = False) -> None:
        self.must_exist = must_exist
        self.allowed = "the path of a file that can be read" if must_exist else "a path"
        self._text = Text(self.allowed)

    def check(self, key: str, value: object, origin: Origin) -> Path:
        return origin.base / self._text.check(key, value, origin)


class ListenAddress(Text):
    """Where to listen."""

    def __init__(self, empty: bool = False) -> None:
        super().__init__(
            "host:port, :port, [v6]:port, or a Twisted endpoint such as unix:/run/callfs.sock"
            + (", or empty for off" if empty else ""),
            is_listen_address,
            empty=empty,
        )


class Address(Text):
    """A host and a port."""

    def __init__(self, host_needed: bool = True) -> None:
        def accepts(text: str) -> bool:
            parsed = parse_host_port(text)
            return parsed is not None and bool(parsed.host or not host_needed) and parsed.port > 0

        super().__init__("host:port" if host_needed else "host:port or :port", accepts)


class BaseUrl(Kind):
    """The base URL of a node, without a slash at the end when parsed."""

    def __init__(self, scheme_needed: bool = True) -> None:
        example = "https://files.example.org" + ("" if scheme_needed else ", with or without scheme")
        self.allowed = f"a URL with a host, without user and query, like {example}"
        self._text = Text(self.allowed, lambda text: base_url(text, "" if scheme_needed else "http") is not None)

    def check(self, key: str, value: object, origin: Origin) -> str:
        return self._text.check(key, value, origin).rstrip("/")


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class NetworkAddress(Kind):
    """An IP address or a network of them."""

    allowed = "an IP address, or a network like 10.0.0.0/8 with no bit set behind its prefix"

    def check(self, key: str, value: object, origin: Origin) -> Network:
        try:
            # A bare number would be taken for an address.
            return ipaddress.ip_network(value) if isinstance(value, str) else self.refuse(key, value, origin)
        except ValueError:
            self.refuse(key, value, origin)


class OrNone(Kind):
    """Another kind, or nothing: null and empty text."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.allowed = f"{kind.allowed}; or nothing"
        self.secret = kind.secret

    def from_text(self, key: str, outside: OutsideText, origin: Origin) -> object:
        return self.kind.from_text(key, outside, origin) if outside.text else None

    def check(self, key: str, value: object, origin: Origin) -> Any:
        return None if value is None or value == "" else self.kind.check(key, value, origin)


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
        return tuple(read_all(partial(self._read_item, key, i, entry, origin) for i, entry in enumerate(value)))

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
        return dict(read_all(partial(self.read_entry, key, n, v, origin.inside(n)) for n, v in entries.items()))

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


def read_all(readings: Iterable[Callable[[], Any]]) -> list[Any]:
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
