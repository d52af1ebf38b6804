"""Copies of the state on their way to peers that are too far behind for the log."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from callfs.cluster.interfaces import ISnapshot, ITransport
from callfs.cluster.link import DeclinedByPeer, Unanswered, Unsent
from callfs.cluster.questions import (
    CHUNK_BYTES,
    Asking,
    Chunk,
    Install,
    NotUnderstood,
    Offer,
    Wanted,
    decode_reply,
    encode,
)
from callfs.deferreds import returns_deferred

CHECKSUM_BYTES = 8

_ATTEMPTS = 5
_PAUSE_SECONDS = 0.5
_ANSWER_SECONDS = 30.0
_INSTALL_SECONDS = 600.0
_KEPT_SECONDS = 30.0
_LONGEST_REST_SECONDS = 30.0


def chunk_checksum(data: bytes) -> bytes:
    """Of one piece."""
    return hashlib.blake2b(data, digest_size=CHECKSUM_BYTES).digest()


class SnapshotObserver(Protocol):
    """Who is told of copies."""

    def raft_snapshot(self, event: str) -> None:
        """A copy was ``taken``, ``sent``, ``installed``, or one of it ``failed``."""


class _Copy:
    """A copy, and how many peers are getting it."""

    def __init__(self, snapshot: ISnapshot) -> None:
        self.snapshot = snapshot
        self.users = 0
        self.closing: IDelayedCall | None = None


class SnapshotSending:
    """
    Sends one copy at a time to each peer; several peers share one.

    A copy that didn't get there is kept for a while, so that it goes on where it was broken off.

    :param take: makes a copy of the state as it is.
    :param is_current: whether the log goes on from a copy that contains everything up to an index.
    :param sent: called with the peer and the index when the peer has the state.
    :param failed: called with the peer when it hasn't.
    """

    _log = Logger()

    def __init__(
        self,
        transport: ITransport,
        clock: IReactorTime,
        *,
        take: Callable[[], Deferred[ISnapshot]],
        is_current: Callable[[int], bool],
        sent: Callable[[str, int], None],
        failed: Callable[[str], None],
        observer: SnapshotObserver,
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._take = take
        self._is_current = is_current
        self._sent = sent
        self._failed = failed
        self._observer = observer
        self._kept: _Copy | None = None
        self._taking: list[Deferred[None]] | None = None
        self._under_way: dict[str, Deferred[None]] = {}
        self._failures: dict[str, int] = {}
        self._stopped = False

    def send(self, node_id: str) -> None:
        """Begin to send a copy, unless one is on its way to that peer."""
        if node_id in self._under_way or self._stopped:
            return
        sending = self._under_way[node_id] = Deferred.fromCoroutine(self._send(node_id))
        if sending.called:
            self._under_way.pop(node_id, None)

    @returns_deferred
    async def stop(self) -> None:
        """Break off what is under way and let go of the copy."""
        self._stopped = True
        for sending in list(self._under_way.values()):
            sending.cancel()
        if self._kept is not None:
            kept, self._kept = self._kept, None
            await self._close(kept)

    async def _send(self, node_id: str) -> None:
        copy: _Copy | None = None
        index = 0
        try:
            await self._rest(node_id)
            copy = await self._copy()
            index = copy.snapshot.meta.index
            await self._deliver(node_id, copy.snapshot)
        except Exception as error:
            self._observer.raft_snapshot("failed")
            if not self._stopped:
                self._log.warn(
                    "couldn't send the state to {node}: {error}",
                    event="raft_snapshot_failed",
                    node=node_id,
                    error=str(error),
                )
            index = 0
            if not isinstance(error, Unsent | Unanswered):
                self._failures[node_id] = self._failures.get(node_id, 0) + 1
        else:
            self._failures.pop(node_id, None)
        finally:
            self._under_way.pop(node_id, None)
            if copy is not None:
                self._release(copy)
        if index:
            self._observer.raft_snapshot("sent")
            self._log.info(
                "sent the state up to {index} to {node}", event="raft_snapshot_sent", index=index, node=node_id
            )
            self._sent(node_id, index)
        elif not self._stopped:
            self._failed(node_id)

    async def _rest(self, node_id: str) -> None:
        """A peer that couldn't take one may have no room for long: not the whole state with every heartbeat."""
        failures = self._failures.get(node_id, 0)
        if failures:
            seconds = min(_PAUSE_SECONDS * 2.0 ** min(failures - 1, 30), _LONGEST_REST_SECONDS)
            await deferLater(self._clock, seconds)

    # The copy

    async def _copy(self) -> _Copy:
        while self._taking is not None:
            waiting: Deferred[None] = Deferred()
            self._taking.append(waiting)
            await waiting
        kept = self._kept
        if kept is None or not self._is_current(kept.snapshot.meta.index):
            kept = await self._fresh_copy()
        kept.users += 1
        if kept.closing is not None:
            kept.closing.cancel()
            kept.closing = None
        return kept

    async def _fresh_copy(self) -> _Copy:
        self._taking = []
        try:
            old, self._kept = self._kept, None
            if old is not None and not old.users:
                await self._close(old)
            snapshot = await self._take()
            self._observer.raft_snapshot("taken")
            copy = self._kept = _Copy(snapshot)
            return copy
        finally:
            waiting, self._taking = self._taking, None
            for each in waiting:
                each.callback(None)

    def _release(self, copy: _Copy) -> None:
        copy.users -= 1
        if copy.users:
            return
        if copy is self._kept and not self._stopped:
            copy.closing = self._clock.callLater(_KEPT_SECONDS, self._forget, copy)
        else:
            self._close(copy)

    def _forget(self, copy: _Copy) -> None:
        copy.closing = None
        if self._kept is copy:
            self._kept = None
        self._close(copy)

    def _close(self, copy: _Copy) -> Deferred[None]:
        if copy.closing is not None:
            copy.closing.cancel()
            copy.closing = None
        return copy.snapshot.close().addErrback(
            lambda failure: self._log.failure("couldn't remove a copy of the state", failure)
        )

    # The way

    async def _deliver(self, node_id: str, snapshot: ISnapshot) -> None:
        """Several attempts, each from where the one before was broken off; progress gives new patience."""
        attempts, reached = 0, 0
        while True:
            try:
                reached_now = [reached]
                await self._stream(node_id, snapshot, reached_now)
                return
            except (Unsent, Unanswered) as error:
                attempts = 0 if reached_now[0] > reached else attempts + 1
                reached = max(reached, reached_now[0])
                if attempts >= _ATTEMPTS or self._stopped:
                    raise error
            await deferLater(self._clock, _PAUSE_SECONDS)

    async def _stream(self, node_id: str, snapshot: ISnapshot, reached: list[int]) -> None:
        wanted = await self._ask(node_id, Offer(snapshot.meta, snapshot.size, snapshot.sha256))
        while not wanted.finished and wanted.offset < snapshot.size:
            reached[0] = max(reached[0], wanted.offset)
            data = await snapshot.read(wanted.offset, CHUNK_BYTES)
            piece = Chunk(snapshot.sha256, wanted.offset, data, chunk_checksum(data))
            wanted = await self._ask(node_id, piece)
        if not wanted.finished:
            reached[0] = snapshot.size
            wanted = await self._ask(node_id, Install(snapshot.sha256), _INSTALL_SECONDS)
        if not wanted.finished:
            raise DeclinedByPeer("damaged")

    async def _ask(self, node_id: str, asking: Asking, seconds: float = _ANSWER_SECONDS) -> Wanted:
        reply = decode_reply(await self._transport.ask(node_id, encode(asking), seconds))
        if not isinstance(reply, Wanted):
            raise NotUnderstood("an answer to another question")
        return reply
