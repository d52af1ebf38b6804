"""POST, PUT and DELETE."""

from __future__ import annotations

import base64
import hashlib

from callfs.metadata.commands import RegisterInstance
from callfs.model import LocalPlacement
from tests.support.commands import Commands
from tests.support.engine import ADMIN, ALICE, BOB
from tests.support.routes import MAX_UPLOAD_BYTES, MemoryBody, RouteCase, file_target


class TestPost(RouteCase):
    """Creating files."""

    async def test_a_new_file(self) -> None:
        """201, an entity tag, the place; mode 0644, the caller's; missing parents are 0755 and the caller's."""
        answer = await self.send("POST", "/v1/files/a/b%20c/d", b"content", {"Content-Type": "text/plain"})
        assert (answer.status, answer.body) == (201, b"")
        assert answer.headers["Location"] == "/v1/files/a/b%20c/d"
        got = await self.get("/a/b c/d")
        assert (got.body, got.headers["Content-Type"], got.headers["X-CallFS-Mode"]) == (
            b"content",
            "text/plain",
            "0644",
        )
        assert got.headers["ETag"] == answer.headers["ETag"]
        parent = await self.get("/a")
        assert (parent.headers["X-CallFS-Owner"], parent.headers["X-CallFS-Mode"]) == ("alice", "0755")

    async def test_a_taken_path(self) -> None:
        """409, whatever is there, and nothing changes; the body isn't asked for."""
        await self.upload("/a", b"old")
        await self.send("POST", "/v1/files/dir/")
        for target in ("/v1/files/a", "/v1/files/dir"):
            body = MemoryBody(b"new")
            answer = await self.send("POST", target, body)
            assert (answer.status, answer.code) == (409, "FILE_ALREADY_EXISTS")
            assert not body.taken
        assert (await self.get("/a")).body == b"old"

    async def test_a_path_taken_on_another_node(self) -> None:
        """409 that says which node has the file, and where to replace it; so far as that node is known."""
        commands = Commands()
        for name in ("a b%", "c"):
            await self.store.apply(commands.create(f"/d/{name}", blob=commands.blob(3, LocalPlacement("far"))))
        unknown = (await self.send("POST", "/v1/files/d/c", b"x")).json()
        await self.store.apply(
            RegisterInstance(at=1, instance_id="far", root_id=None, api_endpoint="https://far.example:8443/")
        )
        assert (unknown["instance_id"], "update_url" in unknown) == ("far", False)
        answer = await self.send("POST", "/v1/files/d/x/../a%20b%25", b"x")
        assert answer.status == 409
        message = answer.json()["message"]
        assert {**answer.json(), "suggestion": ""} == {
            "code": "FILE_ALREADY_EXISTS",
            "message": message,
            "error": message,
            "existing_path": "/d/a b%",
            "instance_id": "far",
            "backend_type": "localfs",
            "suggestion": "",
            "update_url": "https://far.example:8443/v1/files/d/a%20b%25",
        }
        assert "PUT" in answer.json()["suggestion"]
        await self.upload("/here", b"x")
        assert set((await self.send("POST", "/v1/files/here")).json()) == {"code", "message"}
        moved = await self.send("PATCH", "/v1/files/here", {"destination": "/d/c"})
        assert (moved.status, moved.json()["update_url"]) == (409, "https://far.example:8443/v1/files/d/c")

    async def test_a_file_as_parent(self) -> None:
        """409 PARENT_NOT_A_DIRECTORY, for files and directories."""
        await self.upload("/a", b"x")
        for target in ("/v1/files/a/b", "/v1/files/a/b/", "/v1/files/a/b/c"):
            assert (await self.send("POST", target)).code == "PARENT_NOT_A_DIRECTORY"

    async def test_conditions(self) -> None:
        """If-None-Match: * fits a creation, If-Match doesn't."""
        assert (await self.send("POST", "/v1/files/a", headers={"If-None-Match": "*"})).status == 201
        assert (await self.send("POST", "/v1/files/b", headers={"If-Match": "*"})).status == 412

    async def test_a_content_type_that_is_none_is_left_out(self) -> None:
        """What couldn't be served again safely isn't stored."""
        for number, text in enumerate(("nonsense", "text/plain\r\nX: y", "text/" + "x" * 300)):
            await self.send("POST", f"/v1/files/{number}", b"x", {"Content-Type": text})
            assert (await self.get(f"/{number}")).headers["Content-Type"] == "application/octet-stream"


