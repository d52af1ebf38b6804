"""Single-use links: ``/v1/links/generate`` and ``/download/{token}``."""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec
from klein import Klein

from callfs import paths
from callfs.engine.filesystem import Filesystem, OpenFile
from callfs.errors import (
    BadRequest,
    CallFSError,
    LinkExpired,
    LinkNotFound,
    LinkUsed,
    NotAFile,
    PayloadTooLarge,
    RateLimited,
)
from callfs.metrics import LinkConsumption, Metrics
from callfs.model import Inode
from callfs.web import bodies, downloads
from callfs.web.messages import Request, Response
from callfs.web.ratelimit import RateLimiter
from callfs.web.representations import attachment, file_headers
from callfs.web.routes import Access, route
from callfs.web.smallbodies import json_response
from callfs.web.timestamps import rfc3339

MAX_BODY_BYTES = 4096
MAX_EXPIRY_SECONDS = 86_400

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,128}\.[A-Za-z0-9_-]{1,128}")
_UNCACHED = {"Cache-Control": "no-store"}
_STATUS: dict[type[CallFSError], LinkConsumption] = {
    LinkNotFound: "not_found",
    LinkExpired: "expired",
    LinkUsed: "expired",
}


class LinkOrder(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON body that asks for a link."""

    path: str
    expiry_seconds: int


class LinkResource:
    """
    Single-use links.

    :param external_url: base of the links, with its scheme; a slash at its end makes no difference.
    :param generate_limit: how often a client may ask for a link.
    :param download_limit: how often a client may come with one.
    :param seconds: a clock that never goes back, for the limits.
    """

    router = Klein()

    def __init__(
        self,
        filesystem: Filesystem,
        *,
        instance_id: str,
        external_url: str,
        generate_limit: RateLimiter,
        download_limit: RateLimiter,
        seconds: Callable[[], float],
        metrics: Metrics,
    ) -> None:
        self._filesystem = filesystem
        self._instance_id = instance_id
        self._base = external_url.rstrip("/")
        self._generate_limit = generate_limit
        self._download_limit = download_limit
        self._seconds = seconds
        self._metrics = metrics

    @route(router, "/v1/links/generate", methods=("POST",))
    async def generate(self, request: Request) -> Response:
        """Make a link that downloads a file once, without credentials."""
        self._take(self._generate_limit, "link_generate", request)
        order = bodies.decode(await _small_body(request), LinkOrder)
        if not 1 <= order.expiry_seconds <= MAX_EXPIRY_SECONDS:
            raise BadRequest(f"expiry_seconds must be a whole number from 1 to {MAX_EXPIRY_SECONDS}")
        path = paths.canonical(order.path)
        if path == paths.ROOT or paths.says_directory(order.path):
            raise NotAFile("a link is for a file, but the path is that of a directory")
        link = await self._filesystem.issue_link(request.principal, path, order.expiry_seconds)
        self._metrics.link_generated()
        expires = rfc3339(link.expires_at)
        return json_response(
            request,
            {
                "url": f"{self._base}/download/{link.token}",
                "token": link.token,
                "expires": expires,
                "expires_at": expires,
            },
            status=201,
            headers=_UNCACHED,
        )

    @route(router, "/download/{token}", methods=("GET", "HEAD"), access=Access.PUBLIC)
    async def download(self, request: Request) -> Response:
        """The file of a link; GET uses the link up, HEAD doesn't."""
        self._take(self._download_limit, "download", request)
        token = request.captured["token"]
        if request.method == "HEAD":
            return await self._look_up(token)
        opened = await self._redeem(token)
        return Response(headers=self._headers(opened.inode), body=downloads.all_of(opened), stored_content=True)

    async def _look_up(self, token: str) -> Response:
        if _TOKEN.fullmatch(token) is None:
            raise LinkNotFound("there is no such link")
        inode = await self._filesystem.look_up_link(token)
        return Response(headers=self._headers(inode), content_length=inode.size, stored_content=True)

    async def _redeem(self, token: str) -> OpenFile:
        if _TOKEN.fullmatch(token) is None:
            self._metrics.link_consumed("invalid")
            raise LinkNotFound("there is no such link")
        try:
            opened = await self._filesystem.redeem_link(token)
        except (LinkNotFound, LinkExpired, LinkUsed) as error:
            self._metrics.link_consumed(_STATUS[type(error)])
            raise
        self._metrics.link_consumed("success")
        return opened

    def _headers(self, inode: Inode) -> dict[str, str]:
        """A link gives all of its file or nothing: no ranges to accept, and nothing for a cache to keep."""
        own = {"Accept-Ranges": "none", "Content-Disposition": attachment(paths.name(inode.path))}
        return file_headers(inode, self._instance_id) | _UNCACHED | own

    def _take(self, limiter: RateLimiter, name: str, request: Request) -> None:
        wait_seconds = limiter.take(request.client_address, self._seconds())
        if wait_seconds > 0:
            self._metrics.rate_limited(name)
            raise RateLimited("too many requests from this address", retry_after_seconds=wait_seconds)


async def _small_body(request: Request) -> bytes:
    try:
        return await request.body.read(MAX_BODY_BYTES)
    except PayloadTooLarge:
        raise BadRequest(f"the body is larger than {MAX_BODY_BYTES} bytes") from None
