"""Files and directories one by one: GET, HEAD, POST, PUT, DELETE (HTTP API, section 3)."""

from __future__ import annotations

import base64
import hashlib
import random
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import unquote, urlsplit

import pytest

from tests.acceptance.conftest import StartDaemon
from tests.support.daemon import Daemon
from tests.support.http import Answer, Client
from tests.support.waiting import eventually

ENTRY_FIELDS = {
    "name", "path", "type", "size", "mode", "owner", "mtime", "etag", "content_type", "backend", "instance_id",
}  # fmt: skip


def instant(text: str) -> datetime:
    """An RFC 3339 instant in UTC."""
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)", text), text
    return datetime.fromisoformat(text)


def recent(moment: datetime) -> bool:
    return abs(datetime.now(UTC) - moment) < timedelta(seconds=60)


def digest_of(content: bytes) -> str:
    return "sha-256=:" + base64.b64encode(hashlib.sha256(content).digest()).decode() + ":"


class TestGet:
    def test_headers(self, alice: Client, home: str) -> None:
        """A file comes with its bytes and everything that is known of it."""
        path = alice.stored(f"{home}/f.txt", b"hello", Content_Type="text/plain; charset=utf-8")
        answer = alice.get(path)
        assert (answer.status, answer.body) == (200, b"hello")
        assert answer["Content-Type"] == "text/plain; charset=utf-8"
        assert answer["Content-Length"] == "5"
        assert re.fullmatch(r'"[!#-~]+"', answer["ETag"])
        assert recent(parsedate_to_datetime(answer["Last-Modified"]))
        assert answer["Accept-Ranges"] == "bytes"
        assert answer["X-CallFS-Type"] == "file"
        assert answer["X-CallFS-Size"] == "5"
        assert answer["X-CallFS-Mode"] == "0644"
        assert answer["X-CallFS-Owner"] == "alice"
        assert recent(instant(answer["X-CallFS-MTime"]))
        assert answer["X-CallFS-Instance-ID"] == "node-1"
        assert answer["X-CallFS-Backend"] == "localfs"
        assert answer["Repr-Digest"] == digest_of(b"hello")

    def test_content_type_unknown(self, alice: Client, home: str) -> None:
        """A file uploaded without a type is application/octet-stream."""
        path = alice.stored(f"{home}/page.html", b"<p>")
        assert alice.get(path)["Content-Type"] == "application/octet-stream"

    def test_empty_file(self, alice: Client, home: str) -> None:
        """An empty file is a file."""
        path = alice.stored(f"{home}/empty", b"")
        answer = alice.get(path)
        assert (answer.status, answer.body, answer["Content-Length"]) == (200, b"", "0")
        assert answer["Repr-Digest"] == digest_of(b"")

    @pytest.mark.parametrize("size", [1, 4095, 65_536, 65_537, 1_048_577, 20_000_003])
    def test_every_size(self, alice: Client, home: str, size: int) -> None:
        """What was stored comes back byte by byte, small and large."""
        content = random.Random(size).randbytes(size)
        path = alice.stored(f"{home}/f", content)
        assert alice.content(path) == content

    def test_etag_is_new_with_new_content(self, alice: Client, home: str) -> None:
        """The ETag is new with every new content, and stays when nothing changes."""
        path = alice.stored(f"{home}/f", b"one")
        first = alice.get(path)["ETag"]
        assert alice.get(path)["ETag"] == first
        replaced = alice.put(path, b"two")["ETag"]
        assert alice.get(path)["ETag"] == replaced != first

    def test_etag_stays_through_moves(self, alice: Client, home: str) -> None:
        """The ETag is the same through renames and moves, of the file and of the tree it is in."""
        path = alice.stored(f"{home}/d/f", b"one")
        first = alice.get(path)["ETag"]
        assert alice.patch(path, name="g").status == 200
        assert alice.patch(f"{home}/d", name="e").status == 200
        assert alice.get(f"{home}/e/g")["ETag"] == first

    def test_download(self, alice: Client, home: str) -> None:
        """download=true adds a Content-Disposition that carries any name."""
        name = 'a "b"; ü 😀 \'%.txt'
        path = alice.stored(f"{home}/{name}", b"x")
        assert alice.get(path).get("Content-Disposition") is None
        kind, _, encoded = alice.get(path, "download=true")["Content-Disposition"].partition("; filename*=UTF-8''")
        assert kind == "attachment"
        assert unquote(encoded) == name
        assert re.fullmatch(r"[A-Za-z0-9!#$&+.^_`|~%-]+", encoded), "RFC 8187, attr-char"

    def test_manifest_of_an_ordinary_file(self, alice: Client, home: str) -> None:
        """manifest=true on a file that isn't erasure-coded is 400."""
        assert alice.get(alice.stored(f"{home}/f"), "manifest=true").status == 400

    def test_missing(self, alice: Client, home: str) -> None:
        """What doesn't exist is 404, under a file too."""
        alice.get(f"{home}/missing").refused(404, "FILE_NOT_FOUND")
        alice.get(f"{home}/missing/").refused(404, "FILE_NOT_FOUND")
        path = alice.stored(f"{home}/f")
        alice.get(f"{path}/below").refused(404, "FILE_NOT_FOUND")

    @pytest.mark.parametrize("slash", ["", "/"])
    def test_directory(self, alice: Client, bob: Client, home: str, slash: str) -> None:
        """A directory is the JSON array of its entries, with what is known of each and of itself."""
        alice.stored(f"{home}/b.txt", b"12345", Content_Type="text/plain")
        bob.made(f"{home}/a")
        answer = alice.get(home + slash)
        assert answer.status == 200
        assert answer["Content-Type"] == "application/json"
        assert answer["X-CallFS-Type"] == "directory"
        assert answer["X-CallFS-Size"] == "0"
        assert answer["X-CallFS-Mode"] == "0755"
        assert answer["X-CallFS-Owner"] == "alice"
        assert recent(instant(answer["X-CallFS-MTime"]))
        directory, file = answer.json()
        assert set(directory) == set(file) == ENTRY_FIELDS
        assert (directory["name"], directory["type"], directory["owner"]) == ("a", "directory", "bob")
        assert (directory["path"], directory["size"], directory["mode"]) == (f"{home}/a", 0, "0755")
        head = alice.head(f"{home}/b.txt")
        assert (file["name"], file["path"], file["type"], file["size"]) == ("b.txt", f"{home}/b.txt", "file", 5)
        assert (file["mode"], file["owner"], file["content_type"]) == ("0644", "alice", "text/plain")
        assert file["etag"].strip('"') == head["ETag"].strip('"')
        assert instant(file["mtime"]) == instant(head["X-CallFS-MTime"])
        assert (file["backend"], file["instance_id"]) == ("localfs", "node-1")

    def test_empty_directory(self, alice: Client, home: str) -> None:
        """An empty directory is an empty array."""
        assert alice.get(home).json() == []


