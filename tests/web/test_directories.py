"""GET /v1/directories."""

from __future__ import annotations

import json
import re

from callfs.web.listings import PAGE_ENTRIES
from tests.support.engine import ALICE
from tests.support.routes import Answer, RouteCase

NDJSON = {"Accept": "application/x-ndjson"}


def names(answer: Answer) -> list[str]:
    """The paths of a page's items."""
    assert answer.status == 200, answer.body
    return [item["path"] for item in answer.json()["items"]]


class TestListing(RouteCase):
    """One page of everything."""

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        for path in ("/d/b", "/d/a/x/y/z", "/d/a/w", "/d/c!", "/e"):
            await self.upload(path, b"x")

    async def list(self, query: str = "", path: str = "/d", headers: dict[str, str] | None = None) -> Answer:
        """List a directory."""
        return await self.send("GET", f"/v1/directories{path}?{query}", headers=headers)

    async def test_the_children(self) -> None:
        """All of them by path, and what the contract says of the page; the slash makes no difference."""
        for path in ("/d", "/d/", "//d//", "/x/../d"):
            answer = await self.list(path=path)
            page = answer.json()
            assert list(page) == ["path", "type", "recursive", "count", "items"]
            assert (page["path"], page["type"], page["recursive"], page["count"]) == ("/d", "directory", False, 3)
            assert names(answer) == ["/d/a", "/d/b", "/d/c!"]
            assert set(page["items"][0]) == set(page["items"][1])
            assert answer.headers["X-CallFS-Type"] == "directory"
            assert answer.headers["X-CallFS-Count"] == "3"
            assert answer.headers["X-CallFS-Recursive"] == "false"
            assert answer.headers["Content-Type"] == "application/json"

    async def test_the_whole_tree(self) -> None:
        """recursive=true walks it, by path, bytewise."""
        answer = await self.list("recursive=true")
        page = answer.json()
        assert (page["recursive"], page["max_depth"], page["count"]) == (True, 100, 7)
        everything = ["/d/a", "/d/a/w", "/d/a/x", "/d/a/x/y", "/d/a/x/y/z", "/d/b", "/d/c!"]
        assert names(answer) == everything
        assert answer.headers["X-CallFS-Recursive"] == "true"
        assert names(await self.list("recursive=false")) == ["/d/a", "/d/b", "/d/c!"]
        assert names(await self.list("recursive=1", path="/")) == sorted(["/d", "/e", *everything])

    async def test_the_depth(self) -> None:
        """0 is the children alone; no number counts as absent; over 1000 is 1000; negative is refused."""
        for depth, count, shown in (("0", 3, 0), ("1", 5, 1), ("3", 7, 3), ("deep", 7, 100), ("", 7, 100)):
            page = (await self.list(f"recursive=true&max_depth={depth}")).json()
            assert (page["count"], page["max_depth"]) == (count, shown)
        assert (await self.list("recursive=true&max_depth=5000")).json()["max_depth"] == 1000
        assert (await self.list("recursive=true&max_depth=-1")).status == 400
        assert "max_depth" not in (await self.list("max_depth=0")).json()

    async def test_what_is_no_directory(self) -> None:
        """A file is 400, nothing is 404."""
        for path in ("/d/b", "/d/b/"):
            assert (await self.list(path=path)).code == "NOT_A_DIRECTORY"
        assert (await self.list(path="/nothing")).code == "FILE_NOT_FOUND"
        assert (await self.list(path="/d/b/c")).code == "FILE_NOT_FOUND"

    async def test_the_root_and_an_empty_directory(self) -> None:
        """The root by any name; an empty page has no items and no cursor."""
        for path in ("", "/"):
            assert names(await self.list(path=path)) == ["/d", "/e"]
        await self.send("POST", "/v1/files/empty/")
        assert (await self.list(path="/empty")).json()["items"] == []

    async def test_values_that_are_none(self) -> None:
        """A limit, flag or cursor that can't be used is 400."""
        for query in ("limit=0", "limit=10001", "limit=x", "limit=", "limit=-1", "limit=1.5", "recursive=maybe"):
            assert (await self.list(query)).code == "BAD_REQUEST", query
        for cursor in ("", "x", "AAAAAAAAAAAAAAAA", "%00", "/d/a"):
            assert (await self.list(f"cursor={cursor}")).code == "BAD_REQUEST", cursor

    async def test_head(self) -> None:
        """The headers and the length of GET."""
        get = await self.list()
        head = await self.send("HEAD", "/v1/directories/d")
        assert head.headers == get.headers
        assert head.response.content_length == len(get.body)
        lines = await self.send("HEAD", "/v1/directories/d", headers=NDJSON)
        assert lines.headers["Content-Type"] == "application/x-ndjson"


