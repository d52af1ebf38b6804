"""
The one connection that changes a node's copy of the replicated state.

::

            ┌────────────── prepare ──────────────┐
            │                                     ▼
    as applied ◄─── anything but these steps ── prepared: a transaction that is open, and that nobody sees
            ▲                                     │
            └────── apply: these steps, COMMIT ───┘

What steps come to follows from the state before them and from nothing else. So they can be carried out while the
log is still on its way to the disks of a majority, and their outcomes are known when it has got there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from callfs.cluster.interfaces import Outcome, SnapshotMeta, Step
from callfs.metadata.replicated_apply import METADATA, Execution, Halted, StatePart, follows_from_state
from callfs.metadata.replicated_file import record, recorded, store_id_of
from callfs.metadata.replicated_sessions import NEW_CLIENT, Sessions
from callfs.metadata.sqlite_errors import is_full

_RESTART_AFTER_FRAMES = 16_384
_RESTART_BUSY_MILLISECONDS = 100
_TIDY_AFTER = 8000
"""Pages in the write-ahead log, about: one an entry, and some more a commit."""
_WORTH_OF_A_COMMIT = 7


class _Prepared(NamedTuple):
    """Steps that were carried out in the transaction that is open, and what the state is with them."""

    steps: Sequence[Step]
    outcomes: list[Outcome]
    meta: SnapshotMeta
    log_at: int


class StateWriter:
    """
    Applies steps, for one thread at a time.

    :param connection: of the state alone; closed by :meth:`close`.
    :param busy_seconds: how long the connection waits where another is in its way.
    :param parts: what else is replicated than metadata, by the first byte of its commands.
    :param failed: told of a fault of the program, in an ``except`` clause.
    :param reached: called at the named steps: ``metadata.prepared``, ``metadata.before_commit``,
        ``metadata.after_commit``.
    :raises callfs.cluster.interfaces.StateUnusable: the state doesn't say how far it goes.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        busy_seconds: float,
        parts: Mapping[bytes, StatePart],
        failed: Callable[[], None],
        reached: Callable[[str], None],
    ) -> None:
        connection.execute("PRAGMA synchronous = NORMAL")
        self._connection = connection
        self._busy_seconds = busy_seconds
        self._parts = parts
        self._failed = failed
        self._reached = reached
        self._prepared: _Prepared | None = None
        self._untidied = 0
        self.meta = recorded(connection)
        """What is committed."""
        self._log_at = connection.execute("SELECT log_at FROM raft_state").fetchall()[0][0]
        for part in parts.values():
            part.replaced(connection)

    def close(self) -> None:
        """Let go of the connection; what was only prepared never happened."""
        self._prepared = None
        self._connection.close()

    def prepare(self, steps: Sequence[Step]) -> Sequence[Outcome] | None:
        """
        Carry out steps that are likely to come next, unseen.

        :return: what they come to; ``None`` where that isn't to be known before they are applied.
        """
        try:
            self.take_back()
            if steps[0].index != self.meta.index + 1 or not are_metadata(steps) or self._untidied >= _TIDY_AFTER:
                return None
            self._prepared = self._carried_out(steps, one_by_one=False)
        except Exception:
            # What it was is met again, and told, where the steps are applied; they may never be.
            return None
        self._reached("metadata.prepared")
        return self._prepared.outcomes

    def take_back(self) -> None:
        """What was prepared doesn't come: before anything else is done with the connection."""
        self._prepared = None
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def apply(self, steps: Sequence[Step]) -> list[Outcome]:
        """
        Apply steps, all or none.

        :raises Halted: they aren't the next, or this program doesn't know one of them.
        :raises sqlite3.Error: the disk failed, or is full; nothing was applied.
        """
        prepared = self._prepared
        if prepared is not None and prepared.steps == steps:
            self._prepared = None
            self._commit(prepared)
            outcomes = prepared.outcomes
        else:
            self.take_back()
            if self._untidied >= _TIDY_AFTER:
                self.tidy()
            outcomes = self._applied(steps)
        self._untidied += len(steps) + _WORTH_OF_A_COMMIT
        if self._untidied >= _TIDY_AFTER:
            self.tidy()
        return outcomes

    def _applied(self, steps: Sequence[Step]) -> list[Outcome]:
        try:
            carried_out = self._carried_out(steps, one_by_one=False)
        except Exception as error:
            if not follows_from_state(error):
                raise
            # One command is to blame, and is to have no effect; the others are to have theirs.
            carried_out = self._carried_out(steps, one_by_one=True)
        self._commit(carried_out)
        return carried_out.outcomes

    def _carried_out(self, steps: Sequence[Step], one_by_one: bool) -> _Prepared:
        """In a transaction that is left open; there is none when this raises."""
        connection = self._connection
        for part in self._parts.values():
            part.begun()
        connection.execute("BEGIN IMMEDIATE")
        sessions = Sessions(connection, self._log_at)
        execution = Execution(connection, self._parts, self._failed, one_by_one)
        try:
            meta = self._advanced(steps)
            execution.expect(steps)
            outcomes = [execution.outcome(sessions, step) for step in steps]
            execution.settle()
            sessions.store()
            record(connection, meta, sessions.log_at)
        except BaseException as error:
            self._roll_back(error)
            raise
        return _Prepared(steps, outcomes, meta, sessions.log_at)

    def _commit(self, carried_out: _Prepared) -> None:
        """No constraint of the schema is put off to here, so this fails by the disk alone."""
        self._reached("metadata.before_commit")
        try:
            self._connection.execute("COMMIT")
        except BaseException as error:
            self._roll_back(error)
            raise
        self.meta, self._log_at = carried_out.meta, carried_out.log_at
        self._reached("metadata.after_commit")

    def _roll_back(self, error: BaseException) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        if isinstance(error, sqlite3.Error) and no_room(error):
            # Much of what fills the disk may be the write-ahead log: what room comes is used to empty it first.
            self._untidied = _TIDY_AFTER

    def _advanced(self, steps: Sequence[Step]) -> SnapshotMeta:
        """How far the state goes after these steps."""
        membership = self.meta.membership
        for expected, step in enumerate(steps, self.meta.index + 1):
            if step.index != expected:
                raise Halted(f"entry {step.index} of the log came after {expected - 1}")
            if step.membership is not None:
                if not membership.cluster_id:
                    # One cluster, one store: its identity is the same on all nodes.
                    identity = store_id_of(step.membership.cluster_id)
                    self._connection.execute("UPDATE store SET id = ?", (identity,))
                membership = step.membership
        return SnapshotMeta(steps[-1].index, steps[-1].term, membership)

    def checkpoint(self) -> int:
        """
        Make everything durable: a commit that is synchronised makes all frames before its own durable as well.

        :return: the index up to which it is.
        """
        self.take_back()
        connection = self._connection
        connection.execute("PRAGMA synchronous = FULL")
        try:
            connection.execute("UPDATE raft_state SET settled = settled + 1")
        finally:
            connection.execute("PRAGMA synchronous = NORMAL")
        self.tidy()
        return self.meta.index

    def tidy(self) -> None:
        """Bring what is in the write-ahead log into the database, so that the former doesn't grow."""
        connection = self._connection
        self._untidied = 0
        try:
            frames = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()[0][1]
            if frames > _RESTART_AFTER_FRAMES:
                # Waits for long reads, while nothing is applied: not for long.
                connection.execute(f"PRAGMA busy_timeout = {_RESTART_BUSY_MILLISECONDS}")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                connection.execute(f"PRAGMA busy_timeout = {int(self._busy_seconds * 1000)}")
        except sqlite3.Error as error:
            if not no_room(error):  # without room it stays where it is, and is as durable there
                raise


def are_metadata(steps: Iterable[Step]) -> bool:
    """Whether they are commands about metadata and nothing else: of no part of the state, and of known clients."""
    return all(
        step.request is not None and step.request.client != NEW_CLIENT and step.request.command[:1] == METADATA
        for step in steps
    )


def no_room(error: sqlite3.Error) -> bool:
    """Whether the disk is full; growing the index of the write-ahead log fails with a code of its own then."""
    return is_full(error) or getattr(error, "sqlite_errorcode", -1) == sqlite3.SQLITE_IOERR_SHMSIZE
