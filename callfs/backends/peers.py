"""The other nodes: who they are, where they are, and their blobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from callfs.backends.breaker import Breaker, BreakerSettings
from callfs.backends.interfaces import IBlobBackend, IPeers
from callfs.backends.jobs import Jobs
from callfs.backends.peer import PeerBlobs
from callfs.backends.peercalls import PeerCalls, PeerContext
from callfs.deferreds import returns_deferred
from callfs.errors import CallFSError, MetadataUnavailable, PeerUnavailable
from callfs.model import Instance

Registered = Callable[[], Deferred[Sequence[Instance]]]

_ASK_AGAIN_SECONDS = 1.0


class _Node:
    """What is known of one other node."""

    def __init__(self, calls: PeerCalls, blobs: PeerBlobs) -> None:
        self.calls = calls
        self.blobs = blobs


@implementer(IPeers)
class Peers:
    """
    Other nodes, found through the configuration and the metadata store.

    :param instance_id: this node.
    :param endpoint: base URL of this node's API.
    :param configured: instance id → base URL; wins over what is registered.
    :param registered: the nodes in the metadata store. Asked when a node isn't known yet, and again when one fails
        at its endpoint: it may have another one by now.
    :param jobs: where large pieces are hashed.
    """

    _log = Logger()

    def __init__(
        self,
        context: PeerContext,
        *,
        instance_id: str,
        endpoint: str,
        configured: Mapping[str, str],
        registered: Registered,
        jobs: Jobs,
        breaker: BreakerSettings | None = None,
    ) -> None:
        self._context = context
        self._instance_id = instance_id
        self._endpoint = endpoint.rstrip("/")
        self._configured = {peer: url.rstrip("/") for peer, url in configured.items()}
        self._registered = registered
        self._jobs = jobs
        self._breaker = breaker or BreakerSettings(trial_seconds=context.timeout_seconds)
        self._endpoints: dict[str, str] = {}
        self._doubtful: set[str] = set()
        self._asked_at: float | None = None
        self._nodes: dict[str, _Node] = {}

    @returns_deferred
    async def blobs(self, instance_id: str) -> IBlobBackend:
        """See :meth:`IPeers.blobs`."""
        if instance_id == self._instance_id:
            raise PeerUnavailable(f"{instance_id} is this node itself, which has no local disk")
        node = self._node(instance_id, await self._endpoint_of(instance_id))
        node.calls.check_spared()
        return node.blobs

    @returns_deferred
    async def known(self) -> Mapping[str, str]:
        """See :meth:`IPeers.known`."""
        await self._ask()
        return {**self._endpoints, **self._configured, self._instance_id: self._endpoint}

    @returns_deferred
    async def close(self) -> None:
        """See :meth:`IPeers.close`."""
        for node in self._nodes.values():
            await node.blobs.close()
        await self._context.client.close()

    async def _endpoint_of(self, instance_id: str) -> str:
        """
        Where a node is.

        :raises PeerUnavailable: nobody knows.
        """
        if (configured := self._configured.get(instance_id)) is not None:
            return configured
        if instance_id in self._endpoints and instance_id not in self._doubtful:
            return self._endpoints[instance_id]
        if instance_id not in self._endpoints or self._may_ask_again():
            await self._ask_about(instance_id)
        endpoint = self._endpoints.get(instance_id)
        if endpoint is None:
            raise PeerUnavailable(f"nobody knows a node {instance_id!r}, or where it is")
        return endpoint

    def _may_ask_again(self) -> bool:
        now = self._context.clock.seconds()
        return self._asked_at is None or now - self._asked_at >= _ASK_AGAIN_SECONDS

    async def _ask_about(self, instance_id: str) -> None:
        """Ask who is registered; when that can't be told, what was known before will do."""
        try:
            await self._ask()
        except MetadataUnavailable as error:
            if instance_id not in self._endpoints:
                raise PeerUnavailable(f"it can't be told just now where the node {instance_id} is") from error
        except CallFSError:
            self._log.failure("the registered nodes can't be read", event="peers_unknown")

    async def _ask(self) -> None:
        self._asked_at = self._context.clock.seconds()
        registered = await self._registered()
        self._endpoints = {
            instance.id: instance.api_endpoint.rstrip("/")
            for instance in registered
            if instance.id != self._instance_id and instance.api_endpoint
        }

    def _node(self, instance_id: str, endpoint: str) -> _Node:
        """The node at this endpoint; at another one than before it gets a fresh start."""
        node = self._nodes.get(instance_id)
        if node is None or node.calls.endpoint != endpoint:
            self._doubtful.discard(instance_id)
            calls = PeerCalls(
                self._context,
                instance_id,
                endpoint,
                Breaker(self._breaker),
                failed=lambda: self._doubtful.add(instance_id),
                answered=lambda: self._doubtful.discard(instance_id),
            )
            node = self._nodes[instance_id] = _Node(calls, PeerBlobs(calls, self._jobs))
        return node
