"""A node's sign of life in the metadata store."""

from __future__ import annotations

import pytest

from callfs.engine.presence import Presence
from callfs.errors import Conflict, MetadataUnavailable
from callfs.model import Instance
from tests.support.engine import NODE, EngineCase, turns

ROOT_ID = "a" * 32
ENDPOINT = "http://127.0.0.1:8443"


class TestPresence(EngineCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.displaced: list[str] = []

    def presence(self, root_id: str = ROOT_ID) -> Presence:
        """The presence of a node with that root folder."""
        presence = Presence(
            metadata=self.store,
            instance_id=NODE,
            root_id=root_id,
            api_endpoint=ENDPOINT,
            now=self.now,
            clock=self.clock,
            metrics=self.metrics,
            displaced=self.displaced.append,
            interval_seconds=10.0,
        )
        self.addCleanup(lambda: presence.stopService())
        return presence

    async def seen_at(self) -> int:
        """When the node was last seen."""
        (instance,) = await self.store.instances()
        return instance.last_seen_at

    async def test_registers(self) -> None:
        """A node writes down its root folder and where its peers reach it."""
        await self.presence().register()
        assert list(await self.store.instances()) == [Instance(NODE, ROOT_ID, ENDPOINT, self.now())]

    async def test_again_and_again(self) -> None:
        """The sign of life is repeated as long as the service runs, and not after."""
        presence = self.presence()
        await presence.register()
        presence.startService()
        first = await self.seen_at()
        self.advance(10)
        while await self.seen_at() == first:
            await turns(1)
        await presence.stopService()
        last = await self.seen_at()
        self.advance(60)
        await turns(5)
        assert await self.seen_at() == last

    async def test_store_down(self) -> None:
        """A store that doesn't answer costs one sign of life; the next is given."""
        presence = self.presence()
        await presence.register()
        first = await self.seen_at()
        self.store.steps.fail("RegisterInstance", MetadataUnavailable("down"))
        presence.startService()
        self.advance(10)
        while not self.metrics.of["error", "presence", "heartbeat_failed"]:
            await turns(1)
        self.advance(10)
        while await self.seen_at() == first:
            await turns(1)

    async def test_two_nodes_of_one_id(self) -> None:
        """A node whose id another root folder has taken can't register, says so at each turn, and gives way."""
        presence = self.presence()
        await self.presence("b" * 32).register()
        with pytest.raises(Conflict):
            await presence.register()
        presence.startService()
        self.advance(10)
        while not self.metrics.of["error", "presence", "instance_id_taken"]:
            await turns(1)
        while not self.displaced:
            await turns(1)
        assert "another root folder" in self.displaced[0]

    async def test_another_refusal(self) -> None:
        """A refusal for another reason (an import that isn't finished) costs a sign of life and nothing else."""
        presence = self.presence()
        await presence.register()
        self.store.steps.fail("RegisterInstance", Conflict("an import isn't finished"))
        presence.startService()
        self.advance(10)
        while not self.metrics.of["error", "presence", "instance_id_taken"]:
            await turns(1)
        first = await self.seen_at()
        self.advance(10)
        while await self.seen_at() == first:
            await turns(1)
        assert self.displaced == []
