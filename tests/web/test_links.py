"""Single-use links."""

from __future__ import annotations

import base64
import re

from twisted.internet.defer import gatherResults

from callfs.errors import PeerUnavailable
from tests.support.engine import BOB, started
from tests.support.routes import Answer, RouteCase

CONSUMPTIONS = "callfs_single_use_link_consumptions_total"


class LinkCase(RouteCase):
    """A file and its links; the limits start afresh with every link that is made here."""

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        await self.upload("/docs/ä b.txt", b"content", content_type="text/html")

    async def order(self, body: bytes | dict[str, object], **options: object) -> Answer:
        """Ask for a link, at a moment when the limit allows it."""
        self.advance(1)
        return await self.send("POST", "/v1/links/generate", body, **options)

    async def token(self, path: str = "/docs/ä b.txt", expiry_seconds: int = 3600) -> str:
        """A new link's token."""
        answer = await self.order({"path": path, "expiry_seconds": expiry_seconds})
        assert answer.status == 201, answer.body
        return str(answer.json()["token"])

    async def fetch(self, token: str, method: str = "GET", **headers: str) -> Answer:
        """Come with a link."""
        return await self.send(method, f"/download/{token}", headers=headers)


class TestGenerate(LinkCase):
    """POST /v1/links/generate."""

    async def test_a_link(self) -> None:
        """201, the address below the external URL, the token, and when it ends."""
        answer = await self.order({"path": "docs//ä b.txt", "expiry_seconds": 60}, principal=BOB)
        link = answer.json()
        assert (answer.status, list(link)) == (201, ["url", "token", "expires", "expires_at"])
        assert link["url"] == f"https://files.example/download/{link['token']}"
        assert re.fullmatch(r"[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}", link["token"])
        assert link["expires"] == link["expires_at"] == "2023-11-14T22:14:21.000000Z"
        assert self.series("callfs_single_use_link_generations_total") == 1

    async def test_what_there_can_be_no_link_for(self) -> None:
        """Nothing 404, a directory 400."""
        for path, status in (("/nothing", 404), ("/docs", 400), ("/docs/ä b.txt/", 400), ("/", 400), ("", 400)):
            assert (await self.order({"path": path, "expiry_seconds": 60})).status == status, path
        assert (await self.order({"path": "/../a", "expiry_seconds": 60})).code == "INVALID_PATH"

    async def test_orders_that_are_none(self) -> None:
        """400: no JSON, no path, an expiry outside 1 to 86,400, unknown fields, over 4 KiB."""
        path = "/docs/ä b.txt"
        for body in (
            b"",
            b"path=/a",
            b"[]",
            {"expiry_seconds": 60},
            {"path": path},
            {"path": 1, "expiry_seconds": 60},
            {"path": path, "expiry_seconds": 0},
            {"path": path, "expiry_seconds": -1},
            {"path": path, "expiry_seconds": 86_401},
            {"path": path, "expiry_seconds": 10**30},
            {"path": path, "expiry_seconds": "60"},
            {"path": path, "expiry_seconds": 1.5},
            {"path": path, "expiry_seconds": True},
            {"path": path, "expiry_seconds": 60, "uses": 2},
            {"path": path, "expiry_seconds": 60, "x": "y" * 4096},
            b"{" + b" " * 4096 + b'"path": "/docs/b", "expiry_seconds": 60}',
        ):
            answer = await self.order(body)
            assert (answer.status, answer.code) == (400, "BAD_REQUEST"), body
        for seconds in (1, 86_400):
            assert (await self.order({"path": path, "expiry_seconds": seconds})).status == 201

    async def test_the_limit(self) -> None:
        """100 a second, one at a time: the next at once is 429 with Retry-After, before the body is read."""
        order = {"path": "/docs/ä b.txt", "expiry_seconds": 60}
        assert (await self.order(order)).status == 201
        answer = await self.send("POST", "/v1/links/generate", b"nonsense")
        assert (answer.status, answer.code, answer.headers["Retry-After"]) == (429, "RATE_LIMITED", "1")
        assert (await self.send("POST", "/v1/links/generate", order, client="192.0.2.9")).status == 201
        self.advance(0.01)
        assert (await self.send("POST", "/v1/links/generate", order)).status == 201
        assert self.series("callfs_rate_limited_total", limit="link_generate") == 1