class TestDirectories(RouteCase):
    """Creating directories."""

    async def test_a_new_directory(self) -> None:
        """201 and its place; again 200 and nothing changes."""
        for status in (201, 200):
            answer = await self.send("POST", "/v1/files/a/dir/")
            assert (answer.status, answer.headers["Location"]) == (status, "/v1/files/a/dir/")
            assert "ETag" not in answer.headers
        assert (await self.get("/a/dir")).headers["X-CallFS-Mode"] == "0755"

    async def test_the_root_is_there(self) -> None:
        """200, by any name."""
        for target in ("/v1/files", "/v1/files/", "/v1/files/a/.."):
            answer = await self.send("POST", target)
            assert (answer.status, answer.headers["Location"]) == (200, "/v1/files/")

    async def test_a_file_is_there(self) -> None:
        """409."""
        await self.upload("/a", b"x")
        assert (await self.send("POST", "/v1/files/a/")).code == "FILE_ALREADY_EXISTS"

    async def test_a_body_is_refused(self) -> None:
        """400, declared or chunked, also where the directory is there; chunked and empty is no body."""
        for target in ("/v1/files/new/", "/v1/files/"):
            for declared in (True, False):
                answer = await self.send("POST", target, MemoryBody(b"x", declared))
                assert (answer.status, answer.code) == (400, "BAD_REQUEST")
        assert (await self.get("/new")).status == 404
        assert (await self.send("POST", "/v1/files/new/", MemoryBody(b"", declared=False))).status == 201


class TestCopy(RouteCase):
    """copy_from."""

    async def test_the_content_is_copied(self) -> None:
        """A file of its own with the same bytes and type, the caller's, who needs to read the source alone."""
        await self.upload("/a b", b"content", content_type="text/plain")
        answer = await self.send("POST", "/v1/files/x/copy?copy_from=/a%20b", principal=BOB)
        assert (answer.status, answer.headers["Location"]) == (201, "/v1/files/x/copy")
        await self.send("DELETE", "/v1/files/a%20b")
        got = await self.get("/x/copy")
        assert (got.body, got.headers["Content-Type"]) == (b"content", "text/plain")
        assert got.headers["X-CallFS-Owner"] == "bob"

    async def test_what_cannot_be_copied(self) -> None:
        """Nothing 404, a directory 400, a taken destination 409, a body 400, a directory from a file 400."""
        await self.upload("/a", b"content")
        await self.send("POST", "/v1/files/dir/")
        for target, body, code in (
            ("/v1/files/c?copy_from=/nothing", b"", "FILE_NOT_FOUND"),
            ("/v1/files/c?copy_from=/dir", b"", "NOT_A_FILE"),
            ("/v1/files/c?copy_from=/a/", b"", "NOT_A_DIRECTORY"),
            ("/v1/files/c?copy_from=/", b"", "NOT_A_DIRECTORY"),
            ("/v1/files/c?copy_from=", b"", "NOT_A_DIRECTORY"),
            ("/v1/files/c?copy_from=/../a", b"", "INVALID_PATH"),
            ("/v1/files/dir?copy_from=/a", b"", "FILE_ALREADY_EXISTS"),
            ("/v1/files/c?copy_from=/a", b"x", "BAD_REQUEST"),
            ("/v1/files/c/?copy_from=/a", b"", "BAD_REQUEST"),
        ):
            assert (await self.send("POST", target, body)).code == code, target
        assert (await self.get("/c")).status == 404


