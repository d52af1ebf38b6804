"""Listings in pages: ``/v1/directories/{path}``."""

from __future__ import annotations

import msgspec
from klein import Klein

from callfs.engine.filesystem import Filesystem, Page
from callfs.web import cursors, queries
from callfs.web.listings import Listing
from callfs.web.messages import Request, Response
from callfs.web.negotiation import prefers
from callfs.web.representations import JSON, NDJSON
from callfs.web.routes import route

DEFAULT_DEPTH = 100
MAX_DEPTH = 1000
MAX_LIMIT = 10_000


class DirectoryResource:
    """
    What is in a directory, or below it.

    :param instance_id: this node.
    """

    router = Klein()

    def __init__(self, filesystem: Filesystem, instance_id: str) -> None:
        self._filesystem = filesystem
        self._instance_id = instance_id

    @route(router, "/v1/directories/{path}", methods=("GET", "HEAD"))
    async def list(self, request: Request) -> Response:
        """A page of a directory's entries, or of everything below it; or all of them, one a line."""
        recursive = queries.boolean("recursive", request.query("recursive"))
        cursor = request.query("cursor")
        limit = request.query("limit")
        most = None if limit is None else queries.integer("limit", limit, 1, MAX_LIMIT)
        listing = Listing(
            filesystem=self._filesystem,
            principal=request.principal,
            path=request.path,
            instance_id=self._instance_id,
            recursive=recursive,
            max_depth=_max_depth(request.query("max_depth")) if recursive else None,
            after="" if cursor is None else cursors.decode(cursor, request.path, recursive),
        )
        first = await listing.first_page(most)
        headers = {
            "X-CallFS-Type": "directory",
            "X-CallFS-Recursive": "true" if recursive else "false",
            "Vary": "Accept",
        }
        if prefers(request.header("accept"), NDJSON, JSON):
            lines = b"" if request.method == "HEAD" else listing.json_lines(first, most)
            return Response(headers=headers | {"Content-Type": NDJSON}, body=lines)
        body, count = await _page_document(listing, first, MAX_LIMIT if most is None else most)
        return Response(
            headers=headers | {"Content-Type": JSON, "X-CallFS-Count": str(count)},
            body=b"" if request.method == "HEAD" else body,
            content_length=len(body),
        )


def _max_depth(text: str | None) -> int:
    """What is no number counts as absent; what is over the limit as the limit."""
    number = queries.integer_or_none(text)
    return DEFAULT_DEPTH if number is None else min(queries.integer("max_depth", str(number), 0, 10**18), MAX_DEPTH)


async def _page_document(listing: Listing, first: Page, limit: int) -> tuple[bytes, int]:
    """The JSON object for up to ``limit`` entries, gathered little by little, and how many they are."""
    items: list[bytes] = []
    after = None
    async for page, entries in listing.pages(first, limit):
        items += entries
        after = page.after
    fields: dict[str, object] = {"path": listing.path, "type": "directory", "recursive": listing.recursive}
    if listing.max_depth is not None:
        fields["max_depth"] = listing.max_depth
    fields |= {"count": len(items), "items": msgspec.Raw(b"[" + b",".join(items) + b"]")}
    if after is not None:
        fields["next_cursor"] = cursors.encode(listing.path, listing.recursive, after)
    return msgspec.json.encode(fields), len(items)
