"""The raw blobs of a node, as its peers store, read and delete them."""

from __future__ import annotations

import base64
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from callfs.backends.interfaces import IBlobBackend
from callfs.web.context import SiteSettings
from callfs.web.openapi import document
from tests.backends.peersupport import API_KEY, BEARER, SECRET, THERE, Holder, moment
from tests.backends.support import make_local, new_folder
from tests.contract.backends import MIB, content, get, listed, new_id, put
from tests.support.http import Answer, Body, Client, Wire


def blob_target(blob_id: str) -> str:
    """Where a blob is."""
    return f"/v1/internal/blobs/{blob_id}"


def digest(data: bytes, algorithm: str = "sha-256") -> str:
    """A digest header's value."""
    found = hashlib.new(algorithm.replace("-", ""), data).digest()
    return f"{algorithm}=:{base64.b64encode(found).decode()}:"


class InternalCase(TestCase):
    """A node on a real disk."""

    timeout = 60

    def setUp(self) -> None:
        self.root = new_folder(self)
        self.backend = make_local(self, self.root)
        self.serve(self.backend)

    def serve(self, backend: IBlobBackend | None, **options: Any) -> None:
        """Serve the blobs of a backend."""
        self.holder = Holder(self, backend, **options)

    def ask(
        self,
        method: str,
        target: str,
        body: Body = None,
        headers: dict[str, str] | None = None,
        key: str | None = SECRET,
    ) -> Deferred[Answer]:
        """One request on a connection of its own."""

        def run() -> Answer:
            client = Client(self.holder.address, key)
            try:
                return client.request(method, target, body, headers)
            finally:
                client.close()

        return deferToThread(run)

    def talk(self, speak: Callable[[Wire], Any]) -> Deferred[Any]:
        """Byte by byte on a connection of its own."""

        def run() -> Any:
            with Wire(self.holder.address) as wire:
                return speak(wire)

        return deferToThread(run)

    def files(self) -> list[Path]:
        """All files below the root folder, staged ones included."""
        return [path for path in self.root.rglob("*") if path.is_file()]


class AccessTests(InternalCase):
    """Who may come in."""

    async def test_only_peers(self) -> None:
        """An API key, a wrong secret and nothing at all get 401 whatever the path and the method."""
        blob_id = await put(self.backend, b"data")
        targets = (
            "",
            "/",
            "/blobs",
            "/nothing/at/all",
            "/shards/x/0",
            f"/blobs/{blob_id}",
            "/blobs/%2e%2e%2fx",
            "/blobs/",
        )
        for key in (None, API_KEY, "not-the-secret-of-the-peers"):
            for target in targets:
                for method in ("GET", "PUT", "DELETE", "POST", "BREW"):
                    answer = await self.ask(method, f"/v1/internal{target}", key=key)
                    answer.refused(401, "AUTHENTICATION_FAILED")
            assert (await self.ask("HEAD", blob_target(blob_id), key=key)).status == 401
        assert await get(self.backend, blob_id) == b"data"

    async def test_unknown_routes(self) -> None:
        """For a peer what isn't there is 404, and another method 405."""
        (await self.ask("GET", "/v1/internal/nothing")).refused(404, "NOT_FOUND")
        answer = await self.ask("POST", blob_target(new_id()))
        answer.refused(405, "METHOD_NOT_ALLOWED")
        assert answer["Allow"] == "DELETE, GET, HEAD, PUT"

    async def test_counted_apart(self) -> None:
        """Requests of peers are counted by themselves, the refused and the lost ones too."""
        blob_id = new_id()
        await self.ask("PUT", blob_target(blob_id), b"data")
        await self.ask("GET", blob_target(blob_id), key=API_KEY)
        await self.ask("GET", "/v1/internal/nothing")
        await self.ask("GET", "/v1/internal/nothing", key=None)
        pattern, nowhere = "/v1/internal/blobs/{id}", "/v1/internal/(none)"
        assert self.holder.metrics.internal == [
            ("PUT", pattern, 201),
            ("GET", pattern, 401),
            ("GET", nowhere, 404),
            ("GET", nowhere, 401),
        ]
        assert self.holder.metrics.requests == []

    async def test_not_described(self) -> None:
        """Users aren't told of these routes."""
        assert document(self.holder.site.table, "http://files.example")["paths"] == {}

    async def test_the_answer_is_signed(self) -> None:
        """Every answer says which node gave it, refusals too."""
        blob_id = new_id()
        for method, target, body in (
            ("PUT", blob_target(blob_id), b"data"),
            ("PUT", blob_target(blob_id), b"other"),
            ("GET", blob_target(blob_id), None),
            ("HEAD", blob_target(blob_id), None),
            ("GET", blob_target(new_id()), None),
            ("GET", blob_target("a.b"), None),
            ("DELETE", blob_target(blob_id), None),
        ):
            assert (await self.ask(method, target, body))["X-CallFS-Instance-ID"] == THERE

    async def test_meant_for_another(self) -> None:
        """What is meant for another node is refused, and nothing happens."""
        kept = await put(self.backend, b"kept")
        meant = {"X-CallFS-Instance-ID": "node-3"}
        for method, target, body in (
            ("PUT", blob_target(new_id()), b"data"),
            ("GET", blob_target(kept), None),
            ("DELETE", blob_target(kept), None),
        ):
            (await self.ask(method, target, body, meant)).refused(409, "CONFLICT")
        assert await listed(self.backend) == [kept]
        assert (await self.ask("GET", blob_target(kept), None, {"X-CallFS-Instance-ID": THERE})).status == 200

    async def test_ids(self) -> None:
        """An id has 1 to 64 letters, digits, ``_`` and ``-``; of others there are no blobs."""
        for blob_id in ("a.b", "..", "a%2Fb", "%00", "x" * 65, "", "%C3%A4", "a/b"):
            for method in ("GET", "PUT", "DELETE"):
                answer = await self.ask(method, blob_target(blob_id))
                assert answer.status == (404 if blob_id == "a/b" else 400)
        for blob_id in ("x", "A-_9", "x" * 64):
            (await self.ask("GET", blob_target(blob_id))).refused(404, "FILE_NOT_FOUND")
            (await self.ask("PUT", blob_target(blob_id), b"x")).refused(400, "BAD_REQUEST")

    async def test_without_a_disk(self) -> None:
        """A node without a local backend says so."""
        self.serve(None)
        for method in ("GET", "PUT", "DELETE"):
            answer = await self.ask(method, blob_target(new_id()), b"" if method == "PUT" else None)
            answer.refused(503, "SERVICE_UNAVAILABLE")
            assert answer["X-CallFS-Instance-ID"] == THERE


