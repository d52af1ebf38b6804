"""The OpenAPI description (HTTP API, section 8)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.http import Client

METHODS = {"get", "head", "post", "put", "patch", "delete", "options", "trace"}

DOCUMENTED = {
    "/v1/files/{path}": {"get", "head", "post", "put", "patch", "delete"},
    "/v1/files/ws/{path}": {"get"},
    "/v1/directories/{path}": {"get"},
    "/v1/links/generate": {"post"},
    "/download/{token}": {"get", "head"},
    "/health": {"get"},
    "/health/ready": {"get"},
    "/metrics": {"get"},
    "/v1/openapi.json": {"get"},
}


@pytest.fixture
def document(alice: Client) -> dict[str, Any]:
    """The document as served."""
    answer = alice.request("GET", "/v1/openapi.json")
    assert answer.status == 200
    assert answer["Content-Type"].startswith("application/json")
    served = answer.json()
    assert isinstance(served, dict)
    return served


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method in METHODS:
                yield path, method, operation


def references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_version(document: dict[str, Any]) -> None:
    """The description is OpenAPI 3.1 with a title and a version."""
    assert re.fullmatch(r"3\.1\.\d+", document["openapi"])
    assert document["info"]["title"]
    assert document["info"]["version"]


def test_every_route(document: dict[str, Any]) -> None:
    """Every route of the contract is described with its methods."""
    described: dict[str, set[str]] = {}
    for path, method, _ in operations(document):
        described.setdefault(path, set()).add(method)
    for path, methods in DOCUMENTED.items():
        assert methods <= described.get(path, set()), path


def test_references_resolve(document: dict[str, Any]) -> None:
    """Every reference points at something in the document."""
    for reference in set(references(document)):
        assert reference.startswith("#/"), reference
        node: Any = document
        for part in reference[2:].split("/"):
            node = node[part.replace("~1", "/").replace("~0", "~")]


def test_operations_are_complete(document: dict[str, Any]) -> None:
    """Every operation has a summary, answers, and each parameter of its path."""
    for path, method, operation in operations(document):
        assert operation.get("summary") or operation.get("description"), (path, method)
        assert operation["responses"], (path, method)
        given = [*document["paths"][path].get("parameters", []), *operation.get("parameters", [])]
        resolved = [resolve(document, parameter) for parameter in given]
        named = {parameter["name"] for parameter in resolved if parameter["in"] == "path"}
        assert named == set(re.findall(r"\{(\w+)\}", path)), (path, method)
        assert all(parameter["required"] for parameter in resolved if parameter["in"] == "path")


def resolve(document: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        target: Any = document
        for part in node["$ref"][2:].split("/"):
            target = target[part.replace("~1", "/").replace("~0", "~")]
        node = target
    return node


def test_security(document: dict[str, Any]) -> None:
    """What needs a key says so, and what doesn't, doesn't."""
    schemes = document["components"]["securitySchemes"]
    assert any(scheme.get("type") == "http" and scheme.get("scheme") == "bearer" for scheme in schemes.values())
    general = document.get("security", [])
    for path, method, operation in operations(document):
        needed = [entry for entry in operation.get("security", general) if entry]
        is_open = path.startswith(("/health", "/download/"))
        assert bool(needed) != is_open, (path, method)


def test_routes_answer(document: dict[str, Any], alice: Client) -> None:
    """Every described method of every described path is one the daemon knows: none is 404 NOT_FOUND or 405."""
    for path, method, _ in operations(document):
        target = re.sub(r"\{\w+\}", "no-such-thing", path)
        answer = alice.request(method.upper(), target, None if method in ("get", "head") else b"")
        assert answer.status != 405, (path, method)
        if answer.status == 404 and method != "head":
            assert answer.code != "NOT_FOUND", (path, method)
        if path == "/v1/files/{path}" and method in ("post", "put"):
            alice.delete("/no-such-thing")
