"""Rename, move, and change of attributes: PATCH (HTTP API, section 3)."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support.daemon import Daemon
from tests.support.http import Client


class TestMove:
    def test_rename(self, alice: Client, home: str) -> None:
        """name renames in place; the answer has the new path."""
        path = alice.stored(f"{home}/d/f", b"x")
        answer = alice.patch(path, name="g h")
        assert (answer.status, answer.json()) == (200, {"path": f"{home}/d/g h"})
        assert alice.names(f"{home}/d") == ["g h"]
        assert alice.content(f"{home}/d/g h") == b"x"

    def test_move(self, alice: Client, home: str) -> None:
        """destination moves to an absolute path; the answer has it in canonical form."""
        path = alice.stored(f"{home}/f", b"x")
        alice.made(f"{home}/d")
        answer = alice.patch(path, destination=f"{home}//d/./x/../g")
        assert (answer.status, answer.json()) == (200, {"path": f"{home}/d/g"})
        assert not alice.exists(path)
        assert alice.content(f"{home}/d/g") == b"x"

    @pytest.mark.parametrize("slash", ["", "/"])
    def test_tree(self, alice: Client, home: str, slash: str) -> None:
        """A directory moves with all that is in it, and nothing beside it."""
        for path in ("d/a", "d/e/f/g", "d/100%_", "d.x", "d0/y", "da"):
            alice.stored(f"{home}/{path}", path.encode())
        alice.made(f"{home}/d/empty")
        assert alice.patch(f"{home}/d{slash}", destination=f"{home}/moved").status == 200
        items = alice.directory(home, recursive="true").json()["items"]
        names = sorted(entry["path"].removeprefix(home) for entry in items)
        assert names == sorted(
            ["/d.x", "/d0", "/d0/y", "/da"]
            + ["/moved" + path for path in ("", "/100%_", "/a", "/e", "/e/f", "/e/f/g", "/empty")]
        )
        assert alice.content(f"{home}/moved/e/f/g") == b"d/e/f/g"
        assert not alice.exists(f"{home}/d")

    def test_owners_stay(self, alice: Client, bob: Client, home: str) -> None:
        """What a moved directory contains keeps its owners."""
        alice.made(f"{home}/d")
        bob.stored(f"{home}/d/bobs")
        assert alice.patch(f"{home}/d", name="e").status == 200
        assert alice.head(f"{home}/e/bobs")["X-CallFS-Owner"] == "bob"
        assert bob.delete(f"{home}/e/bobs").status == 204

    def test_back_and_forth(self, alice: Client, home: str) -> None:
        """A tree can be moved into its sibling and out again, and its old path used anew."""
        alice.stored(f"{home}/a/f", b"x")
        alice.made(f"{home}/b")
        assert alice.patch(f"{home}/a", destination=f"{home}/b/a").status == 200
        alice.stored(f"{home}/a/f", b"new")
        assert alice.patch(f"{home}/b/a", destination=f"{home}/c").status == 200
        assert (alice.content(f"{home}/a/f"), alice.content(f"{home}/c/f")) == (b"new", b"x")

    def test_create_parents(self, alice: Client, bob: Client, home: str) -> None:
        """A missing parent is 400 unless create_parents; then the caller owns what was made."""
        path = bob.stored(f"{home}/f", b"x")
        bob.patch(path, destination=f"{home}/x/y/f").refused(400, "BAD_REQUEST")
        assert bob.patch(path, destination=f"{home}/x/y/f", create_parents=True).status == 200
        assert bob.content(f"{home}/x/y/f") == b"x"
        assert bob.head(f"{home}/x")["X-CallFS-Owner"] == "bob"

    def test_missing_source(self, alice: Client, home: str) -> None:
        """What doesn't exist can't be moved."""
        alice.patch(f"{home}/missing", name="g").refused(404, "FILE_NOT_FOUND")

    def test_all_or_nothing(self, daemon: Daemon, alice: Client, home: str) -> None:
        """Another client sees all of a moving subtree at the old place or all at the new."""
        for number in range(40):
            alice.stored(f"{home}/here/d{number % 4}/f{number}", b"")
        done = threading.Event()
        whole: set[tuple[int, int]] = set()

        def watch() -> None:
            client = daemon.client()
            while not done.is_set():
                entries = client.directory(home, recursive="true").json()["items"]
                paths = [entry["path"].removeprefix(home) for entry in entries]
                here = sum(path.startswith("/here") for path in paths)
                whole.add((here, len(paths) - here))
            client.close()

        watcher = threading.Thread(target=watch)
        watcher.start()
        for _ in range(40):
            assert alice.patch(f"{home}/here", name="there").status == 200
            assert alice.patch(f"{home}/there", name="here").status == 200
        done.set()
        watcher.join()
        assert whole <= {(45, 0), (0, 45)}


class TestOverwrite:
    def test_refused_by_default(self, alice: Client, home: str) -> None:
        """An existing destination is 409, and both stay as they were."""
        source, there = alice.stored(f"{home}/a", b"a"), alice.stored(f"{home}/b", b"b")
        alice.patch(source, name="b").refused(409, "FILE_ALREADY_EXISTS")
        alice.patch(source, destination=there, overwrite=False).refused(409, "FILE_ALREADY_EXISTS")
        assert (alice.content(source), alice.content(there)) == (b"a", b"b")

    @pytest.mark.parametrize("in_query", [False, True])
    def test_file(self, alice: Client, home: str, in_query: bool) -> None:
        """overwrite, in the body or the query, replaces a file."""
        source, there = alice.stored(f"{home}/a", b"a"), alice.stored(f"{home}/b", b"b")
        if in_query:
            answer = alice.patch(source, "overwrite=true", destination=there)
        else:
            answer = alice.patch(source, destination=there, overwrite=True)
        assert answer.status == 200
        assert alice.content(there) == b"a"
        assert alice.names(home) == ["b"]

    def test_empty_directory(self, alice: Client, home: str) -> None:
        """overwrite replaces an empty directory by a directory."""
        alice.stored(f"{home}/a/f")
        alice.made(f"{home}/b")
        assert alice.patch(f"{home}/a", name="b", overwrite=True).status == 200
        assert alice.names(f"{home}/b") == ["f"]

    def test_directory_with_something_in_it(self, alice: Client, home: str) -> None:
        """A directory that isn't empty is never overwritten."""
        alice.stored(f"{home}/a/f")
        alice.stored(f"{home}/b/g")
        assert alice.patch(f"{home}/a", name="b", overwrite=True).status == 409
        assert (alice.names(f"{home}/a"), alice.names(f"{home}/b")) == (["f"], ["g"])

    @pytest.mark.parametrize(("source", "there"), [("f", "d"), ("d", "f")])
    def test_other_type(self, alice: Client, home: str, source: str, there: str) -> None:
        """A file never takes the place of a directory, nor a directory that of a file."""
        alice.stored(f"{home}/f")
        alice.made(f"{home}/d")
        assert alice.patch(f"{home}/{source}", name=there, overwrite=True).status == 409
        assert alice.names(home) == ["d", "f"]


