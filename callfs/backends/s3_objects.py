"""
What is done with whole objects of a bucket.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TypeVar

from callfs.backends.s3_bodies import ReplyBody
from callfs.backends.s3_client import S3Client
from callfs.backends.s3_errors import S3Refusal, S3Unreachable
from callfs.backends.s3_request import Content, S3Reply, S3Request
from callfs.backends.s3_settings import S3Settings
from callfs.backends.s3_transport import Answer
from callfs.backends.s3_xml import ListedObject, NotUnderstood, ObjectPage, parse_copied_etag, parse_objects

T = TypeVar("T")

LIST_PAGE = 1000
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


@dataclass(frozen=True)
class OpenObject:
    """
    An object's content on its way.

    :param start: the first byte of the body within the object.
    :param end: the byte after its last.
    :param size: of the whole object.
    """

    body: ReplyBody
    start: int
    end: int
    size: int
    etag: str


class S3Objects:
    """Requests to the bucket of the settings; each may raise what :meth:`S3Client.request` does."""

    def __init__(self, client: S3Client, settings: S3Settings) -> None:
        self.client = client
        self._settings = settings

    async def put(self, key: str, content: Content, *, only_new: bool = False) -> None:
        """
        Write an object in one request; S3 verifies the checksum.

        :param only_new: refuse (``PreconditionFailed``) when there is one.
        """
        headers = {**self._settings.write_headers(), "x-amz-checksum-sha256": content.checksum}
        if only_new:
            headers["if-none-match"] = "*"
        reply = await self.client.request(
            S3Request(operation="PutObject", method="PUT", key=key, headers=headers, content=content),
            self.client.changing,
        )
        check_checksum(reply, content)

    async def read(self, key: str) -> bytes:
        """All of a small object."""
        reply = await self.client.request(
            S3Request(operation="GetObject", method="GET", key=key), self.client.asking
        )
        return reply.body

    async def open(self, key: str, start: int, end: int, etag: str = "") -> OpenObject:
        """
        Begin to read.

        :param end: the byte after the last one wanted; the object may end before.
        :param etag: the content that it has to have; whatever it has when empty.
        :raises S3Refusal: among others ``InvalidRange``: there is no byte at ``start``.
        """
        headers = {"range": f"bytes={start}-{end - 1}"}
        if etag:
            headers["if-match"] = etag
        request = S3Request(operation="GetObject", method="GET", key=key, headers=headers)
        answer = await self.client.open(request, self.client.asking)
        try:
            return _opened(answer, start)
        except BaseException:
            answer.body.abort()
            raise

    async def head(self, key: str) -> ListedObject:
        """Size and time of an object."""
        reply = await self.client.request(
            S3Request(operation="HeadObject", method="HEAD", key=key), self.client.asking
        )
        try:
            modified_at = int(parsedate_to_datetime(reply.headers["last-modified"]).timestamp() * 1_000_000)
            return ListedObject(key, int(reply.headers["content-length"]), modified_at)
        except (KeyError, ValueError, OverflowError) as error:
            raise S3Unreachable(f"HeadObject: not the headers that S3 sends: {error}") from error

    async def delete(self, key: str) -> None:
        """Delete an object; one that isn't there is no error."""
        request = S3Request(operation="DeleteObject", method="DELETE", key=key)
        try:
            await self.client.request(request, self.client.asking)
        except S3Refusal as refusal:
            if not refusal.is_missing:
                raise

    async def copy(self, source: str, target: str) -> None:
        """Copy an object of at most 5 GiB on the server, with the settings that new objects have."""
        headers = {
            **self._settings.write_headers(),
            "x-amz-copy-source": self.client.address.copy_source(source),
            "x-amz-metadata-directive": "REPLACE",
            "x-amz-checksum-algorithm": "SHA256",
        }
        request = S3Request(
            operation="CopyObject", method="PUT", key=target, headers=headers, error_in_success=True
        )
        reply = await self.client.request(request, self.client.assembling)
        understood(parse_copied_etag, reply)

    async def list(self, prefix: str, start_after: str = "", limit: int = LIST_PAGE) -> ObjectPage:
        """
        A page of the objects below a prefix, by their keys as bytes.

        :param start_after: the key before the first; empty: none.
        :param limit: at most 1,000.
        """
        query = [
            ("list-type", "2"),
            ("prefix", prefix),
            ("max-keys", str(min(limit, LIST_PAGE))),
            ("encoding-type", "url"),
        ]
        if start_after:
            query.append(("start-after", start_after))
        request = S3Request(operation="ListObjectsV2", method="GET", query=query)
        return understood(parse_objects, await self.client.request(request, self.client.asking))


def check_checksum(reply: S3Reply, content: Content) -> None:
    """
    See that what S3 says to have stored is what was sent.

    :raises S3Unreachable: it isn't.
    """
    stored = reply.headers.get("x-amz-checksum-sha256", content.checksum)
    if stored != content.checksum:
        raise S3Unreachable(f"stored was {stored} instead of {content.checksum}")


def understood(parse: Callable[[bytes], T], reply: S3Reply) -> T:
    """
    What a reply says.

    :raises S3Unreachable: nothing that can be understood.
    """
    try:
        return parse(reply.body)
    except NotUnderstood as error:
        raise S3Unreachable(str(error)) from error


def _opened(answer: Answer, start: int) -> OpenObject:
    """A body with its place in the object; a server that gives another range than asked for isn't believed."""
    etag = answer.headers.get("etag", "")
    if answer.status == 206:
        found = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", ""))
        if found is not None and int(found[1]) == start:
            return OpenObject(answer.body, start, int(found[2]) + 1, int(found[3]), etag)
    elif start == 0 and answer.headers.get("content-length", "").isdecimal():
        size = int(answer.headers["content-length"])
        return OpenObject(answer.body, 0, size, size, etag)
    raise S3Unreachable("GetObject: the reply has another range than was asked for")