class TestHead:
    def test_same_headers_as_get(self, alice: Client, home: str) -> None:
        """HEAD has the headers GET would send, of files and directories, and no body."""
        path = alice.stored(f"{home}/f.txt", b"hello", Content_Type="text/plain")
        for target in (path, home, "/"):
            varying = {"date", "x-request-id", "content-length", "transfer-encoding", "connection"}
            head, get = alice.head(target), alice.get(target)
            assert head.status == 200
            assert [h for h in head.headers if h[0] not in varying] == [
                h for h in get.headers if h[0] not in varying
            ]
        assert alice.head(path)["Content-Length"] == "5"
        assert alice.head(path)["X-CallFS-Instance-ID"] == "node-1"

    def test_missing(self, alice: Client, home: str) -> None:
        """HEAD of what doesn't exist is 404."""
        assert alice.head(f"{home}/missing").status == 404


def followed(client: Client, answer: Answer) -> Answer:
    """GET what the Location names."""
    location = urlsplit(answer["Location"])
    return client.request("GET", location.path)


class TestPost:
    def test_creates_a_file(self, alice: Client, home: str) -> None:
        """POST creates a file: 201, with its ETag, and its Location to follow."""
        answer = alice.post(f"{home}/a b😀", b"hello")
        assert answer.status == 201
        assert answer["ETag"] == alice.head(f"{home}/a b😀")["ETag"]
        assert followed(alice, answer).body == b"hello"

    def test_makes_parents(self, alice: Client, bob: Client, home: str) -> None:
        """Missing parents are created, owned by the caller, mode 0755."""
        assert bob.post(f"{home}/x/y/z", b"").status == 201
        for parent in (f"{home}/x", f"{home}/x/y"):
            head = alice.head(parent)
            assert (head["X-CallFS-Type"], head["X-CallFS-Owner"], head["X-CallFS-Mode"]) == (
                "directory",
                "bob",
                "0755",
            )

    def test_something_is_there(self, alice: Client, home: str) -> None:
        """Where a file or a directory is already, POST is 409 and changes nothing."""
        path = alice.stored(f"{home}/f", b"old")
        alice.post(path, b"new").refused(409, "FILE_ALREADY_EXISTS")
        alice.post(home, b"new").refused(409, "FILE_ALREADY_EXISTS")
        assert alice.content(path) == b"old"

    @pytest.mark.parametrize("method", ["POST", "PUT"])
    @pytest.mark.parametrize("below", ["g", "g/h", "g/"])
    def test_parent_is_a_file(self, alice: Client, home: str, method: str, below: str) -> None:
        """Below a file there is nothing: 409 PARENT_NOT_A_DIRECTORY."""
        if method == "PUT" and below.endswith("/"):
            below = "deep/er/g"
        path = alice.stored(f"{home}/f", b"old")
        answer = alice.request(method, f"/v1/files{path}/{below}", b"" if below.endswith("/") else b"new")
        answer.refused(409, "PARENT_NOT_A_DIRECTORY")
        assert alice.content(path) == b"old"

    def test_creates_a_directory(self, alice: Client, home: str) -> None:
        """With a trailing slash POST creates a directory, parents included: 201, and 200 when it is there."""
        assert alice.post(f"{home}/x/y/").status == 201
        assert alice.post(f"{home}/x/y/").status == 200
        assert alice.head(f"{home}/x/y")["X-CallFS-Type"] == "directory"
        assert alice.post("/").status == 200

    def test_directory_where_a_file_is(self, alice: Client, home: str) -> None:
        """A directory can't be created where a file is."""
        path = alice.stored(f"{home}/f", b"old")
        alice.post(f"{path}/").refused(409, "FILE_ALREADY_EXISTS")

    @pytest.mark.parametrize("chunked", [False, True])
    def test_directory_with_a_body(self, alice: Client, home: str, chunked: bool) -> None:
        """A directory has no body."""
        alice.post(f"{home}/d/", [b"body"] if chunked else b"body").refused(400, "BAD_REQUEST")
        assert not alice.exists(f"{home}/d")

    @pytest.mark.parametrize(
        ("query", "headers"),
        [
            ("backend=nonsense", {}),
            ("backend=s3", {}),
            ("erasure=true", {}),
            ("erasure=true&data_shards=4&parity_shards=2", {}),
            ("erasure=true&data_shards=four", {}),
            ("erasure=true&data_shards=0", {}),
            ("erasure=true&data_shards=200&parity_shards=100", {}),
            ("", {"X-CallFS-Erasure": "true"}),
            ("erasure=false", {"X-CallFS-Erasure": "true"}),
            ("", {"X-CallFS-Erasure": "true", "X-CallFS-Erasure-Data-Shards": "x"}),
        ],
    )
    def test_unusable_option(self, alice: Client, home: str, query: str, headers: dict[str, str]) -> None:
        """An option that can't be followed is 400, never ignored."""
        alice.post(f"{home}/f", b"x", query, headers).refused(400, "BAD_REQUEST")
        assert not alice.exists(f"{home}/f")

    @pytest.mark.parametrize(
        ("query", "headers"),
        [("backend=localfs", {}), ("erasure=false", {}), ("erasure=true", {"X-CallFS-Erasure": "false"})],
    )
    def test_usable_option(self, alice: Client, home: str, query: str, headers: dict[str, str]) -> None:
        """An option that can be followed is; a header wins over the query."""
        assert alice.post(f"{home}/f", b"x", query, headers).status == 201

    def test_one_of_many_wins(self, daemon: Daemon, home: str) -> None:
        """Of simultaneous creations of one path exactly one succeeds, and its content is there."""

        def create(number: int) -> tuple[int, bytes]:
            content = b"%d" % number * 10_000
            client = daemon.client("alice")
            status = client.post(f"{home}/f", content).status
            client.close()
            return status, content

        with ThreadPoolExecutor(8) as pool:
            outcomes = list(pool.map(create, range(8)))
        assert sorted(status for status, _ in outcomes) == [201] + [409] * 7
        assert daemon.client().content(f"{home}/f") == dict(outcomes)[201]


