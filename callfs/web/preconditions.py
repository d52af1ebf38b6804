"""
Conditional requests (RFC 9110, section 13): what a reader has already, and what a writer insists on.

An entity tag of CallFS is always strong, so the strong comparison is equality of the texts, and the weak one is
equality after a leading ``W/`` is taken off. A header that is no list of tags is no excuse to write: it is kept
as a tag that equals none, or refused.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping

from callfs.errors import BadRequest, PreconditionFailed
from callfs.model import Preconditions
from callfs.web.timestamps import parse_http_date, whole_seconds

ANY = ("*",)

_ENTITY_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\U0010ffff]*"')
_CONDITIONS = frozenset(("if-match", "if-none-match", "if-modified-since", "if-unmodified-since"))
_SEPARATOR = re.compile(r"[ \t]*,[ \t,]*")


class Reading(enum.Enum):
    """What a conditional GET or HEAD comes to."""

    SEND = enum.auto()
    NOT_MODIFIED = enum.auto()


def entity_tags(header: str) -> tuple[str, ...] | None:
    """
    The entity tags of a list, each with its quotes and its ``W/`` if any; ``("*",)`` for ``*``.

    :return: ``None`` when the header is neither.
    """
    text = header.strip(" \t,")
    if text == "*":
        return ANY
    tags: list[str] = []
    position = 0
    while position < len(text):
        match = _ENTITY_TAG.match(text, position)
        if match is None:
            return None
        tags.append(match[0])
        position = match.end()
        if position < len(text):
            separator = _SEPARATOR.match(text, position)
            if separator is None:
                return None
            position = separator.end()
    return tuple(tags) or None


def for_writing(headers: Mapping[str, str]) -> Preconditions:
    """
    What a request that changes something insists on.

    :param headers: by lower-case name.
    :raises BadRequest: ``If-None-Match`` is no list of entity tags: without it the request would overwrite.
    """
    if_match = headers.get("if-match")
    if_none_match = headers.get("if-none-match")
    if_unmodified_since = headers.get("if-unmodified-since")
    unwanted = None
    if if_none_match is not None:
        unwanted = entity_tags(if_none_match)
        if unwanted is None:
            raise BadRequest('If-None-Match must be * or a list of entity tags in double quotes, such as "abc"')
    return Preconditions(
        if_match=None if if_match is None else entity_tags(if_match) or (if_match,),
        if_none_match=None if unwanted is None else tuple(_weak(tag) for tag in unwanted),
        # RFC 9110, section 13.1.4: to be ignored beside If-Match, and when it is no valid date.
        if_unmodified_since=None
        if if_match is not None or if_unmodified_since is None
        else parse_http_date(if_unmodified_since),
    )


def is_conditional(headers: Mapping[str, str]) -> bool:
    """
    Whether a GET has a condition.

    :param headers: by lower-case name.
    """
    return not _CONDITIONS.isdisjoint(headers)


def for_reading(headers: Mapping[str, str], etag: str | None, modified_at: int | None) -> Reading:
    """
    Decide a GET or HEAD of something that is there, in the order of RFC 9110, section 13.2.2.

    :param headers: by lower-case name.
    :param etag: the strong entity tag, ``None`` where there is none.
    :param modified_at: the instant that ``Last-Modified`` shows, ``None`` where there is none.
    :raises PreconditionFailed: ``If-Match`` or ``If-Unmodified-Since`` doesn't hold.
    """
    if not _still_wanted(headers, etag, modified_at):
        raise PreconditionFailed("the file has changed since: If-Match or If-Unmodified-Since doesn't hold")
    return Reading.NOT_MODIFIED if _known_already(headers, etag, modified_at) else Reading.SEND


def _still_wanted(headers: Mapping[str, str], etag: str | None, modified_at: int | None) -> bool:
    if (header := headers.get("if-match")) is not None:
        tags = entity_tags(header) or ()
        return tags == ANY or etag in tags
    if (header := headers.get("if-unmodified-since")) is not None and modified_at is not None:
        limit = parse_http_date(header)
        return limit is None or whole_seconds(modified_at) <= limit
    return True


def _known_already(headers: Mapping[str, str], etag: str | None, modified_at: int | None) -> bool:
    if (header := headers.get("if-none-match")) is not None:
        tags = entity_tags(header) or ()
        return tags == ANY or (etag is not None and etag in map(_weak, tags))
    if (header := headers.get("if-modified-since")) is not None and modified_at is not None:
        limit = parse_http_date(header)
        return limit is not None and whole_seconds(modified_at) <= limit
    return False


def range_applies(headers: Mapping[str, str], etag: str | None, modified_at: int | None) -> bool:
    """
    Whether ``If-Range``, if there is one, lets ``Range`` count (RFC 9110, section 13.1.5).

    :param modified_at: as for :func:`for_reading`. A date counts only when it is exactly that of ``Last-Modified``.
    """
    header = headers.get("if-range")
    if header is None:
        return True
    text = header.strip(" \t")
    if _ENTITY_TAG.fullmatch(text):
        return text == etag
    return modified_at is not None and parse_http_date(text) == whole_seconds(modified_at)


def _weak(tag: str) -> str:
    return tag.removeprefix("W/")
