"""
Keeping secrets out of text: by a field's name, by a secret's own value, and by what is known to precede one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from urllib.parse import quote

MASK = "********"
SHORTEST_SECRET = 6
"""Shorter ones aren't searched for: they would be found in ordinary words, and the log made useless."""

_HIDDEN_NAME = re.compile(
    r"authorization|token|secret|passw(or)?d|passphrase|cookie|credential|signature|api_?keys?|(^|[_-])keys?$|(^|[_-])dsn$",
    re.IGNORECASE,
)
_PRECEDED = re.compile(
    r"((?:/|%2f)download(?:/|%2f)|callfs\.bearer\.|\b(?:bearer|basic)\s+|\bpassword\s*=\s*|://[^/\s:@]*:(?=[^/\s@]*@))"
    r"(?!\{token\})[^\s\"'<>,;?#&/@]+",
    re.IGNORECASE,
)
# Names of fields come from our own code, but a map that is logged may have any.
_REMEMBERED_NAMES = 1000
# Most texts come again and again: methods, routes, users, addresses.
_REMEMBERED_TEXTS = 1000
_SHORT_TEXT = 64


class Redaction:
    """
    Masks secrets.

    :param secrets: what must not be seen, as it is, percent-encoded, and as JSON and Python escape it.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        wanted = {form for secret in secrets for form in _forms(secret)}
        words = sorted(word for word in wanted if len(word) >= SHORTEST_SECRET)
        self._known = re.compile(_alternatives(words)) if words else None
        self._shortest = min(map(len, words), default=0)
        self._names: dict[str, bool] = {}
        self._remembered = lru_cache(_REMEMBERED_TEXTS)(self._masked)

    def hides(self, name: str) -> bool:
        """Whether a field of this name holds a secret."""
        hidden = self._names.get(name)
        if hidden is None:
            hidden = _HIDDEN_NAME.search(name) is not None
            if len(self._names) < _REMEMBERED_NAMES:
                self._names[name] = hidden
        return hidden

    def text(self, text: str) -> str:
        """``text`` with every secret in it masked."""
        return self._remembered(text) if len(text) <= _SHORT_TEXT else self._masked(text)

    def _masked(self, text: str) -> str:
        if self._known is not None and len(text) >= self._shortest:
            text = self._known.sub(MASK, text)
        # Looking for the words costs a tenth of looking for the pattern, and most texts have none of them.
        lowered = text.lower()
        if (
            "download" in lowered
            or "bearer" in lowered
            or "://" in lowered
            or "password" in lowered
            or "basic" in lowered
        ):
            text = _PRECEDED.sub(rf"\g<1>{MASK}", text)
        return text


def _forms(secret: str) -> tuple[str, ...]:
    return secret, quote(secret, safe=""), json.dumps(secret)[1:-1], repr(secret)[1:-1]


def _common_start(one: str, other: str) -> str:
    length = next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
    return one[:length]


def _alternatives(words: Sequence[str]) -> str:
    """
    A pattern for any of ``words``, which are sorted, the longest first where several fit.

    It is a trie, so that a thousand keys cost a text little more than one.
    """
    shared = _common_start(words[0], words[-1])
    if shared:
        return re.escape(shared) + _alternatives([word[len(shared) :] for word in words])
    if len(words) == 1:
        return ""
    branches = []
    for first in sorted({word[0] for word in words if word}):
        rest = [word[1:] for word in words if word[:1] == first]
        branches.append(re.escape(first) + _alternatives(rest))
    pattern = f"(?:{'|'.join(branches)})"
    return f"{pattern}?" if "" in words else pattern
