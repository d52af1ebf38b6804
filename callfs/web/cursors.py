"""
Cursors: where the next page of a listing begins, as text that a client hands back unread.

A cursor carries the listing that it belongs to and a checksum, so that a cut, changed or misplaced one is refused
instead of starting somewhere. It isn't a secret and gives no right: access is decided with every page.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

from callfs.errors import BadRequest

_FORM = re.compile(r"[A-Za-z0-9_-]{12,4096}")
_VERSION = b"\x01"
_SUM_BYTES = 8


def encode(directory: str, recursive: bool, after: str) -> str:
    """
    A cursor, ``[A-Za-z0-9_-]+``.

    :param directory: the canonical path that is listed.
    :param after: what the engine wants back for the next page.
    """
    payload = after.encode("utf-8")
    return base64.urlsafe_b64encode(_checksum(directory, recursive, payload) + payload).decode("ascii").rstrip("=")


def decode(cursor: str, directory: str, recursive: bool) -> str:
    """
    What :func:`encode` was given as ``after``.

    :raises BadRequest: it is no cursor, or one of another listing.
    """
    refusal = BadRequest("the cursor isn't one that this listing returned as next_cursor")
    if _FORM.fullmatch(cursor) is None:
        raise refusal
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        after = raw[_SUM_BYTES:].decode("utf-8")
    except (binascii.Error, ValueError):
        raise refusal from None
    if not after or encode(directory, recursive, after) != cursor:
        raise refusal
    return after


def _checksum(directory: str, recursive: bool, payload: bytes) -> bytes:
    listing = _VERSION + (b"r" if recursive else b"c") + directory.encode("utf-8") + b"\0"
    return hashlib.sha256(listing + payload).digest()[:_SUM_BYTES]
