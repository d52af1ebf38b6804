"""PATCH."""

from __future__ import annotations

from tests.support.engine import ADMIN, BOB, NODE
from tests.support.routes import MemoryBody, RouteCase


class TestMoves(RouteCase):
    """Renaming and moving."""

    async def test_a_rename_in_place(self) -> None:
        """200 with the new path; the content, its tag and the owner stay."""
        etag = (await self.upload("/dir/a", b"x")).headers["ETag"]
        answer = await self.patch("/dir/a", {"name": "b c"})
        assert (answer.status, answer.json()) == (200, {"path": "/dir/b c"})
        assert answer.headers["ETag"] == etag
        assert (await self.get("/dir/b c")).body == b"x"
        assert (await self.get("/dir/a")).status == 404

    async def test_a_move_of_a_tree(self) -> None:
        """Everything inside comes along, and keeps its owner."""
        await self.upload("/old/sub/a", b"x")
        await self.send("PUT", "/v1/files/old/b", b"y", principal=BOB)
        answer = await self.send("PATCH", "/v1/files/old/", {"destination": "/x/../new/"})
        assert (answer.status, answer.json()) == (200, {"path": "/new"})
        assert (await self.get("/new/sub/a")).body == b"x"
        assert (await self.get("/new/b")).headers["X-CallFS-Owner"] == "bob"
        assert (await self.get("/old")).status == 404

    async def test_missing_parents(self) -> None:
        """400, or made with create_parents."""
        await self.upload("/a", b"x")
        assert (await self.patch("/a", {"destination": "/p/q/a"})).code == "BAD_REQUEST"
        answer = await self.patch("/a", {"destination": "/p/q/a", "create_parents": True})
        assert answer.json() == {"path": "/p/q/a"}

    async def test_overwriting(self) -> None:
        """409 unless the body or the query says so; never a full directory, never the other type."""
        await self.upload("/a", b"a")
        await self.upload("/b", b"b")
        await self.upload("/dir/c", b"c")
        for change in ({"name": "b"}, {"name": "b", "overwrite": False}):
            assert (await self.patch("/a", change)).code == "FILE_ALREADY_EXISTS"
        assert (await self.patch("/a", {"name": "b"}, "overwrite=false")).status == 409
        assert (await self.patch("/a", {"name": "dir", "overwrite": True})).status == 409
        assert (await self.patch("/dir", {"name": "b", "overwrite": True})).status == 409
        await self.upload("/full/x", b"x")
        assert (await self.patch("/dir", {"name": "full", "overwrite": True})).code == "DIRECTORY_NOT_EMPTY"
        assert (await self.patch("/a", {"name": "b"}, "overwrite=true")).status == 200
        assert (await self.get("/b")).body == b"a"
        await self.upload("/a", b"again")
        assert (await self.patch("/a", {"name": "b", "overwrite": True})).status == 200
        assert (await self.get("/b")).body == b"again"
        assert (await self.patch("/b", {"name": "x"}, "overwrite=perhaps")).status == 400

    async def test_what_is_not_ones_own(self) -> None:
        """403 for another's source or what would be overwritten; before the body is asked for."""
        await self.upload("/a", b"a")
        await self.send("PUT", "/v1/files/b", b"b", principal=BOB)
        body = MemoryBody(b'{"name": "c"}')
        assert (await self.send("PATCH", "/v1/files/a", body, principal=BOB)).code == "PERMISSION_DENIED"
        assert not body.taken
        assert (await self.patch("/a", {"name": "b", "overwrite": True})).status == 403
        assert (await self.patch("/a", {"name": "b", "overwrite": True}, principal=ADMIN)).status == 200

    async def test_what_is_not_there(self) -> None:
        """404, before the body is asked for; a slash after a file is 400."""
        body = MemoryBody(b"{}")
        assert (await self.send("PATCH", "/v1/files/nothing", body)).code == "FILE_NOT_FOUND"
        assert not body.taken
        await self.upload("/a", b"a")
        assert (await self.send("PATCH", "/v1/files/a/", {"name": "b"})).code == "NOT_A_DIRECTORY"

    async def test_moves_that_make_no_sense(self) -> None:
        """400, each of them, and nothing changes."""
        await self.upload("/dir/a", b"a")
        long = "/" + "/".join([*["x" * 250] * 8, "y" * 39])
        for path, change, code in (
            ("/dir/a", {}, "BAD_REQUEST"),
            ("/dir/a", {"overwrite": True, "create_parents": True}, "BAD_REQUEST"),
            ("/dir/a", {"name": "b", "destination": "/b"}, "BAD_REQUEST"),
            ("/dir/a", {"name": "a"}, "BAD_REQUEST"),
            ("/dir/a", {"destination": "/dir/a"}, "BAD_REQUEST"),
            ("/dir/a", {"destination": "/dir/x/../a", "mode": "0600"}, "BAD_REQUEST"),
            ("/dir/a", {"destination": "b"}, "BAD_REQUEST"),
            ("/dir/a", {"destination": ""}, "BAD_REQUEST"),
            ("/dir/a", {"destination": "/"}, "BAD_REQUEST"),
            ("/dir/a", {"destination": "/b/"}, "NOT_A_DIRECTORY"),
            ("/dir/a", {"destination": "/../b"}, "INVALID_PATH"),
            ("/dir/a", {"destination": "/a\u202eb"}, "INVALID_PATH"),
            ("/dir", {"destination": "/dir/sub", "create_parents": True}, "BAD_REQUEST"),
            ("/dir", {"destination": long, "create_parents": True}, "INVALID_PATH"),
            ("/", {"name": "b"}, "BAD_REQUEST"),
            *(
                ("/dir/a", {"name": name}, "INVALID_PATH")
                for name in ("", ".", "..", "b/c", "/b", "b/", "b\\c", "b\x00", "x" * 256)
            ),
        ):
            answer = await self.patch(path, change, principal=ADMIN)
            assert (answer.status, answer.code) == (400, code), (path, change)
        assert (await self.get("/dir/a")).headers["X-CallFS-Mode"] == "0644"

    async def test_a_file_as_a_parent(self) -> None:
        """409 PARENT_NOT_A_DIRECTORY."""
        await self.upload("/a", b"a")
        await self.upload("/b", b"b")
        assert (await self.patch("/a", {"destination": "/b/c"})).code == "PARENT_NOT_A_DIRECTORY"

    async def test_conditions(self) -> None:
        """If-Match is of the source, and decides before the body."""
        etag = (await self.upload("/a", b"a")).headers["ETag"]
        body = MemoryBody(b'{"name": "b"}')
        assert (await self.send("PATCH", "/v1/files/a", body, {"If-Match": '"other"'})).status == 412
        assert not body.taken
        assert (await self.patch("/a", {"name": "b"}, headers={"If-Match": etag})).status == 200


