"""A new file with another's content, the bytes copied on the server."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from callfs.backends.interfaces import BlobMissing, IBlobReader, ICopyingBackend
from callfs.deferreds import returns_deferred
from callfs.engine.admission import check_create, new_file_placement
from callfs.engine.arrangement import copy_at
from callfs.engine.blobcopy import PIECE_BYTES, discard, say_changed
from callfs.engine.messages import ExpectedDigest, OpenFile, Upload
from callfs.engine.naming import name_content, write_placements
from callfs.engine.ports import Ports
from callfs.engine.read import content, open_file, stat
from callfs.engine.routing import backend_type
from callfs.engine.write import create_file, creation
from callfs.errors import ChecksumMismatch, PeerUnavailable
from callfs.identifiers import new_blob_id
from callfs.metadata.commands import Written
from callfs.model import BlobRef, Inode, Preconditions, Principal


async def copy_file(
    ports: Ports, principal: Principal, source: str, path: str, preconditions: Preconditions, backend: str | None
) -> Written:
    """
    See :meth:`callfs.engine.filesystem.Filesystem.copy_file`.

    The copy is what the source was at one moment; its digest is the one that the copy has to have.
    """
    copied = await _copied_in_place(ports, principal, source, path, preconditions, backend)
    if copied is not None:
        return copied
    opened = await open_file(ports, principal, source)
    try:
        return await _streamed(ports, principal, opened, path, preconditions, backend)
    finally:
        opened.reader.close()


async def _copied_in_place(
    ports: Ports, principal: Principal, source: str, path: str, preconditions: Preconditions, backend: str | None
) -> Written | None:
    """Let the backend copy where one has the source and shall have the copy; ``None`` where it can't."""
    inode = await stat(ports, principal, source)
    blob = content(inode)
    upload = _upload(inode, b"", preconditions, backend)
    placements = write_placements(ports, new_file_placement(ports, upload))
    own, there = ports.own_blobs(placements[0]), copy_at(blob, placements[0])
    copying = None if own is None else ICopyingBackend(own, None)
    if copying is None or there is None or len(placements) > 1:
        return None
    await check_create(ports, principal, path, upload)
    copy = BlobRef(new_blob_id(ports.now(), ports.token_bytes), blob.size, blob.sha256, there.placement)

    @returns_deferred
    async def finish() -> Written | None:
        try:
            made = await copying.copy(there.id, copy.id)
        except BlobMissing:
            return None
        if made.size != copy.size:
            await discard(ports, copy)
            return None
        return await name_content(ports, path, copy, creation(ports, principal, path, upload, inode.content_id))

    written = await ports.unattended.shield(finish())
    if written is not None:
        ports.metrics.file_operation("read", backend_type(inode))
    return written


async def _streamed(
    ports: Ports,
    principal: Principal,
    opened: OpenFile,
    path: str,
    preconditions: Preconditions,
    backend: str | None,
) -> Written:
    inode = opened.inode
    try:
        async with aclosing(_pieces(opened.reader)) as body:
            upload = _upload(inode, body, preconditions, backend)
            return await create_file(ports, principal, path, upload, inode.content_id)
    except ChecksumMismatch:
        say_changed(ports.metrics, inode.path, content(inode))
        raise PeerUnavailable(f"the bytes of {inode.path} aren't as they were stored") from None


def _upload(
    inode: Inode, body: AsyncGenerator[bytes, None] | bytes, preconditions: Preconditions, backend: str | None
) -> Upload:
    blob = content(inode)
    return Upload(
        body=body,
        max_size=blob.size,
        declared_size=blob.size,
        content_type=inode.content_type,
        digests=(ExpectedDigest("sha256", blob.sha256),),
        preconditions=preconditions,
        backend=backend,
    )


async def _pieces(reader: IBlobReader) -> AsyncGenerator[bytes, None]:
    offset = 0
    while offset < reader.size:
        piece = await reader.read(offset, PIECE_BYTES)
        if not piece:
            raise PeerUnavailable("the bytes ended before their end")
        offset += len(piece)
        yield piece
