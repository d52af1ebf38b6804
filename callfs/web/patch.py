"""
What a PATCH asks for: its JSON body, checked and put into words of the engine.
"""

from __future__ import annotations

import re

import msgspec
from msgspec import UNSET, UnsetType

from callfs import access, paths
from callfs.engine.filesystem import MoveRequest
from callfs.errors import BadRequest, NotADirectory, PermissionDenied
from callfs.metadata.commands import AttributeChanges
from callfs.model import Inode, Preconditions, Principal
from callfs.web.placements import Placements
from callfs.web.representations import storable_content_type
from callfs.web.timestamps import parse_rfc3339

_MODE = re.compile(r"[0-7]{3,4}")
_USER = re.compile(r"[A-Za-z0-9._@-]{1,64}")


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON body of a PATCH."""

    name: str | UnsetType = UNSET
    destination: str | UnsetType = UNSET
    backend: str | UnsetType = UNSET
    instance: str | UnsetType = UNSET
    overwrite: bool | UnsetType = UNSET
    create_parents: bool | UnsetType = UNSET
    mode: str | UnsetType = UNSET
    mtime: str | UnsetType = UNSET
    content_type: str | UnsetType = UNSET
    owner: str | UnsetType = UNSET


def move_request(
    change: Change,
    source: Inode,
    principal: Principal,
    placements: Placements,
    *,
    overwrite: bool,
    directory_expected: bool,
    preconditions: Preconditions,
) -> MoveRequest:
    """
    What the engine is to do.

    :param source: what is at the path now.
    :param overwrite: what the query says.
    :raises BadRequest: the change can't be understood, or changes nothing.
    :raises callfs.errors.InvalidPath: a bad name or destination.
    :raises NotADirectory: the destination of a file ends in a slash.
    :raises PermissionDenied: ``owner`` by somebody who is no administrator.
    """
    destination = _destination(change, source)
    attributes = _attributes(change, principal)
    instance = None if change.instance is UNSET else change.instance
    backend = None if change.backend is UNSET else placements.of_relocation(change.backend, instance)
    relocates = backend is not None or instance is not None
    if destination == source.path and not relocates and not (attributes.any() and change.destination is UNSET):
        raise BadRequest("there is nothing to change: the file is there already, and nothing else is asked for")
    return MoveRequest(
        source=source.path,
        destination=destination,
        overwrite=overwrite or change.overwrite is True,
        create_parents=change.create_parents is True,
        directory_expected=directory_expected,
        attributes=attributes,
        preconditions=preconditions,
        backend=backend,
        instance=instance,
    )


def _destination(change: Change, source: Inode) -> str:
    if change.name is not UNSET and change.destination is not UNSET:
        raise BadRequest("give either name or destination, not both")
    if change.name is not UNSET:
        return paths.join(paths.parent(source.path), paths.valid_name(change.name))
    if change.destination is UNSET:
        return source.path
    destination = paths.canonical(change.destination)
    if not change.destination.startswith("/"):
        raise BadRequest("destination must be an absolute path, beginning with a slash")
    if destination == paths.ROOT:
        raise BadRequest("the root can't be the destination of a move")
    if paths.says_directory(change.destination) and not source.is_directory:
        raise NotADirectory("the destination ends like a directory, but the source is a file")
    return destination


def _attributes(change: Change, principal: Principal) -> AttributeChanges:
    return AttributeChanges(
        mode=None if change.mode is UNSET else _mode(change.mode),
        mtime=None if change.mtime is UNSET else _mtime(change.mtime),
        content_type=None if change.content_type is UNSET else _content_type(change.content_type),
        owner=None if change.owner is UNSET else _owner(change.owner, principal),
    )


def _mode(text: str) -> int:
    if _MODE.fullmatch(text) is None:
        raise BadRequest('mode must be three or four octal digits in a text, for example "0644"')
    return int(text, 8)


def _mtime(text: str) -> int:
    instant = parse_rfc3339(text)
    if instant is None:
        raise BadRequest('mtime must be an RFC 3339 date and time, for example "2026-01-31T08:15:00Z"')
    return instant


def _content_type(text: str) -> str:
    media_type = storable_content_type(text)
    if media_type is None:
        raise BadRequest('content_type must be a media type, for example "text/plain; charset=utf-8"')
    return media_type


def _owner(user: str, principal: Principal) -> str:
    if not access.may_change_owner(principal):
        raise PermissionDenied("only an administrator may change the owner")
    if _USER.fullmatch(user) is None:
        raise BadRequest("owner must be a user id: up to 64 letters, digits, and . _ @ -")
    return user
