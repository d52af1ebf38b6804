"""Files: ``/v1/files/{path}``."""

from __future__ import annotations

from klein import Klein

from callfs import access, paths
from callfs.engine.filesystem import ExpectedDigest, Filesystem, Upload
from callfs.errors import BadRequest, FileAlreadyExists, NotADirectory, NotAFile, PayloadTooLarge, PermissionDenied
from callfs.metadata.commands import Written
from callfs.metadata.preconditions import check_preconditions
from callfs.model import Inode
from callfs.web import bodies, digests, downloads, patch, preconditions, queries
from callfs.web.listings import Listing
from callfs.web.messages import Request, Response
from callfs.web.placements import Placements
from callfs.web.representations import (
    JSON,
    common_headers,
    location,
    storable_content_type,
    validators,
)
from callfs.web.routes import route
from callfs.web.smallbodies import json_response, refuse_body

PATTERN = "/v1/files/{path}"
MAX_PATCH_BYTES = 1024 * 1024
MAX_BYTES_AT_HAND = 64 * 1024
"""A body up to this that has arrived with its headers is handed on as it is."""


class FileResource:
    """
    Files and directories by path.

    :param placements: the backends and instances that a client may ask for.
    :param max_upload_bytes: over it a body is refused with 413.
    """

    router = Klein()

    def __init__(self, filesystem: Filesystem, placements: Placements, max_upload_bytes: int) -> None:
        self._filesystem = filesystem
        self._placements = placements
        self._instance_id = placements.instance_id
        self._max_upload_bytes = max_upload_bytes

    @route(router, PATTERN, methods=("GET", "HEAD"))
    async def read(self, request: Request) -> Response:
        """A file's content, or a directory's entries."""
        attached = queries.boolean("download", request.query("download"))
        if queries.boolean("manifest", request.query("manifest")):
            return await self._manifest(request)
        if request.method == "HEAD":
            inode = await self._stat(request)
            if inode.is_directory:
                return self._directory_head(request, inode)
            return downloads.headers_only(request, inode, self._instance_id, attached=attached)
        if preconditions.is_conditional(request.headers):
            # Decided without the bytes: those of another node would set out for nothing, or may be out of reach.
            inode = await self._stat(request)
            if not inode.is_directory and (answer := downloads.unchanged(request, inode)) is not None:
                return answer
        try:
            opened = await self._filesystem.open(request.principal, request.path, request.directory_expected)
        except NotAFile:
            return await self._list(request)
        return downloads.content(request, opened, self._instance_id, attached=attached)

    @route(router, PATTERN, methods=("POST",))
    async def create(self, request: Request) -> Response:
        """Create a file from the body or from another file, or, with a trailing slash, a directory."""
        try:
            return _written(await self._create(request))
        except FileAlreadyExists as error:
            raise await self._conflict(error) from error

    async def _create(self, request: Request) -> Written:
        backend = self._placements.of_creation(request)
        source = request.query("copy_from")
        if request.directory_expected:
            if source is not None:
                raise BadRequest("copy_from makes a file, but the path ends like a directory")
            await refuse_body(request, "a directory is created without a body")
            return await self._filesystem.create_directory(
                request.principal, request.path, preconditions.for_writing(request.headers)
            )
        if source is not None:
            await refuse_body(request, "copy_from takes the content from another file: send no body")
            return await self._copy(request, source, backend)
        return await self._filesystem.create_file(request.principal, request.path, self._upload(request, backend))

    @route(router, PATTERN, methods=("PUT",))
    async def put(self, request: Request) -> Response:
        """Create a file, or replace its content."""
        if request.directory_expected:
            raise NotAFile("PUT writes a file, but the path ends like a directory")
        backend = self._placements.of_creation(request)
        upload = self._upload(request, backend)
        return _written(await self._filesystem.put_file(request.principal, request.path, upload))

    @route(router, PATTERN, methods=("PATCH",))
    async def change(self, request: Request) -> Response:
        """Rename or move a file or directory, or change its attributes."""
        if request.path == paths.ROOT:
            raise BadRequest("the root can't be moved or changed")
        conditions = preconditions.for_writing(request.headers)
        overwrite = queries.boolean("overwrite", request.query("overwrite"))
        inode = await self._stat(request)
        if not access.may_write(request.principal, inode):
            raise PermissionDenied("only the owner may move or change this")
        check_preconditions(inode, conditions)
        wanted = patch.move_request(
            bodies.decode(await request.body.read(MAX_PATCH_BYTES), patch.Change),
            inode,
            request.principal,
            self._placements,
            overwrite=overwrite,
            directory_expected=request.directory_expected,
            preconditions=conditions,
        )
        try:
            moved = await self._filesystem.move(request.principal, wanted)
        except FileAlreadyExists as error:
            raise await self._conflict(error) from error
        return json_response(request, {"path": moved.path}, headers={} if moved.is_directory else validators(moved))

    @route(router, PATTERN, methods=("DELETE",))
    async def delete(self, request: Request) -> Response:
        """Delete a file, an empty directory, or with ``recursive`` a whole tree."""
        await self._filesystem.remove(
            request.principal,
            request.path,
            recursive=queries.boolean("recursive", request.query("recursive")),
            directory_expected=request.directory_expected,
            preconditions=preconditions.for_writing(request.headers),
        )
        return Response(status=204)

    async def _conflict(self, error: FileAlreadyExists) -> FileAlreadyExists:
        """The refusal as the client gets it; the owner's address is looked up where that is another node."""
        owner = self._placements.other_node(error)
        endpoint = None if owner is None else await self._filesystem.api_endpoint(owner)
        return self._placements.conflict(error, endpoint)

    async def _stat(self, request: Request) -> Inode:
        return await self._filesystem.stat(request.principal, request.path, request.directory_expected)

    async def _manifest(self, request: Request) -> Response:
        inode = await self._stat(request)
        if inode.is_directory:
            raise NotAFile("a directory has no shard manifest")
        raise BadRequest("the file isn't erasure-coded: it has no shard manifest")

    def _directory_head(self, request: Request, inode: Inode) -> Response:
        preconditions.for_reading(request.headers, None, None)
        return Response(headers={"Content-Type": JSON} | common_headers(inode))

    async def _list(self, request: Request) -> Response:
        listing = Listing(
            filesystem=self._filesystem,
            principal=request.principal,
            path=request.path,
            instance_id=self._instance_id,
        )
        first = await listing.first_page()
        preconditions.for_reading(request.headers, None, None)
        headers = {"Content-Type": JSON} | common_headers(first.directory)
        return Response(headers=headers, body=listing.json_array(first))

    async def _copy(self, request: Request, source: str, backend: str | None) -> Written:
        path = paths.canonical(source)
        if path == paths.ROOT or paths.says_directory(source):
            raise NotADirectory("copy_from must be the path of a file, without a slash at its end")
        conditions = preconditions.for_writing(request.headers)
        return await self._filesystem.copy_file(request.principal, path, request.path, conditions, backend)

    def _upload(self, request: Request, backend: str | None) -> Upload:
        if request.header("content-range") is not None:
            # RFC 9110, section 14.5: whoever doesn't know partial PUT must not take the part for the whole.
            raise BadRequest("Content-Range isn't supported here: send the whole file")
        declared = request.body.declared_length
        if declared is not None and declared > self._max_upload_bytes:
            raise PayloadTooLarge(f"the body is larger than the {self._max_upload_bytes} bytes that are allowed")
        at_hand = request.body.at_hand(MAX_BYTES_AT_HAND)
        return Upload(
            body=aiter(request.body) if at_hand is None else at_hand,
            max_size=self._max_upload_bytes,
            declared_size=declared,
            content_type=storable_content_type(request.header("content-type")),
            digests=tuple(ExpectedDigest(*digest) for digest in digests.expected(request.headers)),
            preconditions=preconditions.for_writing(request.headers),
            backend=backend,
        )


def _written(written: Written) -> Response:
    headers = {"Location": location(written.inode)}
    if not written.inode.is_directory:
        headers |= validators(written.inode)
    return Response(status=201 if written.created else 200, headers=headers)
