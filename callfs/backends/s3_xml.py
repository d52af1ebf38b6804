"""
The XML that S3 speaks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import unquote_plus
from xml.etree.ElementTree import Element, ParseError, SubElement, fromstring, tostring

_SHOWN_CHARACTERS = 500
"""Of what an error says; it goes to the log."""

_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


class NotUnderstood(Exception):
    """A reply isn't what S3 replies."""


@dataclass(frozen=True)
class ErrorReply:
    """An error's body."""

    code: str
    message: str
    region: str


@dataclass(frozen=True)
class ListedObject:
    """
    An entry of a list.

    :param modified_at: an instant.
    """

    key: str
    size: int
    modified_at: int


@dataclass(frozen=True)
class ObjectPage:
    """A page of objects, and whether there are more."""

    objects: Sequence[ListedObject]
    truncated: bool


@dataclass(frozen=True)
class ListedUpload:
    """
    A multipart upload under way.

    :param initiated_at: an instant.
    """

    key: str
    upload_id: str
    initiated_at: int


@dataclass(frozen=True)
class UploadPage:
    """A page of uploads, and the markers of the next; ``None``: there is none."""

    uploads: Sequence[ListedUpload]
    next_markers: tuple[str, str] | None


@dataclass(frozen=True)
class PartPage:
    """When the parts of a page were written, and the marker of the next page; ``None``: there is none."""

    modified_at: Sequence[int]
    next_marker: str | None


@dataclass(frozen=True)
class UploadedPart:
    """
    A part as the completion names it.

    :param checksum: of its content, as ``x-amz-checksum-sha256``; empty when S3 copied it.
    """

    number: int
    etag: str
    checksum: str = ""


def instant_of(text: str) -> int:
    """The instant of an ISO 8601 time as S3 writes it."""
    return int(datetime.fromisoformat(text).astimezone(UTC).timestamp() * 1_000_000)


def parsed(body: bytes) -> Element:
    """
    The root element, without namespaces; blanks before it, which keep a connection alive, are no fault.

    :raises NotUnderstood: it is no XML.
    """
    try:
        # The server is the one that holds the files, and expat limits what entities may grow to.
        root = fromstring(body.strip())  # noqa: S314
    except (ParseError, ValueError) as error:
        raise NotUnderstood(f"not the XML that S3 speaks: {error}") from error
    for element in root.iter():
        element.tag = str(element.tag).rpartition("}")[2]
    return root


def parse_error(body: bytes) -> ErrorReply | None:
    """An error; ``None`` when the body is none."""
    try:
        root = parsed(body)
    except NotUnderstood:
        return None
    if root.tag != "Error":
        return None
    return ErrorReply(*(_text(root, tag)[:_SHOWN_CHARACTERS] for tag in ("Code", "Message", "Region")))


def parse_objects(body: bytes) -> ObjectPage:
    """
    The reply to ListObjectsV2.

    :raises NotUnderstood: it isn't one.
    """
    root = _rooted(body, "ListBucketResult")
    decode = _decoder(root)
    return ObjectPage(
        [
            ListedObject(decode(_needed(item, "Key")), _number(item, "Size"), _time(item, "LastModified"))
            for item in root.iter("Contents")
        ],
        _text(root, "IsTruncated") == "true",
    )


def parse_uploads(body: bytes) -> UploadPage:
    """
    The reply to ListMultipartUploads.

    :raises NotUnderstood: it isn't one.
    """
    root = _rooted(body, "ListMultipartUploadsResult")
    decode = _decoder(root)
    uploads = [
        ListedUpload(decode(_needed(item, "Key")), _needed(item, "UploadId"), _time(item, "Initiated"))
        for item in root.iter("Upload")
    ]
    more = _text(root, "IsTruncated") == "true"
    markers = (decode(_text(root, "NextKeyMarker")), _text(root, "NextUploadIdMarker"))
    return UploadPage(uploads, markers if more else None)


def parse_parts(body: bytes) -> PartPage:
    """
    The reply to ListParts.

    :raises NotUnderstood: it isn't one.
    """
    root = _rooted(body, "ListPartsResult", "ListPartsResponse")
    times = [_time(item, "LastModified") for item in root.iter("Part")]
    return PartPage(times, _text(root, "NextPartNumberMarker") if _text(root, "IsTruncated") == "true" else None)


def parse_upload_id(body: bytes) -> str:
    """
    The reply to CreateMultipartUpload.

    :raises NotUnderstood: it isn't one.
    """
    return _needed(_rooted(body, "InitiateMultipartUploadResult"), "UploadId")


def parse_copied_etag(body: bytes) -> str:
    """
    The reply to CopyObject or UploadPartCopy.

    :raises NotUnderstood: it isn't one.
    """
    return _needed(_rooted(body, "CopyObjectResult", "CopyPartResult"), "ETag")


def check_completed(body: bytes) -> None:
    """
    See that a reply is a success of CompleteMultipartUpload.

    :raises NotUnderstood: it isn't.
    """
    _rooted(body, "CompleteMultipartUploadResult")


def format_completion(parts: Sequence[UploadedPart]) -> bytes:
    """The body of CompleteMultipartUpload."""
    root = Element("CompleteMultipartUpload", xmlns=_NAMESPACE)
    for part in sorted(parts, key=lambda part: part.number):
        element = SubElement(root, "Part")
        SubElement(element, "PartNumber").text = str(part.number)
        SubElement(element, "ETag").text = part.etag
        if part.checksum:
            SubElement(element, "ChecksumSHA256").text = part.checksum
    text: bytes = tostring(root, encoding="utf-8")
    return text


def _rooted(body: bytes, *tags: str) -> Element:
    root = parsed(body)
    if root.tag not in tags:
        raise NotUnderstood(f"{root.tag} where {tags[0]} was expected")
    return root


def _text(element: Element, tag: str) -> str:
    return element.findtext(tag) or ""


def _needed(element: Element, tag: str) -> str:
    text = _text(element, tag)
    if not text:
        raise NotUnderstood(f"{element.tag} without {tag}")
    return text


def _number(element: Element, tag: str) -> int:
    try:
        return int(_needed(element, tag))
    except ValueError as error:
        raise NotUnderstood(f"{tag} is no number") from error


def _time(element: Element, tag: str) -> int:
    try:
        return instant_of(_needed(element, tag))
    except (ValueError, OverflowError) as error:
        raise NotUnderstood(f"{tag} is no time") from error


def _decoder(root: Element) -> Callable[[str], str]:
    return unquote_plus if _text(root, "EncodingType") == "url" else str