class TestOptions(RouteCase):
    """Where the bytes shall go."""

    async def test_what_can_be_had(self) -> None:
        """The local disk, said as parameter or header; no erasure coding, said explicitly."""
        for number, (query, headers) in enumerate(
            (
                ("backend=localfs", {}),
                ("", {"X-CallFS-Backend": "localfs"}),
                ("backend=nonsense", {"X-CallFS-Backend": "localfs"}),
                ("erasure=true", {"X-CallFS-Erasure": "false"}),
                ("erasure=false", {}),
            )
        ):
            for method in ("POST", "PUT"):
                answer = await self.send(method, file_target(f"/{number}{method}", query), b"x", headers)
                assert answer.status == 201

    async def test_what_cannot_be_had_is_refused(self) -> None:
        """400 with the reason, and nothing is stored; the header wins over the parameter."""
        for query, headers in (
            ("backend=s3", {}),
            ("backend=erasure", {}),
            ("backend=nonsense", {}),
            ("backend=", {}),
            ("backend=localfs", {"X-CallFS-Backend": "s3"}),
            ("erasure=true", {}),
            ("erasure=perhaps", {}),
            ("erasure=false", {"X-CallFS-Erasure": "true"}),
            ("data_shards=x", {}),
            ("data_shards=0", {}),
            ("data_shards=4&parity_shards=-1", {}),
            ("data_shards=200&parity_shards=57", {}),
            ("data_shards=4", {}),
            ("data_shards=4", {"X-CallFS-Erasure-Data-Shards": "four"}),
            ("parity_shards=2", {}),
            ("", {"X-CallFS-Erasure-Parity-Shards": "2"}),
            ("instances=a,b", {}),
            ("", {"X-CallFS-Erasure-Instances": "node-1"}),
        ):
            for method in ("POST", "PUT"):
                body = MemoryBody(b"x")
                answer = await self.send(method, file_target("/a", query), body, headers)
                assert (answer.status, answer.code) == (400, "BAD_REQUEST"), (query, headers)
                assert not body.taken
        assert (await self.get("/a")).status == 404


