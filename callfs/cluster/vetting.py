"""Whether the certificate of a peer is its own; what the peer says of itself is known from the handshake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from twisted.logger import Logger

from callfs.cluster.certified import CertifiedNames, expected

MAX_TOLD = 64
"""Peers whose refusal is remembered, so that it is said once and not with every attempt."""

REFUSED = "certificate"
"""The code of a refused handshake."""


class Vetting:
    """
    Holds certificates against what is known of the peers that show them.

    A member is known by the membership and by this node's own configuration, and its own word isn't enough, because
    whoever has a certificate for some host could say that the member has moved there. Of a node that isn't a member
    nothing is known but the address that the operator gave, or that it says itself: who has the internal secret may
    join.
    """

    _log = Logger()

    def __init__(self) -> None:
        self._known: Mapping[str, Sequence[str]] = {}
        self._told: dict[str, tuple[str, str]] = {}

    def know(self, known: Mapping[str, Sequence[str]]) -> bool:
        """
        These are the members.

        :param known: node id to the raft addresses that the membership and the configuration have for it.
        :return: whether that is new, so that the connections are to be looked at again.
        """
        before, self._known = self._known, {name: tuple(places) for name, places in known.items()}
        return before != self._known

    def met(self, names: CertifiedNames, node_id: str, address: str) -> str | None:
        """
        A peer has shown a certificate.

        :param address: where it is by what is known of strangers.
        :return: why the peer isn't believed, as a code; or nothing.
        """
        return self._judged(names, node_id, self._known.get(node_id, (address,)))

    def probed(self, names: CertifiedNames, node_id: str, address: str) -> str | None:
        """
        Somebody has shown a certificate at an address that the membership may get for it. So it has to be good for
        that one, or the node would be lost to all others once the change is made.
        """
        return self._judged(names, node_id, (address,))

    def _judged(self, names: CertifiedNames, node_id: str, addresses: Sequence[str]) -> str | None:
        if names.fit(node_id, addresses):
            self._told.pop(node_id, None)
            return None
        self._tell(node_id, str(names), expected(node_id, addresses))
        return REFUSED

    def _tell(self, node_id: str, found: str, wanted: str) -> None:
        if self._told.get(node_id) == (found, wanted):
            return
        if len(self._told) >= MAX_TOLD:
            del self._told[next(iter(self._told))]
        self._told[node_id] = (found, wanted)
        self._log.warn(
            "refused a raft connection with {node}: its certificate is for {found}, and has to be for {expected}",
            event="raft_certificate_refused",
            node=node_id,
            found=found,
            expected=wanted,
        )
