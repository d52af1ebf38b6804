"""
How the PostgreSQL store applies a command: in its turn, decided again as often as others overtake it, and with an
answer that is true whatever becomes of the connection.

Until the COMMIT is sent, a command can be given up, and is then certain not to be applied. After it, only the
server knows: a lost answer is looked up by the command's id.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from callfs.deferreds import with_timeout
from callfs.errors import CallFSError, OutcomeUnknown
from callfs.identifiers import TokenBytes
from callfs.metadata.commands import Command
from callfs.metadata.lanes import Lanes, Turn, footprint
from callfs.metadata.postgres_attempts import Attempts, FaultObserver, TimedOut, pauses
from callfs.metadata.postgres_commit import COMMAND_ID_BYTES, Forgotten, Try, apply_command, decoded, settle
from callfs.metadata.postgres_errors import Withdrawn, lost_connection, overtaken
from callfs.metadata.postgres_pool import Attempt

_MOST_OVERTAKINGS = 100
_OVERTAKEN_PAUSE_SECONDS = 0.001


class _Course:
    """A command on its way."""

    def __init__(self, command: Command[Any], turn: Turn, deadline: float) -> None:
        self.command = command
        self.turn = turn
        self.deadline = deadline
        self.attempt: Attempt | None = None
        self.withdrawn = False


class Applying:
    """
    Applies commands. All methods are called on the reactor's thread.

    :param lanes: says whose turn it is.
    :param names_key: of the store's lock on all names.
    :param token_bytes: makes the ids of tries.
    :param reached: called, on a thread of the pool, at the named steps of a commit.
    """

    _log = Logger()

    def __init__(
        self,
        attempts: Attempts,
        lanes: Lanes,
        *,
        names_key: int,
        token_bytes: TokenBytes,
        observer: FaultObserver,
        reached: Callable[[str], None],
    ) -> None:
        self._attempts = attempts
        self._lanes = lanes
        self._names_key = names_key
        self._token_bytes = token_bytes
        self._observer = observer
        self._reached = reached
        self._under_way: set[Deferred[Any]] = set()

    def submit(self, command: Command[Any]) -> Deferred[Any]:
        """
        Apply a command.

        :return: fires with its result once it is durable. Cancelled before it has got a connection, the command is
            withdrawn; later, it goes on to its end.
        """
        course = _Course(command, self._lanes.enter(footprint(command)), self._attempts.deadline())
        answer: Deferred[Any] = Deferred(lambda _: self._withdraw(course))
        work = Deferred.fromCoroutine(self._carry_out(course))
        self._under_way.add(work)

        def ended(result: Any) -> None:
            self._under_way.discard(work)
            if not answer.called:
                answer.callback(result)

        work.addBoth(ended)
        return answer

    async def finished(self) -> None:
        """Wait until all that was submitted has ended."""
        while self._under_way:
            one: Deferred[None] = Deferred()
            next(iter(self._under_way)).addBoth(one.callback)
            await one

    @staticmethod
    def _withdraw(course: _Course) -> None:
        course.withdrawn = True
        if not course.turn.come.called:
            course.turn.come.cancel()
        elif course.attempt is not None:
            course.attempt.withdraw()

    async def _carry_out(self, course: _Course) -> Any:
        try:
            seconds = self._attempts.seconds_left(course.deadline)
            await with_timeout(course.turn.come, seconds, self._attempts.clock, self._attempts.too_slow)
            return await self._try_often(course)
        finally:
            self._lanes.leave(course.turn)

    async def _try_often(self, course: _Course) -> Any:
        """Until there is an answer, or no time for another try."""
        waits, overtakings = pauses(), 0
        met: Exception | None = None
        while not course.withdrawn:
            command_id = self._token_bytes(COMMAND_ID_BYTES)
            attempt = course.attempt = Attempt()
            try:
                return await self._attempts.once(
                    attempt, course.deadline, apply_command, attempt, self._new_try(course, command_id)
                )
            except CallFSError:
                raise
            except Withdrawn:
                break
            except Exception as error:
                attempt_failed = error
            if isinstance(attempt_failed, TimedOut):
                attempt.abandon()
            if attempt.committing:
                # Whatever the error says: between it and the COMMIT lies what nobody knows.
                result = await self._settled(course.command, command_id, attempt.server_began)
                if result is not None:
                    return decoded(course.command, result)
            if isinstance(attempt_failed, TimedOut):
                raise self._attempts.out_of_time(met)
            if overtaken(attempt_failed) and overtakings < _MOST_OVERTAKINGS:
                overtakings += 1
                pause = _OVERTAKEN_PAUSE_SECONDS * overtakings
            elif lost_connection(attempt_failed):
                pause, met = next(waits), attempt_failed
            else:
                raise self._attempts.refusal(attempt_failed)
            if not await self._attempts.paused(pause, course.deadline):
                raise self._attempts.refusal(attempt_failed)
        raise CancelledError

    def _new_try(self, course: _Course, command_id: bytes) -> Try:
        return Try(
            command=course.command,
            command_id=command_id,
            names_key=self._names_key,
            seconds_left=self._attempts.seconds_left(course.deadline),
            reached=self._reached,
        )

    async def _settled(self, command: Command[Any], command_id: bytes, server_began: float) -> bytes | None:
        """
        Look up how a try ended, for as long as an operation may take.

        :param server_began: when the try began, on the server's clock.
        :return: the encoded result; ``None`` when it is certain that the try came to nothing.
        :raises OutcomeUnknown: there was no telling.
        """
        deadline = self._attempts.deadline()
        for pause in pauses():
            attempt = Attempt()
            try:
                return await self._attempts.once(attempt, deadline, settle, command_id, server_began)
            except Exception as error:
                if isinstance(error, TimedOut):
                    attempt.abandon()
                reason = error
            if isinstance(reason, Forgotten) or not await self._attempts.paused(pause, deadline):
                break
        name = type(command).__name__
        self._observer.error("metadata", OutcomeUnknown.code)
        self._log.error(
            "it isn't known whether the metadata command {name} was applied: {reason}",
            name=name,
            reason=type(reason).__name__,
        )
        raise OutcomeUnknown("the metadata store failed while it stored this change: look before repeating")
