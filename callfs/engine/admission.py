"""What is decided about an upload before its body is read."""

from __future__ import annotations

from callfs.access import may_add_child, may_write
from callfs.engine.messages import Upload
from callfs.engine.ports import Ports
from callfs.engine.routing import is_reachable, placement_for
from callfs.errors import (
    BadRequest,
    NotAFile,
    ParentNotADirectory,
    PayloadTooLarge,
    PeerUnavailable,
    PermissionDenied,
)
from callfs.metadata.places import already_there
from callfs.metadata.preconditions import check_preconditions
from callfs.model import Inode, Placement, Principal

DIGEST_ALGORITHMS = frozenset({"md5", "sha1", "sha256", "sha512"})
"""What a client may announce, as ``hashlib`` calls it."""


async def check_create(ports: Ports, principal: Principal, path: str, upload: Upload) -> None:
    """
    Decide, before the body, whether a file may be created.

    :raises callfs.errors.CallFSError: what :class:`callfs.metadata.commands.CreateFile` and the upload's limits
        would be refused with.
    """
    existing, deepest = await _surroundings(ports, path)
    if existing is not None:
        raise already_there(existing)
    _check_parent(principal, deepest)
    check_preconditions(None, upload.preconditions)
    check_upload(ports, upload)


async def check_put(ports: Ports, principal: Principal, path: str, upload: Upload) -> Inode | None:
    """
    Decide, before the body, whether a file may be created or replaced.

    :return: the file that would be replaced.
    :raises callfs.errors.CallFSError: what :class:`callfs.metadata.commands.PutFile` and the upload's limits
        would be refused with.
    """
    existing, deepest = await _surroundings(ports, path)
    if existing is None:
        _check_parent(principal, deepest)
    elif existing.is_directory:
        raise NotAFile(f"{path} is a directory")
    elif not may_write(principal, existing):
        raise PermissionDenied(f"{path} may not be written by {principal.user}")
    check_preconditions(existing, upload.preconditions)
    check_upload(ports, upload)
    return existing


def check_upload(ports: Ports, upload: Upload) -> None:
    """
    Check what an upload says of itself.

    :raises callfs.errors.BadRequest: the backend isn't there, or a digest can't be verified here.
    :raises callfs.errors.PayloadTooLarge: it announces more than is allowed.
    """
    if upload.backend is not None:
        ports.known_backend(upload.backend)
    if upload.declared_size is not None and upload.declared_size > upload.max_size:
        raise too_large(upload)
    for digest in upload.digests:
        if digest.algorithm not in DIGEST_ALGORITHMS:
            raise BadRequest(f"digests by {digest.algorithm!r} can't be verified here")


def too_large(upload: Upload) -> PayloadTooLarge:
    """The refusal of a body that is over the limit."""
    return PayloadTooLarge(f"the body is longer than the {upload.max_size} bytes that are allowed")


def new_file_placement(ports: Ports, upload: Upload) -> Placement:
    """
    Where the bytes of a new file go.

    :raises callfs.errors.BadRequest: this node has no such backend.
    """
    backend = ports.known_backend(upload.backend or ports.settings.default_backend)
    return placement_for(backend, ports.settings.instance_id)


def placement_of_content(ports: Ports, existing: Inode | None, upload: Upload) -> Placement:
    """
    Where the bytes go: what is replaced stays where it is, on whichever node.

    :raises callfs.errors.PeerUnavailable: it is in a backend that this node doesn't have.
    """
    if existing is None or existing.blob is None:
        return new_file_placement(ports, upload)
    placement = existing.blob.placement
    if not is_reachable(placement, ports.settings.instance_id, ports.backends):
        raise PeerUnavailable(f"this node has no access to the backend that holds {existing.path}")
    return placement


async def _surroundings(ports: Ports, path: str) -> tuple[Inode | None, Inode]:
    """What is at ``path``, and the deepest of it and its ancestors that exists."""
    deepest = (await ports.metadata.get_chain(path))[-1]
    return (deepest if deepest.path == path else None), deepest


def _check_parent(principal: Principal, deepest: Inode) -> None:
    if not deepest.is_directory:
        raise ParentNotADirectory(f"{deepest.path} is a file, so nothing can be below it")
    if not may_add_child(principal, deepest):
        raise PermissionDenied(f"nothing may be put into {deepest.path} by {principal.user}")
