"""
Random identifiers. Chance enters as a parameter, ``token_bytes`` (``secrets.token_bytes`` in the daemon).
"""

from __future__ import annotations

import re
from collections.abc import Callable

TokenBytes = Callable[[int], bytes]

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
_BLOB_ID_LENGTH = 26
_BLOB_ID = re.compile(rf"[{_CROCKFORD}]{{{_BLOB_ID_LENGTH}}}")


def new_inode_id(token_bytes: TokenBytes) -> str:
    """128 random bits as 32 hex digits."""
    return token_bytes(16).hex()


def new_content_id(token_bytes: TokenBytes) -> str:
    """128 random bits as 32 hex digits: what the entity tag of new content says."""
    return token_bytes(16).hex()


def new_store_id(token_bytes: TokenBytes) -> str:
    """128 random bits as 32 hex digits: the identity of a metadata store or a root folder."""
    return token_bytes(16).hex()


def new_blob_id(now: int, token_bytes: TokenBytes) -> str:
    """
    A blob id: 48 bits of time in milliseconds, then 80 random bits, in Crockford's base 32 (as a ULID, lower case).

    :param now: an instant; ids sort by it, which keeps lists of new blobs together.
    """
    number = ((now // 1000) & ((1 << 48) - 1)) << 80 | int.from_bytes(token_bytes(10))
    return "".join(_CROCKFORD[(number >> shift) & 31] for shift in range(125, -1, -5))


def is_blob_id(text: str) -> bool:
    """Whether ``text`` has the form of a blob id."""
    return _BLOB_ID.fullmatch(text) is not None


def blob_created_at(blob_id: str) -> int:
    """The instant, to the millisecond, that a blob id carries."""
    number = 0
    for character in blob_id:
        number = number << 5 | _CROCKFORD.index(character)
    return (number >> 80) * 1000
