"""Locks in a real replicated state, behind a log of one node."""

from __future__ import annotations

import secrets
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import TestCase

from callfs.cluster.interfaces import StateUnusable, Step
from callfs.cluster.requests import Request
from callfs.errors import InsufficientStorage, InternalError, MetadataUnavailable, OutcomeUnknown, ResourceLocked
from callfs.locks.replicated import LEASE_SECONDS, LOCKS, ReplicatedLocks
from callfs.locks.replicated_commands import (
    Claim,
    EndSession,
    LockCommand,
    Place,
    Release,
    Renew,
    UnknownAnswer,
    decode_answers,
    encode_commands,
)
from callfs.locks.replicated_table import Changes, LockTable
from callfs.metadata.replicated_state import MetadataState
from callfs.metadata.sqlite import Unobserved
from tests.contract.locks import LockServiceContract
from tests.support.single_log import SingleLog

BEAT_SECONDS = LEASE_SECONDS / 3


class LogCase(TestCase):
    """A log with the locks' part in its state."""

    timeout = 100

    async def begin(self) -> None:
        """Start the log; everything ends with the test."""
        folder = Path(tempfile.mkdtemp(prefix="callfs-locks-"))
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        pool = ThreadPool(0, 4)
        pool.start()
        self.addCleanup(pool.stop)
        self.clock = Clock()
        self.table = LockTable()
        self.state = MetadataState(
            folder,
            reactor=reactor,  # type: ignore[arg-type]
            pool=pool,
            query_pool=pool,
            token_bytes=secrets.token_bytes,
            op_timeout_seconds=10.0,
            observer=Unobserved(),
            parts={LOCKS: self.table},
        )
        self.log = SingleLog(self.state)
        await self.log.start()
        self.addCleanup(self.log.stop)

    def service(
        self, table: LockTable | None = None, clock: Clock | None = None, lost: Callable[[], None] = lambda: None
    ) -> ReplicatedLocks:
        """A node's locks."""
        locks = ReplicatedLocks(
            self.log,
            table or self.table,
            token_bytes=secrets.token_bytes,
            clock=clock or self.clock,
            lost=lost,
        )
        self.addCleanup(locks.close)
        return locks


def logged(case: Any) -> list[type[BaseException]]:
    """The kinds of errors that were logged in a test, and are no more."""
    return [type(error.value) for error in case.flushLoggedErrors()]


class ReplicatedLocksTests(LockServiceContract, LogCase):
    """The locks in the replicated state keep the port's promises."""

    provider = ReplicatedLocks
    # Each turn is an entry of the log, with two changes of threads: on a machine that does much else besides three
    # thousand can take longer than a test may. So many are still more than Python's stack could have.
    crowd = 1500

    async def setUp(self) -> None:  # type: ignore[override]
        await self.begin()
        super().setUp()

    def make_locks(self) -> ReplicatedLocks:
        return self.service()

    def let_pass(self, seconds: float) -> None:
        self.clock.advance(seconds)


