"""A blob on its way to a peer: one streaming PUT, as fast as the peer takes it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import msgspec
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IConsumer
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer, IResponse
from zope.interface import implementer

from callfs.backends.interfaces import BlobMissing, CommittedBlob, Hasher, IStagedBlob
from callfs.backends.jobs import Jobs
from callfs.backends.peeranswers import Unreadable, read_small
from callfs.backends.peercalls import BlobExists, PeerCalls
from callfs.backends.peerfaults import Fault
from callfs.deferreds import returns_deferred, shielded, with_timeout
from callfs.errors import PeerUnavailable

DECLARED_SIZE_HEADER = "X-CallFS-Declared-Size"

_PIECE_BYTES = 256 * 1024
"""A peer has to take so much within the time limit."""

_INLINE_BYTES = 32 * 1024
"""So little is hashed sooner than a thread is woken."""

_SYNC_BYTES_PER_SECOND = 16 * 1024 * 1024
"""A commit may take longer than other answers: the peer has to bring what it got to its disk first."""


class _Stalled(Exception):
    """The peer has taken nothing for too long."""


class _Stored(msgspec.Struct, frozen=True):
    size: int
    sha256: str


@implementer(IBodyProducer)
class _Body:
    """
    A request's body as Twisted pulls it and a writer pushes it. It is sent in chunks: the last of them says that
    the blob is complete, and without it the peer stores nothing.
    """

    length = UNKNOWN_LENGTH

    def __init__(self) -> None:
        self.begun: Deferred[None] = Deferred()
        self._consumer: IConsumer | None = None
        self._ended: Deferred[None] = Deferred()
        self._room: Deferred[None] | None = None
        self._paused = False

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """For Twisted: there is a connection."""
        self._consumer = consumer
        if not self.begun.called:
            self.begun.callback(None)
        # Whoever waited for it may have given up just now, when there was nothing to be cancelled yet.
        return self._ended if self._consumer is not None else fail(CancelledError())

    def pauseProducing(self) -> None:
        """For Twisted: the connection has more than it could get rid of."""
        self._paused = True

    def resumeProducing(self) -> None:
        """For Twisted: it got rid of it."""
        self._paused = False
        self._wake()

    def stopProducing(self) -> None:
        """For Twisted: the connection is over; the answer's failure says why."""
        self.stop()

    def stop(self) -> None:
        """Nothing that is written from now on goes anywhere."""
        self._consumer = None
        self._wake()

    def write(self, data: bytes) -> Deferred[None] | None:
        """Send bytes, at least one; fires when there is room for more, ``None`` when there is."""
        if self._consumer is None:
            return None
        self._consumer.write(data)
        if not self._paused:
            return None
        self._room = Deferred()
        return self._room

    def end(self) -> None:
        """The body is complete."""
        if not self._ended.called:
            self._ended.callback(None)

    def _wake(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.called:
            room.callback(None)


@implementer(IStagedBlob)
class PeerStagedBlob:
    """
    See :class:`callfs.backends.interfaces.IStagedBlob`.

    :param path: where the peer takes it: a URL's path.
    :param declared_size: told to the peer, which refuses at once what it has no room for.
    :param hashers: fed on the way.
    :param jobs: where large pieces are hashed.
    :param ended: called once, when the blob is committed or gone.
    """

    def __init__(
        self,
        calls: PeerCalls,
        path: str,
        declared_size: int | None,
        hashers: Sequence[Hasher],
        jobs: Jobs,
        ended: Callable[[], None],
    ) -> None:
        self._calls = calls
        self._path = path
        self._jobs = jobs
        self._ended = ended
        self._sha256 = hashlib.sha256()
        self._hashers = (self._sha256, *hashers)
        self._size = 0
        self._body = _Body()
        self._failure: Exception | None = None
        self._spent = False
        self._over = False
        headers = {"Content-Type": "application/octet-stream"}
        if declared_size is not None:
            headers[DECLARED_SIZE_HEADER] = str(declared_size)
        self._response: IResponse | None = None
        self._answered: Deferred[None] = Deferred()
        self._request: Deferred[None] = Deferred.fromCoroutine(self._ask(headers))

    async def _ask(self, headers: dict[str, str]) -> None:
        """The request from its beginning to its answer, good or bad; never fails."""
        try:
            self._response = await self._calls.ask("stage", "PUT", self._path, headers, self._body)
        except CancelledError:
            self._failure = self._failure or PeerUnavailable("the upload was given up")
        except BlobExists as error:
            self._failure = ValueError(f"a blob of this id exists: {error}")
        except BlobMissing:
            self._failure = self._calls.unusable("it doesn't know where to store a blob")
        except Exception as error:
            self._failure = error
        self._body.stop()
        if not self._body.begun.called:
            self._body.begun.callback(None)
        self._answered.callback(None)

    async def begin(self) -> None:
        """
        Wait until there is a connection.

        :raises PeerUnavailable: there is none.
        """
        try:
            await self._waiting(self._body.begun, self._calls.context.timeout_seconds)
        except BaseException:
            await self.abort()
            raise
        if self._failure is not None:
            self._end()
            raise self._failure

    def write(self, data: bytes) -> Deferred[None]:
        """See :meth:`IStagedBlob.write`."""
        return self._write(data)

    def commit(self) -> Deferred[CommittedBlob]:
        """See :meth:`IStagedBlob.commit`; shields itself."""
        return shielded(self._commit())

    @returns_deferred
    async def abort(self) -> None:
        """See :meth:`IStagedBlob.abort`."""
        self._spent = True
        if not self._over:
            self._give_up(PeerUnavailable("the upload was given up"))
            self._end()

    @returns_deferred
    async def _write(self, data: bytes) -> None:
        self._check_usable()
        if not data:
            return
        self._size += len(data)
        hashed = self._hash(data)
        try:
            for start in range(0, len(data), _PIECE_BYTES):
                room = self._body.write(data[start : start + _PIECE_BYTES] if len(data) > _PIECE_BYTES else data)
                if room is not None:
                    await self._waiting(room, self._calls.context.timeout_seconds)
                self._check_usable()
        finally:
            # The next piece must not overtake this one.
            if hashed is not None:
                await hashed

    def _hash(self, data: bytes) -> Deferred[None] | None:
        """Feed the hashers; fires when they are done, ``None`` when they are."""
        if len(data) * len(self._hashers) > _INLINE_BYTES:
            return shielded(self._jobs.run(self._update, data))
        self._update(data)
        return None

    def _update(self, data: bytes) -> None:
        for hasher in self._hashers:
            hasher.update(data)

    @returns_deferred
    async def _commit(self) -> CommittedBlob:
        self._check_usable()
        self._spent = True
        try:
            self._body.end()
            seconds = self._calls.context.timeout_seconds + self._size / _SYNC_BYTES_PER_SECOND
            await self._waiting(self._answered, seconds)
            if self._failure is not None:
                raise self._failure
            assert self._response is not None
            return await self._checked(self._response)
        finally:
            self._give_up(PeerUnavailable("the upload is over"))
            self._end()

    async def _checked(self, response: IResponse) -> CommittedBlob:
        """
        :raises PeerUnavailable: what the peer stored isn't what was sent.
        """
        context = self._calls.context
        committed = CommittedBlob(size=self._size, sha256=self._sha256.digest())
        try:
            body = await read_small(response, context.clock, context.timeout_seconds)
            stored = msgspec.json.decode(body, type=_Stored)
        except (Unreadable, msgspec.MsgspecError) as error:
            raise self._calls.unusable(f"it doesn't say what it stored: {error}") from error
        if (stored.size, stored.sha256) != (committed.size, committed.sha256.hex()):
            await self._discard()
            raise self._calls.unusable("it stored other bytes than it was sent")
        return committed

    async def _discard(self) -> None:
        """Best effort: a blob that nobody names is found by its holder's sweep."""
        try:
            await self._calls.ask("delete", "DELETE", self._path)
        except (PeerUnavailable, BlobMissing):
            return

    async def _waiting(self, deferred: Deferred[None], seconds: float) -> None:
        """
        Wait for the peer, but not for long.

        :raises PeerUnavailable: it took too long; the request is over.
        """
        try:
            await with_timeout(deferred, seconds, self._calls.context.clock, _Stalled)
        except _Stalled:
            failure = self._calls.failure(Fault("timeout", "it takes nothing"))
            self._give_up(failure)
            raise failure from None

    def _give_up(self, failure: Exception) -> None:
        """End the request, unless it has ended."""
        if not self._request.called:
            self._failure = self._failure or failure
            self._body.stop()
            self._request.cancel()

    def _check_usable(self) -> None:
        if self._spent:
            raise ValueError("this blob was committed or aborted")
        if self._failure is not None:
            raise self._failure
        if self._response is not None:
            raise self._calls.unusable("it answered before it had all")

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._ended()
