"""Connections for reading: one on the reactor's thread, and some for the threads of a pool."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredList, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from callfs.deferreds import shielded, with_timeout
from callfs.errors import MetadataUnavailable
from callfs.metadata.sqlite_errors import is_contended, translated
from callfs.metadata.sqlite_writer import StoreObserver, report_fault

T = TypeVar("T")
Query = Callable[..., T]
"""A function of a connection and further arguments."""

_INLINE_ROWS = 64
"""A page of so many rows is read on the reactor's thread: it takes less than the way to another thread."""


class Readers:
    """
    The reading connections of one database. All methods are called on the reactor's thread.

    :param connect: opens a connection; told whether it may wait when another is in the way.
    :param pool: runs what is long; each of its threads has a connection of its own while it reads.
    :param clock: measures how long a read takes.
    :param op_timeout_seconds: how long a read in the pool may take.
    """

    _log = Logger()

    def __init__(
        self,
        connect: Callable[[bool], sqlite3.Connection],
        *,
        reactor: IReactorFromThreads,
        clock: IReactorTime,
        pool: ThreadPool,
        op_timeout_seconds: float,
        observer: StoreObserver,
    ) -> None:
        self._connect = connect
        self._reactor = reactor
        self._clock = clock
        self._pool = pool
        self._op_timeout_seconds = op_timeout_seconds
        self._observer = observer
        self._inline = connect(False)
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._busy: list[sqlite3.Connection] = []
        self._under_way: list[Deferred[Any]] = []
        self._closed = False

    def at_once(self, query: Query[T], *args: Any) -> T:
        """
        Run a query of microseconds.

        :raises callfs.errors.MetadataUnavailable: this is closed.
        :raises sqlite3.Error: :meth:`inline` may succeed, or knows what that means.
        """
        if self._closed:
            raise _closed()
        return query(self._inline, *args)

    def inline(self, query: Query[T], *args: Any) -> Deferred[T]:
        """Run a query of microseconds at once; when another connection is in its way, in the pool."""
        try:
            return succeed(self.at_once(query, *args))
        except MetadataUnavailable as error:
            return fail(error)
        except sqlite3.Error as error:
            if is_contended(error):
                return self.threaded(query, *args)
            return fail(self._refusal(error))

    def page(self, limit: int, query: Query[Sequence[T]], *args: Any) -> Deferred[Sequence[T]]:
        """
        Run a query for a page, whose last argument is its ``limit``.

        Most directories are small: look at the first rows at once, go to a thread only when there are more.
        """
        first = self.inline(query, *args, min(limit, _INLINE_ROWS))
        if limit <= _INLINE_ROWS:
            return first

        def complete(rows: Sequence[T]) -> Sequence[T] | Deferred[Sequence[T]]:
            return rows if len(rows) < _INLINE_ROWS else self.threaded(query, *args, limit)

        return first.addCallback(complete)

    def threaded(self, query: Query[T], *args: Any, limited: bool = True) -> Deferred[T]:
        """
        Run a query in the pool.

        :param limited: whether it has to be done within the time limit; otherwise it may take as long as it takes.
        """
        if self._closed:
            return fail(_closed())
        work: Deferred[T] = deferToThreadPool(self._reactor, self._pool, self._run, query, *args)
        self._under_way.append(work)
        work.addBoth(self._ended, work)
        answer = shielded(work)
        return with_timeout(answer, self._op_timeout_seconds, self._clock, _too_slow) if limited else answer

    def _ended(self, result: T | Failure, work: Deferred[Any]) -> T | Failure:
        self._under_way.remove(work)
        if isinstance(result, Failure) and isinstance(result.value, sqlite3.Error):
            return Failure(self._refusal(result.value))
        return result

    def _refusal(self, error: sqlite3.Error) -> Exception:
        if error.__class__ is sqlite3.OperationalError and self._closed:
            return _closed()
        report_fault(self._log, self._observer, error)
        return translated(error)

    def _run(self, query: Query[T], *args: Any) -> T:
        """On a thread of the pool."""
        connection = self._taken()
        try:
            return query(connection, *args)
        finally:
            with self._lock:
                self._busy.remove(connection)
                self._idle.append(connection)

    def _taken(self) -> sqlite3.Connection:
        with self._lock:
            connection = self._idle.pop() if self._idle else None
            if connection is not None:
                self._busy.append(connection)
                return connection
        connection = self._connect(True)
        with self._lock:
            self._busy.append(connection)
        return connection

    def close(self) -> Deferred[None]:
        """Cut short what is under way, then close the connections."""
        self._closed = True
        with self._lock:
            for connection in self._busy:
                connection.interrupt()
        waiting = DeferredList([shielded(work) for work in self._under_way], consumeErrors=True)
        return waiting.addCallback(self._close_connections)

    def _close_connections(self, _results: object) -> None:
        for connection in (self._inline, *self._idle):
            connection.close()


def _closed() -> MetadataUnavailable:
    return MetadataUnavailable("the metadata store is closed")


def _too_slow() -> MetadataUnavailable:
    return MetadataUnavailable("the metadata store didn't answer in time")
