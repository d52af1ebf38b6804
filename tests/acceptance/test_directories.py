"""Listings: GET /v1/directories (HTTP API, section 5)."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.acceptance.test_files import ENTRY_FIELDS
from tests.support.daemon import Daemon
from tests.support.http import Client

NDJSON = {"Accept": "application/x-ndjson"}


@pytest.fixture
def tree(alice: Client, home: str) -> str:
    """A directory with files at depths 0 to 3."""
    for path in ("b", "a/b", "a/c/d", "a/c/e/f", "a.txt", "a b", "B", "ä", "a0"):
        alice.stored(f"{home}/{path}", path.encode())
    return home


def below(home: str, answer_items: list[dict[str, Any]]) -> list[str]:
    return [entry["path"].removeprefix(home + "/") for entry in answer_items]


def pages(client: Client, path: str, **query: object) -> list[list[dict[str, Any]]]:
    """All pages of a listing."""
    found, cursor = [], {}
    while True:
        answer = client.directory(path, **query, **cursor)
        assert answer.status == 200, answer.body
        page = answer.json()
        found.append(page["items"])
        if "next_cursor" not in page:
            return found
        assert re.fullmatch(r"[A-Za-z0-9_-]+", page["next_cursor"])
        cursor = {"cursor": page["next_cursor"]}


class TestListing:
    def test_head(self, alice: Client, tree: str) -> None:
        """HEAD names the length that GET would send, and none where GET doesn't know it (RFC 9110, section 8.6)."""
        target = f"/v1/directories{tree}"
        whole = alice.request("GET", target)
        assert alice.request("HEAD", target)["Content-Length"] == str(len(whole.body))
        assert alice.request("HEAD", target, None, NDJSON).get("Content-Length") is None
        assert alice.head(tree).get("Content-Length") is None

    def test_fields(self, alice: Client, tree: str) -> None:
        """A listing tells path, type, count and entries, in the body and in headers."""
        answer = alice.directory(tree)
        page = answer.json()
        assert set(page) == {"path", "type", "recursive", "count", "items"}
        assert (page["path"], page["type"], page["recursive"]) == (tree, "directory", False)
        assert page["count"] == len(page["items"]) == 7
        assert answer["X-CallFS-Type"] == "directory"
        assert answer["X-CallFS-Count"] == "7"
        assert answer["X-CallFS-Recursive"] == "false"
        assert all(set(entry) == ENTRY_FIELDS for entry in page["items"])

    def test_same_entries_as_the_files_route(self, alice: Client, tree: str) -> None:
        """The entries are those of GET on the directory itself."""
        assert alice.directory(tree).json()["items"] == alice.get(tree).json()

    def test_order(self, alice: Client, tree: str) -> None:
        """Entries are ordered by path, byte by byte."""
        assert alice.names(tree) == ["B", "a", "a b", "a.txt", "a0", "b", "ä"]

    def test_recursive(self, alice: Client, tree: str) -> None:
        """recursive=true walks the whole tree, in order of the paths' bytes."""
        answer = alice.directory(tree, recursive="true")
        page = answer.json()
        assert (page["recursive"], page["max_depth"], page["count"]) == (True, 100, 12)
        assert answer["X-CallFS-Recursive"] == "true"
        paths = below(tree, page["items"])
        assert paths == sorted(paths, key=str.encode)
        assert set(paths) == {
            "B", "a", "a b", "a.txt", "a/b", "a/c", "a/c/d", "a/c/e", "a/c/e/f", "a0", "b", "ä",
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("depth", "count", "deepest"), [(0, 7, 0), (1, 9, 1), (2, 11, 2), (3, 12, 3), (1000, 12, 3)]
    )
    def test_max_depth(self, alice: Client, tree: str, depth: int, count: int, deepest: int) -> None:
        """max_depth is the deepest shown; the directory's own children are at depth 0."""
        page = alice.directory(tree, recursive="true", max_depth=depth).json()
        paths = below(tree, page["items"])
        assert page["max_depth"] == depth
        assert len(paths) == count
        assert max(path.count("/") for path in paths) == deepest

    @pytest.mark.parametrize("value", ["", "abc", "1.5", "0x1"])
    def test_max_depth_that_is_no_number(self, alice: Client, tree: str, value: str) -> None:
        """A max_depth that is no number counts as absent."""
        page = alice.directory(tree, recursive="true", max_depth=value).json()
        assert (page["max_depth"], page["count"]) == (100, 12)

    def test_empty(self, alice: Client, home: str) -> None:
        """An empty directory has no entries."""
        assert alice.directory(home).json()["items"] == []
        assert alice.directory(home, recursive="true").json()["count"] == 0

    @pytest.mark.parametrize("spelling", ["", "/", "//", "/./", "/x/.."])
    def test_spellings(self, alice: Client, tree: str, spelling: str) -> None:
        """The path is brought into canonical form, with or without a trailing slash."""
        page = alice.request("GET", f"/v1/directories{tree}{spelling}").json()
        assert (page["path"], page["count"]) == (tree, 7)

    def test_root(self, alice: Client, home: str) -> None:
        """The root can be listed."""
        page = alice.directory("/").json()
        assert page["path"] == "/"
        assert home in [entry["path"] for entry in page["items"]]

    def test_missing(self, alice: Client, home: str) -> None:
        """A missing directory is 404."""
        alice.directory(f"{home}/missing").refused(404, "FILE_NOT_FOUND")

    def test_file(self, alice: Client, tree: str) -> None:
        """A file is 400 NOT_A_DIRECTORY."""
        alice.directory(f"{tree}/b").refused(400, "NOT_A_DIRECTORY")


