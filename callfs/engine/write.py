"""
Writing a file: decide when the headers are there, stream into a staged blob, commit it, name it with one command.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from twisted.logger import Logger

from callfs.backends.interfaces import CommittedBlob, Hasher, IBlobBackend, IStagedBlob
from callfs.deferreds import returns_deferred
from callfs.engine.access import may_add_child, may_write
from callfs.engine.claims import claimed
from callfs.engine.messages import Upload
from callfs.engine.ports import Ports, locked
from callfs.engine.routing import backend_of, is_reachable, placement_for
from callfs.errors import (
    BadRequest,
    CallFSError,
    ChecksumMismatch,
    InternalError,
    NotAFile,
    OutcomeUnknown,
    ParentNotADirectory,
    PayloadTooLarge,
    PeerUnavailable,
    PermissionDenied,
)
from callfs.identifiers import new_blob_id, new_content_id, new_inode_id
from callfs.metadata.commands import CreateFile, PutFile, Written
from callfs.metadata.places import already_there
from callfs.metadata.preconditions import check_preconditions
from callfs.model import BlobRef, Inode, Principal

_log = Logger()

NamingCommand = CreateFile | PutFile

DIGEST_ALGORITHMS = frozenset({"md5", "sha1", "sha256", "sha512"})
"""What a client may announce, as ``hashlib`` calls it."""


@dataclass(frozen=True, kw_only=True)
class _Content:
    """Content on its way: what was asked, where it goes, and what watches it."""

    ports: Ports
    path: str
    upload: Upload
    backend_name: str
    blob_id: str
    command: Callable[[BlobRef], NamingCommand]
    hashers: dict[str, Hasher] = field(default_factory=dict)

    @property
    def backend(self) -> IBlobBackend:
        """Where the bytes go."""
        return self.ports.backends[self.backend_name]


async def create_file(
    ports: Ports, principal: Principal, path: str, upload: Upload, content_id: str | None = None
) -> Written:
    """
    A new file; see :meth:`callfs.engine.filesystem.Filesystem.create_file`.

    :param content_id: what the entity tag says; ``None`` for content that is new.
    """
    await check_create(ports, principal, path, upload)

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
        )

    return await _store(ports, path, upload, upload.backend or ports.settings.default_backend, command)


async def put_file(ports: Ports, principal: Principal, path: str, upload: Upload) -> Written:
    """A new file or new content; see :meth:`callfs.engine.filesystem.Filesystem.put_file`."""
    existing = await check_put(ports, principal, path, upload)

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
        )

    return await _store(ports, path, upload, _backend_for(ports, existing, upload), command)


async def check_create(ports: Ports, principal: Principal, path: str, upload: Upload) -> None:
    """
    Decide, before the body, whether a file may be created.

    :raises callfs.errors.CallFSError: what :class:`callfs.metadata.commands.CreateFile` and the upload's limits
        would be refused with.
    """
    existing, deepest = await _surroundings(ports, path)
    if existing is not None:
        raise already_there(existing)
    _check_parent(principal, deepest)
    check_preconditions(None, upload.preconditions)
    _check_upload(ports, upload)


async def check_put(ports: Ports, principal: Principal, path: str, upload: Upload) -> Inode | None:
    """
    Decide, before the body, whether a file may be created or replaced.

    :return: the file that would be replaced.
    :raises callfs.errors.CallFSError: what :class:`callfs.metadata.commands.PutFile` and the upload's limits
        would be refused with.
    """
    existing, deepest = await _surroundings(ports, path)
    if existing is None:
        _check_parent(principal, deepest)
    elif existing.is_directory:
        raise NotAFile(f"{path} is a directory")
    elif not may_write(principal, existing):
        raise PermissionDenied(f"{path} may not be written by {principal.user}")
    check_preconditions(existing, upload.preconditions)
    _check_upload(ports, upload)
    return existing


async def _surroundings(ports: Ports, path: str) -> tuple[Inode | None, Inode]:
    """What is at ``path``, and the deepest of it and its ancestors that exists."""
    deepest = (await ports.metadata.get_chain(path))[-1]
    return (deepest if deepest.path == path else None), deepest


def _check_parent(principal: Principal, deepest: Inode) -> None:
    if not deepest.is_directory:
        raise ParentNotADirectory(f"{deepest.path} is a file, so nothing can be below it")
    if not may_add_child(principal, deepest):
        raise PermissionDenied(f"nothing may be put into {deepest.path} by {principal.user}")


def _check_upload(ports: Ports, upload: Upload) -> None:
    if upload.backend is not None:
        ports.known_backend(upload.backend)
    if upload.declared_size is not None and upload.declared_size > upload.max_size:
        raise _too_large(upload)
    for digest in upload.digests:
        if digest.algorithm not in DIGEST_ALGORITHMS:
            raise BadRequest(f"digests by {digest.algorithm!r} can't be verified here")


def _too_large(upload: Upload) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body is longer than the {upload.max_size} bytes that are allowed")


def _backend_for(ports: Ports, existing: Inode | None, upload: Upload) -> str:
    """Where the bytes go: what is replaced stays where it is."""
    if existing is None or existing.blob is None:
        return upload.backend or ports.settings.default_backend
    if not is_reachable(existing.blob.placement, ports.settings.instance_id, ports.backends):
        raise PeerUnavailable(f"the node that holds {existing.path} can't be reached")
    return backend_of(existing.blob.placement)


async def _store(
    ports: Ports, path: str, upload: Upload, backend_name: str, command: Callable[[BlobRef], NamingCommand]
) -> Written:
    """Take the body in, then make it last; from the end of the body on nobody can interrupt."""
    blob_id = new_blob_id(ports.now(), ports.token_bytes)
    hashers: dict[str, Hasher] = {
        digest.algorithm: hashlib.new(digest.algorithm, usedforsecurity=False)
        for digest in upload.digests
        if digest.algorithm != "sha256"
    }
    content = _Content(
        ports=ports,
        path=path,
        upload=upload,
        backend_name=ports.known_backend(backend_name),
        blob_id=blob_id,
        command=command,
        hashers=hashers,
    )
    staged = await claimed(
        content.backend.stage(blob_id, upload.declared_size, tuple(hashers.values())), lambda late: late.abort()
    )
    ports.metrics.upload_started()
    try:
        size = await _receive(upload, staged)
    except Exception:
        await ports.unattended.shield(staged.abort())
        raise
    finally:
        ports.metrics.upload_ended()
    return await ports.unattended.shield(_finish(content, staged, size))


async def _receive(upload: Upload, staged: IStagedBlob) -> int:
    """Stream the body into the stage; how many bytes came."""
    size = 0
    async for chunk in upload.body:
        size += len(chunk)
        if size > upload.max_size:
            raise _too_large(upload)
        await staged.write(chunk)
    if upload.declared_size is not None and size != upload.declared_size:
        raise BadRequest(f"the body has {size} bytes, {upload.declared_size} were announced")
    return size


@returns_deferred
async def _finish(content: _Content, staged: IStagedBlob, size: int) -> Written:
    """Commit the blob, then name it; whatever fails, no blob stays that a refused command doesn't name."""
    ports = content.ports
    try:
        ports.reached("write.body_complete")
        committed = await staged.commit()
    except Exception:
        await staged.abort()
        raise
    try:
        ports.reached("write.committed")
        _verify(content, committed, size)
        written = await _name(content, committed)
    except _Undecided as undecided:
        raise undecided.error from undecided.__cause__
    except Exception:
        await _discard(content)
        raise
    ports.reached("write.after_command")
    _count(content, written)
    return written


