"""
The thread that makes a node's log durable.

All writes that came while one transaction was on its way to the disk go into the next one, with one fsync (group
commit). They are reported in their order. A commit that fails for any reason but a full disk is never tried again:
after a failed fsync nobody knows what is on the disk, and the next one may say that all is well.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads

from callfs.cluster.logfile import LogFile, LogUnusable, StoredLog, is_full
from callfs.identifiers import TokenBytes
from callfs.raft.boundary import Write

FULL_DISK_RETRY_SECONDS = 1.0

_CHECKPOINT_AFTER_BYTES = 4 * 1024 * 1024
"""
After which SQLite's write-ahead log is brought into the database, and begun anew in the room that it has: there a
commit changes nothing but data, and takes half the time of one that makes the file longer.
"""


class LogEvents(Protocol):
    """What the log's owner is told, on the reactor's thread."""

    def log_persisted(self, number: int, seconds: float) -> None:
        """All writes up to that number are durable; the last commit took so long."""

    def log_full(self, full: bool) -> None:
        """The disk is full: writes wait and are tried again; or it isn't any more, and they are done."""

    def log_failed(self, reason: str) -> None:
        """The disk failed: nothing more is written, and what was under way may be durable or not."""


class _Job:
    """What goes into a transaction."""

    __slots__ = ("cluster_id", "write")

    def __init__(self, write: Write | None, cluster_id: str | None) -> None:
        self.write = write
        self.cluster_id = cluster_id


class DiskLog:
    """
    A node's log on disk. All methods but :meth:`open` are called on the reactor's thread.

    :param folder: ``raft.data_dir``.
    :param node_id: this node.
    :param reactor: carries reports back.
    :param token_bytes: makes the disk's id.
    :param seconds: a clock that never jumps, callable from any thread.
    :param reached: called on the log's thread before and after each commit, with the name of the step.
    """

    def __init__(
        self,
        folder: Path,
        node_id: str,
        *,
        reactor: IReactorFromThreads,
        token_bytes: TokenBytes,
        seconds: Callable[[], float],
        reached: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.folder = folder
        self._file = LogFile(folder, node_id)
        self._reactor = reactor
        self._token_bytes = token_bytes
        self._seconds = seconds
        self._reached = reached
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._stopping = False
        self._stopped: Deferred[None] = Deferred()
        self._started = False
        self._bytes_at_checkpoint = 0

    def open(self) -> StoredLog:
        """
        Open the file, or make one; it blocks, and belongs into a thread.

        :raises callfs.cluster.logfile.LogUnusable: the node can't take part.
        """
        return self._file.open(self._token_bytes)

    def begin(self, cluster_id: str, write: Write) -> None:
        """
        Make a new cluster's first write durable, before :meth:`start`; it blocks, and belongs into a thread.

        :raises callfs.cluster.logfile.LogUnusable: the disk failed or is full.
        """
        try:
            self._commit([_Job(write, cluster_id)])
        except sqlite3.Error as error:
            raise LogUnusable(f"can't write to the raft log in {self.folder}: {error}") from error

    def start(self, events: LogEvents) -> None:
        """Begin to write."""
        self._started = True
        threading.Thread(target=self._run, args=(events,), name="callfs-raft-log", daemon=True).start()

    def write(self, write: Write) -> None:
        """Make a write durable; reported by its number."""
        self._put(_Job(write, None))

    def adopt(self, cluster_id: str) -> None:
        """Remember the cluster, durably before any later write."""
        self._put(_Job(None, cluster_id))

    def close(self) -> Deferred[None]:
        """
        Finish what is queued, unless the disk is full or has failed, and let go of the file.

        :return: fires when it is closed.
        """
        self._stopping = True
        self._queue.put(None)
        if not self._started:
            self._started = True
            self._file.close()
            self._stopped.callback(None)
        return self._stopped

    def _put(self, job: _Job) -> None:
        self._queue.put(job)

    # From here on the log's own thread.

    def _run(self, events: LogEvents) -> None:
        try:
            self._write_all(events)
        except BaseException as error:
            self._reactor.callFromThread(events.log_failed, f"the disk of the raft log failed: {error}")
        finally:
            self._file.close()
            self._reactor.callFromThread(self._stopped.callback, None)

    def _write_all(self, events: LogEvents) -> None:
        due: list[_Job] = []
        full = False
        while True:
            due += self._take(wait_seconds=FULL_DISK_RETRY_SECONDS if full else None)
            if not due or (full and self._stopping):
                return
            started = self._seconds()
            if not self._stored(due):
                if not full:
                    self._reactor.callFromThread(events.log_full, True)
                full = True
                continue
            numbers = [job.write.number for job in due if job.write is not None]
            if numbers:
                self._reactor.callFromThread(events.log_persisted, numbers[-1], self._seconds() - started)
            if full:
                self._reactor.callFromThread(events.log_full, False)
            full = False
            due = []
            self._checkpoint_if_due()

    def _take(self, wait_seconds: float | None) -> list[_Job]:
        """All that waits; nothing only when the log is to end, or the time is over."""
        taken: list[_Job] = []
        waits = not self._stopping
        try:
            while True:
                job = self._queue.get(waits, wait_seconds)
                waits = False
                if job is not None:
                    taken.append(job)
        except Empty:
            return taken

    def _stored(self, jobs: list[_Job]) -> bool:
        """Whether there was room; once more after a checkpoint, which lets the write-ahead log begin anew."""
        for _ in range(2):
            try:
                self._commit(jobs)
            except sqlite3.Error as error:
                if not is_full(error):
                    raise
                self._make_room()
            else:
                return True
        return False

    def _commit(self, jobs: list[_Job]) -> None:
        connection = self._file.connection
        connection.execute("BEGIN IMMEDIATE")
        for job in jobs:
            if job.cluster_id is not None:
                self._file.put_fact("cluster", job.cluster_id)
            if job.write is not None:
                self._file.carry_out(job.write)
        self._reached("raft.before_commit")
        connection.execute("COMMIT")
        self._reached("raft.after_commit")

    def _make_room(self) -> None:
        if self._file.connection.in_transaction:
            self._file.connection.execute("ROLLBACK")
        self._checkpoint()

    def _checkpoint_if_due(self) -> None:
        """After the report, so that nobody waits for it."""
        if self._file.written_bytes - self._bytes_at_checkpoint >= _CHECKPOINT_AFTER_BYTES:
            self._checkpoint()

    def _checkpoint(self) -> None:
        """By hand, because SQLite's own keeps silent about an fsync that failed, and tries again another time."""
        connection = self._file.connection
        self._bytes_at_checkpoint = self._file.written_bytes
        try:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            if not is_full(error):
                raise
