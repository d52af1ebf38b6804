"""GET and HEAD of files and directories."""

from __future__ import annotations

import base64
import hashlib
import json
from email.parser import BytesParser

from callfs.web.listings import PAGE_ENTRIES
from tests.support.engine import ALICE, BOB, NODE
from tests.support.routes import RouteCase

CONTENT = b"0123456789" * 10


class TestFiles(RouteCase):
    """A file's bytes and headers."""

    async def test_a_file_comes_with_all_its_headers(self) -> None:
        """The bytes as they were sent, and every header of the contract."""
        put = await self.upload("/docs/a.txt", CONTENT, content_type="text/plain")
        answer = await self.get("/docs/a.txt")
        digest = base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()
        assert (answer.status, answer.body) == (200, CONTENT)
        assert answer.response.stored_content
        assert answer.headers == {
            "Content-Type": "text/plain",
            "ETag": put.headers["ETag"],
            "Last-Modified": "Tue, 14 Nov 2023 22:13:20 GMT",
            "Accept-Ranges": "bytes",
            "X-CallFS-Type": "file",
            "X-CallFS-Size": "100",
            "X-CallFS-Mode": "0644",
            "X-CallFS-Owner": "alice",
            "X-CallFS-MTime": "2023-11-14T22:13:20.000000Z",
            "X-CallFS-Instance-ID": NODE,
            "X-CallFS-Backend": "localfs",
            "Repr-Digest": f"sha-256=:{digest}:",
        }

    async def test_head_has_the_headers_of_get(self) -> None:
        """The same headers, the length, and no body; nothing is opened for it, and a range changes nothing."""
        await self.upload("/a", CONTENT)
        get, head = await self.get("/a"), await self.send("HEAD", "/v1/files/a", headers={"Range": "bytes=0-1"})
        assert head.status == 200
        assert head.headers == get.headers
        assert head.response.content_length == 100
        assert self.backend.steps.passed["open"] == 1

    async def test_an_empty_file(self) -> None:
        """No bytes, length 0; a range from its first byte can't be satisfied."""
        await self.upload("/empty", b"")
        answer = await self.get("/empty")
        assert (answer.status, answer.body) == (200, b"")
        assert (await self.get("/empty", range="bytes=0-")).headers["Content-Range"] == "bytes */0"
        assert (await self.get("/empty", range="bytes=-1")).status == 200
        assert self.backend.readers == set()

    async def test_everybody_may_read(self) -> None:
        """A file of somebody else can be read."""
        await self.upload("/a", CONTENT)
        assert (await self.send("GET", "/v1/files/a", principal=BOB)).body == CONTENT

    async def test_what_does_not_exist_is_404(self) -> None:
        """Whatever is asked about it, conditions included."""
        for method in ("GET", "HEAD"):
            answer = await self.send(method, "/v1/files/nothing", headers={"If-Match": '"x"'})
            assert (answer.status, answer.code) == (404, "FILE_NOT_FOUND")

    async def test_a_slash_after_a_file_is_400(self) -> None:
        """It says "directory"."""
        await self.upload("/a", CONTENT)
        for method in ("GET", "HEAD"):
            answer = await self.send(method, "/v1/files/a/")
            assert (answer.status, answer.code) == (400, "NOT_A_DIRECTORY")

    async def test_download_makes_an_attachment(self) -> None:
        """The name in UTF-8, percent-encoded; HEAD has it too."""
        await self.upload("/grüße & so.txt", CONTENT)
        for method in ("GET", "HEAD"):
            answer = await self.send(method, "/v1/files/gr%C3%BC%C3%9Fe%20&%20so.txt?download=true")
            wanted = "attachment; filename*=UTF-8''gr%C3%BC%C3%9Fe%20&%20so.txt"
            assert answer.headers["Content-Disposition"] == wanted
        assert "Content-Disposition" not in (await self.get("/grüße & so.txt", "download=false")).headers

    async def test_there_is_no_manifest_without_erasure_coding(self) -> None:
        """Of a file 400, of a directory 400, of nothing 404."""
        await self.upload("/dir/a", CONTENT)
        assert (await self.get("/dir/a", "manifest=true")).code == "BAD_REQUEST"
        assert (await self.get("/dir", "manifest=true")).code == "NOT_A_FILE"
        assert (await self.get("/nothing", "manifest=true")).code == "FILE_NOT_FOUND"
        assert (await self.get("/dir/a", "manifest=false")).body == CONTENT

    async def test_flags_that_are_no_flags_are_400(self) -> None:
        """A typing mistake isn't taken for "no"."""
        await self.upload("/a", CONTENT)
        for query in ("download=ja", "manifest=maybe", "download="):
            assert (await self.get("/a", query)).code == "BAD_REQUEST"


