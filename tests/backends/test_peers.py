"""Who the other nodes are, where they are, and when they are left alone."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from callfs.backends.breaker import BreakerSettings, BreakerState
from callfs.backends.interfaces import IPeers
from callfs.backends.peermetrics import PeerMetrics
from callfs.errors import MetadataUnavailable, PeerUnavailable
from tests.backends.peersupport import (
    HERE,
    THERE,
    Holder,
    Log,
    Observed,
    Registry,
    make_peers,
    unused_port,
)
from tests.backends.support import make_local
from tests.contract.backends import get, new_id, put

NOWHERE = f"http://127.0.0.1:{unused_port()}"


class KnowingTests(TestCase):
    """Which nodes are known."""

    def setUp(self) -> None:
        self.registry = Registry()

    async def test_interface(self) -> None:
        """It has what the port declares."""
        verifyObject(IPeers, make_peers(self))

    async def test_configured(self) -> None:
        """A configured node is reached without asking who is registered."""
        backend = make_local(self)
        peers = make_peers(self, {THERE: Holder(self, backend).url + "/"}, registry=self.registry)
        blob_id = await put(await peers.blobs(THERE), b"data")
        assert await get(backend, blob_id) == b"data"
        assert (await peers.blobs(THERE)).name == "localfs"
        assert self.registry.asked == 0

    async def test_registered(self: Any) -> None:
        """A node that registers itself is known from then on, and asked about once."""
        peers = make_peers(self, registry=self.registry)
        await self.assertFailure(peers.blobs(THERE), PeerUnavailable)
        self.registry.register(THERE, Holder(self, make_local(self)).url)
        for _ in range(5):
            await put(await peers.blobs(THERE), b"data")
        assert self.registry.asked == 2

    async def test_configured_wins(self) -> None:
        """What the operator says counts more than what a node says of itself."""
        self.registry.register(THERE, NOWHERE)
        peers = make_peers(self, {THERE: Holder(self, make_local(self)).url}, registry=self.registry)
        await put(await peers.blobs(THERE), b"data")

    async def test_all_known(self) -> None:
        """All nodes, this one included, with the URLs that are used for them."""
        self.registry.register(HERE, "http://what-this-node-said.before")
        self.registry.register(THERE, "http://192.0.2.2:8443/")
        self.registry.register("node-3", "http://192.0.2.3:8443")
        self.registry.register("node-5", "")
        peers = make_peers(
            self, {"node-3": "https://c.example", "node-4": "https://d.example"}, registry=self.registry
        )
        assert dict(await peers.known()) == {
            HERE: "http://127.0.0.1:1",
            THERE: "http://192.0.2.2:8443",
            "node-3": "https://c.example",
            "node-4": "https://d.example",
        }

    async def test_metadata_unavailable(self: Any) -> None:
        """When it can't be told who is registered, what was known before is still good."""
        holder = Holder(self, make_local(self))
        self.registry.register(THERE, holder.url)
        peers = make_peers(self, registry=self.registry)
        await peers.blobs(THERE)
        self.registry.error = MetadataUnavailable("the store doesn't answer")
        await put(await peers.blobs(THERE), b"data")
        await self.assertFailure(peers.blobs("node-3"), PeerUnavailable)
        await self.assertFailure(peers.known(), MetadataUnavailable)

    async def test_a_node_that_moved(self: Any) -> None:
        """A node that fails at its endpoint is asked about again, and reached where it is by now."""
        clock = Clock()
        self.registry.register(THERE, NOWHERE)
        peers = make_peers(self, registry=self.registry, clock=clock)
        blobs = await peers.blobs(THERE)
        await self.assertFailure(blobs.open(new_id()), PeerUnavailable)
        self.registry.register(THERE, Holder(self, make_local(self)).url)
        clock.advance(1)
        await put(await peers.blobs(THERE), b"data")

    async def test_a_spared_node_that_moved(self: Any) -> None:
        """A spared node that comes back elsewhere isn't spared there."""
        clock = Clock()
        self.registry.register(THERE, NOWHERE)
        peers = make_peers(
            self, registry=self.registry, clock=clock, breaker=BreakerSettings(first_delay_seconds=60)
        )
        blobs = await peers.blobs(THERE)
        for _ in range(3):
            await self.assertFailure(blobs.open(new_id()), PeerUnavailable)
        await self.assertFailure(peers.blobs(THERE), PeerUnavailable)
        clock.advance(1)
        await self.assertFailure(peers.blobs(THERE), PeerUnavailable)
        self.registry.register(THERE, Holder(self, make_local(self)).url)
        clock.advance(1)
        await put(await peers.blobs(THERE), b"data")

    async def test_unusable_endpoints(self: Any) -> None:
        """What a node registered need not make sense."""
        for url in (
            "node-2",
            "node-2:8443",
            "ftp://127.0.0.1",
            "http://127.0.0.1:port",
            "http://",
            "http://[::1",
            "://",
        ):
            self.registry.register(THERE, url)
            peers = make_peers(self, registry=self.registry, timeout_seconds=1)
            blobs = await peers.blobs(THERE)
            await self.assertFailure(blobs.open(new_id()), PeerUnavailable)
            await self.assertFailure(blobs.stage(new_id()), PeerUnavailable)

    async def test_the_store_is_not_pestered(self: Any) -> None:
        """A failing node is asked about once a second at most."""
        clock = Clock()
        self.registry.register(THERE, NOWHERE)
        peers = make_peers(self, registry=self.registry, clock=clock, breaker=BreakerSettings(threshold=1000))
        for _ in range(20):
            await self.assertFailure((await peers.blobs(THERE)).open(new_id()), PeerUnavailable)
        assert self.registry.asked == 1