class TestLeases(LogCase):
    """Locks of a node that is silent become free, and only those."""

    async def setUp(self) -> None:  # type: ignore[override]
        await self.begin()
        # Two nodes: each is told what is applied to its own copy, of which one stands for both.
        self.other_table = LockTable()
        self.lost = 0
        self.stopped = False
        self.there_clock = Clock()
        self.here = self.service()
        self.there = self.service(self.other_table, self.there_clock, self._lose)
        told_here = self.table.changed

        def told(changes: Any) -> None:
            told_here(changes)
            self.other_table.changed(changes)

        self.table.changed = told

    def _lose(self) -> None:
        self.lost += 1

    async def settled(self) -> None:
        """Wait until what was proposed is applied."""
        await self.log.idle()

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, beat by beat."""
        for _ in range(round(seconds / BEAT_SECONDS)):
            self.clock.advance(BEAT_SECONDS)
            if not self.stopped:
                self.there_clock.advance(BEAT_SECONDS)
            await self.settled()

    async def test_silent_node(self) -> None:
        """A node that gives no signs of life loses its locks within the time to live and two beats, and is told."""
        self.here.start()
        await self.there.acquire(("/a",), 0)
        self.stopped = True
        waiting = self.here.acquire(("/a",), 10 * LEASE_SECONDS)
        await self.pass_time(LEASE_SECONDS - BEAT_SECONDS)
        assert not waiting.called
        await self.pass_time(4 * BEAT_SECONDS)
        (lease,) = await waiting
        assert self.lost == 1
        await lease.release()

    async def test_living_node(self) -> None:
        """A node that lives keeps its locks for as long as it likes."""
        (lease,) = await self.there.acquire(("/a",), 0)
        await self.pass_time(10 * LEASE_SECONDS)
        with pytest.raises(ResourceLocked):
            await self.here.acquire(("/a",), 0)
        await lease.release()
        await (await self.here.acquire(("/a",), 0))[0].release()
        assert self.lost == 0

    async def test_only_a_leader_counts(self) -> None:
        """Only a leader ends sessions, and a new one gives everybody a whole lease."""
        self.log.leads = False
        self.here.start()
        await self.there.acquire(("/a",), 0)
        self.stopped = True
        await self.pass_time(10 * LEASE_SECONDS)
        with pytest.raises(ResourceLocked):
            await self.here.acquire(("/a",), 0)
        self.log.leads = True
        await self.pass_time(LEASE_SECONDS - BEAT_SECONDS)
        with pytest.raises(ResourceLocked):
            await self.here.acquire(("/a",), 0)
        await self.pass_time(4 * BEAT_SECONDS)
        await (await self.here.acquire(("/a",), 0))[0].release()

    async def test_waiting_in_an_ended_session(self) -> None:
        """Whoever waits at a node that was taken for dead is refused, and doesn't wait for nothing."""
        (held,) = await self.here.acquire(("/a",), 0)
        waiting = self.there.acquire(("/a",), 100 * LEASE_SECONDS)
        await self.settled()
        self.stopped = True
        await self.pass_time(LEASE_SECONDS + 4 * BEAT_SECONDS)
        with pytest.raises(MetadataUnavailable):
            await waiting
        await held.release()

    async def test_another_state(self) -> None:
        """A node that took over a copy learns from it which of its claims hold their keys."""
        (held,) = await self.here.acquire(("/a",), 0)
        waiting = self.here.acquire(("/a",), 100 * LEASE_SECONDS)
        await self.settled()
        changed, self.table.changed = self.table.changed, lambda changes: None
        await held.release()
        self.table.changed = changed
        assert not waiting.called
        snapshot = await self.state.snapshot()
        received = Path(tempfile.mkdtemp()) / "received"
        self.addCleanup(shutil.rmtree, received.parent)
        received.write_bytes(await snapshot.read(0, snapshot.size))
        await snapshot.close()
        await self.state.install(received, snapshot.meta)
        done: Deferred[Any] = waiting
        await (await done)[0].release()


