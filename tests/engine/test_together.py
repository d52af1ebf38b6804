"""Everything at once: nodes that write, relocate, copy and drain the same files, while disks and nodes fail."""

from __future__ import annotations

import contextlib
from random import Random

from twisted.internet.defer import Deferred, gatherResults

from callfs.engine.janitor import Janitor
from callfs.engine.settings import JanitorSettings
from callfs.errors import CallFSError, InsufficientStorage, MetadataUnavailable, PeerUnavailable
from tests.support.engine import ADMIN, ALICE, settled, started, turns
from tests.support.nodes import NODES, S3, NodesCase

FILES = 6
ACTORS = 6
STEPS = 25
SEEDS = range(3)
TO_READ = ("open", "read")
TO_WRITE = ("stage", "write", "commit")


class TestTogether(NodesCase):
    options = {"replica_backend": "s3"}

    async def play(self, seed: int) -> None:
        """One game: actors beside each other, faults now and then; then all comes to rest and is looked through."""
        self.random = Random(seed)
        self.contents: dict[str, set[bytes]] = {}
        replicators = [self.make_replicator(name) for name in NODES]
        janitors = [self.make_janitor(name) for name in NODES]
        for service in (*replicators, *janitors):
            service.startService()
        for number in range(FILES):
            await self.write(f"/d/{number}", b"first")
        await gatherResults([self.actor(number) for number in range(ACTORS)])
        self.mend()
        for name in NODES:
            await self.nodes[name].settled()
        await self.come_to_rest()
        for service in (*replicators, *janitors):
            await service.stopService()
        await self.look_through()

    def make_janitor(self, name: str) -> Janitor:
        """The janitor of a node."""
        return Janitor(
            metadata=self.store,
            backends={"localfs": self.disks[name], "s3": self.s3},
            settings=JanitorSettings(instance_id=name),
            now=self.now,
            clock=self.clock,
            metrics=self.counts[name],
            locks=self.locks,
        )

    def actor(self, number: int) -> Deferred[None]:
        """Somebody who does one thing after the other."""

        async def act() -> None:
            for step in range(STEPS):
                with contextlib.suppress(CallFSError):
                    await self.anything(b"%d by %d" % (step, number))
                self.advance(0.05)
                if self.random.random() < 0.2:
                    await turns(1)

        return started(act())

    async def anything(self, data: bytes) -> None:
        """Do one thing, through any node, to any file."""
        random = self.random
        node = random.choice(NODES)
        path = f"/d/{random.randrange(FILES)}"
        match random.randrange(8):
            case 0 | 1:
                await self.write(path, data * random.randrange(1, 100))
            case 2:
                await self.move_at(node, path, path, principal=ADMIN, instance=random.choice(NODES))
            case 3:
                await self.move_at(node, path, path, principal=ADMIN, backend="s3")
            case 4:
                await self.nodes[node].drain_batch(random.choice(NODES), random.choice([None, S3]), "", 10)
            case 5:
                await self.move_at(node, "/d", "/d", principal=ADMIN, instance=random.choice(NODES))
            case 6:
                self.check(path, await self.read_at(node, path))
            case 7:
                self.break_something()

    async def write(self, path: str, data: bytes) -> None:
        """PUT; what may be there afterwards is remembered before."""
        self.contents.setdefault(path, set()).add(data)
        await self.put_at(self.random.choice(NODES), path, data)

    def check(self, path: str, data: bytes) -> None:
        """What was read was written, whole."""
        assert data in self.contents[path], (path, data)

    def break_something(self) -> None:
        """A fault at some step of some place, or a node that is down for the others, or up again."""
        random = self.random
        if random.random() < 0.5:
            place = random.choice([*self.disks.values(), self.s3])
            step = random.choice([*TO_READ, *TO_WRITE])
            full = step in TO_WRITE and random.random() < 0.5
            place.steps.fail(step, InsufficientStorage("full") if full else PeerUnavailable("gone"))
        elif random.random() < 0.5:
            self.store.steps.fail("Relocate", MetadataUnavailable("down"))
        elif self.network.down:
            self.network.down.clear()
        else:
            self.network.down.add(random.choice(NODES))

    def mend(self) -> None:
        """No fault any more."""
        self.network.down.clear()
        for place in (*self.disks.values(), self.s3):
            for step in (*TO_READ, *TO_WRITE):
                place.steps.fail(step)
        self.store.steps.fail("Relocate")

    async def come_to_rest(self) -> None:
        """Let time pass until every copy is made and all garbage is gone."""
        for _ in range(200):
            self.advance(61)
            await turns(2)
            if (await self.store.statistics()).garbage == 0 and not await self.store.replication_backlog():
                return
        raise AssertionError((await self.store.statistics(), await self.store.replication_backlog()))

    async def look_through(self) -> None:
        """Every file is there, whole, the same through every node, with its copies, and hardly anything else is."""
        for path in self.contents:
            (content,) = {await self.read_at(name, path) for name in NODES}
            self.check(path, content)
            assert S3 in await self.places_of(path)
            for copy in (await self.blob_of(path)).copies():
                place = self.s3 if copy.placement == S3 else self.disks[copy.placement.instance_id]
                assert (await place.inner.stat(copy.id)).size == len(content)
        await settled(lambda: not self.locks.held)
        for place in (*self.disks.values(), self.s3):
            assert place.stages == set()
            assert place.readers == set()
        named = {copy.id for path in self.contents for copy in (await self.blob_of(path)).copies()}
        there = await self.all_ids()
        assert named <= there
        # What was refused its name while its node was down couldn't be taken back: that is the sweep's.
        left = there - named
        assert len(left) <= sum(self.counts[name].of["error", "engine", "discard_failed"] for name in NODES)
        await self.filesystem.remove(ALICE, "/d", recursive=True)
        await self.clear_away(left)

    async def all_ids(self) -> set[str]:
        """All blobs anywhere."""
        return {blob_id for place in (*self.disks.values(), self.s3) for blob_id in await self.ids_at(place)}

    async def clear_away(self, left: set[str]) -> None:
        """What was removed in the end goes as well, from every disk and from S3."""
        janitors = [self.make_janitor(name) for name in NODES]
        for janitor in janitors:
            janitor.startService()
        await self.come_to_rest()
        for janitor in janitors:
            await janitor.stopService()
        assert await self.all_ids() == left
        for place in (*self.disks.values(), self.s3):
            for blob_id in set(await self.ids_at(place)):
                await place.inner.delete(blob_id)

    async def test_games(self) -> None:
        """However they come together: no content is lost, torn, doubled or left behind."""
        for seed in SEEDS:
            await self.play(seed)
            self.flushLoggedErrors()
