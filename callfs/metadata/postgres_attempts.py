"""Attempts at asking the PostgreSQL server, within a time limit, again where the connection was lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from callfs.deferreds import with_timeout
from callfs.errors import CallFSError, MetadataUnavailable
from callfs.metadata.postgres_errors import (
    Withdrawn,
    is_damaged,
    lost_connection,
    makes_connection_useless,
    name_of,
    text_of,
    translated,
)
from callfs.metadata.postgres_pool import Attempt, ConnectionPool

T = TypeVar("T")

_PAUSES = (0.0, 0.01, 0.02, 0.05, 0.1)
_LONGEST_PAUSE = 0.2


class FaultObserver(Protocol):
    """Who is told what goes wrong in the store; called on the reactor's thread."""

    def error(self, component: str, error_type: str) -> None:
        """Something went wrong that its operator should know."""


class TimedOut(Exception):
    """There was no answer in time."""


def pauses() -> Iterator[float]:
    """Seconds to wait before each further attempt: the first few quickly, for connections that only went stale."""
    yield from _PAUSES
    while True:
        yield _LONGEST_PAUSE


class Attempts:
    """
    Work on connections with time limits. All methods are called on the reactor's thread.

    :param clock: measures time.
    :param op_timeout_seconds: for everything about one operation, the waiting for a connection included.
    :param redacted: takes secrets out of a text.
    """

    _log = Logger()

    def __init__(
        self,
        pool: ConnectionPool,
        *,
        clock: IReactorTime,
        op_timeout_seconds: float,
        observer: FaultObserver,
        redacted: Callable[[str], str],
    ) -> None:
        self._pool = pool
        self.clock = clock
        self._op_timeout_seconds = op_timeout_seconds
        self._observer = observer
        self._redacted = redacted
        self._reading: set[Attempt] = set()
        self._unreachable = False

    def deadline(self) -> float:
        """When an operation that begins now has to be over, on the clock."""
        return self.clock.seconds() + self._op_timeout_seconds

    def seconds_left(self, deadline: float) -> float:
        """Until then; not negative."""
        return max(0.0, deadline - self.clock.seconds())

    async def read(self, query: Callable[..., T], *args: Any, limited: bool = True) -> T:
        """
        Ask something that changes nothing.

        :param limited: whether it has to be done within the time limit.
        :raises callfs.errors.CallFSError: it couldn't be, for the caller.
        """
        deadline = self.deadline()
        met: Exception | None = None
        for pause in pauses():
            attempt = Attempt()
            self._reading.add(attempt)
            try:
                return await self.once(attempt, deadline if limited else None, query, *args)
            except CancelledError:
                attempt.withdraw()
                raise
            except TimedOut:
                attempt.abandon()
                raise self.out_of_time(met) from None
            except Withdrawn:
                raise MetadataUnavailable("the metadata store is closed") from None
            except Exception as error:
                if attempt.abandoned:
                    raise MetadataUnavailable("the metadata store is closed") from None
                if not (lost_connection(error) and await self.paused(pause, deadline)):
                    raise self.refusal(error) from None
                met = error
            finally:
                self._reading.discard(attempt)
        raise AssertionError

    async def once(self, attempt: Attempt, deadline: float | None, work: Callable[..., T], *args: Any) -> T:
        """
        Do something once.

        :raises TimedOut: at the deadline it wasn't done; it goes on unless it is abandoned.
        :raises Exception: whatever it raised.
        """
        done = self._pool.run(attempt, work, *args)
        if deadline is not None:
            done = with_timeout(done, self.seconds_left(deadline), self.clock, TimedOut)
        result = await done
        self._answered()
        return result

    async def paused(self, seconds: float, deadline: float) -> bool:
        """Wait before a further attempt; false, at once, when there is no time for one."""
        if seconds >= self.seconds_left(deadline):
            return False
        await deferLater(self.clock, seconds)
        return True

    def cut_reads(self) -> None:
        """End what is being read."""
        for attempt in self._reading:
            attempt.abandon()

    def too_slow(self) -> CallFSError:
        """The refusal of what nothing was heard of in its time, when nothing was changed."""
        self._observer.error("metadata", "timeout")
        self._say_once("the metadata database doesn't answer in time")
        return MetadataUnavailable("the metadata store didn't answer in time; nothing was changed")

    def out_of_time(self, met: Exception | None) -> CallFSError:
        """
        The refusal at the end of the time, when nothing was changed.

        :param met: how an earlier attempt lost its connection, if one did: it tells the operator more than that no
            time was left for the last one.
        """
        return self.too_slow() if met is None else self.refusal(met)

    def refusal(self, error: Exception) -> CallFSError:
        """The error for the caller when nothing was changed; faults are reported to the operator."""
        answer = translated(error)
        if isinstance(error, CallFSError):
            return answer
        self._observer.error("metadata", name_of(error))
        reason = self._redacted(text_of(error))
        if is_damaged(error):
            self._log.critical("the metadata database is DAMAGED: {error}", error=reason, code=name_of(error))
        elif makes_connection_useless(error):
            self._log.error(
                "the metadata database is READ-ONLY, a standby perhaps ({error}): "
                "metadata_store.dsn has to lead to the primary",
                error=reason,
                code=name_of(error),
            )
        elif not lost_connection(error):
            self._log.error("the metadata database failed: {error}", error=reason, code=name_of(error))
        else:
            self._say_once("the metadata database can't be reached: {error}", error=reason, code=name_of(error))
        return answer

    def _say_once(self, sentence: str, **fields: str) -> None:
        """Not for every request that meets it, but again after the server has answered."""
        if not self._unreachable:
            self._unreachable = True
            self._log.error(sentence, **fields)

    def _answered(self) -> None:
        if self._unreachable:
            self._unreachable = False
            self._log.info("the metadata database answers again")