class TestFaults(LogCase):
    """Whatever happens on the way, a claim that isn't held leaves no trace, and what is held is kept."""

    async def setUp(self) -> None:  # type: ignore[override]
        await self.begin()
        self.locks = self.service()

    async def free(self, *keys: str) -> bool:
        """Whether these can be had now, all of them."""
        try:
            leases = await self.locks.acquire(keys, 0)
        except ResourceLocked:
            return False
        for lease in leases:
            await lease.release()
        return True

    async def test_no_leader(self) -> None:
        """Without a leader locks can't be had, and nothing is left to be told when there is one again."""
        self.log.refusal = MetadataUnavailable("no leader")
        with pytest.raises(MetadataUnavailable):
            await self.locks.acquire(("/a",), 10)
        self.log.refusal = None
        before = self.log.applied
        self.clock.advance(5 * LEASE_SECONDS)
        await self.log.idle()
        assert self.log.applied == before
        assert await self.free("/a")

    async def test_no_leader_for_those_behind(self) -> None:
        """Whoever waits behind a claim that nobody answered in time is refused with it, and leaves nothing."""
        self.log.hold()
        self.log.silence = OutcomeUnknown("no answer")
        first, second = self.locks.acquire(("/a",), 0), self.locks.acquire(("/b",), 0)
        self.log.let_go()
        for claim in (first, second):
            with pytest.raises(MetadataUnavailable):
                await claim
        await self.log.idle()
        self.log.silence = None
        self.clock.advance(1)
        await self.log.idle()
        assert await self.free("/a", "/b")

    async def test_outcome_unknown(self) -> None:
        """A claim of which nobody knows whether it was made is given up, as soon as that can be told."""
        self.log.silence = OutcomeUnknown("no answer")
        with pytest.raises(MetadataUnavailable):
            await self.locks.acquire(("/a",), 10)
        await self.log.idle()
        self.log.silence, self.log.refusal = None, MetadataUnavailable("no leader")
        self.clock.advance(1)
        self.log.refusal = None
        self.clock.advance(1)
        await self.log.idle()
        assert await self.free("/a")

    async def test_full_disk(self) -> None:
        """A cluster that can't write keeps no locks, and says it with the port's own error."""
        self.log.refusal = InsufficientStorage("full")
        with pytest.raises(MetadataUnavailable):
            await self.locks.acquire(("/a",), 0)

    async def test_refused_entry(self) -> None:
        """A fault of the daemon itself is no lock either, and the claim is given up as soon as that works."""
        self.log.refusal = ValueError("a fault")
        with pytest.raises(InternalError):
            await self.locks.acquire(("/a",), 0)
        assert logged(self) == [ValueError, ValueError]  # the claim, and giving it up
        self.log.refusal = None
        self.clock.advance(1)
        assert await self.free("/a")

    async def test_release_without_leader(self) -> None:
        """A lock that can't be given back now is given back when there is a leader again."""
        (lease,) = await self.locks.acquire(("/a",), 0)
        self.log.refusal = MetadataUnavailable("no leader")
        await lease.release()
        self.log.refusal = None
        assert not await self.free("/a")
        self.clock.advance(1)
        await self.log.idle()
        assert await self.free("/a")

    async def test_one_of_two_keys(self) -> None:
        """Whoever gives one of its keys back keeps the other, for as long as it likes."""
        self.locks.start()
        first, second = await self.locks.acquire(("/a", "/b"), 0)
        await first.release()
        for _ in range(30):
            self.clock.advance(BEAT_SECONDS)
            await self.log.idle()
        assert await self.free("/a")
        assert not await self.free("/b")
        await second.release()
        assert await self.free("/a", "/b")

    async def test_few_entries(self) -> None:
        """What is asked for while an entry is under way goes together in the next."""
        before = self.log.applied
        claims = [self.locks.acquire((f"/{number}",), 0) for number in range(1000)]
        leases = [(await claim)[0] for claim in claims]
        assert self.log.applied == before + 2
        assert len({lease.fencing for lease in leases}) == 1000
        for release in [lease.release() for lease in leases]:
            await release
        assert self.log.applied == before + 3

    async def test_cancelled_before_it_was_sent(self) -> None:
        """A claim that is still in the queue when nobody wants it any more isn't made at all."""
        first = self.locks.acquire(("/a",), 0)
        second = self.locks.acquire(("/b",), 0)
        second.cancel()
        with pytest.raises(CancelledError):
            await second
        before = self.log.applied
        await (await first)[0].release()
        assert self.log.applied == before + 2
        assert await self.free("/a", "/b")

    async def test_cancelled_on_its_way(self) -> None:
        """A claim that is given up while its entry is under way is released right behind it."""
        claim = self.locks.acquire(("/a",), 10)
        claim.cancel()
        with pytest.raises(CancelledError):
            await claim
        assert await self.free("/a")

    async def test_expired_in_the_queue(self) -> None:
        """Whose time is over before its claim was sent is refused then and there."""
        self.log.hold()
        first = self.locks.acquire(("/a",), 0)
        second = self.locks.acquire(("/b",), 1)
        self.clock.advance(1)
        with pytest.raises(ResourceLocked):
            await second
        self.log.let_go()
        await (await first)[0].release()

    async def test_silent_cluster(self) -> None:
        """Whose time is over while nobody answers is told that, a second later, and leaves no claim behind."""
        self.log.hold()
        claim = self.locks.acquire(("/a",), 3)
        self.clock.advance(3)
        self.clock.advance(0.9)
        assert not claim.called
        self.clock.advance(0.2)
        with pytest.raises(MetadataUnavailable):
            await claim
        self.log.let_go()
        assert await self.free("/a")

    async def test_closed_without_leader(self) -> None:
        """The end doesn't wait long for a cluster that doesn't answer."""
        await self.locks.acquire(("/a",), 0)
        self.log.hold()
        closing = self.locks.close()
        assert not closing.called
        self.clock.advance(1)
        await closing
        self.log.let_go()