class TestPut:
    def test_creates_and_replaces(self, alice: Client, home: str) -> None:
        """PUT is 201 when new and 200 when replaced, with ETag and Location, and makes missing parents."""
        path = f"{home}/x/y/f"
        for status, content in ((201, b"one"), (200, b"two")):
            answer = alice.put(path, content)
            assert answer.status == status
            assert answer["ETag"] == alice.head(path)["ETag"]
            assert followed(alice, answer).body == content

    def test_replacing_keeps(self, alice: Client, carol: Client, home: str) -> None:
        """A replaced file keeps owner and mode, whoever replaces it."""
        path = alice.stored(f"{home}/f", b"one")
        assert alice.patch(path, mode="0600").status == 200
        assert carol.put(path, b"two").status == 200
        answer = alice.get(path)
        assert (answer["X-CallFS-Owner"], answer["X-CallFS-Mode"], answer.body) == ("alice", "0600", b"two")

    def test_new_content_type(self, alice: Client, home: str) -> None:
        """The type given with new content is the file's type."""
        path = alice.stored(f"{home}/f", b"one", Content_Type="text/plain")
        alice.stored(path, b"{}", Content_Type="application/json")
        assert alice.get(path)["Content-Type"] == "application/json"

    @pytest.mark.parametrize("slash", ["", "/"])
    def test_on_a_directory(self, alice: Client, home: str, slash: str) -> None:
        """PUT on a directory, or with a trailing slash, is 400."""
        assert alice.put(home + slash, b"x").status == 400
        assert alice.put(f"{home}/new/", b"x").status == 400
        assert alice.put("/", b"x").status == 400
        assert alice.get(home).json() == []

    def test_reader_finishes_on_what_it_started(self, alice: Client, home: str) -> None:
        """A reader that started on the old content finishes on it, though it is replaced and deleted meanwhile."""
        old = random.Random(1).randbytes(24 << 20)
        path = alice.stored(f"{home}/f", old)
        with alice.connect(receive_buffer_bytes=32_768) as wire:
            wire.send_request("GET", f"/v1/files{path}", alice.authorization())
            head = wire.read_head()
            beginning = wire.read_exactly(100_000)
            assert alice.put(path, b"new").status == 200
            assert alice.content(path) == b"new"
            assert alice.delete(path).status == 204
            rest = wire.read_exactly(int(head["Content-Length"]) - 100_000)
        assert beginning + rest == old

    def test_never_a_mixture(self, daemon: Daemon, home: str) -> None:
        """Readers beside a writer see one content whole, with its own length, ETag and digest."""
        writer = daemon.client()
        path = writer.stored(f"{home}/f", b"0" * 1000)
        done = threading.Event()

        def write() -> None:
            for number in range(30):
                writer.stored(path, b"%d" % (number % 10) * (1000 + 30_000 * number))
            done.set()

        def read() -> int:
            client, count = daemon.client(), 0
            while not done.is_set() or count < 5:
                answer = client.get(path)
                assert answer.status == 200
                assert len(set(answer.body)) == 1
                assert answer["Repr-Digest"] == digest_of(answer.body)
                count += 1
            client.close()
            return count

        with ThreadPoolExecutor(4) as pool:
            readers = [pool.submit(read) for _ in range(3)]
            pool.submit(write).result()
            assert all(reader.result() for reader in readers)
        writer.close()

    def test_two_slow_writers(self, alice: Client, home: str) -> None:
        """Of two uploads at once each is whole; the one that ends last stays."""
        path = f"{home}/f"
        with alice.connect() as first, alice.connect() as second:
            for wire, letter in ((first, b"a"), (second, b"b")):
                wire.send_request("PUT", f"/v1/files{path}", {**alice.authorization(), "Content-Length": "100000"})
                wire.send(letter * 50_000)
            assert not alice.exists(path)
            second.send(b"b" * 50_000)
            assert second.read_answer().status in (200, 201)
            assert alice.content(path) == b"b" * 100_000
            first.send(b"a" * 50_000)
            assert first.read_answer().status in (200, 201)
        assert alice.content(path) == b"a" * 100_000


