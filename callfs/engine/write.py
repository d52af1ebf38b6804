"""
Writing a file: decide when the headers are there, stream into a staged blob, commit it, name it with one command.

The command decides everything again, for the state in which the bytes have arrived.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from twisted.internet.defer import CancelledError

from callfs.backends.interfaces import Hasher
from callfs.deferreds import returns_deferred
from callfs.engine.admission import (
    check_create,
    check_put,
    check_upload,
    new_file_placement,
    placement_of_content,
    too_large,
)
from callfs.engine.arrangement import replica_order
from callfs.engine.messages import Upload
from callfs.engine.naming import NamingCommand, discard_all, name_content, write_placements
from callfs.engine.ports import Ports
from callfs.engine.routing import LOCAL_BACKEND
from callfs.engine.staging import StagedContent, stage_content
from callfs.errors import (
    BadRequest,
    ChecksumMismatch,
    Conflict,
    InternalError,
    MetadataUnavailable,
    OutcomeUnknown,
)
from callfs.identifiers import new_content_id, new_inode_id
from callfs.metadata.commands import CreateFile, PutFile, Written
from callfs.model import NO_PRECONDITIONS, BlobRef, Placement, Principal


@dataclass(frozen=True, kw_only=True)
class _Content:
    """Content on its way: what was asked, where it is staged, and what watches it."""

    ports: Ports
    path: str
    upload: Upload
    command: Callable[[BlobRef], NamingCommand]
    hashers: Mapping[str, Hasher]
    staged: StagedContent
    follows: bool


async def create_file(
    ports: Ports, principal: Principal, path: str, upload: Upload, content_id: str | None = None
) -> Written:
    """
    A new file; see :meth:`callfs.engine.filesystem.Filesystem.create_file`.

    :param content_id: what the entity tag says; ``None`` for content that is new.
    """

    async def decide() -> Placement:
        await check_create(ports, principal, path, upload)
        return new_file_placement(ports, upload)

    return await _write(ports, path, upload, decide, creation(ports, principal, path, upload, content_id))


def creation(
    ports: Ports, principal: Principal, path: str, upload: Upload, content_id: str | None
) -> Callable[[BlobRef], CreateFile]:
    """From a blob to the command that makes a new file of it."""

    def command(blob: BlobRef) -> CreateFile:
        return CreateFile(
            at=ports.now(),
            principal=principal,
            path=path,
            inode_id=new_inode_id(ports.token_bytes),
            content_id=content_id or new_content_id(ports.token_bytes),
            blob=blob,
            content_type=upload.content_type,
            parent_ids=ports.parent_ids(path),
            preconditions=upload.preconditions,
            replicate=replica_order(blob, ports.settings.replica_backend, ports.settings.instance_id),
        )

    return command


async def put_file(ports: Ports, principal: Principal, path: str, upload: Upload) -> Written:
    """A new file or new content; see :meth:`callfs.engine.filesystem.Filesystem.put_file`."""

    async def decide() -> Placement:
        existing = await check_put(ports, principal, path, upload)
        return placement_of_content(ports, existing, upload)

    def command(blob: BlobRef) -> PutFile:
        at = ports.now()
        return PutFile(
            at=at,
            principal=principal,
            path=path,
            inode_id=new_inode_id(ports.token_bytes),
            content_id=new_content_id(ports.token_bytes),
            blob=blob,
            content_type=upload.content_type,
            parent_ids=ports.parent_ids(path),
            garbage_not_before_at=ports.garbage_not_before(at),
            preconditions=upload.preconditions,
            replicate=replica_order(blob, ports.settings.replica_backend, ports.settings.instance_id),
        )

    return await _write(ports, path, upload, decide, command)


async def _write(
    ports: Ports,
    path: str,
    upload: Upload,
    decide: Callable[[], Awaitable[Placement]],
    command: Callable[[BlobRef], NamingCommand],
) -> Written:
    """
    Decide and store. A body that is there already isn't kept waiting: the command decides alone, which saves asking
    the store twice. Whatever fails then is decided over again in the usual order, because of two things: what is
    wrong with the request comes before what happens to its bytes, and the bytes may belong elsewhere. A conflict is
    never the last word on such a guess: the file may have been elsewhere then, and have come here since.

    With preconditions a refusal is nothing unusual, and would cost a blob each time: they are decided before. So is
    what goes elsewhere than to this node's disk: there a question costs little beside the blob, and a wrong guess
    would wait in vain for storage that the file may have nothing to do with.

    :param decide: the decision before the body; it says where the bytes belong.
    """
    if not isinstance(upload.body, bytes) or upload.preconditions != NO_PRECONDITIONS or _goes_far(ports, upload):
        return await _store(ports, path, upload, await decide(), command)
    guessed: Placement | None = None
    asked = False

    def guess(blob: BlobRef) -> NamingCommand:
        nonlocal asked
        asked = True
        return command(blob)

    try:
        check_upload(ports, upload)
        guessed = new_file_placement(ports, upload)
        return await _store(ports, path, upload, guessed, guess, follows=False)
    except (CancelledError, OutcomeUnknown, MetadataUnavailable):
        raise
    except Exception as error:
        if asked and isinstance(error, InternalError):
            raise
        failed = error
    placement = await decide()
    if placement == guessed and not isinstance(failed, Conflict):
        raise failed
    return await _store(ports, path, upload, placement, command)


def _goes_far(ports: Ports, upload: Upload) -> bool:
    """Whether a new file, or the second copy that it has to have at once, goes elsewhere than to this disk."""
    settings = ports.settings
    if settings.require_replica_success and settings.replica_backend is not None:
        return True
    return (upload.backend or settings.default_backend) != LOCAL_BACKEND


async def _store(
    ports: Ports,
    path: str,
    upload: Upload,
    placement: Placement,
    command: Callable[[BlobRef], NamingCommand],
    follows: bool = True,
) -> Written:
    """
    Take the body in, then make it last; from the end of the body on nobody can interrupt.

    :param follows: see :func:`name_content`.
    """
    hashers: dict[str, Hasher] = {
        digest.algorithm: hashlib.new(digest.algorithm, usedforsecurity=False)
        for digest in upload.digests
        if digest.algorithm != "sha256"
    }
    placements = write_placements(ports, placement)
    staged = await stage_content(ports, placements, upload.declared_size, tuple(hashers.values()))
    ports.metrics.upload_started()
    try:
        size = await _receive(upload, staged)
    except Exception:
        await ports.unattended.shield(staged.abort())
        raise
    finally:
        ports.metrics.upload_ended()
    content = _Content(
        ports=ports, path=path, upload=upload, command=command, hashers=hashers, staged=staged, follows=follows
    )
    return await ports.unattended.shield(_finish(content, size))


async def _receive(upload: Upload, staged: StagedContent) -> int:
    """Stream the body into the stage; how many bytes came."""
    size = 0
    async for chunk in upload.pieces():
        size += len(chunk)
        if size > upload.max_size:
            raise too_large(upload)
        await staged.write(chunk)
    if upload.declared_size is not None and size != upload.declared_size:
        raise BadRequest(f"the body has {size} bytes, {upload.declared_size} were announced")
    return size


@returns_deferred
async def _finish(content: _Content, size: int) -> Written:
    """Commit the blob, then name it; whatever fails, no blob stays that nothing names."""
    ports = content.ports
    try:
        ports.reached("write.body_complete")
        blob = await content.staged.commit()
    except Exception:
        await content.staged.abort()
        raise
    try:
        ports.reached("write.committed")
        _verify(content, blob, size)
    except Exception:
        await discard_all(ports, blob.copies())
        raise
    return await name_content(ports, content.path, blob, content.command, content.follows)


def _verify(content: _Content, blob: BlobRef, size: int) -> None:
    if blob.size != size:
        raise InternalError(f"{size} bytes came in and {blob.size} were stored")
    for digest in content.upload.digests:
        hasher = content.hashers.get(digest.algorithm)
        if digest.value != (blob.sha256 if hasher is None else hasher.digest()):
            raise ChecksumMismatch(f"the body's {digest.algorithm} digest isn't the one that was announced")