class TestBodies(RouteCase):
    """What isn't a change at all."""

    async def test_what_is_no_json_object(self) -> None:
        """400."""
        await self.upload("/a", b"a")
        for body in (b"", b"name=b", b"[]", b'"b"', b"null", b"{", b'{"name": "b"} x', b'{"name": "\xff"}'):
            assert (await self.send("PATCH", "/v1/files/a", body)).code == "BAD_REQUEST"

    async def test_unknown_fields_are_named(self) -> None:
        """400 that says which."""
        await self.upload("/a", b"a")
        answer = await self.patch("/a", {"name": "b", "destinaton": "/c", "Owner": "x"})
        assert answer.status == 400
        assert "'Owner', 'destinaton'" in answer.json()["message"]

    async def test_wrong_types(self) -> None:
        """400, for every field."""
        await self.upload("/a", b"a")
        for field in ("name", "destination", "backend", "instance", "mode", "mtime", "content_type", "owner"):
            for value in (1, None, True, ["x"]):
                assert (await self.patch("/a", {field: value})).status == 400, (field, value)
        for field in ("overwrite", "create_parents"):
            for value in (1, None, "true"):
                assert (await self.patch("/a", {"name": "b", field: value})).status == 400, (field, value)

    async def test_a_body_over_one_mebibyte(self) -> None:
        """413, declared or not; just below it is read."""
        await self.upload("/a", b"a")
        padded = b'{"name": "b"' + b" " * (1 << 20) + b"}"
        for declared in (True, False):
            answer = await self.send("PATCH", "/v1/files/a", MemoryBody(padded, declared))
            assert answer.code == "PAYLOAD_TOO_LARGE"
        small = b'{"name": "b"' + b" " * ((1 << 20) - 13) + b"}"
        assert (await self.send("PATCH", "/v1/files/a", small)).status == 200