class TestPut(RouteCase):
    """Creating and replacing."""

    async def test_new_and_replaced(self) -> None:
        """201, then 200 with a new entity tag; owner and mode stay, parents are made."""
        first = await self.upload("/dir/a", b"one")
        assert (first.status, first.headers["Location"]) == (201, "/v1/files/dir/a")
        await self.patch("/dir/a", {"mode": "0600"})
        second = await self.send("PUT", "/v1/files/dir/a", b"two", principal=ADMIN)
        assert (second.status, second.headers["Location"]) == (200, "/v1/files/dir/a")
        assert second.headers["ETag"] != first.headers["ETag"]
        got = await self.get("/dir/a")
        assert got.body == b"two"
        assert (got.headers["X-CallFS-Owner"], got.headers["X-CallFS-Mode"]) == ("alice", "0600")

    async def test_a_reader_finishes_on_what_it_started_on(self) -> None:
        """The old bytes, although the new ones are there."""
        await self.upload("/a", b"old")
        opened = await self.filesystem.open(ALICE, "/a")
        await self.upload("/a", b"new")
        assert await opened.reader.read(0, 3) == b"old"
        opened.reader.close()

    async def test_a_directory_is_400(self) -> None:
        """On a directory, or said to be one; the body isn't asked for."""
        await self.send("POST", "/v1/files/dir/")
        for target in ("/v1/files/dir", "/v1/files/dir/", "/v1/files/new/", "/v1/files/", "/v1/files"):
            body = MemoryBody(b"x")
            answer = await self.send("PUT", target, body)
            assert (answer.status, answer.code) == (400, "NOT_A_FILE")
            assert not body.taken

    async def test_somebody_elses_file_is_403(self) -> None:
        """The body isn't asked for; the file stays."""
        await self.upload("/a", b"old")
        body = MemoryBody(b"new")
        answer = await self.send("PUT", "/v1/files/a", body, principal=BOB)
        assert (answer.status, answer.code) == (403, "PERMISSION_DENIED")
        assert not body.taken
        assert (await self.get("/a")).body == b"old"

    async def test_conditions(self) -> None:
        """If-Match and If-None-Match decide, before the body; without a file If-Match fails."""
        body = MemoryBody(b"x")
        assert (await self.send("PUT", "/v1/files/a", body, {"If-Match": "*"})).status == 412
        assert not body.taken
        created = await self.upload("/a", b"one", if_none_match="*")
        assert created.status == 201
        etag = created.headers["ETag"]
        for name, value in (
            ("if_none_match", "*"),
            ("if_none_match", etag),
            ("if_match", '"other"'),
            ("if_match", "W/" + etag),
            ("if_match", etag.strip('"')),
            ("if_match", ""),
            ("if_unmodified_since", "Mon, 13 Nov 2023 00:00:00 GMT"),
        ):
            assert (await self.upload("/a", b"two", **{name: value})).status == 412, (name, value)
        assert (await self.upload("/a", b"two", if_none_match="junk")).status == 400
        assert (await self.get("/a")).body == b"one"
        assert (await self.upload("/a", b"two", if_match=f'"x", {etag}')).status == 200

    async def test_a_part_is_not_taken_for_the_whole(self) -> None:
        """Content-Range is 400 (RFC 9110, section 14.5)."""
        for method in ("PUT", "POST"):
            answer = await self.send(method, "/v1/files/a", b"x", {"Content-Range": "bytes 0-0/10"})
            assert answer.code == "BAD_REQUEST"


class TestBodies(RouteCase):
    """Sizes and digests."""

    async def test_a_body_that_came_with_the_headers(self) -> None:
        """The same answers, for new files and old ones."""
        for method, status in (("POST", 201), ("POST", 409), ("PUT", 200)):
            body = MemoryBody(b"content", arrived=True)
            assert (await self.send(method, "/v1/files/a", body)).status == status
            assert not body.taken
            assert (await self.get("/a")).body == b"content"
        refusals = (
            ("PUT", "/v1/files/a", BOB, {}, 403),
            ("PUT", "/v1/files/a", ALICE, {"If-None-Match": "*"}, 412),
            ("PUT", "/v1/files/a/b", ALICE, {}, 409),
            ("PUT", "/v1/files/a", ALICE, {"Content-MD5": base64.b64encode(bytes(16)).decode()}, 400),
        )
        for method, target, principal, headers, status in refusals:
            for arrived in (True, False):
                body = MemoryBody(b"new", arrived=arrived)
                answer = await self.send(method, target, body, headers, principal=principal)
                assert answer.status == status
        assert (await self.get("/a")).body == b"content"
        await self.nothing_left()

    async def test_a_body_over_the_limit(self) -> None:
        """413, at once if declared, else when it passes the limit; nothing is stored."""
        for method in ("PUT", "POST"):
            body = MemoryBody(b"x" * (MAX_UPLOAD_BYTES + 1))
            assert (await self.send(method, "/v1/files/a", body)).code == "PAYLOAD_TOO_LARGE"
            assert not body.taken
            body = MemoryBody(b"x" * (MAX_UPLOAD_BYTES + 1), declared=False)
            assert (await self.send(method, "/v1/files/a", body)).code == "PAYLOAD_TOO_LARGE"
        assert (await self.get("/a")).status == 404
        await self.nothing_left()

    async def test_a_body_of_the_limit(self) -> None:
        """Exactly so many bytes are fine, declared or not."""
        for declared in (True, False):
            body = MemoryBody(b"x" * MAX_UPLOAD_BYTES, declared)
            assert (await self.send("PUT", "/v1/files/a", body)).status in (200, 201)

    async def test_digests_are_verified(self) -> None:
        """Each header and algorithm: the right one is stored, a wrong one is CHECKSUM_MISMATCH, junk 400."""

        def b64(name: str, data: bytes) -> str:
            return base64.b64encode(hashlib.new(name, data).digest()).decode()

        for header, form, name in (
            ("Content-Digest", "sha-256=:{}:", "sha256"),
            ("Content-Digest", "sha-512=:{}:", "sha512"),
            ("Repr-Digest", "sha-256=:{}:", "sha256"),
            ("Repr-Digest", "sha-512=:{}:", "sha512"),
            ("Content-MD5", "{}", "md5"),
        ):
            for method, path in (("PUT", "/put"), ("POST", f"/{header}{name}")):
                target = file_target(path)
                wrong = {header: form.format(b64(name, b"other"))}
                before = (await self.get(path)).body
                assert (await self.send(method, target, b"content", wrong)).code == "CHECKSUM_MISMATCH"
                assert (await self.get(path)).body == before
                body = MemoryBody(b"content")
                assert (await self.send(method, target, body, {header: form.format("junk")})).code == "BAD_REQUEST"
                assert not body.taken
                right = {header: form.format(b64(name, b"content"))}
                assert (await self.send(method, target, b"content", right)).status in (200, 201)
        await self.nothing_left()


