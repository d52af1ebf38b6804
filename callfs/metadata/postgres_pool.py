"""
The connections of the PostgreSQL store, each with a thread of its own (``twisted.enterprise.adbapi``).

A piece of work is an :class:`Attempt`. It may be given up from the reactor's thread at any time: before it began
it is never done, and while it runs its connection is cut, which ends it at once even where the server doesn't
answer at all. A connection that was cut, broke, or leads to a server that takes no changes isn't used again.
"""

from __future__ import annotations

import math
import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Concatenate, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from twisted.enterprise import adbapi
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger
from twisted.python.failure import Failure

from callfs.deferreds import shielded
from callfs.metadata.interfaces import StoreUnusable
from callfs.metadata.postgres_errors import NotPrimary, Withdrawn, makes_connection_useless
from callfs.metadata.postgres_queries import Connection
from callfs.redaction import Redaction

T = TypeVar("T")

_SECRET_PARAMETERS = ("password", "sslpassword", "passfile", "scram_client_key", "scram_server_key")
_LEAST_CONNECT_SECONDS = 2
"""What libpq takes for the least."""

# Every request is a step or a range of an index, whatever its parameters. So it is planned once; and a planner with
# old statistics can't come to think otherwise, whereupon a page of a large directory would read all of it.
# An answer means that the change is on the disk, whatever is the server's default.
_SESSION = """
    SET client_encoding = 'UTF8';
    SET default_transaction_isolation = 'read committed';
    SET enable_seqscan = off; SET enable_bitmapscan = off;
    SET enable_hashjoin = off; SET enable_mergejoin = off;
    SET plan_cache_mode = force_generic_plan; SET jit = off;
    SET statement_timeout = {timeout}; SET lock_timeout = {timeout};
    SET idle_in_transaction_session_timeout = {idle};
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';
"""


class ConnectionString:
    """
    What leads to the server: passed on to psycopg as it is, and never shown.

    :raises StoreUnusable: libpq can't read it.
    """

    def __init__(self, dsn: str) -> None:
        try:
            given: Mapping[str, Any] = conninfo_to_dict(dsn)
        except psycopg.Error:
            # libpq's own words would quote the part that it stumbled upon, which may be the password.
            raise StoreUnusable(
                "metadata_store.dsn can't be read: it is either a URL (postgresql://user@host/database) or "
                "'host=... user=... dbname=...', in which special characters need escaping"
            ) from None
        self.reveal = dsn
        self.has_connect_timeout = "connect_timeout" in given or "PGCONNECT_TIMEOUT" in os.environ
        self._redaction = Redaction([str(given[name]) for name in _SECRET_PARAMETERS if given.get(name)])

    def redacted(self, text: str) -> str:
        """``text`` without the secrets."""
        return self._redaction.text(text)


def connect_options(dsn: ConnectionString, op_timeout_seconds: float) -> dict[str, Any]:
    """How a connection is made beyond what the operator said."""
    options: dict[str, Any] = {"autocommit": True}
    if not dsn.has_connect_timeout:
        options["connect_timeout"] = max(_LEAST_CONNECT_SECONDS, math.ceil(op_timeout_seconds))
    return options


def prepare_session(connection: Connection, op_timeout_seconds: float) -> None:
    """
    Make a new connection ready.

    :raises NotPrimary: the server is a standby.
    """
    timeout = math.ceil(op_timeout_seconds * 1000)
    connection.execute(_SESSION.format(timeout=timeout, idle=2 * timeout + 1000))
    if connection.execute("SELECT pg_is_in_recovery()").fetchall()[0][0]:
        raise NotPrimary("the server is a standby: it is read-only and may be behind")


