"""
What is left to do when the majority of a cluster is lost for ever: one surviving node begins a new one.

Raft itself has no way out of this, because it can't tell lost nodes from unreachable ones; an operator can. The
survivor's log gets one more entry, a membership with this node alone, under an id that no cluster had before, from
a disk that none knows. All entries before it count as committed: what a majority had acknowledged and this node has
is kept, and what nobody knows the fate of becomes true. The state stays the store that it was.

Nodes of the old cluster are strangers to the new one, and the other way round: the handshake refuses them by the
cluster's id, so none of them can vote, lead, or overwrite anything here before its folder was emptied and it
joined.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from callfs.cluster.logfile import FILE_NAME, DiskIdentity, LogFile, LogUnusable, StoredLog
from callfs.identifiers import TokenBytes, new_store_id
from callfs.raft.boundary import HardState, Saved, SnapshotMeta, Write, with_state
from callfs.raft.membership import Member, Membership, decoded, encoded
from callfs.raft.messages import Entry, EntryKind


class NothingToRecover(Exception):
    """This node can't, or needn't, begin a cluster; the message is for the operator. Nothing was changed."""


@dataclass(frozen=True, kw_only=True)
class Survivor:
    """
    What a stopped node has of its cluster.

    :param membership: the newest that its log or state has.
    :param last_index: of the newest entry.
    :param committed: the node knew that entries up to here were committed.
    :param log_lost: there was no log, only the state, which may lack what was acknowledged last.
    :param outdated: the log ended before the state and is of no use; the state is what counts.
    :param belongs: the node is a voter of that membership, from this disk.
    """

    node_id: str
    membership: Membership
    last_index: int
    last_term: int
    committed: int
    log_lost: bool
    outdated: bool
    belongs: bool

    @property
    def others(self) -> tuple[Member, ...]:
        """The members besides this node."""
        return tuple(member for member in self.membership.members if member.node_id != self.node_id)


class Recovery:
    """
    Begins a new cluster out of a stopped node; everything here blocks.

    :param folder: ``raft.data_dir``.
    :param state: what the node's state contains; the caller keeps the state from being used meanwhile.
    :param token_bytes: makes the new ids.
    """

    def __init__(self, folder: Path, node_id: str, state: SnapshotMeta, token_bytes: TokenBytes) -> None:
        self._folder = folder
        self._node_id = node_id
        self._state = state
        self._token_bytes = token_bytes

    def examine(self) -> Survivor:
        """
        What there is to go on with. Nothing is changed.

        :raises NothingToRecover: the node belongs to no cluster, or is its only voter anyway.
        :raises callfs.cluster.logfile.LogUnusable: the daemon is running, or the log is damaged.
        """
        if not (self._folder / FILE_NAME).exists():
            return self._survivor(None, self._started_from(Saved()))
        log = LogFile(self._folder, self._node_id)
        stored = log.open(self._token_bytes)
        log.close()
        return self._survivor(stored, self._started_from(stored.saved))

    def carry_out(
        self, *, raft_address: str, api_endpoint: str, version: int, reached: Callable[[str], None] = lambda _: None
    ) -> Membership:
        """
        Make this node the only voter of a new cluster, in one durable transaction.

        :param raft_address: where this node's peers will reach it.
        :param api_endpoint: the base URL of its API.
        :param version: the newest kind of command that its state machine knows.
        :param reached: called before and after the commit, with the name of the step.
        :return: the new membership.
        :raises NothingToRecover: see :meth:`examine`.
        :raises callfs.cluster.logfile.LogUnusable: the daemon is running, or the log is damaged or can't be
            written.
        """
        survivor = self.examine()
        log = LogFile(self._folder, self._node_id)
        stored = log.open(self._token_bytes)
        try:
            disk_id, cluster_id = (new_store_id(self._token_bytes) for _ in range(2))
            member = Member(self._node_id, disk_id, raft_address, api_endpoint, True, version)
            membership = Membership(cluster_id, (member,))
            write = _last_write(survivor, self._started_from(stored.saved), membership)
            connection = log.connection
            connection.execute("BEGIN IMMEDIATE")
            log.put_fact("identity", DiskIdentity(self._node_id, disk_id))
            log.put_fact("cluster", cluster_id)
            log.carry_out(write)
            reached("recovery.before_commit")
            connection.execute("COMMIT")
            reached("recovery.after_commit")
        except sqlite3.Error as error:
            raise LogUnusable(
                f"can't write to the raft log in {self._folder}: {error}; nothing was changed"
            ) from error
        finally:
            log.close()
        return membership

    def _started_from(self, saved: Saved) -> Saved:
        """What the node would start from, as the driver has it."""
        try:
            return with_state(saved, self._state)
        except ValueError as error:
            raise NothingToRecover(
                f"the state of this node is older than its log ({error}), so entries are missing for ever: recover "
                "from another node, or restore the state from a copy that is newer"
            ) from error

    def _survivor(self, stored: StoredLog | None, saved: Saved) -> Survivor:
        last = saved.entries[-1] if saved.entries else None
        membership = _newest_membership(saved)
        if not membership.cluster_id:
            raise NothingToRecover("this node never belonged to a cluster: there is nothing to recover")
        own = membership.get(self._node_id)
        disk_id = None if stored is None else stored.identity.disk_id
        belongs = own is not None and own.voter and own.disk_id == disk_id
        if belongs and membership.voters == (self._node_id,):
            raise NothingToRecover(
                f"node {self._node_id} is the only voter of its cluster already: it needs no other, just start it"
            )
        return Survivor(
            node_id=self._node_id,
            membership=membership,
            last_index=saved.point.index if last is None else last.index,
            last_term=saved.point.term if last is None else last.term,
            committed=max(saved.hard_state.commit, saved.applied),
            log_lost=stored is None,
            outdated=stored is not None and saved.log_is_stale,
            belongs=belongs,
        )


def _newest_membership(saved: Saved) -> Membership:
    for entry in reversed(saved.entries):
        if entry.kind is EntryKind.MEMBERSHIP:
            try:
                return decoded(entry.data)
            except (msgspec.DecodeError, msgspec.ValidationError) as error:
                raise NothingToRecover(f"entry {entry.index} of the log holds no membership: {error}") from error
    return saved.point.membership


def _last_write(survivor: Survivor, saved: Saved, membership: Membership) -> Write:
    """The entry that makes all before it committed; in a term that no node of the old cluster has seen here."""
    index, term = survivor.last_index + 1, max(saved.hard_state.term, survivor.last_term) + 1
    return Write(
        number=0,
        discard_log=saved.log_is_stale,
        point=saved.point if saved.log_is_stale else None,
        entries=(Entry(index, term, EntryKind.MEMBERSHIP, encoded(membership)),),
        hard_state=HardState(term, None, index),
    )
