"""
Filling an empty store with the records of another one, in steps that are each applied like any other command.

From :class:`BeginImport` to :class:`FinishImport` the store says that an import isn't finished, and no daemon opens
it or registers with it. The last step gives it the identity of the store that the records came from and ends that.
"""

from __future__ import annotations

from collections.abc import Iterator

from callfs.errors import BadRequest, Conflict
from callfs.metadata.commands import Command, Purged
from callfs.metadata.facts import (
    AddCondemned,
    AddGarbage,
    AddInode,
    AddLink,
    Decision,
    Effect,
    Facts,
    MarkImport,
    PutInstance,
    QueueReplication,
    ReplaceRoot,
    TakeIdentity,
    UseLink,
)
from callfs.metadata.transfer import (
    CondemnedRecord,
    GarbageRecord,
    InodeRecord,
    InstanceRecord,
    LinkRecord,
    Record,
    ReplicationRecord,
)
from callfs.model import ROOT_INODE_ID

MOST_RECORDS = 1000
"""How many records one :class:`ImportRecords` may have, so that the step stays short."""


class BeginImport(Command[None], frozen=True, kw_only=True, tag="begin_import"):
    """
    Mark the store: an import has begun.

    :param import_id: random; the steps of this import name it.
    :param again: take over from an import that wasn't finished; what that one left is to be cleared next.
    :raises callfs.errors.Conflict: the store isn't empty, or there is an unfinished import and ``again`` is false.
    """

    import_id: str
    again: bool = False


class ImportRecords(Command[None], frozen=True, kw_only=True, tag="import_records"):
    """
    Add records: inodes after the directory that they are in, links and what is to be copied after their files.

    :param records: at most :data:`MOST_RECORDS`.
    :raises callfs.errors.Conflict: this import isn't the one under way.
    :raises callfs.errors.BadRequest: too many at once.
    """

    import_id: str
    records: tuple[Record, ...]


class ClearImport(Command[Purged], frozen=True, kw_only=True, tag="clear_import"):
    """
    Remove part of what an unfinished import has brought in.

    Unless this import is the one under way nothing is removed.

    :param limit: at most about so many entries at once, so that the step stays short.
    :return: how many went; 0 when nothing is left but the root.
    """

    import_id: str
    limit: int = MOST_RECORDS


class FinishImport(Command[None], frozen=True, kw_only=True, tag="finish_import"):
    """
    End the import: the store takes the identity of the one that the records came from, and may be used.

    :raises callfs.errors.Conflict: this import isn't the one under way.
    """

    import_id: str
    store_id: str


def begin_import(command: BeginImport, facts: Facts) -> Decision:
    """Decide :class:`BeginImport`."""
    under_way = facts.unfinished_import()
    if under_way is not None and not command.again:
        raise Conflict("an import into this store was begun and not finished")
    if under_way is None and not facts.is_empty():
        raise Conflict("the store isn't empty: only one that was never used can be imported into")
    return Decision(None, (MarkImport(command.import_id),))


def import_records(command: ImportRecords, facts: Facts) -> Decision:
    """Decide :class:`ImportRecords`."""
    _check_under_way(command.import_id, facts)
    if len(command.records) > MOST_RECORDS:
        raise BadRequest(f"more than {MOST_RECORDS} records at once")
    return Decision(None, tuple(effect for record in command.records for effect in _effects(record)))


def finish_import(command: FinishImport, facts: Facts) -> Decision:
    """Decide :class:`FinishImport`."""
    _check_under_way(command.import_id, facts)
    return Decision(None, (TakeIdentity(command.store_id),))


def _check_under_way(import_id: str, facts: Facts) -> None:
    if facts.unfinished_import() != import_id:
        raise Conflict("this import was ended, or another has taken over")


def _effects(record: Record) -> Iterator[Effect]:
    match record:
        case InodeRecord():
            inode = record.inode
            yield ReplaceRoot(inode) if inode.id == ROOT_INODE_ID else AddInode(inode)
        case LinkRecord():
            link = record.link
            yield AddLink(link)
            if link.used_at is not None:
                yield UseLink(link.token_hash, link.used_at)
        case GarbageRecord():
            yield AddGarbage(record.blob, record.not_before_at)
        case CondemnedRecord():
            yield AddCondemned(record.blob_id, record.condemned_at)
        case InstanceRecord():
            yield PutInstance(record.instance)
        case ReplicationRecord():
            yield QueueReplication(record.replication)
