"""The JSON schemas and reusable parts of the OpenAPI description."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from callfs.web.representations import JSON, NDJSON

Schema = dict[str, Any]


def text(description: str = "", **more: Any) -> Schema:
    """A string."""
    return {"type": "string"} | ({"description": description} if description else {}) | more


def integer(description: str = "", **more: Any) -> Schema:
    """A whole number."""
    return {"type": "integer"} | ({"description": description} if description else {}) | more


def boolean(description: str = "") -> Schema:
    """A truth value."""
    return {"type": "boolean"} | ({"description": description} if description else {})


def an_object(properties: Mapping[str, Schema], required: tuple[str, ...] | None = None, **more: Any) -> Schema:
    """An object; all of its properties are required unless ``required`` says which."""
    names = list(properties if required is None else required)
    return {"type": "object", "properties": dict(properties)} | ({"required": names} if names else {}) | more


def ref(name: str) -> Schema:
    """One of :data:`SCHEMAS`."""
    return {"$ref": f"#/components/schemas/{name}"}


_NULLABLE = ["string", "null"]
_TIME = text(format="date-time")

SCHEMAS: dict[str, Schema] = {
    "Error": an_object(
        {"code": text("Stable; what a program decides by."), "message": text("For people.")},
        additionalProperties=True,
    ),
    "Entry": an_object(
        {
            "name": text("The last segment of the path."),
            "path": text("Canonical."),
            "type": text(enum=["file", "directory"]),
            "size": integer("Bytes; 0 for a directory.", minimum=0),
            "mode": text("Four octal digits.", examples=["0644"]),
            "owner": text(),
            "mtime": _TIME,
            "etag": {"type": _NULLABLE, "description": "As in the ETag header, with its quotes."},
            "content_type": {"type": _NULLABLE},
            "backend": {"type": _NULLABLE, "description": "Where the bytes are."},
            "instance_id": {"type": _NULLABLE, "description": "The node that holds the bytes."},
        }
    ),
    "DirectoryPage": an_object(
        {
            "path": text(),
            "type": text(const="directory"),
            "recursive": boolean(),
            "max_depth": integer("Only of a recursive listing."),
            "count": integer("How many items this page has."),
            "items": {"type": "array", "items": ref("Entry")},
            "next_cursor": text("Only if there is more.", pattern="^[A-Za-z0-9_-]+$"),
        },
        ("path", "type", "recursive", "count", "items"),
    ),
    "Change": an_object(
        {
            "name": text("Rename in place: one segment."),
            "destination": text("Move: an absolute path. Either this or name."),
            "overwrite": boolean("Replace a file, or an empty directory, at the destination."),
            "create_parents": boolean("Create missing directories above the destination."),
            "backend": text("Relocate the bytes.", enum=["localfs", "s3", "erasure"]),
            "instance": text("Relocate the bytes to this node."),
            "mode": text("Octal digits.", pattern="^[0-7]{3,4}$", examples=["0644"]),
            "mtime": _TIME,
            "content_type": text("A media type.", maxLength=255),
            "owner": text("Administrators only.", pattern="^[A-Za-z0-9._@-]{1,64}$"),
        },
        (),
        additionalProperties=False,
        minProperties=1,
    ),
    "Changed": an_object({"path": text("The new canonical path.")}),
    "LinkOrder": an_object(
        {"path": text("Of a file."), "expiry_seconds": integer(minimum=1, maximum=86_400)},
        additionalProperties=False,
    ),
    "Link": an_object({"url": text(format="uri"), "token": text(), "expires": _TIME, "expires_at": _TIME}),
    "Health": an_object({"status": text(const="ok")}),
    "Readiness": an_object(
        {
            "status": text(enum=["ready", "unavailable"]),
            "parts": {"type": "object", "additionalProperties": an_object({"ok": boolean()})},
        }
    ),
}


def parameter(where: str, name: str, description: str, schema: Schema | None = None) -> Schema:
    """A parameter of an operation; one in the path is required."""
    found = {"name": name, "in": where, "description": description, "schema": schema or text()}
    return found | ({"required": True} if where == "path" else {})


def query(name: str, description: str, schema: Schema | None = None) -> Schema:
    """A query parameter."""
    return parameter("query", name, description, schema)


def header(name: str, description: str, schema: Schema | None = None) -> Schema:
    """A request header."""
    return parameter("header", name, description, schema)


def json_body(schema: Schema, description: str) -> Schema:
    """A request body of JSON."""
    return {"required": True, "description": description, "content": {JSON: {"schema": schema}}}


BYTES_BODY: Schema = {
    "description": "The content, of any length, declared or chunked. Empty for a directory and for copy_from.",
    "content": {"*/*": {"schema": {}}},
}

BYTES: Schema = {"*/*": {"schema": {}}}
JSON_LINES: Schema = {NDJSON: {"schema": ref("Entry")}}


def json_content(schema: Schema) -> Schema:
    """Content of a JSON response."""
    return {JSON: {"schema": schema}}


ERRORS: dict[str, str] = {
    "400": "BAD_REQUEST, INVALID_PATH, CHECKSUM_MISMATCH, NOT_A_FILE, NOT_A_DIRECTORY; the message says more.",
    "401": "AUTHENTICATION_FAILED: no credentials, or unknown ones.",
    "403": "PERMISSION_DENIED: somebody else's.",
    "404": "FILE_NOT_FOUND or LINK_NOT_FOUND: nothing is there.",
    "409": "FILE_ALREADY_EXISTS, DIRECTORY_NOT_EMPTY, PARENT_NOT_A_DIRECTORY, CONFLICT: what is there forbids it.",
    "410": "LINK_EXPIRED or LINK_USED.",
    "412": "PRECONDITION_FAILED: a condition of the request doesn't hold.",
    "413": "PAYLOAD_TOO_LARGE.",
    "416": "RANGE_NOT_SATISFIABLE: no range lies in the file.",
    "423": "RESOURCE_LOCKED: another change took too long; Retry-After says when to come again.",
    "429": "RATE_LIMITED: Retry-After says when to come again.",
    "503": "METADATA_UNAVAILABLE, PEER_UNAVAILABLE or SERVICE_UNAVAILABLE: nothing was changed, come again later.",
    "504": "OUTCOME_UNKNOWN: it may or may not have happened; look before repeating.",
    "507": "INSUFFICIENT_STORAGE: no room; nothing was stored.",
}
