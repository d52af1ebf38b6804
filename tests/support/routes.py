"""Routes called without a socket, over a real file system: what the transport does besides is in its own tests."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote

from twisted.internet.defer import succeed

from callfs.errors import CallFSError, PayloadTooLarge
from callfs.metrics import Metrics
from callfs.model import Principal
from callfs.web.app import Application
from callfs.web.directories import DirectoryResource
from callfs.web.exchange import error_as_response
from callfs.web.files import FileResource
from callfs.web.links import LinkResource
from callfs.web.messages import BlobBody, Request, Response
from callfs.web.placements import Placements
from callfs.web.ratelimit import RateLimiter
from callfs.web.routes import Access
from callfs.web.system import HealthResource, MetricsResource
from tests.support.engine import ALICE, NODE, EngineCase

MAX_UPLOAD_BYTES = 1 << 20
REQUEST_ID = "0123456789abcdef"
CLIENT = "192.0.2.1"
NOBODY = Principal("")


class MemoryBody:
    """
    A body in pieces; ``taken`` says whether anybody asked for it.

    :param declared: whether the client said how long it is.
    :param arrived: whether it came together with the headers.
    """

    def __init__(self, data: bytes, declared: bool = True, arrived: bool = False) -> None:
        self.declared_length = len(data) if declared else None
        self.taken = False
        self._arrived = data if arrived else None
        self._pieces = [piece for piece in (data[:5], data[5:]) if piece]

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        self.taken = True
        if not self._pieces:
            raise StopAsyncIteration
        return self._pieces.pop(0)

    def at_hand(self, max_bytes: int) -> bytes | None:
        """See :class:`callfs.web.messages.Body`."""
        data, self._arrived = self._arrived, None
        return None if data is None or len(data) > max_bytes else data

    async def read(self, max_bytes: int) -> bytes:
        """See :class:`callfs.web.messages.Body`."""
        if (self.declared_length or 0) > max_bytes:
            raise PayloadTooLarge("too long")
        data = b"".join([piece async for piece in self])
        if len(data) > max_bytes:
            raise PayloadTooLarge("too long")
        return data


@dataclass(frozen=True)
class Answer:
    """A response, its body read to the end."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    response: Response

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of an error."""
        return str(self.json()["code"])


class RouteCase(EngineCase):
    """
    A test that calls the routes of the API.

    ``parts`` is what readiness finds.

    :cvar backend_names: what clients may ask for.
    """

    backend_names: tuple[str, ...] = ("localfs",)

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.counted = Metrics()
        self.parts: dict[str, dict[str, object]] = {"metadata_store": {"ok": True}}
        self.generate_limit = RateLimiter(100, 1)
        self.download_limit = RateLimiter(10, 5)
        self.application = Application(
            [
                FileResource(self.filesystem, Placements(NODE, self.backend_names), MAX_UPLOAD_BYTES),
                DirectoryResource(self.filesystem, NODE),
                LinkResource(
                    self.filesystem,
                    instance_id=NODE,
                    external_url="https://files.example/",
                    generate_limit=self.generate_limit,
                    download_limit=self.download_limit,
                    seconds=self.clock.seconds,
                    metrics=self.counted,
                ),
                HealthResource(lambda: succeed(self.parts)),
                MetricsResource(self.counted.render),
            ]
        )

    async def send(
        self,
        method: str,
        target: str,
        body: bytes | MemoryBody | dict[str, object] = b"",
        headers: Mapping[str, str] | None = None,
        principal: Principal = ALICE,
        client: str = CLIENT,
    ) -> Answer:
        """
        Send a request; an error becomes the response that the API gives for it.

        :param target: path and query, as in a request line.
        :param body: a dictionary is sent as JSON.
        """
        raw, _, query = target.partition("?")
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        try:
            match = self.application.match(method, raw)
            place = match.target()
            request = made_request(
                method,
                path=place.path,
                directory_expected=place.directory_expected,
                captured=place.captured,
                principal=NOBODY if match.entry.access is Access.PUBLIC else principal,
                client_address=client,
                headers={name.lower(): value for name, value in (headers or {}).items()},
                parameters=dict(parse_qsl(query, keep_blank_values=True)),
                body=body if isinstance(body, MemoryBody) else MemoryBody(body),
            )
            response = await match.call(request)
        except CallFSError as error:
            response = error_as_response(error)
        answer = Answer(response.status, response.headers, await _read(response), response)
        assert method != "HEAD" or response.status >= 400 or answer.body == b""
        return answer

    async def get(self, path: str, query: str = "", **headers: str) -> Answer:
        """GET a file or directory; header names with ``_`` for ``-``."""
        return await self.send("GET", file_target(path, query), headers=named(headers))

    async def upload(self, path: str, data: bytes = b"content", **headers: str) -> Answer:
        """PUT a file."""
        return await self.send("PUT", file_target(path), data, named(headers))

    async def patch(self, path: str, change: dict[str, object], query: str = "", **options: Any) -> Answer:
        """PATCH a file or directory."""
        return await self.send("PATCH", file_target(path, query), change, **options)

    def series(self, name: str, **labels: str) -> float:
        """The value of a metric, 0 without one."""
        return self.counted.registry.get_sample_value(name, labels) or 0.0


def made_request(method: str, **values: Any) -> Request:
    """A request as the transport makes it."""
    defaults: dict[str, Any] = {
        "path": "/",
        "directory_expected": False,
        "captured": {},
        "principal": ALICE,
        "request_id": REQUEST_ID,
        "client_address": CLIENT,
        "secure": False,
        "host": "files.example",
        "headers": {},
        "parameters": {},
        "body": MemoryBody(b""),
    }
    return Request(method=method, **(defaults | values))


def file_target(path: str, query: str = "") -> str:
    """The request target of a file."""
    return "/v1/files" + quote(path) + (f"?{query}" if query else "")


def named(headers: Mapping[str, str]) -> dict[str, str]:
    """Header names as Python can't write them."""
    return {name.replace("_", "-"): value for name, value in headers.items()}


async def _read(response: Response) -> bytes:
    body = response.body
    if isinstance(body, bytes):
        return body
    if not isinstance(body, BlobBody):
        return b"".join([piece async for piece in body])
    try:
        pieces = [
            piece if isinstance(piece, bytes) else await body.reader.read(piece.start, piece.length)
            for piece in body.pieces
        ]
    finally:
        body.reader.close()
    data = b"".join(pieces)
    assert len(data) == body.length
    return data