class TestBodies:
    def test_chunked(self, alice: Client, home: str) -> None:
        """A chunked body of any pieces is stored whole."""
        rng = random.Random(2)
        pieces = [rng.randbytes(rng.randrange(1, 40_000)) for _ in range(100)]
        assert alice.put(f"{home}/f", pieces).status == 201
        assert alice.content(f"{home}/f") == b"".join(pieces)

    def test_too_large(self, start_daemon: StartDaemon) -> None:
        """Over max_upload_bytes a body is 413, at once if declared, and nothing changes; at the limit it's fine."""
        alice = start_daemon({"server": {"max_upload_bytes": "100KiB"}}).client()
        path = alice.stored("/f", b"x" * 102_400)
        with alice.connect() as wire:
            wire.send_request("PUT", "/v1/files/f", {**alice.authorization(), "Content-Length": "102401"})
            answer = wire.read_answer()
            answer.refused(413, "PAYLOAD_TOO_LARGE")
            assert answer.closes
        alice.put(path, [b"y" * 51_200, b"y" * 51_200, b"y"]).refused(413, "PAYLOAD_TOO_LARGE")
        alice.post("/g", [b"y" * 10_000] * 20).refused(413, "PAYLOAD_TOO_LARGE")
        assert alice.content(path) == b"x" * 102_400
        assert alice.names("/") == ["f"]
        assert alice.put(path, [b"z" * 102_400]).status == 200

    def test_what_changed_during_the_body_counts(self, alice: Client, home: str) -> None:
        """Existence and preconditions are decided again when the body is there."""
        path = alice.stored(f"{home}/f", b"old")
        tag = alice.head(path)["ETag"]
        cases = [
            ("POST", f"{home}/new", {}, 409),
            ("PUT", path, {"If-Match": tag}, 412),
            ("PUT", f"{home}/none", {"If-None-Match": "*"}, 412),
        ]
        for method, target, condition, status in cases:
            headers = {**alice.authorization(), "Content-Length": "10", **condition}
            with alice.connect() as wire:
                wire.send_request(method, f"/v1/files{target}", {**headers, "Expect": "100-continue"})
                assert wire.read_head().status == 100
                wire.send(b"01234")
                alice.stored(target, b"other")
                wire.send(b"56789")
                assert wire.read_answer().status == status
            assert alice.content(target) == b"other"


