"""
How an inode looks to a client: the headers of a file or directory, and its entry in a listing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote

import msgspec

from callfs import paths
from callfs.model import DEFAULT_CONTENT_TYPE, Inode, InodeType, LocalPlacement, S3Placement
from callfs.web.digests import repr_digest
from callfs.web.timestamps import http_date, rfc3339

JSON = "application/json"
NDJSON = "application/x-ndjson"

MAX_CONTENT_TYPE_CHARACTERS = 255

_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = r'"(?:[\t !#-\[\]-~]|\\[\t -~])*"'
# Each blank can be matched in one way only, so that no header makes the match take long.
_MEDIA_TYPE = re.compile(rf"{_NAME}/{_NAME}(?:[ \t]*;(?:[ \t]*{_NAME}=(?:{_NAME}|{_QUOTED}))?)*[ \t]*", re.ASCII)
_ATTR_CHARS = "!#$&+-.^_`|~"  # besides letters and digits what RFC 8187 leaves as it is
_PATH_CHARS = "/-._~!$&'()*+,;=:@"  # what RFC 3986 allows in a path


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """An inode in a listing; the last four are ``null`` for a directory."""

    name: str
    path: str
    type: InodeType
    size: int
    mode: str
    owner: str
    mtime: str
    etag: str | None = None
    content_type: str | None = None
    backend: str | None = None
    instance_id: str | None = None


def entry(inode: Inode, instance_id: str) -> Entry:
    """
    The entry of an inode.

    :param instance_id: this node, named for bytes that are on no node's own disk.
    """
    place = placed(inode, instance_id)
    return Entry(
        name=paths.name(inode.path),
        path=inode.path,
        type=inode.type,
        size=inode.size,
        mode=mode_text(inode.mode),
        owner=inode.owner,
        mtime=rfc3339(inode.mtime),
        etag=inode.etag,
        content_type=None if inode.is_directory else content_type_of(inode),
        backend=place and place[0],
        instance_id=place and place[1],
    )


def placed(inode: Inode, instance_id: str) -> tuple[str, str] | None:
    """Backend and instance of a file's bytes; ``None`` for a directory."""
    if inode.blob is None:
        return None
    match inode.blob.placement:
        case LocalPlacement(owner):
            return "localfs", owner
        case S3Placement():
            return "s3", instance_id


def mode_text(mode: int) -> str:
    """Permission bits as four octal digits, ``0644``."""
    return f"{mode:04o}"


def content_type_of(inode: Inode) -> str:
    """What a file is served as."""
    return inode.content_type or DEFAULT_CONTENT_TYPE


def storable_content_type(text: str | None) -> str | None:
    """
    A media type as it may be stored and served again (RFC 9110, section 8.3.1).

    :return: ``None`` for what is no media type, or longer than :data:`MAX_CONTENT_TYPE_CHARACTERS`.
    """
    if text is None:
        return None
    stripped = text.strip(" \t")
    if len(stripped) > MAX_CONTENT_TYPE_CHARACTERS or _MEDIA_TYPE.fullmatch(stripped) is None:
        return None
    return stripped


def modified_at(inode: Inode) -> int:
    """
    The instant of ``Last-Modified``: the mtime, but of one that was set into the future the time of that change,
    because the header must not lie after the answer (RFC 9110, section 8.8.2.1).
    """
    return min(inode.mtime, inode.ctime)


def common_headers(inode: Inode) -> dict[str, str]:
    """What every answer about a file or directory says of it."""
    return {
        "X-CallFS-Type": inode.type.value,
        "X-CallFS-Size": str(inode.size),
        "X-CallFS-Mode": mode_text(inode.mode),
        "X-CallFS-Owner": quote(inode.owner, safe="@"),
        "X-CallFS-MTime": rfc3339(inode.mtime),
    }


def validators(inode: Inode) -> dict[str, str]:
    """``ETag`` and ``Last-Modified`` of a file: what a 304 repeats."""
    return {"ETag": inode.etag or '""', "Last-Modified": http_date(modified_at(inode))}


def file_headers(inode: Inode, instance_id: str) -> dict[str, str]:
    """All headers of a file's representation but the length, which the transport knows."""
    headers = {"Content-Type": content_type_of(inode), "Accept-Ranges": "bytes"}
    headers |= validators(inode) | common_headers(inode)
    if (place := placed(inode, instance_id)) is not None:
        headers |= {"X-CallFS-Backend": place[0], "X-CallFS-Instance-ID": place[1]}
    if inode.blob is not None:
        headers["Repr-Digest"] = repr_digest(inode.blob.sha256)
    return headers


def attachment(name: str) -> str:
    """The value of ``Content-Disposition`` that saves a file under its name (RFC 6266, RFC 8187)."""
    return f"attachment; filename*=UTF-8''{quote(name, safe=_ATTR_CHARS)}"


def file_location(path: str) -> str:
    """The URL path of a file."""
    return f"/v1/files{quote(path, safe=_PATH_CHARS)}"


def location(inode: Inode) -> str:
    """The URL path of a file or directory."""
    return file_location(inode.path) + ("/" if inode.is_directory and inode.path != paths.ROOT else "")


_encoder = msgspec.json.Encoder()


def encoded(inodes: Iterable[Inode], instance_id: str) -> list[bytes]:
    """The entries of inodes, each as JSON without a line end in it."""
    return [_encoder.encode(entry(inode, instance_id)) for inode in inodes]
