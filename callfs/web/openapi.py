"""
The OpenAPI 3.1 description, made from the table of routes: a route that isn't in the table can't be described, and
one that is in it can't be left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from callfs import __version__
from callfs.web.apioperations import OPERATIONS, Operation
from callfs.web.apischemas import ERRORS, SCHEMAS, Schema, json_content, parameter, ref
from callfs.web.apisystem import SYSTEM_OPERATIONS

DESCRIBED = OPERATIONS | SYSTEM_OPERATIONS
PUBLIC = "public"
INTERNAL = "internal"

_ANYTIME_ERRORS = ("503",)
_INTRODUCTION = (
    "Files and directories over HTTP. Every error is JSON with a stable code; every response has an X-Request-ID. "
    "In the paths of files and directories, slashes are part of the parameter and aren't encoded."
)


class RouteRow(Protocol):
    """What is read of :class:`callfs.web.routes.RouteEntry`."""

    @property
    def pattern(self) -> str:
        """The path with ``{name}`` for what is taken out of it."""

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods of the route."""

    @property
    def access(self) -> Any:
        """An enumeration; its value ``public`` means without credentials."""

    @property
    def captures(self) -> tuple[str, ...]:
        """The names that the pattern takes out."""


def document(rows: Iterable[RouteRow], external_url: str) -> Schema:
    """
    The description.

    :param rows: all routes; what is for peers alone is left out.
    :param external_url: the base URL of the API.
    :raises LookupError: a route has no description in :data:`DESCRIBED`.
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "CallFS",
            "version": __version__,
            "description": _INTRODUCTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": external_url.rstrip("/") or "/"}],
        "security": [{"bearer": []}],
        "tags": [{"name": name} for name in ("files", "directories", "links", "system")],
        "paths": _paths(rows),
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "description": "An API key."}},
            "responses": {status: _error(description) for status, description in ERRORS.items()},
        },
    }


def _paths(rows: Iterable[RouteRow]) -> Schema:
    found: Schema = {}
    for row in sorted(rows, key=lambda row: row.pattern):
        if row.access.value == INTERNAL:
            continue
        for method in row.methods:
            if (row.pattern, method) not in DESCRIBED:
                raise LookupError(f"the route {method} {row.pattern} has no description")
            item = found.setdefault(row.pattern, {})
            item[method.lower()] = _operation(row, DESCRIBED[row.pattern, method])
    return found


def _operation(row: RouteRow, operation: Operation) -> Schema:
    is_public = row.access.value == PUBLIC
    parameters = [parameter("path", name, operation.path_note) for name in row.captures]
    parameters += operation.parameters
    described: Schema = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "responses": _responses(operation, is_public),
    }
    if operation.description:
        described["description"] = operation.description
    if parameters:
        described["parameters"] = parameters
    if operation.body is not None:
        described["requestBody"] = operation.body
    return described | ({"security": []} if is_public else {})


def _responses(operation: Operation, is_public: bool) -> Schema:
    statuses = {*operation.errors, *_ANYTIME_ERRORS, *(() if is_public else ("401",))} - operation.results.keys()
    results: Schema = {
        status: {"description": description} | ({"content": content} if content else {})
        for status, (description, content) in operation.results.items()
    }
    return results | {status: {"$ref": f"#/components/responses/{status}"} for status in sorted(statuses)}


def _error(description: str) -> Schema:
    return {"description": description, "content": json_content(ref("Error"))}
