"""
A blob on its way to S3: one request if it is small, else parts, some of them at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from callfs.backends.interfaces import CommittedBlob, Hasher, IStagedBlob
from callfs.backends.jobs import Jobs
from callfs.backends.s3_errors import S3Fault
from callfs.backends.s3_gathering import Gathering
from callfs.backends.s3_multipart import S3Multipart
from callfs.backends.s3_objects import S3Objects
from callfs.backends.s3_partflow import Hashing, PartFlow
from callfs.backends.s3_parts import MOST_PARTS, memory_bytes, part_bytes
from callfs.backends.s3_request import content_of
from callfs.deferreds import returns_deferred, shielded
from callfs.errors import PayloadTooLarge


@implementer(IStagedBlob)
class S3StagedBlob:
    """
    Gathers a part while the ones before are sent. What fits into the first is sent at the commit, in one request.

    :param translate: makes the caller's error of a fault, and reports it.
    :param ended: called once, when the blob is committed or gone.
    """

    def __init__(
        self,
        key: str,
        declared_size: int | None,
        hashers: Sequence[Hasher],
        *,
        objects: S3Objects,
        multipart: S3Multipart,
        jobs: Jobs,
        translate: Callable[[S3Fault], Exception],
        ended: Callable[[], None],
    ) -> None:
        self._key = key
        self._declared_size = declared_size
        self._sha256 = hashlib.sha256()
        self._more_hashers = tuple(hashers)
        self._objects = objects
        self._jobs = jobs
        self._translate = translate
        self._ended = ended
        self._gathering = Gathering()
        self._parts = 0
        self._bytes_in_parts = 0
        hashing = Hashing((self._sha256, *hashers), jobs)
        self._flow = PartFlow(key, multipart=multipart, hashing=hashing, jobs=jobs)
        self._part_bytes = part_bytes(1, 0, declared_size)
        self._failure: Exception | None = None
        self._spent = False
        self._ending = False
        self._over = False
        self._over_waiters: list[Deferred[None]] = []

    @property
    def buffered_bytes(self) -> int:
        """What is in memory: gathered, or on its way."""
        return self._gathering.size + self._flow.bytes_under_way

    def write(self, data: bytes) -> Deferred[None]:
        """See :meth:`IStagedBlob.write`. A fault shows at the next call."""
        if self._gathering.size + len(data) <= self._part_bytes and not self._spent and self._flow.failure is None:
            self._gathering.add(data)
            return succeed(None)
        return self._write(data)

    def commit(self) -> Deferred[CommittedBlob]:
        """See :meth:`IStagedBlob.commit`; shields itself."""
        return shielded(self._commit())

    def abort(self) -> Deferred[None]:
        """See :meth:`IStagedBlob.abort`; gives up the parts that are on their way, but waits for a commit."""
        return shielded(self._abort())

    @returns_deferred
    async def _write(self, data: bytes) -> None:
        self._check_usable()
        rest = memoryview(data)
        while rest:
            if self._gathering.size >= self._part_bytes:
                await self._send_part()
            room = self._part_bytes - self._gathering.size
            self._gathering.add(rest[:room])
            rest = rest[room:]

    async def _send_part(self) -> None:
        """Send what has gathered, and wait until there is room to gather as much again."""
        self._cut()
        try:
            await self._flow.room(memory_bytes(self._part_bytes) - self._part_bytes)
        except S3Fault:
            self._check_sound()
        self._check_usable()

    def _cut(self) -> None:
        if self._parts == MOST_PARTS:
            raise PayloadTooLarge("The content is larger than an object on S3 can be.")
        self._parts += 1
        self._bytes_in_parts += self._gathering.size
        self._flow.begin(self._parts, self._gathering.take())
        self._part_bytes = part_bytes(self._parts + 1, self._bytes_in_parts, self._declared_size)

    @returns_deferred
    async def _commit(self) -> CommittedBlob:
        if self._spent:
            raise ValueError("this blob was committed or aborted")
        self._spent = self._ending = True
        try:
            self._check_sound()
            committed = await (self._finish() if self._parts else self._put())
        except S3Fault as fault:
            await self._flow.abandon()
            if fault.passing:
                await self._unmake()
            raise self._failed(fault) from fault
        except BaseException:
            await self._flow.abandon()
            raise
        finally:
            self._end()
        return committed

    async def _put(self) -> CommittedBlob:
        """All in one request."""
        chunks = self._gathering.take()
        hashed = Hashing(self._more_hashers, self._jobs).feed(chunks)
        content = await self._jobs.run(content_of, chunks)
        await self._objects.put(self._key, content)
        await hashed
        return CommittedBlob(size=content.size, sha256=content.sha256)

    async def _finish(self) -> CommittedBlob:
        if self._gathering.size:
            self._cut()
        await self._flow.finish(self._bytes_in_parts)
        return CommittedBlob(size=self._bytes_in_parts, sha256=self._sha256.digest())

    async def _unmake(self) -> None:
        """What was sent last may have made the object although nobody said so; the sweep finds what stays."""
        with suppress(S3Fault):
            await self._objects.delete(self._key)

    @returns_deferred
    async def _abort(self) -> None:
        self._spent = True
        if self._over:
            return
        if self._ending:
            waiter: Deferred[None] = Deferred()
            self._over_waiters.append(waiter)
            await waiter
            return
        self._ending = True
        self._gathering = Gathering()
        try:
            await self._flow.abandon()
        finally:
            # Only now, so that whoever closes the backend meanwhile waits for the parts to be forgotten.
            self._end()

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._gathering = Gathering()
            self._ended()
        waiters, self._over_waiters = self._over_waiters, []
        for waiter in waiters:
            waiter.callback(None)

    def _check_sound(self) -> None:
        failure = self._flow.failure
        if failure is not None:
            raise self._failed(failure) if isinstance(failure, S3Fault) else failure

    def _check_usable(self) -> None:
        self._check_sound()
        if self._spent:
            raise ValueError("this blob was committed or aborted")

    def _failed(self, fault: S3Fault) -> Exception:
        """The caller's error; reported once."""
        if self._failure is None:
            self._failure = self._translate(fault)
        return self._failure