class TestPages(RouteCase):
    """limit and cursor."""

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        for number in range(5):
            await self.upload(f"/d/{number}/x", b"x")

    async def page_through(self, query: str, limit: int) -> list[list[str]]:
        """All pages."""
        pages, cursor = [], ""
        while True:
            answer = await self.send("GET", f"/v1/directories/d?limit={limit}&{query}{cursor}")
            pages.append(names(answer))
            if "next_cursor" not in answer.json():
                return pages
            assert re.fullmatch("[A-Za-z0-9_-]+", answer.json()["next_cursor"])
            cursor = f"&cursor={answer.json()['next_cursor']}"

    async def test_pages_together_are_the_whole(self) -> None:
        """Nothing twice, nothing left out, for every size of page; the last one has no cursor."""
        for query, whole in (
            ("", [f"/d/{n}" for n in range(5)]),
            ("recursive=true", [path for n in range(5) for path in (f"/d/{n}", f"/d/{n}/x")]),
            ("recursive=true&max_depth=0", [f"/d/{n}" for n in range(5)]),
        ):
            for limit in (1, 2, 3, 5, 10, 10_000):
                pages = await self.page_through(query, limit)
                assert [path for page in pages for path in page] == whole
                assert all(len(page) == limit for page in pages[:-1])
                assert len(pages) == max(1, -(-len(whole) // limit))

    async def test_a_cursor_stays_good_while_others_write(self) -> None:
        """What is there throughout is seen once, whatever comes and goes, the entry at the border included."""
        first = await self.send("GET", "/v1/directories/d?limit=2")
        await self.send("DELETE", "/v1/files/d/1?recursive=true")
        await self.upload("/d/0a", b"x")
        second = await self.send("GET", f"/v1/directories/d?cursor={first.json()['next_cursor']}")
        assert names(first) == ["/d/0", "/d/1"]
        assert names(second) == ["/d/2", "/d/3", "/d/4"]

    async def test_a_cursor_belongs_to_its_listing(self) -> None:
        """Elsewhere, or for another kind of listing, it is 400."""
        cursor = (await self.send("GET", "/v1/directories/d?limit=1")).json()["next_cursor"]
        for target in (f"/v1/directories?cursor={cursor}", f"/v1/directories/d?recursive=true&cursor={cursor}"):
            assert (await self.send("GET", target)).code == "BAD_REQUEST"

    async def test_a_page_larger_than_the_steps_it_is_gathered_in(self) -> None:
        """A limit beyond the engine's page is met exactly."""
        for number in range(PAGE_ENTRIES + 5):
            await self.filesystem.create_directory(ALICE, f"/many/{number:05d}")
        page = await self.send("GET", f"/v1/directories/many?limit={PAGE_ENTRIES + 2}")
        assert page.json()["count"] == len(page.json()["items"]) == PAGE_ENTRIES + 2
        rest = await self.send("GET", f"/v1/directories/many?cursor={page.json()['next_cursor']}")
        assert rest.json()["count"] == 3
        assert (await self.send("GET", "/v1/directories/many")).json()["count"] == PAGE_ENTRIES + 5


class TestLines(RouteCase):
    """One entry a line."""

    async def test_all_entries_as_lines(self) -> None:
        """Without limit, in order, each line an entry; the same entries as in the JSON page."""
        count = PAGE_ENTRIES + 3
        for number in range(count):
            await self.filesystem.create_directory(ALICE, f"/d/{number:05d}")
        answer = await self.send("GET", "/v1/directories/d", headers=NDJSON)
        assert answer.headers["Content-Type"] == "application/x-ndjson"
        assert answer.headers["X-CallFS-Type"] == "directory"
        assert "X-CallFS-Count" not in answer.headers
        lines = answer.body.decode().splitlines()
        assert [json.loads(line) for line in lines] == (await self.send("GET", "/v1/directories/d")).json()["items"]
        assert answer.body.endswith(b"\n")

    async def test_recursion_and_a_limit_count_here_too(self) -> None:
        """What is asked for explicitly is done."""
        for path in ("/d/a/b", "/d/c"):
            await self.upload(path, b"x")
        answer = await self.send("GET", "/v1/directories/d?recursive=true&limit=2", headers=NDJSON)
        assert [json.loads(line)["path"] for line in answer.body.splitlines()] == ["/d/a", "/d/a/b"]

    async def test_errors_are_errors(self) -> None:
        """A missing directory is 404, not an empty stream; an empty one is an empty stream."""
        assert (await self.send("GET", "/v1/directories/d", headers=NDJSON)).code == "FILE_NOT_FOUND"
        await self.send("POST", "/v1/files/d/")
        assert (await self.send("GET", "/v1/directories/d", headers=NDJSON)).body == b""