class TestRanges(RouteCase):
    """Parts of a file."""

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        await self.upload("/a", CONTENT, content_type="text/plain")
        self.whole = await self.get("/a")

    async def test_one_range(self) -> None:
        """206, the bytes, and where they are; the digest is still that of all."""
        for header, start, end in (("bytes=10-19", 10, 20), ("bytes=90-", 90, 100), ("bytes=-5", 95, 100)):
            answer = await self.get("/a", range=header)
            assert (answer.status, answer.body) == (206, CONTENT[start:end])
            assert answer.headers == {**self.whole.headers, "Content-Range": f"bytes {start}-{end - 1}/100"}
            assert answer.response.stored_content

    async def test_several_ranges(self) -> None:
        """multipart/byteranges, each part with its headers."""
        answer = await self.get("/a", range="bytes=0-1, 50-52,200-, -1")
        assert answer.status == 206
        assert "Content-Range" not in answer.headers
        message = BytesParser().parsebytes(
            b"Content-Type: " + answer.headers["Content-Type"].encode() + b"\r\n\r\n" + answer.body
        )
        assert message.get_content_type() == "multipart/byteranges"
        parts = [
            (part["Content-Type"], part["Content-Range"], part.get_payload()) for part in message.get_payload()
        ]
        assert parts == [
            ("text/plain", "bytes 0-1/100", "01"),
            ("text/plain", "bytes 50-52/100", "012"),
            ("text/plain", "bytes 99-99/100", "9"),
        ]

    async def test_no_range_in_the_file(self) -> None:
        """416 with the size, and nothing stays open."""
        answer = await self.get("/a", range="bytes=100-")
        assert (answer.status, answer.code) == (416, "RANGE_NOT_SATISFIABLE")
        assert answer.headers["Content-Range"] == "bytes */100"
        assert self.backend.readers == set()

    async def test_what_counts_for_nothing(self) -> None:
        """Malformed, too many, or too much in all: the whole file."""
        many = ",".join(f"{n}-{n}" for n in range(17))
        for header in ("bytes=x", "lines=1-2", f"bytes={many}", "bytes=0-60,20-80"):
            answer = await self.get("/a", range=header)
            assert (answer.status, answer.body) == (200, CONTENT)

    async def test_if_range(self) -> None:
        """The part when the file is still the one meant, else all of the new one."""
        etag, date = self.whole.headers["ETag"], self.whole.headers["Last-Modified"]
        for value, status in ((etag, 206), (date, 206), ("W/" + etag, 200), ('"other"', 200), ("junk", 200)):
            assert (await self.get("/a", range="bytes=0-1", if_range=value)).status == status
        assert (await self.get("/a", range="bytes=900-", if_range='"other"')).status == 200


class TestConditions(RouteCase):
    """304 and 412."""

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        await self.upload("/a", CONTENT)
        self.whole = await self.get("/a")
        self.etag, self.date = self.whole.headers["ETag"], self.whole.headers["Last-Modified"]

    async def test_what_the_client_has_is_not_sent_again(self) -> None:
        """304 with the validators, for GET and HEAD, also with a range; nothing stays open."""
        for headers in (
            {"If-None-Match": self.etag},
            {"If-None-Match": "W/" + self.etag, "Range": "bytes=0-1"},
            {"If-None-Match": "*"},
            {"If-Modified-Since": self.date},
        ):
            for method in ("GET", "HEAD"):
                answer = await self.send(method, "/v1/files/a", headers=headers)
                assert (answer.status, answer.body) == (304, b"")
                assert answer.headers == {"ETag": self.etag, "Last-Modified": self.date}
        assert self.backend.readers == set()

    async def test_what_is_not_meant_any_more_is_412(self) -> None:
        """If-Match and If-Unmodified-Since, for GET and HEAD; nothing stays open."""
        for headers in (
            {"If-Match": '"other"'},
            {"If-Match": "W/" + self.etag},
            {"If-Match": "junk"},
            {"If-Unmodified-Since": "Mon, 13 Nov 2023 00:00:00 GMT"},
        ):
            for method in ("GET", "HEAD"):
                answer = await self.send(method, "/v1/files/a", headers=headers)
                assert (answer.status, answer.code) == (412, "PRECONDITION_FAILED")
        assert self.backend.readers == set()

    async def test_conditions_that_hold_change_nothing(self) -> None:
        """The file comes as without them."""
        for headers in ({"if_match": self.etag}, {"if_none_match": '"other"'}, {"if_unmodified_since": self.date}):
            assert (await self.get("/a", **headers)).body == CONTENT

    async def test_the_entity_tag_is_new_with_every_content(self) -> None:
        """Even when the bytes are the same; a rename keeps it."""
        await self.patch("/a", {"name": "b"})
        assert (await self.get("/b")).headers["ETag"] == self.etag
        await self.upload("/b", CONTENT)
        assert (await self.get("/b")).headers["ETag"] != self.etag