class TestDownload(LinkCase):
    """GET and HEAD /download."""

    async def test_it_works_once(self) -> None:
        """The file as an attachment, sandboxed, kept by no cache; then 410."""
        token = await self.token()
        first = await self.fetch(token)
        assert (first.status, first.body) == (200, b"content")
        assert first.headers["Content-Disposition"] == "attachment; filename*=UTF-8''%C3%A4%20b.txt"
        assert first.headers["Content-Type"] == "text/html"
        assert first.headers["Cache-Control"] == "no-store"
        assert first.response.stored_content
        second = await self.fetch(token)
        assert (second.status, second.code) == (410, "LINK_USED")
        assert self.series(CONSUMPTIONS, status="success") == 1
        assert self.series(CONSUMPTIONS, status="expired") == 1
        assert self.backend.readers == set()

    async def test_one_of_many_wins(self) -> None:
        """Of simultaneous requests exactly one gets the file."""
        token = await self.token()
        answers = await gatherResults(
            [started(self.send("GET", f"/download/{token}", client=f"192.0.2.{number}")) for number in range(20)]
        )
        assert sorted(answer.status for answer in answers) == [200] + [410] * 19
        assert self.backend.readers == set()

    async def test_head_does_not_use_it_up(self) -> None:
        """Any number of times, with the headers of GET; then GET works."""
        token = await self.token()
        for _ in range(2):
            head = await self.fetch(token, "HEAD")
            assert (head.status, head.response.content_length) == (200, 7)
        assert (await self.fetch(token)).headers == head.headers
        assert (await self.fetch(token, "HEAD")).code == "LINK_USED"
        assert self.series(CONSUMPTIONS, status="success") == 1

    async def test_ranges_and_conditions_are_ignored(self) -> None:
        """All of the file or nothing."""
        token = await self.token()
        answer = await self.fetch(
            token, **{"Range": "bytes=0-1", "If-None-Match": "*", "If-Match": '"x"', "If-Range": '"y"'}
        )
        assert (answer.status, answer.body) == (200, b"content")
        assert answer.headers["Accept-Ranges"] == "none"

    async def test_unknown_and_forged_tokens(self) -> None:
        """404, whatever their form and whatever the state of the link."""
        token = await self.token()
        random = token.partition(".")[0]
        forged = f"{random}.{base64.urlsafe_b64encode(bytes(32)).decode().rstrip('=')}"
        for wrong in (
            "x",
            "",
            ".",
            "a.b",
            f"{random}.",
            random,
            f"{token}x",
            f"{token}=",
            "%00",
            "x" * 5000,
            forged,
        ):
            for method in ("GET", "HEAD"):
                self.advance(1)
                answer = await self.fetch(wrong, method)
                assert (answer.status, answer.code) == (404, "LINK_NOT_FOUND"), wrong
        self.advance(1)
        assert (await self.fetch(token)).status == 200
        assert (await self.fetch(forged)).status == 404
        self.advance(7200)
        assert (await self.fetch(forged)).status == 404
        assert self.series(CONSUMPTIONS, status="not_found") > 0
        assert self.series(CONSUMPTIONS, status="invalid") > 0

    async def test_its_time_is_over(self) -> None:
        """410 LINK_EXPIRED, for GET and HEAD."""
        token = await self.token(expiry_seconds=10)
        self.advance(10)
        for method in ("GET", "HEAD"):
            answer = await self.fetch(token, method)
            assert (answer.status, answer.code) == (410, "LINK_EXPIRED")
        assert self.series(CONSUMPTIONS, status="expired") == 1

    async def test_it_belongs_to_the_file_not_to_the_path(self) -> None:
        """It follows a rename; after a delete it is 404, even if another file takes the path."""
        token, other = await self.token(), await self.token()
        await self.patch("/docs/ä b.txt", {"destination": "/moved"})
        answer = await self.fetch(token)
        assert (answer.status, answer.headers["Content-Disposition"]) == (200, "attachment; filename*=UTF-8''moved")
        await self.send("DELETE", "/v1/files/moved")
        await self.upload("/moved", b"another")
        assert (await self.fetch(other)).code == "LINK_NOT_FOUND"

    async def test_a_file_that_cannot_be_read_costs_no_link(self) -> None:
        """It is opened before the link is used up."""
        token = await self.token()
        self.backend.steps.fail("open", *[PeerUnavailable("not now")] * 3)
        assert (await self.fetch(token)).code == "PEER_UNAVAILABLE"
        self.backend.steps.fail("open")
        assert (await self.fetch(token)).status == 200
        assert self.series(CONSUMPTIONS, status="success") == 1

    async def test_the_limit(self) -> None:
        """10 a second, five at once, before the token is looked at; each client has its own."""
        token = await self.token()
        self.advance(1)
        for _ in range(5):
            assert (await self.fetch("junk")).status == 404
        answer = await self.fetch(token)
        assert (answer.status, answer.code, answer.headers["Retry-After"]) == (429, "RATE_LIMITED", "1")
        assert (await self.send("HEAD", f"/download/{token}")).status == 429
        assert (await self.send("HEAD", f"/download/{token}", client="192.0.2.9")).status == 200
        self.advance(0.1)
        assert (await self.fetch(token)).status == 200
        assert self.series("callfs_rate_limited_total", limit="download") == 2
