"""
Signed requests to one bucket, repeated with jitter where that may help.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime

from callfs.backends.jobs import Jobs
from callfs.backends.s3_address import S3Address
from callfs.backends.s3_bodies import ReplyBody
from callfs.backends.s3_credentials import S3Credentials
from callfs.backends.s3_errors import Cause, S3Closed, S3Fault, S3Refusal, S3Unreachable
from callfs.backends.s3_request import Effort, S3Reply, S3Request
from callfs.backends.s3_settings import S3Settings
from callfs.backends.s3_signing import signed_headers
from callfs.backends.s3_transport import Answer, S3Transport
from callfs.backends.s3_xml import parse_error

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_SHORTEST_SILENCE_SECONDS = 1.0
_REPLY_BYTES = 16 * 1024 * 1024
_PIECE_BYTES = 64 * 1024
T = TypeVar("T")


class S3Client:
    """
    :param now: the instant, in microseconds.
    :param clock: for silence and pauses.
    :param random: from 0 to 1, for the jitter.
    :param answers_again: called when a request succeeds after one was given up that wasn't answered.
    :param credentials: those of the settings unless given.
    """

    def __init__(
        self,
        settings: S3Settings,
        *,
        reactor: Any,
        jobs: Jobs,
        now: Callable[[], int],
        clock: IReactorTime,
        random: Callable[[], float],
        answers_again: Callable[[], None],
        credentials: S3Credentials | None = None,
    ) -> None:
        timeout_seconds = settings.timeout_seconds
        self.address = S3Address(settings)
        self.clock = clock
        self.asking = Effort(silence_seconds=timeout_seconds, total_seconds=timeout_seconds)
        """For what somebody waits for."""
        self.changing = Effort(silence_seconds=max(timeout_seconds, 30), total_seconds=max(6 * timeout_seconds, 60))
        """For what would cost an upload."""
        self.assembling = Effort(silence_seconds=max(timeout_seconds, 600), total_seconds=600)
        """For what takes the server a while before it answers: it puts together or copies large objects."""
        self._settings = settings
        self._now = now
        self._random = random
        self._credentials = credentials or S3Credentials(settings, jobs=jobs, clock=clock)
        self._transport = S3Transport(reactor, clock, timeout_seconds)
        self._answers_again = answers_again
        self._is_silent = False
        self._is_cut = False
        self._pauses: set[Deferred[None]] = set()

    async def request(self, request: S3Request, effort: Effort) -> S3Reply:
        """
        Send a request, and read the reply.

        :raises S3Fault: it was refused, or not answered in spite of all repetitions.
        """

        async def attempt(silence_seconds: float) -> S3Reply:
            answer = await self._answered(request, silence_seconds)
            body = await _collected(answer.body)
            self._check(request, answer, body)
            return S3Reply(answer.status, answer.headers, body)

        return await self._repeated(attempt, effort)

    async def open(self, request: S3Request, effort: Effort) -> Answer:
        """
        Send a request whose reply has a body for the caller to read; it has to be aborted if it isn't read whole.

        :raises S3Fault: it was refused, or not answered in spite of all repetitions.
        """

        async def attempt(silence_seconds: float) -> Answer:
            return await self._answered(request, silence_seconds)

        return await self._repeated(attempt, effort)

    def cut(self) -> None:
        """Give up all that is under way, also what waits to be tried again, and from now on whatever comes."""
        self._is_cut = True
        for pause in list(self._pauses):
            pause.cancel()
        self._transport.cut()

    async def close(self) -> None:
        """Cut every connection."""
        await self._transport.close()

    async def _repeated(self, attempt: Callable[[float], Coroutine[Any, Any, T]], effort: Effort) -> T:
        began, attempts, renewed = self.clock.seconds(), 0, False
        while True:
            left_seconds = began + effort.total_seconds - self.clock.seconds()
            try:
                result = await attempt(min(effort.silence_seconds, max(left_seconds, _SHORTEST_SILENCE_SECONDS)))
                self._answered_well()
                return result
            except _Renewable as fault:
                if renewed:
                    raise fault.refusal from None
                renewed = True
            except S3Closed:
                raise
            except S3Fault as fault:
                if self._is_cut:
                    # A reply that was cut on its way looks like one that the network lost.
                    raise S3Closed from fault
                attempts += 1
                pause_seconds = self._pause_seconds(attempts, fault)
                too_late = self.clock.seconds() + pause_seconds >= began + effort.total_seconds
                if not fault.passing or attempts >= effort.attempts or too_late:
                    self._is_silent = self._is_silent or fault.passing
                    raise
                await self._pause(pause_seconds)

    def _answered_well(self) -> None:
        if self._is_silent:
            self._is_silent = False
            self._answers_again()

    def _pause_seconds(self, attempts: int, fault: S3Fault) -> float:
        """
        Any time up to a limit that doubles, so that those who failed together don't come back together ("full
        jitter", AWS Architecture Blog: Exponential Backoff and Jitter).
        """
        wished = fault.retry_after_seconds if isinstance(fault, S3Refusal) else 0.0
        limit = min(_FIRST_PAUSE_SECONDS * (1 << attempts), _LONGEST_PAUSE_SECONDS)
        return max(wished, limit * self._random())

    async def _pause(self, seconds: float) -> None:
        pause: Deferred[None] = Deferred(lambda _: timer.cancel())
        timer = self.clock.callLater(seconds, lambda: pause.callback(None))
        self._pauses.add(pause)
        try:
            await pause
        except CancelledError:
            if self._is_cut:
                raise S3Closed from None
            raise
        finally:
            self._pauses.discard(pause)

    async def _answered(self, request: S3Request, silence_seconds: float) -> Answer:
        """One attempt; a reply that isn't a success is read and raised."""
        credentials = None if self._is_cut else await self._credentials.current()
        if credentials is None or self._is_cut:
            raise S3Closed
        url = self.address.url(request.key, request.query)
        headers = signed_headers(
            request.method,
            url,
            {**request.headers, "host": self.address.host},
            sha256=request.content.sha256,
            credentials=credentials,
            region=self._settings.region,
            at=self._now(),
        )
        answer = await self._transport.send(request.method, url, headers, request.content, silence_seconds)
        if 200 <= answer.status < 300:
            return answer
        refusal = self._refusal(request, answer.status, answer.headers, await _collected(answer.body))
        if _is_of_credentials(request, refusal) and self._credentials.refused(credentials):
            raise _Renewable(refusal)
        raise refusal

    def _check(self, request: S3Request, answer: Answer, body: bytes) -> None:
        if request.error_in_success and parse_error(body) is not None:
            raise self._refusal(request, answer.status, answer.headers, body)

    def _refusal(self, request: S3Request, status: int, headers: Mapping[str, str], body: bytes) -> S3Refusal:
        error = parse_error(body)
        return S3Refusal(
            request.operation,
            status,
            error.code if error else "",
            error.message if error else "",
            (error.region if error else "") or headers.get("x-amz-bucket-region", ""),
            self._skew_seconds(headers.get("date", "")),
            _retry_after_seconds(headers.get("retry-after", "")),
        )

    def _skew_seconds(self, date: str) -> float:
        try:
            server_seconds = parsedate_to_datetime(date).timestamp()
            return self._now() / 1_000_000 - server_seconds
        except (ValueError, OverflowError):
            return 0.0


class _Renewable(Exception):
    """A refusal of credentials that may have been replaced meanwhile."""

    def __init__(self, refusal: S3Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


def _is_of_credentials(request: S3Request, refusal: S3Refusal) -> bool:
    """Whether other credentials may help. The reply to HEAD has no code: there it may be that."""
    unknown = request.method == "HEAD" and refusal.status in (400, 403)
    return unknown or refusal.cause in (Cause.ACCESS_KEY, Cause.EXPIRED)


async def _collected(body: ReplyBody) -> bytes:
    """All of a short body."""
    pieces: list[bytes] = []
    size = 0
    try:
        while piece := await body.read(_PIECE_BYTES):
            pieces.append(piece)
            size += len(piece)
            if size > _REPLY_BYTES:
                raise S3Unreachable("the reply is longer than any that S3 gives")
    except BaseException:
        body.abort()
        raise
    return b"".join(pieces)


def _retry_after_seconds(text: str) -> float:
    return min(float(text), _LONGEST_PAUSE_SECONDS) if text.isdecimal() else 0.0
