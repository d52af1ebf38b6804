"""The API over real sockets: what the routes decide arrives at a client as the contract says."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import treq
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

from callfs.metrics import Metrics
from callfs.web.auth import ApiKeys, Authenticator
from callfs.web.context import SiteSettings
from callfs.web.directories import DirectoryResource
from callfs.web.files import FileResource
from callfs.web.links import LinkResource
from callfs.web.placements import Placements
from callfs.web.ratelimit import RateLimiter
from callfs.web.routes import route_table
from callfs.web.site import CallFSSite
from callfs.web.system import DescriptionResource, HealthResource, MetricsResource, OpenMetricsResource
from tests.support.engine import ALICE, NODE, EngineCase, started

KEY, ADMIN_KEY, SECRET = "alice-key-number-1", "carol-key-number-1", "internal-secret-of-peers"
CONTENT = bytes(range(256)) * 4096


@dataclass(frozen=True)
class Answer:
    """
    A response with its body.

    :param length: what ``Content-Length`` said; ``None`` when chunked.
    """

    status: int
    length: int | None
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@implementer(IBodyProducer)
class Chunks:
    """A body without a declared length."""

    length = UNKNOWN_LENGTH

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces

    def startProducing(self, consumer: Any) -> Deferred[None]:
        """For Twisted."""
        for piece in self._pieces:
            consumer.write(piece)
        return succeed(None)

    def pauseProducing(self) -> None:
        """For Twisted."""

    def resumeProducing(self) -> None:
        """For Twisted."""

    def stopProducing(self) -> None:
        """For Twisted."""


class HttpCase(EngineCase):
    """A site with all resources, listening on loopback, and a client."""

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.counted = Metrics()
        keys = ApiKeys(b"p" * 32, {"alice": [KEY], "carol": [ADMIN_KEY]}, (), ["carol"], [SECRET])
        resources: list[object] = [
            FileResource(self.filesystem, Placements(NODE, ["localfs"]), 1 << 24),
            DirectoryResource(self.filesystem, NODE),
            LinkResource(
                self.filesystem,
                instance_id=NODE,
                external_url="http://files.example",
                generate_limit=RateLimiter(100, 1),
                download_limit=RateLimiter(10, 5),
                seconds=self.clock.seconds,
                metrics=self.counted,
            ),
            HealthResource(lambda: succeed({"metadata_store": {"ok": True}})),
            MetricsResource(self.counted.render),
        ]
        resources.append(DescriptionResource(route_table(resources), "http://files.example"))
        self.base = await self.listen(resources, Authenticator(keys))
        self.pool_of_connections = HTTPConnectionPool(reactor)
        self.addCleanup(self.pool_of_connections.closeCachedConnections)

    async def listen(self, resources: list[object], authenticator: Authenticator) -> str:
        """Serve the resources on a free port; the base URL."""
        site = CallFSSite(
            resources,
            settings=SiteSettings(),
            authenticate=authenticator.authenticate,
            metrics=self.counted,
            reactor=reactor,
            now=lambda: time.time_ns() // 1000,
            pool=self.pool,
            token_bytes=secrets.token_bytes,
        )
        site.ready = True
        port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(site.stop, 5.0)
        self.addCleanup(port.stopListening)
        return f"http://127.0.0.1:{port.getHost().port}"

    async def ask(
        self,
        method: str,
        target: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        key: str | None = KEY,
        base: str | None = None,
    ) -> Answer:
        """Send a request and read the response to its end."""
        sent = {"Authorization": f"Bearer {key}"} if key else {}
        response = await treq.request(
            method,
            (base or self.base) + target,
            data=body,
            headers={**sent, **(headers or {})},
            agent=Agent(reactor, pool=self.pool_of_connections),
            allow_redirects=False,
            browser_like_redirects=False,
            unbuffered=True,
        )
        content = await response.content()
        raw = response.headers.getAllRawHeaders()
        found = {name.decode().lower(): b", ".join(values).decode() for name, values in raw}
        length = response.length if isinstance(response.length, int) else None
        return Answer(response.code, length, found, content)


class TestFiles(HttpCase):
    """Files from end to end."""

    async def test_a_file_comes_back_as_it_was_sent(self) -> None:
        """A megabyte up, declared and chunked, and down, whole and in parts."""
        for target, body, status in (
            ("/v1/files/dir/a%20%25%2B.bin", CONTENT, 201),
            ("/v1/files/dir/a%20%25%2B.bin", Chunks(CONTENT[:5], CONTENT[5:]), 200),
        ):
            put = await self.ask("PUT", target, body, {"Content-Type": "text/html"})
            assert put.status == status, put.body
            assert put.headers["location"] == "/v1/files/dir/a%20%25+.bin"
            get = await self.ask("GET", target)
            assert (get.status, get.body == CONTENT) == (200, True)
            assert get.length == len(CONTENT)
            assert get.headers["content-type"] == "text/html"
            assert get.headers["etag"] == put.headers["etag"]
            assert "sandbox" in get.headers["content-security-policy"]
        head = await self.ask("HEAD", target)
        assert (head.status, head.headers["content-length"]) == (200, str(len(CONTENT)))
        part = await self.ask("GET", target, headers={"Range": "bytes=1000-1999"})
        assert (part.status, part.body) == (206, CONTENT[1000:2000])
        assert part.headers["content-range"] == f"bytes 1000-1999/{len(CONTENT)}"
        parts = await self.ask("GET", target, headers={"Range": "bytes=0-1,-2"})
        assert parts.status == 206
        assert parts.length == len(parts.body) > 4
        outside = await self.ask("GET", target, headers={"Range": "bytes=9999999-"})
        assert (outside.status, outside.headers["content-range"]) == (416, f"bytes */{len(CONTENT)}")
        known = await self.ask("GET", target, headers={"If-None-Match": get.headers["etag"]})
        assert (known.status, known.body, known.headers["etag"]) == (304, b"", get.headers["etag"])

    async def test_an_empty_file(self) -> None:
        """No body at all, and a length of 0 back."""
        assert (await self.ask("POST", "/v1/files/empty")).status == 201
        get = await self.ask("GET", "/v1/files/empty")
        assert (get.status, get.body, get.length) == (200, b"", 0)

    async def test_create_move_delete(self) -> None:
        """A life of a tree."""
        assert (await self.ask("POST", "/v1/files/d/")).status == 201
        assert (await self.ask("POST", "/v1/files/d/")).status == 200
        assert (await self.ask("POST", "/v1/files/d/a", b"x")).status == 201
        assert (await self.ask("POST", "/v1/files/d/a", b"x")).json()["code"] == "FILE_ALREADY_EXISTS"
        moved = await self.ask("PATCH", "/v1/files/d", b'{"name": "e"}')
        assert (moved.status, moved.json()) == (200, {"path": "/e"})
        assert (await self.ask("DELETE", "/v1/files/e")).json()["code"] == "DIRECTORY_NOT_EMPTY"
        gone = await self.ask("DELETE", "/v1/files/e?recursive=true")
        assert (gone.status, gone.body) == (204, b"")
        assert (await self.ask("GET", "/v1/files/e/a")).status == 404

    async def test_listings(self) -> None:
        """The array, the page, and the lines show the same entries, over more than one piece."""
        for number in range(1100):
            await self.filesystem.create_directory(ALICE, f"/d/{number:04d}")
        array = await self.ask("GET", "/v1/files/d/")
        page = await self.ask("GET", "/v1/directories/d")
        lines = await self.ask("GET", "/v1/directories/d", headers={"Accept": "application/x-ndjson"})
        assert len(array.json()) == 1100
        assert page.json()["items"] == array.json()
        assert [json.loads(line) for line in lines.body.splitlines()] == array.json()
        assert (array.length, page.length, lines.length) == (None, len(page.body), None)

    async def test_paths_are_decoded_once(self) -> None:
        """%2F is a slash, %252F a percent sign and two characters; what climbs out is refused."""
        assert (await self.ask("PUT", "/v1/files/a%2Fb", b"1")).status == 201
        assert (await self.ask("GET", "/v1/files/a/b")).body == b"1"
        assert (await self.ask("PUT", "/v1/files/a%252Fc", b"2")).status == 201
        assert {entry["name"] for entry in (await self.ask("GET", "/v1/files/")).json()} == {"a", "a%2Fc"}
        assert (await self.ask("GET", "/v1/files/%2e%2e/b")).json()["code"] == "INVALID_PATH"
        assert (await self.ask("GET", "/v1/files/%ff")).json()["code"] == "INVALID_PATH"


class TestAccess(HttpCase):
    """Who may ask."""

    async def test_credentials(self) -> None:
        """401 with the scheme where they are needed; none on the public routes."""
        for target in ("/v1/files/a", "/v1/directories/", "/metrics", "/v1/openapi.json", "/v1/nothing"):
            for key in (None, "unknown-key-number-1"):
                answer = await self.ask("GET", target, key=key)
                assert (answer.status, answer.json()["code"]) == (401, "AUTHENTICATION_FAILED"), target
                assert answer.headers["www-authenticate"] == "Bearer"
        for target in ("/health", "/health/ready"):
            assert (await self.ask("GET", target, key=None)).status == 200
        assert (await self.ask("GET", "/v1/files/", key=SECRET)).status == 200

    async def test_an_administrator_may_do_everything(self) -> None:
        """Another's file can be taken over."""
        await self.ask("PUT", "/v1/files/a", b"x")
        assert (await self.ask("PATCH", "/v1/files/a", b'{"owner": "carol"}')).status == 403
        assert (await self.ask("PATCH", "/v1/files/a", b'{"owner": "carol"}', key=ADMIN_KEY)).status == 200
        assert (await self.ask("DELETE", "/v1/files/a")).status == 403

    async def test_methods(self) -> None:
        """405 names those that there are."""
        answer = await self.ask("PUT", "/v1/links/generate", b"x")
        assert (answer.status, answer.headers["allow"]) == (405, "POST")