class Attempt:
    """
    One try at something, on one connection.

    :ivar abandoned: it was given up.
    :ivar committing: its COMMIT has been sent, so from here on nobody but the server knows how it ends.
    :ivar server_began: when it began, in seconds on the server's clock; known before it is committing.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self.abandoned = False
        self.committing = False
        self.server_began = 0.0
        self._begun = False

    def begin(self, connection: Connection) -> None:
        """
        From here on the attempt runs on this connection; on the thread that runs it.

        :raises Withdrawn: it was given up before.
        """
        with self._lock:
            if self.abandoned:
                raise Withdrawn
            self._begun = True
            self._connection = connection

    def begin_commit(self) -> None:
        """
        The COMMIT is about to be sent; on the thread that runs it.

        :raises Withdrawn: it was given up before, and must not be committed.
        """
        with self._lock:
            if self.abandoned:
                raise Withdrawn
            self.committing = True

    def end(self) -> bool:
        """The connection is free again; on the thread that ran it. Whether it was given up meanwhile."""
        with self._lock:
            self._connection = None
            return self.abandoned

    def withdraw(self) -> bool:
        """Give it up unless it has begun; whether that was in time."""
        with self._lock:
            if not self._begun:
                self.abandoned = True
            return self.abandoned

    def abandon(self) -> None:
        """Give it up, and cut its connection if it runs: asking the server to cancel could take as long again."""
        with self._lock:
            self.abandoned = True
            if self._connection is not None and not self._connection.closed:
                _cut(self._connection)


def _cut(connection: Connection) -> None:
    """End both directions under the thread that waits on it; it sees the end of the stream."""
    try:
        with socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
            duplicate.shutdown(socket.SHUT_RDWR)
    except (OSError, psycopg.Error):
        return  # broken already


class PooledConnection(adbapi.Connection):
    """A thread's connection, made when it is first needed, and forgotten when it is of no more use."""

    def __init__(self, pool: adbapi.ConnectionPool) -> None:
        self._pool = pool
        self._connection: Connection | None = None

    def opened(self) -> Connection:
        """The connection itself."""
        if self._connection is None:
            self._connection = self._pool.connect()
        return self._connection

    def discard(self) -> None:
        """Close it; the thread's next piece of work gets a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.disconnect(connection)

    def commit(self) -> None:
        """Nothing is open: each piece of work ends its own transaction."""

    def rollback(self) -> None:
        """End what a failed piece of work left open, on a connection that is still good."""
        connection = self._connection
        if connection is None:
            return
        if connection.broken or connection.closed:
            self.discard()
        elif connection.info.transaction_status != TransactionStatus.IDLE:
            try:
                connection.rollback()
            except psycopg.Error:
                self.discard()


class _Connections(adbapi.ConnectionPool):
    connectionFactory = PooledConnection


class _Job:
    """A piece of work, waiting for a connection or on one."""

    __slots__ = ("args", "attempt", "done", "outcome", "work")

    def __init__(self, attempt: Attempt, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.attempt = attempt
        self.work = work
        self.args = args
        self.done: Deferred[Any] = Deferred()
        self.outcome: Any = None


class ConnectionPool:
    """
    At most ``size`` connections. All methods but the work itself are called on the reactor's thread.

    A thread that has done a piece of work goes on with the next that waits, and answers come to the reactor as many
    as there are: under load the way from thread to thread would cost more than most queries.

    :param size: connections, and threads.
    :param op_timeout_seconds: the server ends a statement that takes longer.
    """

    _log = Logger()

    def __init__(
        self, dsn: ConnectionString, *, reactor: IReactorFromThreads, size: int, op_timeout_seconds: float
    ) -> None:
        self._dsn = dsn
        self._reactor = reactor
        self._size = size
        self._op_timeout_seconds = op_timeout_seconds
        self._connections: adbapi.ConnectionPool | None = None
        self._lock = threading.Lock()
        self._waiting: deque[_Job] = deque()
        self._threads = 0
        self._done: deque[_Job] = deque()
        self._delivering = False
        self._running: set[Deferred[Any]] = set()

    def start(self) -> None:
        """Begin; connections are made as they are needed."""
        untyped: Any = _Connections
        connections = untyped(
            "psycopg",
            self._dsn.reveal,
            cp_min=1,
            cp_max=self._size,
            cp_reactor=self._reactor,
            cp_openfun=self._opened,
            cp_noisy=False,
            **connect_options(self._dsn, self._op_timeout_seconds),
        )
        connections.start()  # the reactor may not run yet
        self._connections = connections

    def run(self, attempt: Attempt, work: Callable[Concatenate[Connection, ...], T], *args: Any) -> Deferred[T]:
        """
        Do a piece of work on a free connection, after all that has been given before.

        :return: fires when it has ended, given up or not; cancelling it does nothing to the work.
        """
        assert self._connections is not None
        job = _Job(attempt, work, args)
        with self._lock:
            self._waiting.append(job)
            needed = self._threads < self._size
            self._threads += needed
        if needed:
            thread = self._connections.runWithConnection(self._work_off)
            self._running.add(thread)
            thread.addBoth(self._thread_ended, thread)
        return shielded(job.done)

    def _thread_ended(self, result: object, thread: Deferred[Any]) -> None:
        self._running.discard(thread)
        if isinstance(result, Failure):
            self._log.failure("a thread of the metadata store failed", result)

    async def close(self) -> None:
        """Wait for what runs, and close all connections."""
        connections, self._connections = self._connections, None
        await DeferredList([shielded(thread) for thread in self._running], consumeErrors=True)
        self._deliver()
        if connections is not None:
            connections.close()

    def _deliver(self) -> None:
        with self._lock:
            self._delivering = False
        while self._done:
            job = self._done.popleft()
            job.done.callback(job.outcome)

    def _opened(self, connection: Connection) -> None:
        try:
            prepare_session(connection, self._op_timeout_seconds)
        except BaseException:
            connection.close()
            raise

    # From here on a thread of the pool.

    def _work_off(self, pooled: PooledConnection) -> None:
        while (job := self._next()) is not None:
            try:
                job.outcome = _run(pooled, job)
            except BaseException as error:
                job.outcome = Failure(error)
                pooled.rollback()
            self._hand_over(job)

    def _next(self) -> _Job | None:
        """What waits longest; when there is nothing this thread ends."""
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._threads -= 1
            return None

    def _hand_over(self, job: _Job) -> None:
        with self._lock:
            self._done.append(job)
            called, self._delivering = self._delivering, True
        if not called:
            self._reactor.callFromThread(self._deliver)


def _run(pooled: PooledConnection, job: _Job) -> Any:
    attempt = job.attempt
    if attempt.abandoned:
        raise Withdrawn
    connection = pooled.opened()
    try:
        attempt.begin(connection)
        return job.work(connection, *job.args)
    except psycopg.Error as error:
        if makes_connection_useless(error):
            attempt.end()  # so that a connection that is being closed isn't cut
            pooled.discard()
        raise
    finally:
        if attempt.end():
            pooled.discard()
