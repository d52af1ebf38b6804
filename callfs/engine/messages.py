"""What goes into the file system's facade and comes out of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from callfs.backends.interfaces import IBlobReader
from callfs.metadata.commands import AttributeChanges
from callfs.model import NO_PRECONDITIONS, Inode, Preconditions


@dataclass(frozen=True)
class ExpectedDigest:
    """A digest that the client announced: ``algorithm`` as ``hashlib`` calls it."""

    algorithm: str
    value: bytes


@dataclass(frozen=True, kw_only=True)
class Upload:
    """
    New content under way.

    :param body: the bytes, where they are in memory already; else what brings them. Its first step is taken only
        when access and preconditions are decided. It raises what :class:`callfs.web.messages.Body` says; nothing is
        stored then.
    :param declared_size: bytes, when known beforehand.
    :param max_size: over it the upload fails with ``PayloadTooLarge``.
    :param backend: for a new file: where its bytes shall go; ``None`` the configured default.
    """

    body: bytes | AsyncIterator[bytes]
    max_size: int
    declared_size: int | None = None
    content_type: str | None = None
    digests: tuple[ExpectedDigest, ...] = ()
    preconditions: Preconditions = NO_PRECONDITIONS
    backend: str | None = None

    def pieces(self) -> AsyncIterator[bytes]:
        """The bytes, none of the pieces empty."""
        return _piece(self.body) if isinstance(self.body, bytes) else self.body


async def _piece(data: bytes) -> AsyncIterator[bytes]:
    if data:
        yield data


@dataclass(frozen=True)
class OpenFile:
    """A file and its open bytes; whoever got it closes the reader."""

    inode: Inode
    reader: IBlobReader


@dataclass(frozen=True, kw_only=True)
class MoveRequest:
    """What a PATCH asks; ``destination`` equal to ``source`` changes attributes or placement alone."""

    source: str
    destination: str
    overwrite: bool = False
    create_parents: bool = False
    directory_expected: bool = False
    attributes: AttributeChanges = AttributeChanges()
    preconditions: Preconditions = NO_PRECONDITIONS
    backend: str | None = None
    instance: str | None = None


@dataclass(frozen=True)
class Page:
    """
    A page of a listing, in bytewise order of the paths.

    :param after: where the next page begins, to be handed back; ``None`` at the end.
    """

    directory: Inode
    entries: Sequence[Inode]
    after: str | None


@dataclass(frozen=True)
class IssuedLink:
    """
    A new single-use link.

    :param expires_at: an instant.
    """

    token: str
    expires_at: int