class TestLinks(HttpCase):
    """A link from its making to its end."""

    async def test_once_and_only_once(self) -> None:
        """Of ten requests at once, without credentials, one gets the file."""
        await self.ask("PUT", "/v1/files/a.txt", b"content")
        order = json.dumps({"path": "/a.txt", "expiry_seconds": 60}).encode()
        link = await self.ask("POST", "/v1/links/generate", order)
        assert link.status == 201
        target = link.json()["url"].removeprefix("http://files.example")
        assert re.fullmatch(r"/download/[\w-]{22}\.[\w-]{43}", target)
        assert (await self.ask("HEAD", target, key=None)).headers["content-length"] == "7"
        answers = await gatherResults([started(self.ask("GET", target, key=None)) for _ in range(4)])
        assert sorted(answer.status for answer in answers) == [200, 410, 410, 410]
        (winner,) = [answer for answer in answers if answer.status == 200]
        assert winner.body == b"content"
        assert winner.headers["content-disposition"] == "attachment; filename*=UTF-8''a.txt"
        limited = await self.ask("GET", target, key=None)
        assert (limited.status, limited.headers["retry-after"]) == (429, "1")


class TestSystem(HttpCase):
    """Metrics and the description."""

    async def test_metrics_count_routes_by_their_pattern(self) -> None:
        """With a key on the API, without on the site of their own."""
        await self.ask("GET", "/v1/files/some/path")
        text = (await self.ask("GET", "/metrics")).body.decode()
        assert 'callfs_http_requests_total{method="GET",path="/v1/files/{path}",status_code="404"} 1.0' in text
        assert "some/path" not in text
        base = await self.listen([OpenMetricsResource(self.counted.render)], Authenticator(ApiKeys(b"p" * 32, {})))
        answer = await self.ask("GET", "/metrics", key=None, base=base)
        assert (answer.status, b"callfs_http_requests_total" in answer.body) == (200, True)
        assert (await self.ask("GET", "/health", key=None, base=base)).status == 404

    async def test_the_description_is_served(self) -> None:
        """JSON with every route."""
        described = (await self.ask("GET", "/v1/openapi.json")).json()
        assert "/v1/files/{path}" in described["paths"]