def _verify(content: _Content, committed: CommittedBlob, size: int) -> None:
    if committed.size != size:
        raise InternalError(f"{size} bytes came in and {committed.size} were stored")
    for digest in content.upload.digests:
        hasher = content.hashers.get(digest.algorithm)
        if digest.value != (committed.sha256 if hasher is None else hasher.digest()):
            raise ChecksumMismatch(f"the body's {digest.algorithm} digest isn't the one that was announced")


class _Undecided(Exception):
    """The command may have happened: its blob must not be touched."""

    def __init__(self, error: CallFSError) -> None:
        super().__init__(error)
        self.error = error


async def _name(content: _Content, committed: CommittedBlob) -> Written:
    ports = content.ports
    placement = placement_for(content.backend_name, ports.settings.instance_id)
    async with locked(ports, content.path):
        ports.reached("write.before_command")
        blob = BlobRef(content.blob_id, committed.size, committed.sha256, placement)
        return await _applied(content, content.command(blob))


async def _applied(content: _Content, command: NamingCommand) -> Written:
    try:
        return await content.ports.metadata.apply(command)
    except (OutcomeUnknown, InternalError) as fault:
        error: Exception = fault
    except CallFSError:
        raise
    except Exception as unexpected:
        error = unexpected
    # Only a refusal is believed to say that nothing happened. After anything else the blob may have its name.
    content.ports.metrics.error("engine", "outcome_unknown")
    _log.error(
        "it isn't known whether {path} was written; blob {blob_id} is left to the sweep: {reason!r}",
        event="outcome_unknown",
        path=content.path,
        blob_id=content.blob_id,
        reason=error,
    )
    if isinstance(error, CallFSError):
        raise _Undecided(error)
    raise _Undecided(OutcomeUnknown(f"it isn't known whether {content.path} was written")) from error


async def _discard(content: _Content) -> None:
    """Delete a committed blob that will never have a name; if that fails it is the sweep's."""
    try:
        await content.backend.delete(content.blob_id)
    except Exception:
        content.ports.metrics.error("engine", "discard_failed")
        _log.failure(
            "blob {blob_id} was refused its name and could not be deleted",
            event="discard_failed",
            blob_id=content.blob_id,
        )


def _count(content: _Content, written: Written) -> None:
    content.ports.metrics.file_operation("create" if written.created else "update", content.backend_name)
    if not written.created:
        content.ports.garbage_made()
