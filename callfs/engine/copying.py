"""A new file with another's content, the bytes copied on the server."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from twisted.logger import Logger

from callfs.backends.interfaces import IBlobReader
from callfs.engine.messages import ExpectedDigest, Upload
from callfs.engine.ports import Ports
from callfs.engine.read import content, open_file
from callfs.engine.write import create_file
from callfs.errors import ChecksumMismatch, PeerUnavailable
from callfs.metadata.commands import Written
from callfs.model import Preconditions, Principal

_log = Logger()

PIECE_BYTES = 1 << 20


async def copy_file(
    ports: Ports, principal: Principal, source: str, path: str, preconditions: Preconditions, backend: str | None
) -> Written:
    """
    See :meth:`callfs.engine.filesystem.Filesystem.copy_file`.

    The source is opened first, so that the copy is what the source was at one moment; its digest is the one that
    the copy has to have.
    """
    opened = await open_file(ports, principal, source)
    blob = content(opened.inode)
    try:
        async with aclosing(_pieces(opened.reader)) as body:
            upload = Upload(
                body=body,
                max_size=blob.size,
                declared_size=blob.size,
                content_type=opened.inode.content_type,
                digests=(ExpectedDigest("sha256", blob.sha256),),
                preconditions=preconditions,
                backend=backend,
            )
            return await create_file(ports, principal, path, upload, opened.inode.content_id)
    except ChecksumMismatch:
        ports.metrics.error("engine", "blob_checksum_mismatch")
        _log.critical(
            "the blob {blob_id} of {path} isn't what was stored: its digest has changed",
            event="blob_checksum_mismatch",
            path=source,
            blob_id=blob.id,
        )
        raise PeerUnavailable(f"the bytes of {source} aren't as they were stored") from None
    finally:
        opened.reader.close()


async def _pieces(reader: IBlobReader) -> AsyncGenerator[bytes, None]:
    offset = 0
    while offset < reader.size:
        piece = await reader.read(offset, PIECE_BYTES)
        if not piece:
            raise PeerUnavailable("the bytes ended before their end")
        offset += len(piece)
        yield piece
