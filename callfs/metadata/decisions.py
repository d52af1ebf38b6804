"""
What each command means: facts in, a decision or the documented refusal out.

Commands that only tend queues (purge, drop, condemn, postpone), and the one that clears an import away, refuse
nothing and have no entry here: a store does each in a few statements over sets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from callfs import access
from callfs.errors import Conflict, FileNotFound, LinkExpired, LinkNotFound, LinkUsed, NotAFile, PermissionDenied
from callfs.metadata.commands import (
    Command,
    ConsumeLink,
    CreateDirectory,
    CreateFile,
    ForgetInstance,
    IssueLink,
    Move,
    Purged,
    PutFile,
    RegisterInstance,
    Relocate,
    Remove,
)
from callfs.metadata.creation import create_directory, create_file, put_file
from callfs.metadata.facts import AddLink, Decision, Facts, ForgetNode, PutInstance, UseLink
from callfs.metadata.importing import (
    BeginImport,
    FinishImport,
    ImportRecords,
    begin_import,
    finish_import,
    import_records,
)
from callfs.metadata.places import existing_inode
from callfs.metadata.relocation import relocate
from callfs.metadata.removal import remove
from callfs.metadata.renaming import move
from callfs.model import Instance, Link


def issue_link(command: IssueLink, facts: Facts) -> Decision:
    """Decide :class:`callfs.metadata.commands.IssueLink`."""
    inode, _ = existing_inode(facts, command.path)
    if inode.id != command.inode_id:
        raise FileNotFound(f"{command.path} is another file by now")
    if inode.is_directory:
        raise NotAFile(f"{command.path} is a directory: only a file can have a link")
    if not access.may_read(command.principal, inode):
        raise PermissionDenied(f"{command.path} belongs to another user")
    if facts.link(command.token_hash) is not None:
        raise Conflict("this link exists already")
    link = Link(
        token_hash=command.token_hash,
        inode_id=inode.id,
        created_by=command.principal.user,
        created_at=command.at,
        expires_at=command.expires_at,
    )
    return Decision(link, (AddLink(link),))


def consume_link(command: ConsumeLink, facts: Facts) -> Decision:
    """Decide :class:`callfs.metadata.commands.ConsumeLink`; a link goes with its file, so it has one."""
    link = facts.link(command.token_hash)
    if link is None:
        raise LinkNotFound("no such link, or its file is gone")
    if command.at >= link.expires_at:
        raise LinkExpired("the link's time is over")
    if link.used_at is not None:
        raise LinkUsed("the link has been used")
    used = msgspec.structs.replace(link, used_at=command.at)
    return Decision(used, (UseLink(link.token_hash, command.at),))


def register_instance(command: RegisterInstance, facts: Facts) -> Decision:
    """
    Decide :class:`callfs.metadata.commands.RegisterInstance`.

    A node that comes without a local backend doesn't make its root folder forgotten: files may still be there.
    """
    if facts.unfinished_import() is not None:
        raise Conflict("an import into the metadata store isn't finished: finish it, or use another store")
    known = facts.instance(command.instance_id)
    root_id = command.root_id
    if known is not None and known.root_id is not None and not command.replace_root:
        if root_id is not None and root_id != known.root_id:
            raise Conflict(f"the instance {command.instance_id} is registered with another root folder")
        root_id = known.root_id
    return Decision(None, (PutInstance(Instance(command.instance_id, root_id, command.api_endpoint, command.at)),))


def forget_instance(command: ForgetInstance, facts: Facts) -> Decision:
    """Decide :class:`callfs.metadata.commands.ForgetInstance`."""
    held = facts.holdings(command.instance_id)
    if held.copies:
        raise Conflict(f"files have copies on {command.instance_id} still: drain it first")
    if held.replications:
        raise Conflict(f"copies are still to be made by {command.instance_id} or for it: drain it first")
    return Decision(Purged(held.garbage), (ForgetNode(command.instance_id),))


DECISIONS: Mapping[type[Command[Any]], Callable[[Any, Facts], Decision]] = MappingProxyType(
    {
        CreateFile: create_file,
        PutFile: put_file,
        CreateDirectory: create_directory,
        Remove: remove,
        Move: move,
        Relocate: relocate,
        IssueLink: issue_link,
        ConsumeLink: consume_link,
        RegisterInstance: register_instance,
        ForgetInstance: forget_instance,
        BeginImport: begin_import,
        ImportRecords: import_records,
        FinishImport: finish_import,
    }
)
