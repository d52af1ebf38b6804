"""Kinds of text: words, ids, secrets, paths."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from callfs.config.given import Origin
from callfs.config.kinds import Kind
from callfs.config.secret import Secret

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


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
