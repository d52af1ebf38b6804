"""Health, metrics, and the description of the API."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from callfs.web.directories import DirectoryResource
from callfs.web.files import FileResource
from callfs.web.links import LinkResource
from callfs.web.openapi import DESCRIBED, document
from callfs.web.routes import Access, RouteEntry, call, route_table
from callfs.web.system import DescriptionResource, HealthResource, MetricsResource, OpenMetricsResource
from tests.support.routes import RouteCase, made_request

RESOURCES = (FileResource, DirectoryResource, LinkResource, HealthResource, MetricsResource)
TABLE = route_table(RESOURCES)
URL = "https://files.example"


class TestHealth(RouteCase):
    """/health and /health/ready."""

    async def test_the_process_answers(self) -> None:
        """200 whatever the parts say."""
        self.parts["metadata_store"]["ok"] = False
        answer = await self.send("GET", "/health")
        assert (answer.status, answer.json()) == (200, {"status": "ok"})
        head = await self.send("HEAD", "/health")
        assert (head.status, head.response.content_length) == (200, len(answer.body))

    async def test_ready_when_every_part_is(self) -> None:
        """200 with each part, 503 as soon as one can't serve."""
        self.parts["backends"] = {"ok": True, "free_bytes": 5}
        answer = await self.send("GET", "/health/ready")
        assert (answer.status, answer.json()) == (200, {"status": "ready", "parts": self.parts})
        self.parts["backends"]["ok"] = False
        answer = await self.send("GET", "/health/ready")
        assert (answer.status, answer.json()["status"]) == (503, "unavailable")
        assert answer.json()["parts"]["metadata_store"]["ok"] is True
        assert (await self.send("HEAD", "/health/ready")).status == 503


class TestMetrics(RouteCase):
    """/metrics."""

    async def test_the_series_as_text(self) -> None:
        """Prometheus' text format, for GET and HEAD."""
        self.counted.link_generated()
        answer = await self.send("GET", "/metrics")
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert b"\ncallfs_single_use_link_generations_total 1.0\n" in answer.body
        assert b"_created" not in answer.body
        assert (await self.send("HEAD", "/metrics")).response.content_length is not None

    async def test_the_open_site_has_metrics_alone(self) -> None:
        """One route, without credentials; on the API's own they are needed."""
        (row,) = route_table([OpenMetricsResource])
        assert (row.pattern, row.methods, row.access) == ("/metrics", ("GET", "HEAD"), Access.PUBLIC)
        (own,) = route_table([MetricsResource])
        assert own.access is Access.USER
        request = made_request("GET")
        assert (
            await call(OpenMetricsResource(lambda: ("text/plain", b"x 1\n")), "metrics", request)
        ).body == b"x 1\n"


class TestDescription(RouteCase):
    """/v1/openapi.json."""

    async def described(self) -> dict[str, Any]:
        """The document as it is served."""
        resource = DescriptionResource(TABLE, URL)
        response = await call(resource, "describe", made_request("GET"))
        assert response.headers["Content-Type"] == "application/json"
        assert isinstance(response.body, bytes)
        found: dict[str, Any] = json.loads(response.body)
        return found

    async def test_it_is_valid(self) -> None:
        """The validator of the OpenAPI community has nothing to say against it."""
        described = await self.described()
        OpenAPIV31SpecValidator(described).validate()
        assert described["openapi"].startswith("3.1")
        assert described["servers"] == [{"url": URL}]

    async def test_it_describes_each_route_and_nothing_else(self) -> None:
        """Every method of every route has its operation, with an id of its own."""
        described = await self.described()
        found = {(pattern, method.upper()) for pattern, item in described["paths"].items() for method in item}
        routes = {
            (row.pattern, method)
            for row in route_table([*RESOURCES, DescriptionResource])
            for method in row.methods
        }
        assert found == routes | {("/v1/files/ws/{path}", "GET")}
        assert set(DESCRIBED) == found
        ids = [operation["operationId"] for item in described["paths"].values() for operation in item.values()]
        assert len(ids) == len(set(ids))

    async def test_it_says_who_needs_credentials(self) -> None:
        """Public routes need none and never answer 401."""
        described = await self.described()
        for row in TABLE:
            for method in row.methods:
                operation = described["paths"][row.pattern][method.lower()]
                is_public = row.access is Access.PUBLIC
                assert (operation.get("security") == []) is is_public
                assert ("401" in operation["responses"]) is not is_public

    async def test_the_real_answers_fit_the_schemas(self) -> None:
        """What the routes return is what the description promises."""
        described = await self.described()
        await self.upload("/d/a", b"x")
        link = await self.send("POST", "/v1/links/generate", {"path": "/d/a", "expiry_seconds": 5})
        for name, value in (
            ("DirectoryPage", (await self.send("GET", "/v1/directories/d?limit=1&recursive=true")).json()),
            ("Entry", (await self.get("/")).json()[0]),
            ("Changed", (await self.patch("/d/a", {"mode": "0600"})).json()),
            ("Link", link.json()),
            ("Health", (await self.send("GET", "/health")).json()),
            ("Readiness", (await self.send("GET", "/health/ready")).json()),
            ("Error", (await self.get("/nothing")).json()),
        ):
            schema = described["components"]["schemas"][name]
            assert set(schema.get("required", ())) <= set(value), name
            assert set(value) <= set(schema["properties"]), name


def test_a_route_without_a_description_is_an_error() -> None:
    """Nobody can add a route and forget the description."""
    row = RouteEntry("/v1/new", ("GET",), Access.USER, "new", "")
    with pytest.raises(LookupError, match="GET /v1/new"):
        document([row], URL)
