"""Changes of the membership and of the leadership, as the leader carries them out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from callfs.cluster.connections import UNSURE, DeclinedQuestion
from callfs.cluster.forming import PROBE_SECONDS, why_refused
from callfs.cluster.handshake import HandshakeRefused
from callfs.cluster.identity import PeerIdentity
from callfs.cluster.interfaces import ITransport, Step
from callfs.cluster.link import Unsent
from callfs.cluster.questions import Announce, Changed, Join, NotChanged, Remove, Transfer
from callfs.deferreds import with_timeout
from callfs.raft.boundary import Position, Refusal
from callfs.raft.core import Core
from callfs.raft.membership import AddLearner, Member, MembershipChange, RemoveMember, UpdateMember

_PAUSE_SECONDS = 0.05
_PASSING = frozenset((Refusal.NOT_YET, Refusal.CHANGE_PENDING, Refusal.TRANSFERRING, Refusal.BUSY))

_MESSAGES: Mapping[Refusal, str] = MappingProxyType(
    {
        Refusal.NOT_YET: "the leader has just been elected: try again",
        Refusal.CHANGE_PENDING: "another change of the membership is under way: try again",
        Refusal.TRANSFERRING: "the leadership is being handed over: try again",
        Refusal.BUSY: "the leader is too busy: try again",
        Refusal.UNWRITABLE: "the leader's disk is full",
        Refusal.UNKNOWN_MEMBER: "the cluster has no such node",
        Refusal.OTHER_DISK: (
            "a node of that name belongs to the cluster, with another disk: if its data was lost or replaced, "
            "remove it first ('callfs cluster remove')"
        ),
        Refusal.ADDRESS_TAKEN: "another node of the cluster has that raft address",
        Refusal.LAST_VOTER: "it is the only voter: without it the cluster couldn't go on",
        Refusal.WITHOUT_MAJORITY: (
            "another voter doesn't answer just now, and without this node the rest would be no majority: bring "
            "the other one back, or remove it first"
        ),
        Refusal.NOT_A_VOTER: "the node is still catching up, so it can't lead",
        Refusal.UNREACHABLE: "the node hasn't answered the leader of late, or answers from another disk",
    }
)


class Changes:
    """
    What a leader does when it is asked for a change; on any other node a question is declined as ``not_leader``.

    :param core: this node's raft.
    :param node_id: this node.
    :param seconds_limit: how long a change may take.
    :param election_seconds: how long a handing over may take.
    :param wake: called when the core has something to do.
    """

    def __init__(
        self,
        core: Core,
        node_id: str,
        transport: ITransport,
        clock: IReactorTime,
        *,
        seconds_limit: float,
        election_seconds: float,
        wake: Callable[[], None],
    ) -> None:
        self._core = core
        self._node_id = node_id
        self._transport = transport
        self._clock = clock
        self._seconds_limit = seconds_limit
        self._election_seconds = election_seconds
        self._wake = wake
        self._places: list[tuple[Position, Deferred[bool]]] = []

    def applied(self, steps: Sequence[Step]) -> None:
        """The state machine contains these entries."""
        if not self._places:
            return
        last, terms = steps[-1], {step.index: step.term for step in steps}
        for place, waiting in list(self._places):
            if place.index <= last.index or place.term < last.term:
                self._places.remove((place, waiting))
                waiting.callback(terms.get(place.index) == place.term)

    def stop(self) -> None:
        """Nobody is told any more what became of a change."""
        places, self._places = self._places, []
        for _, waiting in places:
            waiting.errback(DeclinedQuestion(UNSURE))

    async def join(self, asking: Join) -> Changed | NotChanged:
        """Look who is at the address, and let it in as a learner."""
        self._must_lead()
        if asking.node_id == self._node_id:
            return self._joined_itself(asking)
        peer = await self._found(asking.node_id, asking.raft_address)
        if isinstance(peer, NotChanged):
            return peer
        known = [member.version for member in self._core.membership.members]
        if peer.command_version < min(known, default=0):
            return NotChanged("version", f"node {asking.node_id} runs an older CallFS than the cluster needs")
        endpoint = asking.api_endpoint or peer.api_endpoint
        member = Member(peer.node_id, peer.disk_id, asking.raft_address, endpoint, False, peer.command_version)
        return await self._change(AddLearner(member))

    async def _found(self, node_id: str, address: str) -> PeerIdentity | NotChanged:
        """Who is there, if it is that node."""
        try:
            return await self._transport.probe(address, node_id, PROBE_SECONDS)
        except HandshakeRefused as error:
            why = why_refused(error) or str(error)
            return NotChanged(error.reason, f"node {node_id} isn't found at {address}: {why}")
        except Unsent as error:
            return NotChanged("unreachable", f"the leader can't reach {address}: {error}")

    def _joined_itself(self, asking: Join) -> Changed | NotChanged:
        own = self._core.membership.get(asking.node_id)
        if own is not None and own.raft_address == asking.raft_address:
            return Changed(self._core.membership)
        return NotChanged("node", f"node {asking.node_id} leads the cluster, and isn't at {asking.raft_address}")

    async def remove(self, asking: Remove) -> Changed | NotChanged:
        """Remove a node; one that isn't there is removed."""
        reply = await self._change(RemoveMember(asking.node_id))
        if isinstance(reply, NotChanged) and reply.reason == Refusal.UNKNOWN_MEMBER.value:
            return Changed(self._core.membership)
        return reply

    async def announce(self, asking: Announce, peer: PeerIdentity) -> Changed | NotChanged:
        """A member has new addresses or a new version. The others are told of an address where it is found."""
        self._must_lead()
        known = self._core.membership.get(peer.node_id)
        if known is not None and known.raft_address != asking.raft_address and peer.node_id != self._node_id:
            found = await self._found(peer.node_id, asking.raft_address)
            if isinstance(found, NotChanged):
                return found
        return await self._change(
            UpdateMember(peer.node_id, peer.disk_id, asking.raft_address, asking.api_endpoint, asking.version)
        )

    async def transfer(self, asking: Transfer) -> Changed | NotChanged:
        """Hand the leadership over, and see whether it was taken."""
        self._must_lead()
        refusal = self._core.transfer_leadership(asking.node_id)
        if refusal is not None:
            return _not_changed(refusal)
        self._wake()
        given_up_at = self._clock.seconds() + 2 * self._election_seconds
        while self._clock.seconds() < given_up_at:
            if self._core.leader == asking.node_id:
                return Changed(self._core.membership)
            await deferLater(self._clock, _PAUSE_SECONDS)
        return NotChanged("timeout", f"node {asking.node_id} didn't take the leadership over in time")

    def _must_lead(self) -> None:
        if self._core.leader != self._node_id:
            raise DeclinedQuestion("not_leader")

    async def _change(self, change: MembershipChange) -> Changed | NotChanged:
        given_up_at = self._clock.seconds() + self._seconds_limit
        while True:
            taken = self._core.propose_membership(change)
            if taken is Refusal.NOT_LEADER:
                raise DeclinedQuestion("not_leader")
            if taken is Refusal.UNCHANGED:
                return Changed(self._core.membership)
            if isinstance(taken, Position):
                return await self._in_force(taken, max(given_up_at - self._clock.seconds(), _PAUSE_SECONDS))
            if taken not in _PASSING or self._clock.seconds() > given_up_at:
                return _not_changed(taken)
            await deferLater(self._clock, _PAUSE_SECONDS)

    async def _in_force(self, place: Position, seconds: float) -> Changed:
        """Wait until it is committed and applied here; without a majority that may be never."""
        waiting: Deferred[bool] = Deferred()
        self._places.append((place, waiting))
        self._wake()
        try:
            it_is = await with_timeout(waiting, seconds, self._clock, lambda: DeclinedQuestion(UNSURE))
        finally:
            self._places = [each for each in self._places if each[1] is not waiting]
        if not it_is:
            raise DeclinedQuestion("not_leader")
        return Changed(self._core.membership)


def _not_changed(refusal: Refusal) -> NotChanged:
    return NotChanged(refusal.value, _MESSAGES.get(refusal, refusal.value))
