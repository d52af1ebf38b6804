"""
What a route gets and what it returns, free of any transport: HTTP/1.1, 2 and 3 fill in the same values.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from callfs.backends.interfaces import IBlobReader
from callfs.model import ByteRange, Principal


class Body(Protocol):
    """
    A request's body as it arrives, with back-pressure: the socket is read while somebody iterates.

    The first step of the iteration is what answers ``Expect: 100-continue``. It ends when the body is complete
    and raises :class:`callfs.errors.BadRequest` when the client sends less than it declared, sends what can't be
    understood, or goes away, and :class:`callfs.errors.RequestTimeout` when it stops sending for too long.
    """

    declared_length: int | None
    """``Content-Length``; 0 without any body; ``None`` when chunked."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Chunks of at most 1 MiB, never empty."""

    def at_hand(self, max_bytes: int) -> bytes | None:
        """The whole body, taken, if all of it has arrived already and it isn't longer than this; else ``None``."""

    async def read(self, max_bytes: int) -> bytes:
        """
        The whole body of a small request.

        :raises callfs.errors.PayloadTooLarge: it is longer than ``max_bytes``; at once if declared.
        """


@dataclass(frozen=True, kw_only=True)
class Request:
    """
    A request whose credentials and path have been checked.

    :param path: the canonical path after the route's pattern, ``/`` where the pattern takes none.
    :param directory_expected: the client said "directory": the path had a trailing slash or was empty.
    :param captured: what the route's pattern took out of the URL besides the path, by name.
    :param principal: who asks; on a public route nobody, the user ``""``.
    :param client_address: the address of the client, past the proxies that are trusted.
    :param secure: whether the connection to the client is TLS.
    :param headers: by lower-case name, values joined by ``, `` where a header came more than once.
    :param parameters: the query, decoded; the last value where a name came more than once.
    """

    method: str
    path: str
    directory_expected: bool
    captured: Mapping[str, str]
    principal: Principal
    request_id: str
    client_address: str
    secure: bool
    host: str
    headers: Mapping[str, str]
    parameters: Mapping[str, str]
    body: Body

    def header(self, name: str) -> str | None:
        """A header's value by its name, whatever the case."""
        return self.headers.get(name.lower())

    def query(self, name: str) -> str | None:
        """A query parameter's value."""
        return self.parameters.get(name)


@dataclass(frozen=True)
class BlobBody:
    """
    Pieces of an open blob, with literal bytes between them (for ``multipart/byteranges``).

    The transport closes the reader when the response has ended, however it ended.
    """

    reader: IBlobReader
    pieces: tuple[bytes | ByteRange, ...]

    @property
    def length(self) -> int:
        """Bytes in all."""
        return sum(len(piece) if isinstance(piece, bytes) else piece.length for piece in self.pieces)


ResponseBody = bytes | BlobBody | AsyncIterator[bytes]


@dataclass(frozen=True, kw_only=True)
class Response:
    """
    What a route answers.

    ``Content-Length`` is set by the transport: of ``bytes`` and :class:`BlobBody` their length; an iterator is
    sent chunked. For HEAD a route sets ``content_length`` and leaves the body empty.

    :param headers: by name; a name at most once.
    :param stored_content: the body is what a user uploaded: it gets the sandboxing CSP.
    :param sent: called when the response has ended, with whether all of it reached the transport.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: ResponseBody = b""
    content_length: int | None = None
    stored_content: bool = False
    sent: Callable[[bool], Any] | None = None