class TestAttributes(RouteCase):
    """mode, mtime, content_type, owner."""

    async def test_they_change_together_or_with_a_move(self) -> None:
        """All at once, in place or under a new name."""
        etag = (await self.upload("/a", b"a")).headers["ETag"]
        change = {"mode": "0600", "mtime": "2020-02-03T04:05:06.5+01:00", "content_type": "text/plain"}
        assert (await self.patch("/a", change)).json() == {"path": "/a"}
        got = await self.get("/a")
        assert got.headers["X-CallFS-Mode"] == "0600"
        assert got.headers["X-CallFS-MTime"] == "2020-02-03T03:05:06.500000Z"
        assert got.headers["Last-Modified"] == "Mon, 03 Feb 2020 03:05:06 GMT"
        assert got.headers["Content-Type"] == "text/plain"
        assert got.headers["ETag"] == etag
        assert (await self.patch("/a", {"name": "b", "mode": "640"})).status == 200
        assert (await self.get("/b")).headers["X-CallFS-Mode"] == "0640"

    async def test_of_a_directory(self) -> None:
        """Mode and mtime; it has no content type."""
        await self.send("POST", "/v1/files/dir/")
        assert (await self.patch("/dir", {"mode": "0700"})).status == 200
        assert (await self.get("/dir")).headers["X-CallFS-Mode"] == "0700"
        assert (await self.patch("/dir", {"content_type": "text/plain"})).code == "BAD_REQUEST"

    async def test_values_that_are_none(self) -> None:
        """400, each of them."""
        await self.upload("/a", b"a")
        for change in (
            {"mode": "rw"},
            {"mode": "0o644"},
            {"mode": "8"},
            {"mode": "10644"},
            {"mode": "644\n"},
            {"mtime": "yesterday"},
            {"mtime": "2020-02-30T00:00:00Z"},
            {"mtime": "2020-01-01"},
            {"content_type": ""},
            {"content_type": "text"},
            {"content_type": "text/plain\r\nX: y"},
        ):
            assert (await self.patch("/a", change)).code == "BAD_REQUEST", change
        for owner in ("", "a b", "x" * 65, "ä"):
            assert (await self.patch("/a", {"owner": owner}, principal=ADMIN)).code == "BAD_REQUEST"

    async def test_the_owner(self) -> None:
        """Administrators alone may give a file away."""
        await self.upload("/a", b"a")
        assert (await self.patch("/a", {"owner": "bob"})).code == "PERMISSION_DENIED"
        assert (await self.patch("/a", {"owner": "bob"}, principal=ADMIN)).status == 200
        assert (await self.get("/a")).headers["X-CallFS-Owner"] == "bob"


class TestPlaces(RouteCase):
    """backend and instance."""

    async def test_where_the_bytes_are_already(self) -> None:
        """Nothing has to travel: fine beside a change, nothing to do alone."""
        await self.upload("/a", b"a")
        place = {"backend": "localfs", "instance": NODE}
        for change in (place, {"backend": "localfs"}, {"instance": NODE}):
            assert (await self.patch("/a", change)).code == "BAD_REQUEST"
        assert (await self.patch("/a", {**place, "name": "b"})).status == 200
        assert (await self.patch("/b", {**place, "mode": "0600"})).status == 200

    async def test_unknown_and_unavailable_places(self) -> None:
        """400, and nothing changes."""
        await self.upload("/a", b"a")
        for change in ({"backend": "tape"}, {"backend": "s3"}, {"backend": "erasure"}, {"instance": "other"}):
            assert (await self.patch("/a", {**change, "name": "b"})).code == "BAD_REQUEST"
        assert (await self.get("/a")).status == 200