class TestDelete(RouteCase):
    """Deleting."""

    async def test_a_file_and_an_empty_directory(self) -> None:
        """204, and they are gone; again 404."""
        await self.upload("/a", b"x")
        await self.send("POST", "/v1/files/dir/")
        for target in ("/v1/files/a", "/v1/files/dir/"):
            assert (await self.send("DELETE", target)).status == 204
            assert (await self.send("DELETE", target)).code == "FILE_NOT_FOUND"

    async def test_a_full_directory(self) -> None:
        """409 without recursive, 204 with it."""
        await self.upload("/dir/sub/a", b"x")
        for query in ("", "?recursive=false"):
            answer = await self.send("DELETE", "/v1/files/dir" + query)
            assert (answer.status, answer.code) == (409, "DIRECTORY_NOT_EMPTY")
        assert (await self.send("DELETE", "/v1/files/dir?recursive=perhaps")).status == 400
        assert (await self.send("DELETE", "/v1/files/dir?recursive=true")).status == 204
        assert (await self.get("/dir/sub/a")).status == 404

    async def test_not_ones_own(self) -> None:
        """403, also when something inside is another's, and nothing happens."""
        await self.upload("/dir/a", b"x")
        await self.send("PUT", "/v1/files/dir/b", b"x", principal=BOB)
        assert (await self.send("DELETE", "/v1/files/dir/a", principal=BOB)).status == 403
        answer = await self.send("DELETE", "/v1/files/dir?recursive=true")
        assert (answer.status, answer.code) == (403, "PERMISSION_DENIED")
        assert len((await self.get("/dir")).json()) == 2
        assert (await self.send("DELETE", "/v1/files/dir?recursive=true", principal=ADMIN)).status == 204

    async def test_the_root_and_the_slash(self) -> None:
        """The root is 400, even for administrators; a slash after a file is 400."""
        await self.upload("/a", b"x")
        for target in ("/v1/files/", "/v1/files?recursive=true"):
            assert (await self.send("DELETE", target, principal=ADMIN)).status == 400
        assert (await self.send("DELETE", "/v1/files/a/")).code == "NOT_A_DIRECTORY"

    async def test_if_match(self) -> None:
        """Only what the client means is deleted."""
        etag = (await self.upload("/a", b"x")).headers["ETag"]
        assert (await self.send("DELETE", "/v1/files/a", headers={"If-Match": '"other"'})).status == 412
        assert (await self.send("DELETE", "/v1/files/a", headers={"If-Match": etag})).status == 204