class TestAttributes:
    def test_mode_mtime_and_type(self, alice: Client, home: str) -> None:
        """mode, mtime and content_type change without a move; the bytes and the ETag stay."""
        path = alice.stored(f"{home}/f", b"x")
        tag = alice.head(path)["ETag"]
        answer = alice.patch(path, mode="0600", mtime="2021-02-03T04:05:06Z", content_type="text/csv")
        assert (answer.status, answer.json()) == (200, {"path": path})
        head = alice.head(path)
        assert (head["X-CallFS-Mode"], head["Content-Type"], head["ETag"]) == ("0600", "text/csv", tag)
        mtime = datetime.fromisoformat(head["X-CallFS-MTime"])
        assert mtime == datetime(2021, 2, 3, 4, 5, 6, tzinfo=UTC)
        assert head["Last-Modified"] == "Wed, 03 Feb 2021 04:05:06 GMT"

    def test_with_a_move(self, alice: Client, home: str) -> None:
        """Attributes can change together with a move."""
        path = alice.stored(f"{home}/f", b"x")
        assert alice.patch(path, name="g", mode="0400").status == 200
        assert alice.head(f"{home}/g")["X-CallFS-Mode"] == "0400"

    def test_directory(self, alice: Client, home: str) -> None:
        """A directory has a mode too."""
        assert alice.patch(home, mode="0700").status == 200
        assert alice.head(home)["X-CallFS-Mode"] == "0700"

    def test_owner(self, alice: Client, bob: Client, carol: Client, home: str) -> None:
        """Only an administrator can give a file to another user; then it is theirs."""
        path = alice.stored(f"{home}/f")
        alice.patch(path, owner="bob").refused(403, "PERMISSION_DENIED")
        assert carol.patch(path, owner="bob").status == 200
        assert alice.head(path)["X-CallFS-Owner"] == "bob"
        alice.delete(path).refused(403, "PERMISSION_DENIED")
        assert bob.delete(path).status == 204

    @pytest.mark.parametrize(
        "fields",
        [{"mode": "9999"}, {"mode": "rw-r--r--"}, {"mode": True}, {"mtime": "yesterday"},
         {"mtime": "2021-02-30T00:00:00Z"}, {"mtime": []}, {"content_type": "a\r\nX-Evil: 1"}, {"content_type": 7}],
    )  # fmt: skip
    def test_unusable(self, alice: Client, home: str, fields: dict[str, Any]) -> None:
        """An attribute that makes no sense is 400 and changes nothing."""
        path = alice.stored(f"{home}/f")
        before = alice.head(path)
        alice.patch(path, **fields).refused(400, "BAD_REQUEST")
        after = alice.head(path)
        for name in ("X-CallFS-Mode", "X-CallFS-MTime", "Content-Type"):
            assert after[name] == before[name]


