"""
The answer to a read of an open file: conditions, ranges, headers.
"""

from __future__ import annotations

from callfs import paths
from callfs.backends.interfaces import IBlobReader
from callfs.engine.filesystem import OpenFile
from callfs.model import ByteRange, Inode
from callfs.web import preconditions, ranges, representations
from callfs.web.messages import BlobBody, Request, Response


def headers_only(request: Request, inode: Inode, instance_id: str, *, attached: bool = False) -> Response:
    """
    The answer to HEAD for a file. A range changes nothing (RFC 9110, section 14.2).

    :raises callfs.errors.PreconditionFailed: a condition doesn't hold.
    """
    if _is_known(request, inode):
        return _not_modified(inode)
    headers = _headers(inode, instance_id, attached)
    return Response(headers=headers, content_length=inode.size, stored_content=True)


def unchanged(request: Request, inode: Inode) -> Response | None:
    """
    The answer to a conditional GET that no bytes are needed for; ``None`` when they are.

    :raises callfs.errors.PreconditionFailed: a condition doesn't hold.
    """
    return _not_modified(inode) if _is_known(request, inode) else None


def content(request: Request, opened: OpenFile, instance_id: str, *, attached: bool = False) -> Response:
    """
    The answer to GET for a file; takes over the reader, also when it fails.

    :raises callfs.errors.PreconditionFailed: a condition doesn't hold.
    :raises callfs.errors.RangeNotSatisfiable: no range lies in the file.
    """
    try:
        response = _content(request, opened, instance_id, attached)
    except BaseException:
        opened.reader.close()
        raise
    if not isinstance(response.body, BlobBody):
        opened.reader.close()
    return response


def all_of(opened: OpenFile) -> BlobBody:
    """The whole file as a body; of an empty one no piece."""
    size = opened.inode.size
    return BlobBody(opened.reader, (ByteRange(0, size),) if size else ())


def _content(request: Request, opened: OpenFile, instance_id: str, attached: bool) -> Response:
    inode = opened.inode
    if _is_known(request, inode):
        return _not_modified(inode)
    headers = _headers(inode, instance_id, attached)
    wanted = request.header("range")
    if wanted and preconditions.range_applies(request.headers, inode.etag, representations.modified_at(inode)):
        parts = ranges.select(wanted, inode.size)
        if parts is not None:
            return partial(opened.reader, headers, parts, inode.size, f"callfs-{request.request_id}")
    return Response(headers=headers, body=all_of(opened), stored_content=True)


def partial(
    reader: IBlobReader, headers: dict[str, str], parts: tuple[ByteRange, ...], size: int, boundary: str
) -> Response:
    """
    The answer to a read of parts of a blob, which takes over the reader.

    :param headers: of the whole; those of the part are put into them.
    :param parts: at least one.
    :param size: bytes of the whole.
    :param boundary: holds the id of this request, which is random: stored content can't have foreseen it.
    """
    if len(parts) == 1:
        headers["Content-Range"] = ranges.content_range(parts[0], size)
        body = BlobBody(reader, parts)
    else:
        body = BlobBody(reader, ranges.multipart(parts, size, headers["Content-Type"], boundary))
        headers["Content-Type"] = f"multipart/byteranges; boundary={boundary}"
    return Response(status=206, headers=headers, body=body, stored_content=True)


def _is_known(request: Request, inode: Inode) -> bool:
    reading = preconditions.for_reading(request.headers, inode.etag, representations.modified_at(inode))
    return reading is preconditions.Reading.NOT_MODIFIED


def _not_modified(inode: Inode) -> Response:
    # A cache puts these headers in the place of those that it has (RFC 9111, section 3.2): the sandbox has to stay.
    return Response(status=304, headers=representations.validators(inode), stored_content=True)


def _headers(inode: Inode, instance_id: str, attached: bool) -> dict[str, str]:
    headers = representations.file_headers(inode, instance_id)
    if attached:
        headers["Content-Disposition"] = representations.attachment(paths.name(inode.path))
    return headers