class TestTable(LogCase):
    """The locks' part of the state, entry by entry."""

    async def setUp(self) -> None:  # type: ignore[override]
        await self.begin()
        self.seen: list[Changes] = []
        self.table.changed = self.seen.append

    async def said(self, *commands: LockCommand) -> tuple[Place | None, ...]:
        """The answers to commands in one entry."""
        return decode_answers((await self.log.propose(LOCKS + encode_commands(commands))).result)

    async def test_moving_up(self) -> None:
        """A claim holds its keys when it is first in line for all of them, and not before."""
        first, second, third = await self.said(
            Claim(b"s", b"1", ("/a",)), Claim(b"s", b"2", ("/b",)), Claim(b"s", b"3", ("/a", "/b"))
        )
        assert (first and first.held, second and second.held, third and third.held) == (True, True, False)
        await self.said(Release(b"1", ("/a",)))
        assert not self.seen[-1].held
        await self.said(Release(b"2", ("/b",)))
        assert third is not None
        assert self.seen[-1].held == {b"3": third.number}

    async def test_refused_as_a_whole(self) -> None:
        """Of an entry that can't be carried out nothing is done, and nothing is told."""
        await self.said(Claim(b"s", b"1", ("/a",)), Claim(b"s", b"2", ("/a",)))
        with pytest.raises(UnknownAnswer):
            await self.said(Release(b"1", ("/a",)), Claim(b"t", b"2", ("/b",)))
        assert logged(self) == [sqlite3.IntegrityError]
        assert [(changes.held, set(changes.heard)) for changes in self.seen] == [({}, {b"s"})]
        await self.said(Release(b"1", ("/a",)))
        assert set(self.seen[-1].held) == {b"2"}

    async def test_heard_meanwhile(self) -> None:
        """A session isn't ended when it was heard of after whoever wants to end it had looked."""
        await self.said(Claim(b"s", b"1", ("/a",)))
        looked_at = self.log.applied
        await self.said(Renew(b"s"))
        await self.said(EndSession(b"s", looked_at))
        assert not self.seen[-1].ended
        await self.said(EndSession(b"s", self.log.applied))
        assert self.seen[-1].ended == {b"s"}

    async def test_unknown_command(self) -> None:
        """A command of another version stops the node rather than being skipped."""
        for data in (b"", b"\xc1", b"\x91\x82\xa4type\xa5renew\xa7session\xc4\x01s"[:-1]):
            with pytest.raises(StateUnusable, match="doesn't know"):
                await self.state.apply([Step(self.log.applied + 1, 1, Request(2, 1_000, 1, 0, 1, LOCKS + data))])
