"""
Digests that travel in headers: ``Content-Digest`` and ``Repr-Digest`` (RFC 9530), and ``Content-MD5``.

The two of RFC 9530 are dictionaries of structured fields (RFC 8941) with byte sequences as values. An algorithm
that isn't known is ignored, as the RFC wants it; one that is known and can't be read is refused, because a client
that announces a digest relies on it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping

from callfs.errors import BadRequest

_ALGORITHMS = {"sha-256": ("sha256", 32), "sha-512": ("sha512", 64)}
_MD5_BYTES = 16

_BARE_ITEM = (
    r""":[A-Za-z0-9+/=]*:|"(?:[ !#-\[\]-~]|\\["\\])*"|\?[01]|-?\d+(?:\.\d+)?|[A-Za-z*][!#$%&'*+.^_`|~:/\w-]*"""
)
_PARAMETERS = rf"(?:;[ ]*[a-z*][a-z0-9_.*-]*(?:=(?:{_BARE_ITEM}))?)*"
_ITEM = rf"(?:{_BARE_ITEM}){_PARAMETERS}"
# The blanks between the items are needed, in the format and so that no header makes the match take long.
_INNER_LIST = rf"\([ ]*(?:{_ITEM}(?:[ ]+{_ITEM})*[ ]*)?\){_PARAMETERS}"
_MEMBER = re.compile(rf"([a-z*][a-z0-9_.*-]*)(?:=({_BARE_ITEM}|{_INNER_LIST}))?{_PARAMETERS}", re.ASCII)
_COMMA = re.compile(r"[ \t]*,[ \t]*")


def expected(headers: Mapping[str, str]) -> tuple[tuple[str, bytes], ...]:
    """
    All digests that the request announces for its body.

    :param headers: by lower-case name.
    :return: algorithms, as ``hashlib`` calls them, with the digests.
    :raises BadRequest: a header is malformed, or a digest hasn't the length of its algorithm.
    """
    digests = [
        found
        for name in ("content-digest", "repr-digest")
        if (header := headers.get(name)) is not None
        for found in _known(name, header)
    ]
    if (header := headers.get("content-md5")) is not None:
        digests.append(("md5", _decoded("content-md5", header.strip(" \t"), _MD5_BYTES)))
    return tuple(dict.fromkeys(digests))


def _known(name: str, header: str) -> Iterator[tuple[str, bytes]]:
    for key, value in _dictionary(name, header).items():
        if key in _ALGORITHMS:
            algorithm, length = _ALGORITHMS[key]
            if value is None or len(value) < 2 or value[0] != ":":
                raise _malformed(name)
            yield algorithm, _decoded(name, value[1:-1], length)


def _dictionary(name: str, header: str) -> dict[str, str | None]:
    """Key and serialised value of each member; the last of a key counts (RFC 8941, section 3.2)."""
    members: dict[str, str | None] = {}
    text = header.strip(" \t")
    position = 0
    while position < len(text):
        match = _MEMBER.match(text, position)
        if match is None:
            raise _malformed(name)
        members[match[1]] = match[2]
        position = match.end()
        if position < len(text):
            comma = _COMMA.match(text, position)
            if comma is None or comma.end() == len(text):
                raise _malformed(name)
            position = comma.end()
    return members


def _decoded(name: str, text: str, length: int) -> bytes:
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _malformed(name) from None
    if len(value) != length:
        raise BadRequest(f"{_HEADERS[name]}: the digest has {len(value)} bytes instead of {length}")
    return value


_HEADERS = {"content-digest": "Content-Digest", "repr-digest": "Repr-Digest", "content-md5": "Content-MD5"}


def _malformed(name: str) -> BadRequest:
    example = "the MD5 in base64" if name == "content-md5" else "for example sha-256=:<base64>:"
    return BadRequest(f"{_HEADERS[name]} can't be read; it should be {example}")


def repr_digest(sha256: bytes) -> str:
    """The value of ``Repr-Digest`` for content with this SHA-256."""
    return f"sha-256=:{base64.b64encode(sha256).decode('ascii')}:"
