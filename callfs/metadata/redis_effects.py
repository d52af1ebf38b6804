"""What a decision orders, as the words that ``effects.lua`` reads; and the commands that only tend queues."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from callfs.metadata.commands import (
    Command,
    Condemn,
    Condemned,
    DropGarbage,
    ForgetCondemned,
    PostponeReplication,
    Purged,
    PurgeLinks,
)
from callfs.metadata.facts import (
    AddCondemned,
    AddGarbage,
    AddInode,
    AddLink,
    ChangeInode,
    Effect,
    ForgetNode,
    MarkImport,
    MoveTree,
    PutInstance,
    QueueReplication,
    RemoveInode,
    RemoveTree,
    ReplaceBlob,
    ReplaceCopies,
    ReplaceRoot,
    Retention,
    TakeIdentity,
    TouchDirectory,
    UseLink,
)
from callfs.metadata.importing import ClearImport
from callfs.metadata.redis_records import (
    blob_record,
    garbage_number,
    inode_head,
    inode_record,
    instance_record,
    link_record,
    packed_instant,
    packed_instants,
    place_text,
    replication_record,
    unframed,
)
from callfs.model import LocalPlacement

Words = tuple[str | bytes | int, ...]


def words_of(effect: Effect) -> Words:
    """An effect's name and arguments."""
    return _WORDS[type(effect)](effect)


def _retained(retention: Retention) -> tuple[int, int]:
    return retention.local_at, retention.elsewhere_at


def _add_inode(effect: AddInode) -> Words:
    return "add", effect.inode.id, effect.inode.path, inode_record(effect.inode)


def _change_inode(effect: ChangeInode | ReplaceRoot) -> Words:
    return "change", effect.inode.id, effect.inode.path, inode_head(effect.inode)


def _touch_directory(effect: TouchDirectory) -> Words:
    return "touch", effect.directory_id, packed_instants(effect.at, effect.at)


def _replace_blob(effect: ReplaceBlob) -> Words:
    return "replace", effect.inode_id, blob_record(effect.blob), *_retained(effect.retention)


def _replace_copies(effect: ReplaceCopies) -> Words:
    return "copies", effect.inode_id, blob_record(effect.blob)


def _queue_replication(effect: QueueReplication) -> Words:
    entry = effect.replication
    return "queue", entry.blob_id, entry.due_at, replication_record(entry)


def _remove_inode(effect: RemoveInode) -> Words:
    return "remove", effect.inode.id, effect.inode.path, *_retained(effect.retention)


def _remove_tree(effect: RemoveTree) -> Words:
    return "remove_tree", effect.directory, *_retained(effect.retention)


def _move_tree(effect: MoveTree) -> Words:
    return "move_tree", effect.source, effect.destination


def _add_link(effect: AddLink) -> Words:
    link = effect.link
    return "add_link", link.token_hash, link.inode_id, link_record(link), link.expires_at


def _use_link(effect: UseLink) -> Words:
    return "use_link", effect.token_hash, effect.at, packed_instant(effect.at)


def _put_instance(effect: PutInstance) -> Words:
    return "instance", effect.instance.id, instance_record(effect.instance)


def _forget_node(effect: ForgetNode) -> Words:
    return "forget_node", effect.instance_id, place_text(LocalPlacement(effect.instance_id))


def _add_garbage(effect: AddGarbage) -> Words:
    blob = effect.blob
    return "add_garbage", blob.id, place_text(blob.placement), effect.not_before_at, blob.size, blob.sha256


def _add_condemned(effect: AddCondemned) -> Words:
    return "add_condemned", effect.blob_id, effect.condemned_at


_WORDS: Mapping[type[Effect], Callable[[Any], Words]] = MappingProxyType(
    {
        AddInode: _add_inode,
        ChangeInode: _change_inode,
        TouchDirectory: _touch_directory,
        ReplaceBlob: _replace_blob,
        ReplaceCopies: _replace_copies,
        QueueReplication: _queue_replication,
        RemoveInode: _remove_inode,
        RemoveTree: _remove_tree,
        MoveTree: _move_tree,
        AddLink: _add_link,
        UseLink: _use_link,
        PutInstance: _put_instance,
        ForgetNode: _forget_node,
        ReplaceRoot: _change_inode,
        AddGarbage: _add_garbage,
        AddCondemned: _add_condemned,
        MarkImport: lambda effect: ("mark_import", effect.import_id),
        TakeIdentity: lambda effect: ("take_identity", effect.store_id),
    }
)


def sweep_words(command: Command[Any]) -> Words | None:
    """The one effect of a command that only tends a queue; ``None`` for all others."""
    match command:
        case PurgeLinks():
            return "purge_links", command.expired_before_at, command.used_before_at, command.limit
        case DropGarbage():
            return "drop_garbage", len(command.ids), *map(garbage_number, command.ids)
        case Condemn():
            blob_ids = tuple(dict.fromkeys(command.blob_ids))
            return "condemn", command.at, len(blob_ids), *blob_ids
        case ForgetCondemned():
            return "forget_condemned", command.before_at
        case PostponeReplication():
            return "postpone", command.blob_id, command.due_at, packed_instant(command.due_at), command.by or ""
        case ClearImport():
            return "clear_import", command.import_id, command.limit
    return None


def sweep_result(command: Command[Any], results: Sequence[bytes]) -> Purged | Condemned:
    """What such a command returns, from what its effect replied."""
    if isinstance(command, Condemn):
        return Condemned(tuple(blob_id.decode() for blob_id in unframed(results[0])))
    return Purged(int(results[0]))
