"""
Whether a metadata store and a root folder belong together; decided before either is used.

A store that is empty, restored, or of another installation must never judge the bytes in a folder, and a folder
that isn't the one the store knows (its disk isn't mounted, was wiped, was swapped) must not be taken for it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

VERSION = 1


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a root folder says of itself.

    :param store_id: the metadata store that it belongs to, 32 hex digits.
    :param root_id: its own random identity, 32 hex digits.
    :param version: of the folder's layout.
    """

    store_id: str
    root_id: str
    version: int


class UnreadableIdentity(Exception):
    """The identity can't be understood; the message is for the operator."""


def parse_identity(data: bytes) -> Identity:
    """
    Read an identity file's content.

    :raises UnreadableIdentity: no identity, or one of a newer version.
    """
    try:
        identity = msgspec.json.decode(data, type=Identity)
    except msgspec.DecodeError as error:
        raise UnreadableIdentity(f"is damaged ({error}); restore it from a backup") from error
    if identity.version != VERSION:
        raise UnreadableIdentity(f"has layout version {identity.version}; this program knows {VERSION}: update it")
    return identity


def format_identity(identity: Identity) -> bytes:
    """The identity file's content: JSON with a line end, for operators who look."""
    return msgspec.json.format(msgspec.json.encode(identity)) + b"\n"


class Verdict(enum.Enum):
    """What to do with a root folder."""

    ADOPT = "adopt"
    ACCEPT = "accept"
    REFUSE = "refuse"


class Decision(msgspec.Struct, frozen=True):
    """
    What to do, and, when it is refused, the message for the operator: what is wrong and what to do.
    """

    verdict: Verdict
    message: str = ""


_RESTORE = (
    "Restore the metadata store from its backup, or point the configuration at the right one; "
    "start with another, empty folder if a new store is meant."
)
_WRONG_DISK = (
    "Mount the disk, or correct backend.localfs_root_path. If the disk is lost and was really replaced, "
    "run 'callfs fsck --adopt-root': the files that it held are then reported as lost."
)


def recognise(
    *,
    store_was_empty: bool,
    store_id: str,
    instance_id: str,
    registered: Mapping[str, str | None],
    identity: Identity | None,
    root_has_blobs: bool,
) -> Decision:
    """
    Judge whether this store may use this root folder.

    :param store_was_empty: the store was just made, or holds nothing but the root directory.
    :param instance_id: this node.
    :param registered: the nodes that the store knows, each with the identity of its root folder.
    :param identity: what the folder says; ``None``: nothing.
    :param root_has_blobs: whether there are bytes of files in the folder, set aside ones included.
    """
    registered_root_id = registered.get(instance_id)
    if identity is None:
        return _recognise_unmarked(registered_root_id, root_has_blobs)
    if identity.store_id != store_id:
        return _foreign(store_was_empty, store_id, identity)
    if registered_root_id not in (None, identity.root_id):
        return _refuse(
            f"The metadata store knows this node with the root folder {registered_root_id}, "
            f"but this is {identity.root_id}. {_WRONG_DISK}"
        )
    others = [name for name, root_id in registered.items() if root_id == identity.root_id and name != instance_id]
    if others:
        return _refuse(
            f"The root folder is that of the node {others[0]}, but this one is called {instance_id}: its files "
            f"would be looked for at a node that is gone. Set instance_discovery.instance_id to {others[0]}."
        )
    return Decision(Verdict.ACCEPT)


def _recognise_unmarked(registered_root_id: str | None, root_has_blobs: bool) -> Decision:
    """A folder without identity is new, unless somebody knows better."""
    if root_has_blobs:
        return _refuse(
            "The root folder holds blobs, but its identity.json is missing, so nobody can tell which metadata "
            "store they belong to. Restore identity.json from a backup, or choose an empty folder."
        )
    if registered_root_id is not None:
        return _refuse(
            f"The metadata store knows this node with the root folder {registered_root_id}, "
            f"but this folder is new and empty. {_WRONG_DISK}"
        )
    return Decision(Verdict.ADOPT)


def _foreign(store_was_empty: bool, store_id: str, identity: Identity) -> Decision:
    which = "a new, empty metadata store" if store_was_empty else "another metadata store"
    return _refuse(
        f"The root folder belongs to the metadata store {identity.store_id}, but the configured one is {which}, "
        f"{store_id}. {_RESTORE}"
    )


def _refuse(message: str) -> Decision:
    return Decision(Verdict.REFUSE, message)
