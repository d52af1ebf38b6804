"""How a cluster begins: one node finds all others and writes down who they are."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from callfs.cluster.handshake import HandshakeRefused
from callfs.cluster.identity import PeerIdentity
from callfs.cluster.interfaces import ITransport
from callfs.cluster.link import Unsent
from callfs.cluster.settings import ClusterSettings
from callfs.cluster.unusable import CannotTakePart
from callfs.deferreds import returns_deferred
from callfs.raft.membership import Member, Membership

PROBE_SECONDS = 3.0
_PAUSE_SECONDS = 0.5
LOOK_SECONDS = 2.5
"""How long members have to make themselves heard: they dial one that is gone at least every second."""


class CannotForm(CannotTakePart):
    """No cluster may be formed; the message is for the operator."""


class Forming:
    """
    Finds the nodes of a new cluster.

    Every one of them has to answer once, so that the membership carries the identity of each disk from the start:
    a node that came back without its log would be taken for the same one otherwise.

    :param identity: this node.
    """

    _log = Logger()

    def __init__(
        self, settings: ClusterSettings, identity: PeerIdentity, transport: ITransport, clock: IReactorTime
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._transport = transport
        self._clock = clock
        self._member: PeerIdentity | None = None

    def heard(self, peer: PeerIdentity) -> None:
        """Somebody has reached this node. Members of a cluster look for those they know, not for strangers."""
        if peer.cluster_id:
            self._member = self._member or peer

    @returns_deferred
    async def membership(self, cluster_id: str) -> Membership:
        """
        Wait for all nodes; where there are no others, for members of a cluster that this node has been in.

        :param cluster_id: of the new cluster.
        :return: all of them, as voters.
        :raises CannotForm: one belongs to a cluster already, is another one than configured, or has another secret;
            or a member of a cluster is looking for this node, which has lost its log then.
        """
        settings = self._settings
        others = {name: address for name, address in settings.peers.items() if name != settings.node_id}
        finding = [self._found(name, address) for name, address in others.items()]
        try:
            found = await gatherResults(finding, consumeErrors=True)
        except FirstError as error:
            error.subFailure.raiseException()
        finally:
            for each in finding:
                each.cancel()
        if not others:
            await deferLater(self._clock, LOOK_SECONDS)
        self._check_unknown()
        own = _member(self._identity, settings.raft_address, settings.api_peer_endpoints)
        members = [own, *(_member(each, others[each.node_id], settings.api_peer_endpoints) for each in found)]
        return Membership(cluster_id, tuple(sorted(members, key=lambda member: member.node_id)))

    def _check_unknown(self) -> None:
        if self._member is not None:
            raise CannotForm(
                f"this node is to begin a new cluster (raft.bootstrap), but node {self._member.node_id} at "
                f"{self._member.raft_address} belongs to one and is looking for it: it seems to be a member that "
                f"has lost its log. Set raft.bootstrap to false, remove the node there ('callfs cluster remove "
                f"{self._settings.node_id}'), and let it join again ('callfs cluster join')"
            )

    def _found(self, node_id: str, address: str) -> Deferred[PeerIdentity]:
        return Deferred.fromCoroutine(self._find(node_id, address))

    async def _find(self, node_id: str, address: str) -> PeerIdentity:
        told = False
        while True:
            try:
                peer = await self._transport.probe(address, node_id, PROBE_SECONDS)
            except (HandshakeRefused, Unsent) as error:
                why = why_refused(error) if isinstance(error, HandshakeRefused) else None
                if why is not None:
                    raise CannotForm(f"can't form a cluster with node {node_id} at {address}: {why}") from error
                # Any other reason, such as that it is just stopping, is one that passes.
                if not told:
                    told = True
                    self._log.info(
                        "waiting for node {node} at {address}, to form a cluster with it: {error}",
                        event="raft_waiting_for_peer",
                        node=node_id,
                        address=address,
                        error=str(error),
                    )
                await deferLater(self._clock, _PAUSE_SECONDS)
                continue
            if peer.cluster_id:
                raise CannotForm(
                    f"node {node_id} at {address} belongs to a cluster already: set raft.bootstrap to false and "
                    "let this node join it ('callfs cluster join')"
                )
            return peer


_WHY_REFUSED: Mapping[str, str] = {
    "certificate": (
        "its certificate (raft.tls_cert_file there) is neither for its id nor for the host of this address; the "
        "log of the node that asked says for whom it is"
    ),
    "cluster": "it belongs to another cluster",
    "malformed": "what answers there isn't a CallFS node's raft address",
    "node": "another node answers at this address",
    "secret": "its internal secret (auth.internal_proxy_secret) is another one",
    "self": "this is the node that was asked, or a copy of its disk",
    "twin": "a node of its name is there already, at another address",
    "version": "its version of CallFS is too old or too new",
}
_ITS_CERTIFICATE_REFUSED = (
    "it doesn't take the certificate of the node that asked (raft.tls_cert_file there), and says in its log why"
)


def why_refused(error: HandshakeRefused) -> str | None:
    """What a refused handshake means for the operator; nothing when it is a reason that passes."""
    if error.told and error.reason == "certificate":
        return _ITS_CERTIFICATE_REFUSED
    return _WHY_REFUSED.get(error.reason)


def _member(peer: PeerIdentity, address: str, endpoints: Mapping[str, str]) -> Member:
    endpoint = peer.api_endpoint or endpoints.get(peer.node_id, "")
    return Member(peer.node_id, peer.disk_id, address, endpoint, True, peer.command_version)