class TestRefusals:
    @pytest.mark.parametrize(
        "body",
        [b"", b"{", b"[]", b"null", b'"x"', b"7", b"{}", b'{"name": 7}', b'{"destination": null}',
         b'{"name": "a"} x', b"\xff", b'{"overwrite": true}', b'{"create_parents": true}',
         b'{"name": "g", "overwrite": "perhaps"}', b"name=g"],
    )  # fmt: skip
    def test_body(self, alice: Client, home: str, body: bytes) -> None:
        """What isn't a JSON object with something to change is 400."""
        path = alice.stored(f"{home}/f")
        alice.request("PATCH", f"/v1/files{path}", body).refused(400, "BAD_REQUEST")
        assert alice.names(home) == ["f"]

    def test_large_body(self, alice: Client, home: str) -> None:
        """A body over 1 MiB is refused; one just below is read."""
        path = alice.stored(f"{home}/f")
        large = json.dumps({"name": "g"}).encode() + b" " * (1 << 20)
        assert alice.request("PATCH", f"/v1/files{path}", large).status in (400, 413)
        assert alice.request("PATCH", f"/v1/files{path}", [large[:600_000], large[600_000:]]).status in (400, 413)
        assert alice.names(home) == ["f"]
        assert alice.request("PATCH", f"/v1/files{path}", large[: 1 << 20]).status == 200

    def test_both(self, alice: Client, home: str) -> None:
        """name and destination together are 400."""
        path = alice.stored(f"{home}/f")
        alice.patch(path, name="g", destination=f"{home}/g").refused(400, "BAD_REQUEST")

    @pytest.mark.parametrize(
        "name", ["", ".", "..", "a/b", "/", "a/", "/a", "a\\b", "a\u0000", "a\u202eb", "é" * 128]
    )
    def test_bad_name(self, alice: Client, home: str, name: str) -> None:
        """A name that isn't one legal segment is 400."""
        path = alice.stored(f"{home}/f")
        answer = alice.patch(path, name=name)
        assert answer.status == 400
        assert answer.code in ("BAD_REQUEST", "INVALID_PATH")
        assert alice.names(home) == ["f"]

    def test_destination_is_source(self, alice: Client, home: str) -> None:
        """A move onto itself, in any spelling, is 400."""
        path = alice.stored(f"{home}/f")
        alice.patch(path, destination=path).refused(400, "BAD_REQUEST")
        alice.patch(path, destination=f"{home}/./x/../f", overwrite=True).refused(400, "BAD_REQUEST")
        alice.patch(path, name="f").refused(400, "BAD_REQUEST")
        assert alice.exists(path)

    @pytest.mark.parametrize("into", ["d/e", "d/inner/e", "d/inner"])
    def test_into_itself(self, alice: Client, home: str, into: str) -> None:
        """A directory can't be moved into itself."""
        alice.made(f"{home}/d/inner")
        alice.patch(f"{home}/d", destination=f"{home}/{into}", overwrite=True).refused(400, "BAD_REQUEST")
        assert alice.names(f"{home}/d") == ["inner"]

    def test_root(self, carol: Client, home: str) -> None:
        """The root can't be moved, nor be a destination."""
        assert carol.patch("/", destination=f"{home}/x").status == 400
        assert carol.patch("/", name="x").status == 400
        path = carol.stored(f"{home}/f")
        assert carol.patch(path, destination="/", overwrite=True).status in (400, 409)

    @pytest.mark.parametrize("fields", [{"backend": "tape"}, {"backend": "s3"}, {"instance": "elsewhere"}])
    def test_unknown_place(self, alice: Client, home: str, fields: dict[str, Any]) -> None:
        """An unknown backend or instance is 400, and nothing moves."""
        path = alice.stored(f"{home}/f")
        alice.patch(path, **fields).refused(400, "BAD_REQUEST")
        alice.patch(path, name="g", **fields).refused(400, "BAD_REQUEST")
        assert alice.names(home) == ["f"]

    def test_too_long_inside(self, alice: Client, home: str) -> None:
        """A move that would make any path in the tree too long is 400, and nothing moves."""
        deep = f"{home}/d" + ("/" + "x" * 250) * 7
        alice.stored(f"{deep}/{'y' * 100}")
        assert alice.patch(f"{home}/d", name="z" * 200).status == 400
        assert alice.exists(f"{deep}/{'y' * 100}")
        assert alice.names(home) == ["d"]

    def test_below_a_file(self, alice: Client, home: str) -> None:
        """Nothing can be moved below a file."""
        path, file = alice.stored(f"{home}/f"), alice.stored(f"{home}/g")
        for create_parents in (False, True):
            assert alice.patch(path, destination=f"{file}/x", create_parents=create_parents).status in (400, 409)
        assert alice.names(home) == ["f", "g"]
