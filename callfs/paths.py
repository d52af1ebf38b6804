"""
Canonical paths: the only place that splits on ``/``.

A path inside CallFS is always canonical: ``/`` for the root, else ``/a/b`` with no empty, ``.`` or ``..``
segment and no trailing slash. Authorization, metadata and storage see only this form.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

from callfs.errors import InvalidPath

ROOT = "/"
MAX_SEGMENT_BYTES = 255
MAX_PATH_BYTES = 2048

_FORBIDDEN = frozenset(
    [chr(code) for code in range(0x20)]
    + [chr(code) for code in range(0x7F, 0xA0)]
    + ["\\"]
    + [chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))]
)


def canonical(raw: str) -> str:
    """
    Bring a decoded path into canonical form.

    :param raw: the path as the client gave it, percent-decoded already; leading slash optional.
    :return: the canonical path.
    :raises InvalidPath: it climbs above the root, has a forbidden character, or is too long.
    """
    if not _FORBIDDEN.isdisjoint(raw):
        raise InvalidPath(
            "the path has a character that isn't allowed: control characters, backslash and "
            "bidirectional overrides can't be part of a name"
        )
    segments: list[str] = []
    for segment in raw.split("/"):
        if segment == "..":
            if not segments:
                raise InvalidPath("the path climbs above the root")
            segments.pop()
        elif segment not in ("", "."):
            segments.append(segment)
    return _checked(segments)


def _checked(segments: list[str]) -> str:
    path = "/" + "/".join(segments)
    try:
        sizes = [len(segment.encode("utf-8")) for segment in segments]
    except UnicodeEncodeError:
        raise InvalidPath("the path isn't valid UTF-8") from None
    if any(size > MAX_SEGMENT_BYTES for size in sizes):
        raise InvalidPath(f"a name in the path is longer than {MAX_SEGMENT_BYTES} bytes")
    if sum(sizes) + len(sizes) > MAX_PATH_BYTES:
        raise InvalidPath(f"the path is longer than {MAX_PATH_BYTES} bytes")
    return path


def from_url(encoded: bytes) -> tuple[str, bool]:
    """
    Decode the path part of a request target, once, and bring it into canonical form.

    :param encoded: what follows the route in the raw request target, still percent-encoded.
    :return: the canonical path, and whether the client said "directory" with a trailing slash
        (the empty path and the root always do).
    :raises InvalidPath: as :func:`canonical`; and for bytes that are no UTF-8.
    """
    try:
        decoded = unquote_to_bytes(encoded).decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidPath("the path isn't valid UTF-8") from None
    path = canonical(decoded)
    return path, path == ROOT or says_directory(decoded)


def says_directory(raw: str) -> bool:
    """Whether a decoded, not yet canonical path names a directory by its last segment."""
    return raw.rpartition("/")[2] in ("", ".", "..")


def parent(path: str) -> str:
    """The path of the directory that holds ``path``; the root's parent is the root."""
    return path.rpartition("/")[0] or ROOT


def name(path: str) -> str:
    """The last segment; empty for the root."""
    return path.rpartition("/")[2]


def join(directory: str, segment: str) -> str:
    """The path of the child ``segment`` of a canonical ``directory``."""
    return f"/{segment}" if directory == ROOT else f"{directory}/{segment}"


def valid_name(segment: str) -> str:
    """
    Check a single segment, as for a rename in place.

    :raises InvalidPath: it is empty, ``.`` or ``..``, has a slash or a forbidden character, or is too long.
    """
    if segment in ("", ".", "..") or "/" in segment or canonical(segment) != "/" + segment:
        raise InvalidPath("a name is one path segment: not empty, not '.' or '..', and without '/'")
    return segment


def ancestors(path: str) -> Iterator[str]:
    """All directories above ``path``, the root first; none for the root itself."""
    if path == ROOT:
        return
    yield ROOT
    position = path.find("/", 1)
    while position != -1:
        yield path[:position]
        position = path.find("/", position + 1)


def is_within(path: str, directory: str) -> bool:
    """Whether ``path`` is ``directory`` itself or lies anywhere below it."""
    return path == directory or path.startswith(subtree_start(directory))


def depth(path: str) -> int:
    """How many segments the path has; 0 for the root."""
    return 0 if path == ROOT else path.count("/")


def subtree_start(directory: str) -> str:
    """The lower bound, exclusive, of all paths below ``directory`` in bytewise order."""
    return ROOT if directory == ROOT else directory + "/"


def subtree_end(directory: str) -> str:
    """The upper bound, exclusive, of all paths below ``directory``: ``0`` follows ``/`` in ASCII."""
    return "0" if directory == ROOT else directory + "0"


def moved(path: str, source: str, destination: str) -> str:
    """
    Where ``path``, which is ``source`` or below it, comes to be when ``source`` moves to ``destination``.

    :raises InvalidPath: the new path would be too long.
    """
    new = destination + path[len(source) :]
    if len(new.encode("utf-8")) > MAX_PATH_BYTES:
        raise InvalidPath(f"the move would make a path longer than {MAX_PATH_BYTES} bytes")
    return new
