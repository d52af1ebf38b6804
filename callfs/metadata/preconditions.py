"""Whether the conditions of a change hold (RFC 9110, section 13), decided on the state inside the transaction."""

from __future__ import annotations

from callfs.errors import PreconditionFailed
from callfs.model import Inode, Preconditions

_ANY = ("*",)
_SECOND = 1_000_000


def check_preconditions(inode: Inode | None, preconditions: Preconditions) -> None:
    """
    Check the conditions in the order of RFC 9110, section 13.2.2.

    :param inode: what is at the path now, ``None`` where nothing is.
    :raises callfs.errors.PreconditionFailed: one of them doesn't hold.
    """
    if preconditions.if_match is not None:
        if not _matches(inode, preconditions.if_match):
            raise PreconditionFailed("If-Match doesn't hold: the resource is missing or has another entity tag")
    elif _modified_since(inode, preconditions.if_unmodified_since):
        raise PreconditionFailed("If-Unmodified-Since doesn't hold: the resource has changed since then")
    if preconditions.if_none_match is not None and _matches_weakly(inode, preconditions.if_none_match):
        raise PreconditionFailed("If-None-Match doesn't hold: the resource exists with such an entity tag")


def _matches(inode: Inode | None, tags: tuple[str, ...]) -> bool:
    if inode is None:
        return False
    return tags == _ANY or (inode.etag is not None and inode.etag in tags)


def _matches_weakly(inode: Inode | None, tags: tuple[str, ...]) -> bool:
    return _matches(inode, tags if tags == _ANY else tuple(tag.removeprefix("W/") for tag in tags))


def _modified_since(inode: Inode | None, instant: int | None) -> bool:
    """A date in HTTP has whole seconds; where nothing is there is no date to compare (section 13.1.4)."""
    return inode is not None and instant is not None and inode.mtime // _SECOND > instant // _SECOND
