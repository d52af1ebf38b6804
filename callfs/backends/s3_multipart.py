"""
Objects that are made in parts: uploads, copies of large ones, and what others left unfinished.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, DeferredList, DeferredSemaphore, gatherResults
from twisted.logger import Logger

from callfs.backends.s3_errors import S3Fault, S3Refusal, S3Unreachable
from callfs.backends.s3_objects import S3Objects, check_checksum, understood
from callfs.backends.s3_parts import CopyLimits, copy_ranges
from callfs.backends.s3_request import Content, S3Request, content_of
from callfs.backends.s3_settings import S3Settings
from callfs.backends.s3_xml import (
    ListedUpload,
    UploadedPart,
    check_completed,
    format_completion,
    parse_copied_etag,
    parse_parts,
    parse_upload_id,
    parse_uploads,
)
from callfs.deferreds import returns_deferred

_COPIES_AT_ONCE = 4


class S3Multipart:
    """Requests of multipart uploads; each may raise what :meth:`S3Client.request` does unless it says otherwise."""

    _log = Logger()

    def __init__(self, objects: S3Objects, settings: S3Settings) -> None:
        self._objects = objects
        self._client = objects.client
        self._settings = settings

    async def create(self, key: str, *, checksums: bool = True) -> str:
        """
        Begin an upload; its id.

        :param checksums: whether each part comes with its SHA-256.
        """
        headers = self._settings.write_headers()
        if checksums:
            headers["x-amz-checksum-algorithm"] = "SHA256"
        request = S3Request(
            operation="CreateMultipartUpload", method="POST", key=key, query=[("uploads", None)], headers=headers
        )
        return understood(parse_upload_id, await self._client.request(request, self._client.changing))

    async def send(self, key: str, upload_id: str, number: int, content: Content) -> UploadedPart:
        """Upload a part; S3 verifies the checksum."""
        request = S3Request(
            operation="UploadPart",
            method="PUT",
            key=key,
            query=[("partNumber", str(number)), ("uploadId", upload_id)],
            headers={"x-amz-checksum-sha256": content.checksum},
            content=content,
        )
        reply = await self._client.request(request, self._client.changing)
        check_checksum(reply, content)
        if "etag" not in reply.headers:
            raise S3Unreachable("UploadPart: a reply without ETag")
        return UploadedPart(number, reply.headers["etag"], content.checksum)

    async def complete(self, key: str, upload_id: str, parts: list[UploadedPart], size: int) -> None:
        """
        Make the parts an object. When the answer to this was lost, the object itself tells: nobody else writes one
        of this key.
        """
        request = S3Request(
            operation="CompleteMultipartUpload",
            method="POST",
            key=key,
            query=[("uploadId", upload_id)],
            headers={"content-type": "application/xml"},
            content=content_of([format_completion(parts)]),
            error_in_success=True,
        )
        try:
            understood(check_completed, await self._client.request(request, self._client.assembling))
        except S3Fault as fault:
            if not fault.passing and not _is_gone(fault):
                raise
            if not await self._is_there(key, size):
                raise

    async def abort(self, key: str, upload_id: str) -> None:
        """Forget an upload; never fails."""
        request = S3Request(
            operation="AbortMultipartUpload", method="DELETE", key=key, query=[("uploadId", upload_id)]
        )
        try:
            await self._client.request(request, self._client.asking)
        except S3Fault as fault:
            if _is_gone(fault):
                return
            self._log.warn(
                "the parts of {key} stay until they are old enough to be swept: {fault}",
                event="s3_parts_left",
                key=key,
                fault=str(fault),
            )

    async def copy(self, source: str, target: str, size: int, limits: CopyLimits) -> None:
        """Copy an object of any size on the server, in parts, some at once."""
        upload_id = await self.create(target, checksums=False)
        turns = DeferredSemaphore(_COPIES_AT_ONCE)
        copies: list[Deferred[UploadedPart]] = [
            turns.run(self._copy_part, source, target, upload_id, number, part)
            for number, part in enumerate(copy_ranges(size, limits), 1)
        ]
        try:
            parts = await gatherResults(copies, consumeErrors=True)
            await self.complete(target, upload_id, parts, size)
        except BaseException:
            for copy in copies:
                copy.cancel()
            try:
                # A part that is still on its way would outlive the abort.
                await DeferredList(copies, consumeErrors=True)
            finally:
                await self.abort(target, upload_id)
            raise

    async def stale(self, prefix: str, before_at: int) -> list[ListedUpload]:
        """
        The uploads below a prefix that were begun before the instant, and not written to since.
        """
        old: list[ListedUpload] = []
        markers: tuple[str, str] | None = ("", "")
        while markers is not None:
            query = [("uploads", None), ("prefix", prefix), ("encoding-type", "url")]
            query += [("key-marker", markers[0]), ("upload-id-marker", markers[1])] if markers[0] else []
            request = S3Request(operation="ListMultipartUploads", method="GET", query=query)
            page = understood(parse_uploads, await self._client.request(request, self._client.asking))
            old += [upload for upload in page.uploads if upload.initiated_at < before_at]
            markers = page.next_markers
        return [upload for upload in old if await self._written_at(upload) < before_at]

    async def _written_at(self, upload: ListedUpload) -> int:
        """When an upload got its last part; an instant."""
        latest, marker = upload.initiated_at, "0"
        while marker:
            query = [("uploadId", upload.upload_id), ("part-number-marker", marker)]
            request = S3Request(operation="ListParts", method="GET", key=upload.key, query=query)
            try:
                page = understood(parse_parts, await self._client.request(request, self._client.asking))
            except S3Refusal as refusal:
                if _is_gone(refusal):
                    return latest
                raise
            latest = max([latest, *page.modified_at])
            marker = page.next_marker or ""
        return latest

    @returns_deferred
    async def _copy_part(
        self, source: str, target: str, upload_id: str, number: int, part: tuple[int, int]
    ) -> UploadedPart:
        request = S3Request(
            operation="UploadPartCopy",
            method="PUT",
            key=target,
            query=[("partNumber", str(number)), ("uploadId", upload_id)],
            headers={
                "x-amz-copy-source": self._client.address.copy_source(source),
                "x-amz-copy-source-range": f"bytes={part[0]}-{part[1] - 1}",
            },
            error_in_success=True,
        )
        reply = await self._client.request(request, self._client.assembling)
        return UploadedPart(number, understood(parse_copied_etag, reply))

    async def _is_there(self, key: str, size: int) -> bool:
        try:
            return (await self._objects.head(key)).size == size
        except S3Refusal as refusal:
            if refusal.is_missing:
                return False
            raise


def _is_gone(fault: S3Fault) -> bool:
    """Whether the upload was completed or aborted before."""
    return isinstance(fault, S3Refusal) and fault.code in ("NoSuchUpload", "NotFound")
