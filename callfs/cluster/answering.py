"""What a node answers when a peer, or its own API, asks for something that is up to the leader or about a state."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater

from callfs.cluster.changes import Changes
from callfs.cluster.connections import UNSURE, DeclinedQuestion
from callfs.cluster.identity import PeerIdentity
from callfs.cluster.interfaces import ChangeRefused, ITransport
from callfs.cluster.link import DeclinedByPeer, Unanswered, Unsent
from callfs.cluster.questions import (
    Announce,
    Asking,
    Changed,
    Chunk,
    Forward,
    Install,
    Join,
    NotChanged,
    NotUnderstood,
    Offer,
    Place,
    Places,
    Refused,
    Remove,
    Reply,
    Sighted,
    Transfer,
    decode_asking,
    decode_reply,
    encode,
)
from callfs.cluster.requests import NotARequest, decode_request
from callfs.cluster.snapshot_receiving import SnapshotReceiving
from callfs.cluster.underway import UnderWay
from callfs.deferreds import returns_deferred
from callfs.errors import MetadataUnavailable, OutcomeUnknown
from callfs.raft.boundary import Refusal
from callfs.raft.core import Core

_PAUSE_SECONDS = 0.05
_NO_LEADER = "the metadata cluster has no leader; nothing was changed"
_UNKNOWN = "the leader of the metadata cluster didn't say what became of this: look before repeating it"


def place(
    core: Core, requests: Sequence[bytes], versions: Sequence[int | None] | None = None
) -> list[Place | Refused]:
    """
    Propose requests, in order; what became of each.

    :param versions: of the requests where they are this node's own, so that they needn't be read.
    """
    known = min((member.version for member in core.membership.members), default=0)
    if versions is None:
        versions = [_version(data) for data in requests]
    suitable = [
        data for data, version in zip(requests, versions, strict=True) if version is not None and version <= known
    ]
    placed = _placed(core, suitable)
    if len(suitable) == len(requests):
        return placed
    outcomes = iter(placed)
    return [
        # Every node would have to stop at what is no request.
        Refused("MALFORMED") if version is None else Refused("TOO_NEW") if version > known else next(outcomes)
        for version in versions
    ]


def _version(data: bytes) -> int | None:
    try:
        return decode_request(data).version
    except NotARequest:
        return None


def _placed(core: Core, requests: Sequence[bytes]) -> list[Place | Refused]:
    outcomes: list[Place | Refused] = []
    while len(outcomes) < len(requests):
        taken = core.propose_all(requests[len(outcomes) :])
        outcomes += [Place(taken.term, index) for index in range(taken.index, taken.index + taken.count)]
        if taken.refusal is Refusal.TOO_LARGE:
            outcomes.append(Refused(taken.refusal.name))
        elif taken.refusal is not None:
            # It is so for all that are left.
            outcomes += [Refused(taken.refusal.name)] * (len(requests) - len(outcomes))
    return outcomes


class Answers:
    """
    Answers questions of peers.

    :param heard_of: called with a member's id and where another node reaches it.
    """

    def __init__(
        self,
        core: Core,
        changes: Changes,
        receiving: SnapshotReceiving,
        *,
        heard_of: Callable[[str, str], None],
    ) -> None:
        self._core = core
        self._heard_of = heard_of
        self._changes = changes
        self._receiving = receiving
        self._under_way = UnderWay()

    def stop(self) -> None:
        """Break off what the leader is asked for."""
        self._under_way.stop()

    @returns_deferred
    async def answer(self, peer: PeerIdentity, payload: bytes) -> bytes:
        """
        Answer a question.

        :raises DeclinedQuestion: it isn't for this node, or not understood.
        """
        try:
            asking = decode_asking(payload)
        except NotUnderstood:
            raise DeclinedQuestion("malformed") from None
        return encode(await self.reply(peer, asking))

    async def reply(self, peer: PeerIdentity, asking: Asking) -> Reply:
        """The answer to a question."""
        match asking:
            case Forward():
                return Places(tuple(place(self._core, asking.requests)))
            case Join():
                return await self._under_way.run(self._changes.join(asking))
            case Remove():
                return await self._under_way.run(self._changes.remove(asking))
            case Announce():
                return await self._under_way.run(self._changes.announce(asking, peer))
            case Transfer():
                return await self._under_way.run(self._changes.transfer(asking))
            case Sighted():
                self._heard_of(asking.node_id, asking.raft_address)
                return Changed(self._core.membership)
            case Offer():
                return await self._receiving.offered(asking)
            case Chunk():
                return await self._receiving.came(asking)
            case Install():
                return await self._receiving.complete(asking)


class Leadership:
    """
    Asks whoever leads, this node included, until there is an answer.

    :param node_id: this node.
    :param timeout_seconds: for how long.
    """

    def __init__(
        self, core: Core, node_id: str, transport: ITransport, clock: IReactorTime, *, timeout_seconds: float
    ) -> None:
        self._core = core
        self._node_id = node_id
        self._transport = transport
        self._clock = clock
        self._timeout_seconds = timeout_seconds
        self._under_way = UnderWay()

    def stop(self) -> None:
        """Whoever still waits is told."""
        self._under_way.stop()

    def ask(self, asking: Asking, own: Answers, identity: PeerIdentity) -> Deferred[Changed]:
        """
        Ask; repeating changes nothing, so what got no answer is asked again.

        :param own: answers when this node leads.
        :raises ChangeRefused: the leader refuses.
        :raises callfs.errors.MetadataUnavailable: nobody leads.
        :raises callfs.errors.OutcomeUnknown: there was no answer.
        """
        return self._under_way.run(self._ask(asking, own, identity))

    async def _ask(self, asking: Asking, own: Answers, identity: PeerIdentity) -> Changed:
        given_up_at = self._clock.seconds() + self._timeout_seconds
        unsure = False
        while self._clock.seconds() < given_up_at:
            try:
                reply = await self._once(asking, own, identity, given_up_at - self._clock.seconds())
            except CancelledError:
                unsure = True
                break
            except Unsent:
                pass
            except (DeclinedByPeer, DeclinedQuestion) as error:
                unsure = unsure or error.reason == UNSURE
            except (Unanswered, NotUnderstood):
                unsure = True
            else:
                if isinstance(reply, NotChanged):
                    raise ChangeRefused(reply.reason, reply.message)
                if isinstance(reply, Changed):
                    return reply
            try:
                await deferLater(self._clock, _PAUSE_SECONDS)
            except CancelledError:
                break
        raise OutcomeUnknown(_UNKNOWN) if unsure else MetadataUnavailable(_NO_LEADER)

    async def _once(self, asking: Asking, own: Answers, identity: PeerIdentity, seconds: float) -> Reply:
        leader = self._core.leader
        if leader is None:
            raise Unsent("nobody leads")
        if leader == self._node_id:
            return await own.reply(identity, asking)
        return decode_reply(await self._answer_of(leader, encode(asking), seconds))

    async def _answer_of(self, leader: str, question: bytes, seconds: float) -> bytes:
        """What the leader says. One that is silent (it may be frozen) isn't waited for once another leads."""
        asked = self._transport.ask(leader, question, seconds)
        superseded = False

        def look() -> None:
            nonlocal superseded
            if self._core.leader not in (None, leader):
                superseded = True
                asked.cancel()

        looking = LoopingCall(look)
        looking.clock = self._clock
        looking.start(_PAUSE_SECONDS, now=False)
        try:
            return await asked
        except CancelledError:
            if superseded:
                raise Unanswered("another node leads by now") from None
            raise
        finally:
            looking.stop()