class TestDirectories(RouteCase):
    """A directory is the array of its entries."""

    async def test_all_entries_with_and_without_the_slash(self) -> None:
        """By name, bytewise; the directory's own headers."""
        for name in ("b", "a", "B", "ä"):
            await self.upload(f"/dir/{name}", b"x")
        await self.upload("/dir/sub/deep", b"x")
        for target in ("/v1/files/dir", "/v1/files/dir/", "/v1/files/x/../dir/."):
            answer = await self.send("GET", target)
            assert answer.status == 200
            assert [entry["name"] for entry in answer.json()] == ["B", "a", "b", "sub", "ä"]
            assert answer.headers == {
                "Content-Type": "application/json",
                "X-CallFS-Type": "directory",
                "X-CallFS-Size": "0",
                "X-CallFS-Mode": "0755",
                "X-CallFS-Owner": "alice",
                "X-CallFS-MTime": "2023-11-14T22:13:20.000000Z",
            }
            assert not answer.response.stored_content

    async def test_an_entry_has_the_fields_of_the_contract(self) -> None:
        """Of a file all, of a directory those that it can have."""
        put = await self.upload("/dir/a", b"12345", content_type="text/plain")
        await self.send("POST", "/v1/files/dir/sub/")
        file, directory = (await self.get("/dir")).json()
        assert file == {
            "name": "a",
            "path": "/dir/a",
            "type": "file",
            "size": 5,
            "mode": "0644",
            "owner": "alice",
            "mtime": "2023-11-14T22:13:20.000000Z",
            "etag": put.headers["ETag"],
            "content_type": "text/plain",
            "backend": "localfs",
            "instance_id": NODE,
        }
        assert directory["type"] == "directory"
        assert [directory[key] for key in ("etag", "content_type", "backend", "instance_id")] == [None] * 4

    async def test_empty_directories_and_the_root(self) -> None:
        """The root is always there, whatever it is called."""
        for target in ("/v1/files", "/v1/files/", "/v1/files//", "/v1/files/."):
            answer = await self.send("GET", target)
            assert (answer.status, answer.json()) == (200, [])
            assert answer.headers["X-CallFS-Owner"] == "root"

    async def test_a_large_directory_comes_in_pieces(self) -> None:
        """More entries than a page has are all there, and no piece holds them all."""
        count = PAGE_ENTRIES * 2 + 1
        for number in range(count):
            await self.filesystem.create_directory(ALICE, f"/dir/{number:05d}")
        answer = await self.get("/dir")
        assert [entry["name"] for entry in answer.json()] == [f"{number:05d}" for number in range(count)]
        match = self.application.match("GET", "/v1/files/dir")
        assert match.entry.name == "read"

    async def test_head_of_a_directory(self) -> None:
        """The headers of GET, without a length."""
        await self.upload("/dir/a", b"x")
        get, head = await self.get("/dir"), await self.send("HEAD", "/v1/files/dir/")
        assert head.headers == get.headers
        assert head.response.content_length is None

    async def test_conditions_on_a_directory(self) -> None:
        """It has no entity tag: If-Match with one fails."""
        assert (await self.get("/", if_match='"x"')).status == 412
        assert (await self.get("/", if_match="*")).status == 200
        assert (await self.get("/", if_none_match='"x"')).status == 200

    async def test_names_come_back_as_they_were_sent(self) -> None:
        """Any legal name survives JSON."""
        names = ["a b", "+", "%", "%41", '"', "\U0001f600", "\uff0f", "..."]
        for name in names:
            await self.filesystem.create_directory(ALICE, f"/{name}")
        answer = await self.get("/")
        assert sorted(entry["name"] for entry in json.loads(answer.body)) == sorted(names)
