"""What each operation of the API takes and gives, for the OpenAPI description, by pattern and method."""

from __future__ import annotations

from dataclasses import dataclass, field

from callfs.web.apischemas import (
    BYTES,
    BYTES_BODY,
    JSON_LINES,
    Schema,
    boolean,
    header,
    integer,
    json_body,
    json_content,
    query,
    ref,
    text,
)


@dataclass(frozen=True, kw_only=True)
class Operation:
    """
    One method of one route.

    :param results: status → description and content of each success.
    :param errors: the error statuses that are the operation's own.
    """

    id: str
    tag: str
    summary: str
    description: str = ""
    results: dict[str, tuple[str, Schema]]
    errors: tuple[str, ...] = ()
    parameters: tuple[Schema, ...] = ()
    body: Schema | None = None
    path_note: str = field(default="The path, percent-encoded; slashes stay as they are.")


_CHANGES = ("409", "412", "423", "504")
_CONDITIONS = (
    header("If-Match", "Only if the entity tag is one of these, or * for any."),
    header("If-None-Match", "Only if the entity tag is none of these; * only if nothing is there."),
    header("If-Unmodified-Since", "Only if it wasn't changed since this HTTP date."),
)
_READ_CONDITIONS = (*_CONDITIONS, header("If-Modified-Since", "304 if it wasn't changed since this HTTP date."))
_DIGESTS = (
    header("Content-Digest", "sha-256=:base64: or sha-512=:base64: of the body (RFC 9530); verified."),
    header("Repr-Digest", "The same as Content-Digest here."),
    header("Content-MD5", "The MD5 of the body in base64; verified."),
)
_PLACEMENT = (
    query("backend", "Where a new file's bytes shall be.", text(enum=["localfs", "s3"])),
    header("X-CallFS-Backend", "The same as backend; wins over it.", text(enum=["localfs", "s3"])),
)
_DIRECTORY_PARAMETERS = (
    query("recursive", "Everything below, not the children alone.", boolean()),
    query(
        "max_depth", "The deepest level shown, 0 for the children.", integer(minimum=0, maximum=1000, default=100)
    ),
    query("limit", "Items in this page.", integer(minimum=1, maximum=10_000)),
    query("cursor", "next_cursor of the page before.", text(pattern="^[A-Za-z0-9_-]+$")),
)
_READ_PARAMETERS = (
    query("download", "Adds Content-Disposition: attachment.", boolean()),
    query("manifest", "The shard manifest of an erasure-coded file; 400 for another.", boolean()),
    *_READ_CONDITIONS,
)
_READ_ERRORS = ("400", "404", "412")

_FILES, _DIRECTORIES = "/v1/files/{path}", "/v1/directories/{path}"
_LINKS, _DOWNLOAD = "/v1/links/generate", "/download/{token}"
_LINK_NOTE = "The token of the link."

OPERATIONS: dict[tuple[str, str], Operation] = {
    (_FILES, "GET"): Operation(
        id="readFile",
        tag="files",
        summary="Read a file, or list a directory",
        results={
            "200": (
                "A file's content, or for a directory the JSON array of its entries.",
                BYTES | json_content({"type": "array", "items": ref("Entry")}),
            ),
            "206": ("The part or parts asked for.", BYTES),
            "304": ("The client has it already.", {}),
        },
        errors=(*_READ_ERRORS, "416"),
        parameters=(
            *_READ_PARAMETERS,
            header("Range", "bytes=first-last, or several: then multipart/byteranges."),
            header("If-Range", "Range counts only if this entity tag or date is current."),
        ),
    ),
    (_FILES, "HEAD"): Operation(
        id="headFile",
        tag="files",
        summary="The headers that GET would send",
        results={"200": ("There is such a file or directory.", {}), "304": ("The client has it already.", {})},
        errors=_READ_ERRORS,
        parameters=_READ_PARAMETERS,
    ),
    (_FILES, "POST"): Operation(
        id="createFile",
        tag="files",
        summary="Create a file, or with a trailing slash a directory",
        description="Missing parents are created. Something is there already: 409, nothing changes.",
        results={"201": ("Created; Location and, for a file, ETag.", {}), "200": ("The directory was there.", {})},
        errors=("400", *_CHANGES, "413", "507"),
        parameters=(
            query("copy_from", "The path of a file whose content to copy; send no body."),
            *_PLACEMENT,
            *_DIGESTS,
            *_CONDITIONS,
        ),
        body=BYTES_BODY,
    ),
    (_FILES, "PUT"): Operation(
        id="putFile",
        tag="files",
        summary="Create a file or replace its content",
        description="Readers see the old content or the new, never a mixture.",
        results={"201": ("Created; Location and ETag.", {}), "200": ("Replaced; Location and ETag.", {})},
        errors=("400", "403", *_CHANGES, "413", "507"),
        parameters=(*_PLACEMENT, *_DIGESTS, *_CONDITIONS),
        body=BYTES_BODY,
    ),
    (_FILES, "PATCH"): Operation(
        id="changeFile",
        tag="files",
        summary="Rename, move, or change attributes",
        description="The change of names is one step for all of a tree.",
        results={"200": ("Done.", json_content(ref("Changed")))},
        errors=("400", "403", "404", *_CHANGES, "413"),
        parameters=(query("overwrite", "As in the body.", boolean()), *_CONDITIONS),
        body=json_body(ref("Change"), "What to change; at most 1 MiB."),
    ),
    (_FILES, "DELETE"): Operation(
        id="deleteFile",
        tag="files",
        summary="Delete a file or directory",
        results={"204": ("Deleted.", {})},
        errors=("400", "403", "404", *_CHANGES),
        parameters=(query("recursive", "With everything inside.", boolean()), *_CONDITIONS),
    ),
    (_DIRECTORIES, "GET"): Operation(
        id="listDirectory",
        tag="directories",
        summary="List a directory in pages",
        description="With Accept: application/x-ndjson all entries, one a line, as they come.",
        results={"200": ("A page.", json_content(ref("DirectoryPage")) | JSON_LINES)},
        errors=("400", "404"),
        parameters=_DIRECTORY_PARAMETERS,
    ),
    (_DIRECTORIES, "HEAD"): Operation(
        id="headDirectory",
        tag="directories",
        summary="The headers that GET would send",
        results={"200": ("There is such a directory.", {})},
        errors=("400", "404"),
        parameters=_DIRECTORY_PARAMETERS,
    ),
    (_LINKS, "POST"): Operation(
        id="generateLink",
        tag="links",
        summary="Make a link that downloads a file once",
        results={"201": ("The link.", json_content(ref("Link")))},
        errors=("400", "404", "429"),
        body=json_body(ref("LinkOrder"), "At most 4 KiB."),
    ),
    (_DOWNLOAD, "GET"): Operation(
        id="redeemLink",
        tag="links",
        summary="Download the file of a link, once",
        description="Exactly one of any number of requests gets the file. Range and conditions are ignored.",
        results={"200": ("The file.", BYTES)},
        errors=("404", "410", "429"),
        path_note=_LINK_NOTE,
    ),
    (_DOWNLOAD, "HEAD"): Operation(
        id="headLink",
        tag="links",
        summary="The headers that GET would send, without using the link up",
        results={"200": ("The link can be used.", {})},
        errors=("404", "410", "429"),
        path_note=_LINK_NOTE,
    ),
}