class TestPages:
    @pytest.mark.parametrize("limit", [1, 2, 5, 7, 100])
    @pytest.mark.parametrize("recursive", ["false", "true"])
    def test_pages_make_the_whole(self, alice: Client, tree: str, limit: int, recursive: str) -> None:
        """limit and cursor page through everything, once, in order."""
        whole = alice.directory(tree, recursive=recursive).json()["items"]
        found = pages(alice, tree, recursive=recursive, limit=limit)
        assert [entry for page in found for entry in page] == whole
        assert all(len(page) == limit for page in found[:-1])
        assert 0 < len(found[-1]) <= limit

    @pytest.mark.parametrize("depth", [0, 1, 2])
    def test_pages_with_max_depth(self, alice: Client, tree: str, depth: int) -> None:
        """Pages respect max_depth."""
        whole = alice.directory(tree, recursive="true", max_depth=depth).json()["items"]
        found = pages(alice, tree, recursive="true", max_depth=depth, limit=2)
        assert [entry for page in found for entry in page] == whole

    def test_no_cursor_at_the_end(self, alice: Client, tree: str) -> None:
        """next_cursor is there only if there is more: a page that ends exactly with the last entry has none."""
        assert "next_cursor" in alice.directory(tree, limit=6).json()
        assert "next_cursor" not in alice.directory(tree, limit=7).json()

    def test_stable_while_others_write(self, alice: Client, home: str) -> None:
        """What exists all the time is seen exactly once, whatever comes and goes between the pages."""
        lasting = [f"k{number:03}" for number in range(40)]
        for name in lasting:
            alice.stored(f"{home}/{name}", b"")
            alice.stored(f"{home}/{name}-going", b"")
        found, cursor, round_number = [], {}, 0
        while True:
            page = alice.directory(home, limit=7, **cursor).json()
            found += [entry["name"] for entry in page["items"]]
            if "next_cursor" not in page:
                break
            cursor = {"cursor": page["next_cursor"]}
            last = page["items"][-1]["name"]
            alice.stored(f"{home}/a{round_number:03}", b"")
            alice.stored(f"{home}/{last}-new", b"")
            if last.endswith("-going"):
                assert alice.delete(f"{home}/{last}").status == 204
            round_number += 1
        assert [name for name in found if name in lasting] == lasting
        assert len(set(found)) == len(found)

    @pytest.mark.parametrize("cursor", ["!!!", "not.a.cursor", "%00", "a b"])
    def test_bad_cursor(self, alice: Client, tree: str, cursor: str) -> None:
        """A cursor that can't be one is 400."""
        alice.directory(tree, cursor=cursor, limit=2).refused(400, "BAD_REQUEST")

    def test_cursor_gives_no_way_out(self, alice: Client, tree: str) -> None:
        """A cursor from one directory never shows entries of another."""
        alice.stored(f"{tree}/a/zzz")
        cursor = alice.directory(tree, limit=1).json()["next_cursor"]
        answer = alice.directory(f"{tree}/a", cursor=cursor)
        if answer.status == 200:
            assert all(entry["path"].startswith(f"{tree}/a/") for entry in answer.json()["items"])
        else:
            answer.refused(400, "BAD_REQUEST")


class TestNdjson:
    @pytest.mark.parametrize("recursive", ["false", "true"])
    def test_one_entry_a_line(self, alice: Client, tree: str, recursive: str) -> None:
        """Accept: application/x-ndjson streams the same entries, one a line."""
        answer = alice.directory(tree, NDJSON, recursive=recursive)
        assert answer.status == 200
        assert answer["Content-Type"] == "application/x-ndjson"
        lines = answer.body.decode().splitlines()
        assert answer.body.endswith(b"\n")
        expected = alice.directory(tree, recursive=recursive).json()["items"]
        assert [json.loads(line) for line in lines] == expected

    def test_empty(self, alice: Client, home: str) -> None:
        """An empty directory has no line."""
        answer = alice.directory(home, NDJSON)
        assert (answer.status, answer.body) == (200, b"")

    def test_refusals_are_json(self, alice: Client, home: str) -> None:
        """Refusals are the ordinary ones."""
        alice.directory(f"{home}/missing", NDJSON).refused(404, "FILE_NOT_FOUND")


def test_large_directory(daemon: Daemon, alice: Client, home: str) -> None:
    """Over 10,000 entries: the listing has 10,000 and a cursor, the array and ndjson have all, in order."""
    names = [f"{number:05}" for number in range(10_050)]

    def make(part: int) -> None:
        client = daemon.client()
        for batch_start in range(part, len(names), 2 * 50):
            batch = names[batch_start : batch_start + 2 * 50 : 2]
            with client.connect() as wire:
                for name in batch:
                    wire.send_request("POST", f"/v1/files{home}/{name}/", client.authorization())
                assert all(wire.read_answer().status == 201 for _ in batch)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(make, range(2)))
    page = alice.directory(home).json()
    assert (page["count"], len(page["items"])) == (10_000, 10_000)
    rest = alice.directory(home, cursor=page["next_cursor"]).json()
    assert [entry["name"] for entry in page["items"] + rest["items"]] == names
    assert [entry["name"] for entry in alice.get(home).json()] == names
    lines = alice.directory(home, NDJSON).body.splitlines()
    assert [json.loads(line)["name"] for line in lines] == names
    assert alice.delete(home, "recursive=true").status == 204
