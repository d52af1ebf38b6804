"""A Redis server that dies, hangs, is full, or is the wrong one: the documented error in time, and nothing lost."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from callfs.errors import CallFSError, Conflict, InsufficientStorage, MetadataUnavailable, OutcomeUnknown
from callfs.metadata.commands import Written
from callfs.metadata.redis import RedisStore
from tests.contract.metadata_base import StoreTests, failure
from tests.metadata.redis_binding import RedisBinding
from tests.support.redis import DURABLE, RedisServer

TIMEOUT = 1.0


def passed(seconds: float) -> Deferred[None]:
    """Fires a little later."""
    return deferLater(reactor, seconds)


def over(deferred: Deferred[Any]) -> Deferred[None]:
    """Fires when another Deferred has, which keeps its result."""
    ended: Deferred[None] = Deferred()

    def passed_on(result: Any) -> Any:
        ended.callback(None)
        return result

    deferred.addBoth(passed_on)
    return ended


class FaultTests(RedisBinding, StoreTests, TestCase):
    """Each test has a server of its own."""

    @classmethod
    def setUpClass(cls) -> None:
        """No common server."""

    @classmethod
    def tearDownClass(cls) -> None:
        """No common server."""

    def start_server(self, **options: str) -> RedisServer:
        """A server that ends with the test."""
        server = RedisServer(**options).start()
        self.addCleanup(server.stop)
        return server

    async def open_store(self) -> RedisStore:
        self.server = self.start_server(**DURABLE)  # type: ignore[misc]
        self.prefix = "test:"
        return await self.opened(self.prefix, op_timeout_seconds=TIMEOUT)

    async def outcomes(self, *deferreds: Deferred[Any]) -> list[Any]:
        """Results and errors."""
        found = await DeferredList(deferreds, consumeErrors=True)
        return [result if success else result.value for success, result in found]

    async def in_time(self, deferred: Deferred[Any], error: type[CallFSError]) -> CallFSError:
        """A failure that comes within the time limit and not much later."""
        started = time.monotonic()
        refusal = await failure(deferred, error)
        assert time.monotonic() - started < TIMEOUT + 1.0
        return refusal

    async def recovers(self) -> None:
        """The store works again by itself, and is sound."""
        for _ in range(100):
            try:
                await self.store.check()
                break
            except MetadataUnavailable:
                await passed(0.05)
        await self.apply(self.make.create(f"/recovered-{self.make.now}"))
        assert await self.store.verify() == []

    async def test_killed_in_the_middle_of_commands(self) -> None:
        """What was acknowledged is there, what was refused isn't, and nothing is there twice."""
        self.store = await self.opened("test:", op_timeout_seconds=10.0)
        commands = {f"/d/{number}": self.make.create(f"/d/{number}") for number in range(400)}
        pending = [self.store.apply(command) for command in commands.values()]
        await over(pending[40])
        self.server.kill()
        self.server.start()
        results = dict(zip(commands, await self.outcomes(*pending), strict=True))
        await self.recovers()
        for path, result in results.items():
            stored = await self.store.get(path)
            if isinstance(result, Written):
                assert stored == result.inode
            else:
                assert isinstance(result, MetadataUnavailable | OutcomeUnknown)
                assert stored is None or isinstance(result, OutcomeUnknown)
        assert sum(isinstance(result, Written) for result in results.values()) > 40

    async def test_connections_are_cut_in_the_middle_of_commands(self) -> None:
        """Each change happens exactly once, however often the connections are cut."""
        self.store = await self.opened("test:", op_timeout_seconds=10.0)
        await self.apply(self.make.create("/f"))
        others = [self.make.create(f"/{number}") for number in range(200)]
        pending = [self.store.apply(self.make.put("/f")) for _ in range(100)]
        pending += [self.store.apply(command) for command in others]
        for number in range(20):
            await over(pending[number * 4])
            self.server.cut_connections()
        assert all(isinstance(result, Written) for result in await self.outcomes(*pending))
        assert (await self.existing("/f")).generation == 101
        assert (await self.store.statistics()).garbage == 100
        await self.recovers()

    async def test_a_paused_server(self) -> None:
        """Reads, commands and the health check give up in time; afterwards nothing has happened and all goes on."""
        await self.apply(self.make.create("/f"))
        self.server.pause()
        asked = [self.store.get("/f"), self.store.check(), self.store.apply(self.make.put("/f"))]
        started = time.monotonic()
        assert [type(result) for result in await self.outcomes(*asked)] == [MetadataUnavailable] * 3
        assert time.monotonic() - started < TIMEOUT + 1.0
        await self.in_time(self.store.apply(self.make.put("/f")), MetadataUnavailable)
        self.server.resume()
        await self.recovers()
        assert (await self.existing("/f")).generation == 1

    async def test_paused_in_the_middle_of_commands(self) -> None:
        """What was acknowledged is there; what was refused as unavailable isn't, also after the server goes on."""
        commands = {f"/{number}": self.make.create(f"/{number}") for number in range(300)}
        pending = [self.store.apply(command) for command in commands.values()]
        await over(pending[20])
        self.server.pause()
        results = dict(zip(commands, await self.outcomes(*pending), strict=True))
        self.server.resume()
        await self.recovers()
        for path, result in results.items():
            stored = await self.store.get(path)
            assert isinstance(result, Written | MetadataUnavailable | OutcomeUnknown)
            assert not isinstance(result, Written) or stored == result.inode
            assert not isinstance(result, MetadataUnavailable) or stored is None

    async def test_a_server_that_is_gone(self) -> None:
        """Without a server: unavailable, in time; it is found again when it comes back."""
        await self.apply(self.make.create("/f"))
        self.server.kill()
        await passed(0.05)
        await self.in_time(self.store.get("/f"), MetadataUnavailable)
        await self.in_time(self.store.apply(self.make.put("/f")), MetadataUnavailable)
        self.server.start()
        await self.recovers()
        assert (await self.existing("/f")).generation == 1

    async def test_a_full_memory(self) -> None:
        """New things are refused with nothing half-done, removals still work and make room."""
        inode = (await self.apply(self.make.create("/d/f"))).inode
        await self.apply(self.make.create("/d/g"))
        self.server.configure(maxmemory_policy="noeviction", maxmemory="1")
        for command in (
            self.make.create("/new/file"),
            self.make.put("/d/f"),
            self.make.make_directory("/x"),
            self.make.change("/d/f", mode=0o600),
            self.make.move("/d", "/e"),
            self.make.issue_link(inode),
        ):
            await self.refused(command, InsufficientStorage)
        assert await self.store.verify() == []
        await self.apply(self.make.remove("/d/g"))
        await self.apply(self.make.remove("/d", recursive=True))
        assert await self.listed_paths() == []
        self.server.configure(maxmemory="0")
        await self.recovers()

    async def test_a_server_that_becomes_a_replica(self) -> None:
        """A replica answers neither reads, which could be stale, nor commands; as a master again it does."""
        await self.apply(self.make.create("/f"))
        master = self.start_server()
        self.server.command("REPLICAOF", "127.0.0.1", master.port)
        await self.in_time(self.store.get("/f"), MetadataUnavailable)
        await self.in_time(self.store.apply(self.make.create("/g")), MetadataUnavailable)
        other = self.redis_store(self.prefix or "", op_timeout_seconds=TIMEOUT)
        await self.in_time(other.open(), MetadataUnavailable)
        self.server.command("REPLICAOF", "NO", "ONE")
        await self.recovers()

    async def test_a_server_that_lost_its_data(self) -> None:
        """An emptied server, or one with another store, isn't taken for ours: nothing is said not to exist."""
        await self.apply(self.make.create("/f"))
        self.server.command("FLUSHALL")
        await self.in_time(self.store.get("/f"), MetadataUnavailable)
        await self.in_time(self.store.apply(self.make.create("/g")), MetadataUnavailable)
        await self.opened(self.prefix or "")
        await self.in_time(self.store.get("/f"), MetadataUnavailable)
        await self.in_time(self.store.named_blobs(["x"]), MetadataUnavailable)

    async def test_scripts_that_the_server_forgot(self) -> None:
        """They are loaded again."""
        await self.apply(self.make.create("/f"))
        self.server.command("SCRIPT", "FLUSH")
        await self.apply(self.make.put("/f"))
        assert (await self.existing("/f")).generation == 2

    async def test_a_busy_server(self) -> None:
        """A script of somebody else that runs for too long is waited for, up to the time limit."""
        self.server.configure(busy_reply_threshold="50")
        spinning = deferLater(reactor, 0)
        await spinning
        self.server.begin("EVAL", "while true do end", 0)
        await passed(0.2)
        await self.in_time(self.store.get("/"), MetadataUnavailable)
        reading = self.store.get("/")
        self.server.command("SCRIPT", "KILL")
        assert await reading is not None

    async def test_a_tree_too_large_for_one_step(self) -> None:
        """Beyond 100,000 entries a tree is neither moved nor removed in one step, and the refusal says so."""
        await self.apply(self.make.create("/big/f"))
        fill = "for n = 1, 100000 do redis.call('ZADD', KEYS[1], 0, '/big/x' .. n .. '\\0' .. n) end"
        self.server.command("EVAL", fill, 1, "test:{fs}:paths")
        for command in (self.make.move("/big", "/large"), self.make.remove("/big", recursive=True)):
            refusal = await failure(self.store.apply(command), Conflict)
            assert "100,000" in refusal.message
        assert await self.store.get("/big/f") is not None
