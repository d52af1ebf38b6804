"""
Listings, page by page: the engine is asked for a little at a time, so that memory stays constant and the reactor
free.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from callfs.engine.filesystem import Filesystem, Page
from callfs.model import Principal
from callfs.web.representations import encoded

PAGE_ENTRIES = 500


@dataclass(frozen=True, kw_only=True)
class Listing:
    """
    What is to be listed.

    :param max_depth: the deepest level shown, the directory's own children being 0; ``None`` without ``recursive``.
    :param after: where to begin: what the engine gave for the page before, or empty.
    """

    filesystem: Filesystem
    principal: Principal
    path: str
    instance_id: str
    recursive: bool = False
    max_depth: int | None = None
    after: str = ""

    async def page(self, after: str, limit: int) -> Page:
        """A page; errors of :meth:`callfs.engine.filesystem.Filesystem.list_page`."""
        return await self.filesystem.list_page(
            self.principal,
            self.path,
            recursive=self.recursive,
            max_depth=self.max_depth,
            after=after,
            limit=limit,
        )

    async def first_page(self, limit: int | None = None) -> Page:
        """The page to begin with: its errors are those of the request, as nothing has been sent yet."""
        return await self.page(self.after, PAGE_ENTRIES if limit is None else min(limit, PAGE_ENTRIES))

    async def pages(self, first: Page, limit: int | None = None) -> AsyncIterator[tuple[Page, list[bytes]]]:
        """
        ``first`` and the pages after it, each with its entries encoded.

        :param limit: entries in all; ``None`` without limit.
        """
        page, count = first, len(first.entries)
        while True:
            yield page, encoded(page.entries, self.instance_id)
            if page.after is None or (limit is not None and count >= limit):
                return
            page = await self.page(page.after, PAGE_ENTRIES if limit is None else min(limit - count, PAGE_ENTRIES))
            count += len(page.entries)

    async def json_array(self, first: Page) -> AsyncIterator[bytes]:
        """All entries as one JSON array; an error in the middle leaves it without its end, so a client notices."""
        before = b"["
        async for _, entries in self.pages(first):
            if entries:
                yield before + b",".join(entries)
                before = b","
        yield b"[]" if before == b"[" else b"]"

    async def json_lines(self, first: Page, limit: int | None) -> AsyncIterator[bytes]:
        """An entry a line."""
        async for _, entries in self.pages(first, limit):
            if entries:
                yield b"\n".join(entries) + b"\n"
