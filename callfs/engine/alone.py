"""A node without others."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from callfs.backends.interfaces import IBlobBackend, IPeers
from callfs.errors import PeerUnavailable


@implementer(IPeers)
class Alone:
    """
    The peers of a node that is the only one: it knows itself alone.

    :param instance_id: this node.
    :param api_endpoint: the base URL of its REST API.
    """

    def __init__(self, instance_id: str, api_endpoint: str = "") -> None:
        self._known = {instance_id: api_endpoint}

    def blobs(self, instance_id: str) -> Deferred[IBlobBackend]:
        """See :meth:`IPeers.blobs`: there is nobody."""
        return fail(PeerUnavailable(f"the instance {instance_id} isn't known here"))

    def known(self) -> Deferred[Mapping[str, str]]:
        """See :meth:`IPeers.known`: this node."""
        return succeed(self._known)

    def close(self) -> Deferred[None]:
        """See :meth:`IPeers.close`."""
        return succeed(None)
