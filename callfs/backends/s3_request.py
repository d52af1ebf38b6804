"""
Requests to S3 and their replies, as values.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from callfs.backends.s3_address import Query

Chunks = tuple[bytes | memoryview, ...]


@dataclass(frozen=True)
class Content:
    """
    What a request carries, ready to be sent as often as need be.

    :param sha256: of all chunks, one after the other.
    """

    chunks: Chunks
    size: int
    sha256: bytes

    @property
    def checksum(self) -> str:
        """As ``x-amz-checksum-sha256`` has it."""
        return base64.b64encode(self.sha256).decode()


def content_of(chunks: Iterable[bytes | memoryview]) -> Content:
    """Content with its digest; takes a while for many bytes."""
    kept = tuple(chunks)
    digest = hashlib.sha256()
    for chunk in kept:
        digest.update(chunk)
    return Content(kept, sum(len(chunk) for chunk in kept), digest.digest())


EMPTY = content_of(())


@dataclass(frozen=True, kw_only=True)
class Effort:
    """
    How long to try.

    :param silence_seconds: an attempt in which nothing moves for so long has failed.
    :param total_seconds: no attempt begins later.
    :param attempts: at most.
    """

    silence_seconds: float
    total_seconds: float
    attempts: int = 6


@dataclass(frozen=True, kw_only=True)
class S3Request:
    """
    One request; it may be sent any number of times.

    :param operation: what S3's documentation calls it, for messages.
    :param key: empty: to the bucket.
    :param headers: by lower-case name; what signing needs is added.
    :param error_in_success: S3 may answer 200 and report an error in the body, because it had to begin its answer
        before it was done.
    """

    operation: str
    method: str
    key: str = ""
    query: Query = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    content: Content = EMPTY
    error_in_success: bool = False


@dataclass(frozen=True)
class S3Reply:
    """
    A reply whose body was read.

    :param headers: by lower-case name.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