class TestDelete:
    def test_file(self, alice: Client, home: str) -> None:
        """A deleted file is gone: 204, then 404."""
        path = alice.stored(f"{home}/f")
        answer = alice.delete(path)
        assert (answer.status, answer.body) == (204, b"")
        alice.get(path).refused(404, "FILE_NOT_FOUND")
        alice.delete(path).refused(404, "FILE_NOT_FOUND")
        assert alice.names(home) == []

    @pytest.mark.parametrize("slash", ["", "/"])
    def test_empty_directory(self, alice: Client, home: str, slash: str) -> None:
        """An empty directory can be deleted, with or without the trailing slash."""
        alice.made(f"{home}/d")
        assert alice.delete(f"{home}/d{slash}").status == 204
        assert not alice.exists(f"{home}/d")

    @pytest.mark.parametrize("query", ["", "recursive=false"])
    def test_directory_with_something_in_it(self, alice: Client, home: str, query: str) -> None:
        """A directory that isn't empty is 409 and stays."""
        path = alice.stored(f"{home}/d/f")
        alice.delete(f"{home}/d", query).refused(409, "DIRECTORY_NOT_EMPTY")
        assert alice.exists(path)

    def test_recursive(self, alice: Client, home: str) -> None:
        """recursive=true deletes all of a tree and nothing beside it."""
        for path in ("d/a", "d/e/f/g", "d.x", "d0", "da/b"):
            alice.stored(f"{home}/{path}")
        assert alice.delete(f"{home}/d", "recursive=true").status == 204
        assert alice.names(home) == ["d.x", "d0", "da"]
        assert not alice.exists(f"{home}/d/e/f/g")
        assert alice.exists(f"{home}/da/b")

    @pytest.mark.parametrize("query", ["", "recursive=true"])
    def test_root(self, alice: Client, carol: Client, query: str) -> None:
        """The root can't be deleted, not even by an administrator."""
        assert carol.delete("/", query).status == 400

    def test_path_can_be_used_again(self, alice: Client, bob: Client, home: str) -> None:
        """After a delete the path is free for whatever comes."""
        path = alice.stored(f"{home}/x", b"file")
        assert alice.delete(path).status == 204
        bob.made(path)
        assert bob.delete(path).status == 204
        assert bob.put(path, b"again").status == 201
        assert alice.head(path)["X-CallFS-Owner"] == "bob"

    def test_bytes_go_too(self, start_daemon: StartDaemon) -> None:
        """The bytes of deleted and replaced files leave the disk."""
        daemon = start_daemon()
        alice = daemon.client()
        for _ in range(3):
            alice.stored("/f", b"x" * 1000)
        alice.stored("/g", b"y")
        assert alice.delete("/g").status == 204
        eventually(lambda: len(daemon.blobs()) == 1, within_seconds=15, what="the removal of unused bytes")
        assert alice.content("/f") == b"x" * 1000
