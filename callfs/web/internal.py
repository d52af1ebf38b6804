"""What is for peers alone: the raw blobs of this node, under ``/v1/internal/blobs``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

from klein import Klein
from twisted.logger import Logger

from callfs.backends.interfaces import BlobMissing, CommittedBlob, Hasher, IBlobBackend, IBlobReader, IStagedBlob
from callfs.deferreds import returns_deferred, shielded
from callfs.errors import BadRequest, CallFSError, ChecksumMismatch, Conflict, FileNotFound, ServiceUnavailable
from callfs.identifiers import is_blob_id
from callfs.model import DEFAULT_CONTENT_TYPE, ByteRange
from callfs.web import digests, downloads, ranges
from callfs.web.errors import error_answer
from callfs.web.messages import BlobBody, Request, Response
from callfs.web.routes import Access, route
from callfs.web.smallbodies import json_response
from callfs.web.timestamps import http_date, rfc3339

BLOBS = "/v1/internal/blobs/{id}"
INSTANCE_HEADER = "X-CallFS-Instance-ID"
DECLARED_SIZE_HEADER = "X-CallFS-Declared-Size"

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SIZE = re.compile(r"[0-9]{1,18}")
_COMPARED_BYTES = 256 * 1024
_log = Logger()

Work = Callable[[IBlobBackend, str, Request], Awaitable[Response]]


class InternalBlobResource:
    """
    The blobs on this node's local disk, for other nodes.

    Every answer, a refusal too, says in ``X-CallFS-Instance-ID`` which node gave it. A request may say in the same
    header which node it is meant for; another one then refuses it, so that a mistyped endpoint does no harm.

    :param backend: the local disk; ``None`` on a node without one.
    :param instance_id: this node.
    """

    router = Klein()

    def __init__(self, backend: IBlobBackend | None, instance_id: str) -> None:
        self._backend = backend
        self._instance_id = instance_id

    @route(router, BLOBS, methods=("GET", "HEAD"), access=Access.INTERNAL)
    async def read(self, request: Request) -> Response:
        """A blob's bytes, or the part that ``Range`` asks for."""
        return await self._answered(request, _head if request.method == "HEAD" else _read)

    @route(router, BLOBS, methods=("PUT",), access=Access.INTERNAL)
    async def store(self, request: Request) -> Response:
        """Store the body as a new blob, durably; nothing is stored unless all of it came."""
        return await self._answered(request, _store)

    @route(router, BLOBS, methods=("DELETE",), access=Access.INTERNAL)
    async def delete(self, request: Request) -> Response:
        """Delete a blob; one that isn't there is no error."""
        return await self._answered(request, _delete)

    async def _answered(self, request: Request, work: Work) -> Response:
        """Do the work, and sign the answer with this node's id."""
        try:
            response = await work(self._local(request), _blob_id(request), request)
        except BlobMissing:
            response = _refusal(FileNotFound("there is no blob of this id here"))
        except CallFSError as error:
            response = _refusal(error)
        return replace(response, headers={**response.headers, INSTANCE_HEADER: self._instance_id})

    def _local(self, request: Request) -> IBlobBackend:
        meant = request.header(INSTANCE_HEADER)
        if meant is not None and meant != self._instance_id:
            raise Conflict(f"this request is meant for another node than {self._instance_id}")
        if self._backend is None:
            raise ServiceUnavailable(f"the node {self._instance_id} keeps no blobs on a local disk")
        return self._backend


def _refusal(error: CallFSError) -> Response:
    answer = error_answer(error)
    return Response(status=answer.status, headers=answer.headers, body=answer.body)


def _blob_id(request: Request) -> str:
    blob_id = request.captured["id"]
    if _ID.fullmatch(blob_id) is None:
        raise BadRequest("a blob's id has 1 to 64 letters, digits, '_' and '-'")
    return blob_id


async def _head(backend: IBlobBackend, blob_id: str, request: Request) -> Response:
    found = await backend.stat(blob_id)
    return Response(headers=_headers(found.size, found.modified_at), content_length=found.size)


async def _read(backend: IBlobBackend, blob_id: str, request: Request) -> Response:
    reader = await backend.open(blob_id)
    try:
        modified_at = None
        with suppress(BlobMissing):  # deleted just now; who has it open reads it to its end
            modified_at = (await backend.stat(blob_id)).modified_at
        response = _content(reader, _headers(reader.size, modified_at), request)
    except BaseException:
        reader.close()
        raise
    return response