class StoringTests(InternalCase):
    """PUT."""

    async def test_stored(self) -> None:
        """Any size, with a length or in chunks: 201 with size and digest, and the bytes are there."""
        for size in (0, 1, 100_000, 3 * MIB + 17):
            data = content(size)
            pieces = [data[start : start + 70_000] for start in range(0, size, 70_000)]
            for body in (data, pieces):
                blob_id = new_id()
                answer = await self.ask("PUT", blob_target(blob_id), body)
                assert answer.status == 201
                assert answer.json() == {"id": blob_id, "size": size, "sha256": hashlib.sha256(data).hexdigest()}
                assert await get(self.backend, blob_id) == data

    async def test_the_same_again(self) -> None:
        """The same content under the same id is no error: a peer may have missed the answer."""
        for size in (0, 100, 3 * MIB):
            data, blob_id = content(size), new_id()
            first = await self.ask("PUT", blob_target(blob_id), data)
            again = await self.ask("PUT", blob_target(blob_id), [data[: size // 2], data[size // 2 :]])
            assert (again.status, again.json()) == (201, first.json())
            assert await get(self.backend, blob_id) == data

    async def test_something_else(self) -> None:
        """Other content under the same id is refused, and what is there stays."""
        data, blob_id = content(MIB), new_id()
        await self.ask("PUT", blob_target(blob_id), data)
        for other in (b"", b"x", data[:-1], data + b"x", data[:-1] + b"x"):
            (await self.ask("PUT", blob_target(blob_id), other)).refused(409, "CONFLICT")
        assert await get(self.backend, blob_id) == data

    async def test_under_way(self) -> None:
        """While a blob is being stored its id is taken."""
        blob_id = new_id()
        staged = await self.backend.stage(blob_id)
        (await self.ask("PUT", blob_target(blob_id), b"data")).refused(409, "CONFLICT")
        await staged.abort()

    async def test_digests(self) -> None:
        """Announced digests are verified; what doesn't match isn't kept."""
        data = content(300_000)
        md5 = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
        for headers in (
            {"Content-Digest": digest(data)},
            {"Repr-Digest": digest(data, "sha-512")},
            {"Content-MD5": md5, "Content-Digest": f"{digest(data)}, {digest(data, 'sha-512')}"},
        ):
            assert (await self.ask("PUT", blob_target(new_id()), data, headers)).status == 201
            stored = self.files()
            refused = await self.ask("PUT", blob_target(new_id()), data + b"x", headers)
            refused.refused(400, "CHECKSUM_MISMATCH")
            assert self.files() == stored
        (await self.ask("PUT", blob_target(new_id()), data, {"Content-MD5": "x"})).refused(400, "BAD_REQUEST")

    async def test_broken_off(self) -> None:
        """A body that ends before its end stores nothing and leaves nothing, however it ends."""
        blob_id = new_id()

        def begin(wire: Wire, framing: dict[str, str], data: bytes) -> None:
            wire.send_request("PUT", blob_target(blob_id), {**BEARER, **framing})
            wire.send(data)

        def disconnected(wire: Wire) -> None:
            begin(wire, {"Content-Length": str(4 * MIB)}, content(2 * MIB))

        def reset(wire: Wire) -> None:
            begin(wire, {"Content-Length": str(4 * MIB)}, content(2 * MIB))
            wire.reset()

        def chunk_missing(wire: Wire) -> None:
            begin(wire, {"Transfer-Encoding": "chunked"}, b"5\r\nhello\r\n")

        def half_closed(wire: Wire) -> None:
            begin(wire, {"Content-Length": "100"}, b"hello")
            wire.half_close()
            assert wire.read_answer().status == 400

        def malformed(wire: Wire) -> None:
            begin(wire, {"Transfer-Encoding": "chunked"}, b"5\r\nhello\r\nxyz\r\n")
            assert wire.read_answer().status == 400

        for number, speak in enumerate((disconnected, reset, chunk_missing, half_closed, malformed), 1):
            await self.talk(speak)
            while len(self.holder.ended()) < number or self.holder.site.connections:
                await moment()
            assert self.files() == []
        assert (await self.ask("PUT", blob_target(blob_id), b"data")).status == 201

    async def test_silence(self) -> None:
        """A peer that stops sending is given up."""
        self.serve(self.backend, settings=SiteSettings(read_timeout_seconds=0.3))

        def silent(wire: Wire) -> None:
            wire.send_request("PUT", blob_target(new_id()), {**BEARER, "Content-Length": "100"})
            wire.send(b"hello")
            wire.read_answer().refused(408, "REQUEST_TIMEOUT")

        await self.talk(silent)
        assert self.files() == []

    async def test_full_disk(self) -> None:
        """No room: 507, at once where the size is declared or hinted at."""
        self.serve(make_local(self, self.root, min_free_bytes=1 << 60))
        (await self.ask("PUT", blob_target(new_id()), content(MIB))).refused(507, "INSUFFICIENT_STORAGE")
        self.serve(make_local(self, self.root))
        huge = str(shutil.disk_usage(self.root).total * 2)

        def unsent(wire: Wire, headers: dict[str, str]) -> None:
            wire.send_request("PUT", blob_target(new_id()), {**BEARER, **headers})
            wire.read_answer().refused(507, "INSUFFICIENT_STORAGE")

        await self.talk(lambda wire: unsent(wire, {"Content-Length": huge}))
        hinted = {"Transfer-Encoding": "chunked", "X-CallFS-Declared-Size": huge}
        await self.talk(lambda wire: unsent(wire, hinted))
        assert self.files() == []

    async def test_many_at_once(self) -> None:
        """Simultaneous bodies don't mix."""
        contents = {new_id(): content(number * 50_000, number) for number in range(12)}
        await gatherResults([self.ask("PUT", blob_target(blob_id), data) for blob_id, data in contents.items()])
        assert {blob_id: await get(self.backend, blob_id) for blob_id in contents} == contents


class ServingTests(InternalCase):
    """GET, HEAD and DELETE."""

    async def test_whole(self) -> None:
        """All bytes, with size and time; HEAD says the same without them."""
        for size in (0, 1, 100_000, 2 * MIB):
            data = content(size)
            blob_id = await put(self.backend, data)
            answer = await self.ask("GET", blob_target(blob_id))
            assert (answer.status, answer.body) == (200, data)
            head = await self.ask("HEAD", blob_target(blob_id))
            assert (head.status, head.body) == (200, b"")
            names = ("Content-Length", "Content-Type", "Accept-Ranges", "Last-Modified")
            for name in (*names, "X-CallFS-Size", "X-CallFS-MTime", "X-CallFS-Instance-ID"):
                assert head[name] == answer[name]
            assert head["Content-Length"] == head["X-CallFS-Size"] == str(size)
            assert head["Content-Type"] == "application/octet-stream"
            assert "sandbox" in answer["Content-Security-Policy"]

    async def test_ranges(self) -> None:
        """One range, several, one beyond the end, and one that can't be understood."""
        data = content(1000)
        target = blob_target(await put(self.backend, data))
        for wanted, part in (("100-199", data[100:200]), ("990-", data[990:]), ("-5", data[-5:]), ("0-", data)):
            answer = await self.ask("GET", target, None, {"Range": f"bytes={wanted}"})
            assert (answer.status, answer.body) == (206, part)
        assert answer["Content-Range"] == "bytes 0-999/1000"
        several = await self.ask("GET", target, None, {"Range": "bytes=0-9,500-509"})
        assert several.status == 206
        assert several["Content-Type"].startswith("multipart/byteranges")
        assert data[:10] in several.body
        assert data[500:510] in several.body
        beyond = await self.ask("GET", target, None, {"Range": "bytes=1000-"})
        assert (beyond.status, beyond["Content-Range"]) == (416, "bytes */1000")
        assert (await self.ask("GET", target, None, {"Range": "lines=1-2"})).body == data

    async def test_missing(self) -> None:
        """A blob that isn't there."""
        (await self.ask("GET", blob_target(new_id()))).refused(404, "FILE_NOT_FOUND")
        assert (await self.ask("HEAD", blob_target(new_id()))).status == 404

    async def test_deleted_under_a_reader(self) -> None:
        """Who has begun to read a blob reads it to its end although it is deleted meanwhile."""
        data = content(32 * MIB)
        blob_id = await put(self.backend, data)

        def read_slowly(wire: Wire) -> bytes:
            wire.send_request("GET", blob_target(blob_id), BEARER)
            head = wire.read_head()
            deleting = Client(self.holder.address, SECRET)
            assert deleting.request("DELETE", blob_target(blob_id)).status == 204
            deleting.close()
            return wire.read_body(head)

        assert await self.talk(read_slowly) == data
        (await self.ask("GET", blob_target(blob_id))).refused(404, "FILE_NOT_FOUND")

    async def test_delete(self) -> None:
        """A deleted blob is gone, and deleting again is no error."""
        gone, kept = await put(self.backend, b"gone"), await put(self.backend, b"kept")
        for _ in range(2):
            answer = await self.ask("DELETE", blob_target(gone))
            assert (answer.status, answer.body) == (204, b"")
        assert await listed(self.backend) == [kept]

    async def test_keeps_nothing_open(self) -> None:
        """A reader that leaves in the middle leaves nothing behind."""
        blob_id = await put(self.backend, content(32 * MIB))

        def leave(wire: Wire) -> None:
            wire.send_request("GET", blob_target(blob_id), BEARER)
            wire.read_exactly(100_000)

        await self.talk(leave)
        while not self.holder.ended() or self.holder.site.connections:
            await moment()
        assert self.holder.ended()[0]["aborted"] is True
        assert (await self.ask("DELETE", blob_target(blob_id))).status == 204


class JoinedLogTests(InternalCase):
    """The logs of several nodes can be joined."""

    async def test_origin(self) -> None:
        """The access event names the user's request on the other node."""
        told = {"X-CallFS-Request-ID": "0123456789abcdef", "X-CallFS-User": "alice@example.org"}
        await self.ask("GET", blob_target(new_id()), None, told)
        event = self.holder.ended()[0]
        assert event["origin_request_id"] == "0123456789abcdef"
        assert event["origin_user"] == "alice@example.org"
        assert event["user"] == "internal-proxy"
        assert event["request_id"] != event["origin_request_id"]

    async def test_not_believed(self) -> None:
        """What isn't of a node's form, or comes from somebody else, stays out of the log."""
        good = {"X-CallFS-Request-ID": "0123456789abcdef", "X-CallFS-User": "alice"}
        for headers in (
            {},
            {"X-CallFS-User": "alice"},
            {**good, "X-CallFS-Request-ID": "0123456789ABCDEF"},
            {**good, "X-CallFS-Request-ID": "short"},
            {**good, "X-CallFS-User": "al ice"},
            {**good, "X-CallFS-User": "x" * 65},
        ):
            await self.ask("GET", blob_target(new_id()), None, headers)
        await self.ask("GET", blob_target(new_id()), None, good, key=API_KEY)
        assert len(self.holder.ended()) == 7
        assert not [event for event in self.holder.ended() if "origin_request_id" in event]
