"""A log of one node in memory, in front of a real state: what a cluster does to a state, without a cluster."""

from __future__ import annotations

from itertools import count
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from zope.interface import implementer

from callfs.cluster.interfaces import (
    Applied,
    ClientForgotten,
    ClusterStatus,
    IReplicator,
    IStateMachine,
    Membership,
    Step,
)
from callfs.cluster.requests import Request
from callfs.deferreds import returns_deferred
from callfs.raft.boundary import Role, Status
from callfs.raft.membership import Member

MEMBERS = Membership("cluster-1", (Member("node-1", "disk-1", "127.0.0.1:7000", "", True),))
_INSTANT = 1_700_000_000_000_000


@implementer(IReplicator)
class SingleLog:
    """
    Everything that is proposed is applied, in the order of its coming.

    :param state: opened by :meth:`start` and closed by :meth:`stop`.
    :ivar leads: whether it says that it leads.
    :ivar refusal: what proposals fail with, without being applied.
    :ivar silence: what proposals fail with although they are applied.
    """

    def __init__(self, state: IStateMachine) -> None:
        self._state = state
        self._turn = DeferredLock()
        self._sequences = count(1)
        self._instants = count(_INSTANT)
        self._client = 0
        self._index = self._last = 0
        self._queue: list[tuple[Step, Deferred[tuple[int, Any]]]] = []
        self._busy = self._held = False
        self._idle: list[Deferred[None]] = []
        self.leads = True
        self.refusal: Exception | None = None
        self.silence: Exception | None = None

    async def start(self) -> None:
        """Open the state; a new one gets a membership and a client."""
        meta = await self._state.open()
        self._index = self._last = meta.index
        if meta.index == 0:
            await self._append(membership=MEMBERS)
        self._client, _ = await self._append(Request(0, 0, 0, next(self._instants), 1, b""))

    def hold(self) -> None:
        """Apply nothing until :meth:`let_go`."""
        self._held = True
        self._turn.acquire()

    def let_go(self) -> None:
        """Go on."""
        if self._held:
            self._held = False
            self._turn.release()

    @property
    def applied(self) -> int:
        """How many entries there are."""
        return self._index

    async def stop(self) -> None:
        """Close the state."""
        self.let_go()
        await self.idle()
        await self._state.close()

    def _append(
        self, request: Request | None = None, membership: Membership | None = None
    ) -> Deferred[tuple[int, Any]]:
        """An entry behind all others; what has come when the state is free is applied together."""
        done: Deferred[tuple[int, Any]] = Deferred()
        self._queue.append((Step(self._last + 1, 1, request, membership), done))
        self._last += 1
        if not self._busy:
            self._busy = True
            self._apply()
        return done

    @returns_deferred
    async def _apply(self) -> None:
        while self._queue:
            batch, self._queue = self._queue, []
            outcomes = await self._turn.run(self._state.apply, [step for step, _ in batch])
            self._index = batch[-1][0].index
            for (step, done), outcome in zip(batch, outcomes, strict=True):
                done.callback((step.index, outcome))
        self._busy = False
        idle, self._idle = self._idle, []
        for each in idle:
            each.callback(None)

    @returns_deferred
    async def idle(self) -> None:
        """Fires when nothing is to be applied, and nothing came of what was applied."""
        while self._busy:
            waiting: Deferred[None] = Deferred()
            self._idle.append(waiting)
            await waiting

    @returns_deferred
    async def propose(self, command: bytes, version: int = 1) -> Applied:
        """See :class:`IReplicator`."""
        if self.refusal is not None:
            raise self.refusal
        sequence = next(self._sequences)
        index, outcome = await self._append(
            Request(self._client, sequence, sequence, next(self._instants), version, command)
        )
        assert not isinstance(outcome, ClientForgotten)
        if self.silence is not None:
            raise self.silence
        return Applied(index, outcome)

    @returns_deferred
    async def read_barrier(self) -> int:
        """See :class:`IReplicator`."""
        await self._turn.run(lambda: None)
        return self._index

    def status(self) -> ClusterStatus:
        """See :class:`IReplicator`."""
        raft = Status(
            node_id="node-1",
            role=Role.LEADER if self.leads else Role.FOLLOWER,
            term=1,
            leader="node-1",
            removed=False,
            writable=True,
            commit=self._index,
            applied=self._index,
            durable=self._index,
            last_index=self._index,
            first_index=1,
            log_bytes=0,
            leader_silent_ticks=0,
            transferring_to=None,
            membership=MEMBERS,
            peers=(),
            refused_conflicts=0,
        )
        return ClusterStatus("cluster-1", "disk-1", raft, "", False, ())

    def membership(self) -> Membership:
        """See :class:`IReplicator`."""
        return MEMBERS

    def join(self, node_id: str, raft_address: str, api_endpoint: str = "") -> Deferred[Membership]:
        """Nobody joins."""
        raise NotImplementedError

    def remove(self, node_id: str) -> Deferred[Membership]:
        """Nobody leaves."""
        raise NotImplementedError

    def transfer(self, node_id: str) -> Deferred[None]:
        """There is nobody else."""
        raise NotImplementedError