class SparingTests(TestCase):
    """A dead node costs its callers no time."""

    async def test_spared_and_tried_again(self: Any) -> None:
        """After repeated failures it isn't called until its delay is over; then one call finds it back."""
        clock, observed, log = Clock(), Observed(), Log(self)
        port = unused_port()
        peers = make_peers(self, {THERE: f"http://127.0.0.1:{port}"}, observer=observed, clock=clock)
        blobs = await peers.blobs(THERE)
        for _ in range(3):
            await self.assertFailure(blobs.open(new_id()), PeerUnavailable)
        assert observed.breakers[THERE] is BreakerState.OPEN
        calls = len(observed.requests)
        refused = await self.assertFailure(peers.blobs(THERE), PeerUnavailable)
        assert refused.retry_after_seconds >= 1
        await self.assertFailure(blobs.open(new_id()), PeerUnavailable)
        await self.assertFailure(blobs.stage(new_id()), PeerUnavailable)
        assert len(observed.requests) == calls
        Holder(self, make_local(self), port=port)
        clock.advance(1)
        blob_id = await put(await peers.blobs(THERE), b"data")
        assert await get(blobs, blob_id) == b"data"
        assert observed.breakers[THERE] is BreakerState.CLOSED
        assert len(log.named("peer_back")) == 1
        assert len(log.named("peer_failed")) == 1

    async def test_one_dead_node_costs_the_others_nothing(self: Any) -> None:
        """Each node is judged by itself."""
        holder = Holder(self, make_local(self), instance_id="node-3")
        peers = make_peers(self, {THERE: NOWHERE, "node-3": holder.url})
        dead = await peers.blobs(THERE)
        for _ in range(5):
            await self.assertFailure(dead.open(new_id()), PeerUnavailable)
        await put(await peers.blobs("node-3"), b"data")

    async def test_refusals_are_answers(self: Any) -> None:
        """A node that refuses, or whose disk is full, lives."""
        holder = Holder(self, make_local(self, min_free_bytes=1 << 60), secret="another-secret-altogether")
        observed = Observed()
        peers = make_peers(self, {THERE: holder.url}, observer=observed)
        blobs = await peers.blobs(THERE)
        for _ in range(5):
            await self.assertFailure(blobs.open(new_id()), PeerUnavailable)
        assert observed.breakers[THERE] is BreakerState.CLOSED


def test_metrics() -> None:
    """Calls and failures are counted by node, and its breaker is seen."""
    registry = CollectorRegistry()
    metrics = PeerMetrics(registry)
    metrics.peer_request(THERE, "open")
    metrics.peer_failure(THERE, "timeout")
    for state, level in ((BreakerState.OPEN, 2), (BreakerState.HALF_OPEN, 1), (BreakerState.CLOSED, 0)):
        metrics.peer_breaker(THERE, state)
        assert registry.get_sample_value("callfs_peer_breaker_state", {"peer": THERE}) == level
    by = {"peer": THERE, "operation": "open"}
    assert registry.get_sample_value("callfs_peer_requests_total", by) == 1
    assert registry.get_sample_value("callfs_peer_failures_total", {"peer": THERE, "reason": "timeout"}) == 1