def _content(reader: IBlobReader, headers: dict[str, str], request: Request) -> Response:
    parts = ranges.select(request.header("range"), reader.size)
    if parts is not None:
        return downloads.partial(reader, headers, parts, reader.size, f"callfs-{request.request_id}")
    body = BlobBody(reader, (ByteRange(0, reader.size),) if reader.size else ())
    return Response(headers=headers, body=body, stored_content=True)


def _headers(size: int, modified_at: int | None) -> dict[str, str]:
    headers = {"Content-Type": DEFAULT_CONTENT_TYPE, "Accept-Ranges": "bytes", "X-CallFS-Size": str(size)}
    if modified_at is not None:
        headers |= {"Last-Modified": http_date(modified_at), "X-CallFS-MTime": rfc3339(modified_at)}
    return headers


async def _delete(backend: IBlobBackend, blob_id: str, request: Request) -> Response:
    await backend.delete(blob_id)
    return Response(status=204)


async def _store(backend: IBlobBackend, blob_id: str, request: Request) -> Response:
    if not is_blob_id(blob_id):
        raise BadRequest("no blob can be stored under this id")
    wanted = digests.expected(request.headers)
    try:
        existing = await backend.open(blob_id)
    except BlobMissing:
        stored = await _stored(backend, blob_id, request, wanted)
    else:
        try:
            stored = await _compared(existing, request)
        finally:
            existing.close()
    return json_response(request, {"id": blob_id, "size": stored.size, "sha256": stored.sha256.hex()}, 201)


async def _stored(
    backend: IBlobBackend, blob_id: str, request: Request, wanted: tuple[tuple[str, bytes], ...]
) -> CommittedBlob:
    """Take the body in; what breaks off leaves nothing."""
    hashers: dict[str, Hasher] = {
        algorithm: hashlib.new(algorithm, usedforsecurity=False) for algorithm, _ in wanted if algorithm != "sha256"
    }
    try:
        staged = await backend.stage(blob_id, _declared_size(request), tuple(hashers.values()))
    except ValueError:
        raise Conflict("a blob of this id is being stored just now") from None
    try:
        async for piece in request.body:
            await staged.write(piece)
    except BaseException:
        await shielded(staged.abort())
        raise
    # From here on it doesn't matter whether the sender is still there.
    return await shielded(_finished(backend, blob_id, staged, dict(wanted), hashers))


@returns_deferred
async def _finished(
    backend: IBlobBackend,
    blob_id: str,
    staged: IStagedBlob,
    wanted: dict[str, bytes],
    hashers: dict[str, Hasher],
) -> CommittedBlob:
    try:
        committed = await staged.commit()
    except Exception:
        await staged.abort()
        raise
    for algorithm, value in wanted.items():
        found = hashers[algorithm].digest() if algorithm in hashers else committed.sha256
        if found != value:
            await _discard(backend, blob_id)
            raise ChecksumMismatch(f"the body's {algorithm} digest isn't the one that was announced")
    return committed


async def _discard(backend: IBlobBackend, blob_id: str) -> None:
    try:
        await backend.delete(blob_id)
    except Exception:
        _log.failure(
            "blob {blob_id} isn't what was announced and could not be deleted",
            event="discard_failed",
            blob_id=blob_id,
        )


async def _compared(existing: IBlobReader, request: Request) -> CommittedBlob:
    """
    The same once more: a sender that never got its answer may repeat its request, and stores nothing new.

    Hashed where it is read: a repetition is rare, and each piece of it takes less than a millisecond.

    :raises Conflict: what is there is something else.
    """
    sha256 = hashlib.sha256()
    size = 0
    async for body in request.body:
        for start in range(0, len(body), _COMPARED_BYTES):
            piece = body[start : start + _COMPARED_BYTES]
            if await existing.read(size, len(piece)) != piece:
                raise _other_content()
            sha256.update(piece)
            size += len(piece)
    if size != existing.size:
        raise _other_content()
    return CommittedBlob(size=size, sha256=sha256.digest())


def _other_content() -> Conflict:
    return Conflict("a blob of this id exists, with other content")


def _declared_size(request: Request) -> int | None:
    """How much will come: what a chunked request may only hint at."""
    declared = request.body.declared_length
    if declared is not None:
        return declared
    hint = request.header(DECLARED_SIZE_HEADER)
    return int(hint) if hint is not None and _SIZE.fullmatch(hint) is not None else None
