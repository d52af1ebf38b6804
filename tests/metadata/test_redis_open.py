"""Opening a Redis store."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import capturedLogs
from twisted.trial.unittest import TestCase

from callfs.errors import MetadataUnavailable
from callfs.metadata.interfaces import StoreUnusable
from callfs.metadata.redis import RedisStore
from callfs.model import LocalPlacement, S3Placement
from tests.contract.metadata_base import failure
from tests.metadata.redis_binding import RedisBinding
from tests.support.commands import TO_S3, Commands
from tests.support.ports import free_port
from tests.support.redis import DURABLE, RedisServer


class OpenTests(RedisBinding, TestCase):
    """Servers of every kind."""

    @classmethod
    def setUpClass(cls) -> None:
        """No common server."""

    @classmethod
    def tearDownClass(cls) -> None:
        """No common server."""

    def started(self, **options: str) -> RedisServer:
        """A server that ends with the test."""
        type(self).server = RedisServer(**options).start()
        self.addCleanup(self.server.stop)
        return self.server

    async def refused(self, **options: Any) -> str:
        """Why a store can't be opened."""
        return str(await failure(self.redis_store("test:", **options).open(), StoreUnusable))

    async def events(self) -> dict[str, dict[str, Any]]:
        """What is logged while a store opens, by its event's name."""
        with capturedLogs() as logged:
            await self.opened("test:")
        return {event["event"]: event for event in logged if "event" in event}

    async def test_a_store_is_found_again(self) -> None:
        """The identity stays, and a store with anything in it isn't empty."""
        self.started()
        first = await self.opened("test:")
        assert first.was_empty
        await first.apply(Commands().create("/f"))
        second = await self.opened("test:")
        assert second.store_id == first.store_id
        assert not second.was_empty

    async def test_stores_share_a_server(self) -> None:
        """Prefixes and databases keep stores apart, and no key is outside its prefix and hash tag."""
        server = self.started()
        stores = [await self.opened("a:"), await self.opened("b:"), await self.opened("a:", db=3)]
        for number, store in enumerate(stores):
            await store.apply(Commands().create(f"/{number}"))
        assert len({store.store_id for store in stores}) == 3
        assert await stores[0].get("/2") is None
        assert all(key.startswith(("a:{fs}:", "b:{fs}:")) for key in server.all_keys())

    async def test_a_password(self) -> None:
        """The right one opens; a wrong one or none is refused at once, and shown nowhere."""
        self.started(requirepass="open-sesame")
        await self.opened("test:", password="open-sesame")
        with capturedLogs() as logged:
            for password in ("wrong-secret", None):
                assert "redis_password" in await self.refused(password=password)
        assert "wrong-secret" not in repr(logged)

    async def test_a_password_that_the_server_does_not_want(self) -> None:
        """Is refused with what to check."""
        self.started()
        assert "redis_password" in await self.refused(password="needless-secret")

    async def test_a_database_that_is_not_there(self) -> None:
        """Its number is too high."""
        self.started()
        assert "redis_db" in await self.refused(db=99)

    async def test_no_server(self) -> None:
        """Unavailable, and it may be tried again."""
        self.started()
        store = self.redis_store("test:", address=f"127.0.0.1:{free_port()}", op_timeout_seconds=0.3)
        await failure(store.open(), MetadataUnavailable)
        await failure(store.get("/"), MetadataUnavailable)
        await failure(store.apply(Commands().create("/f")), MetadataUnavailable)

    async def test_no_server_in_the_log(self) -> None:
        """The log says once which server it is that no connection can be made to."""
        self.started()
        address = f"127.0.0.1:{free_port()}"
        store = self.redis_store("test:", address=address, op_timeout_seconds=2.0)
        with capturedLogs() as logged:
            await failure(store.open(), MetadataUnavailable)
        (event,) = [event for event in logged if event.get("event") == "redis_unavailable"]
        assert event["sentence"] == f"no connection to the Redis server at {address} can be made; trying again"

    async def test_opened_at_the_second_attempt(self) -> None:
        """A store whose server wasn't there can be opened once it is."""
        server = self.started()
        server.kill()
        store = self.redis_store("test:", op_timeout_seconds=0.3)
        await failure(store.open(), MetadataUnavailable)
        server.start()
        await store.open()
        self.addCleanup(store.close)
        assert await store.get("/") is not None

    async def test_a_server_that_deletes_what_may_go(self) -> None:
        """Is used, and it is said what may be lost; not where its memory has no limit."""
        server = self.started(maxmemory_policy="volatile-lru")
        assert "redis_eviction" not in await self.events()
        server.configure(maxmemory="100mb")
        assert (await self.events())["redis_eviction"]["policy"] == "volatile-lru"
        server.configure(maxmemory_policy="noeviction")
        assert "redis_eviction" not in await self.events()

    async def test_a_store_that_lost_its_identity_alone(self) -> None:
        """Isn't taken for one that has none."""
        server = self.started()
        await self.opened("test:")
        server.command("HDEL", "test:{fs}:store", "identity")
        assert "damaged" in await self.refused()

    async def test_a_newer_store(self) -> None:
        """Is left alone."""
        server = self.started()
        await self.opened("test:")
        server.command("HSET", "test:{fs}:store", "format", "3")
        assert "format" in await self.refused()

    async def test_an_older_store(self) -> None:
        """Format 1 had no list of each node's blobs: it is made, by two nodes at once, and all is as it was."""
        server = self.started()
        make = Commands()
        old = self.redis_store("test:")
        await old.open()
        places = (LocalPlacement("node-1"), LocalPlacement("node-2"), S3Placement())
        blobs = [make.replicated_blob(places[n % 3], places[(n + 1) % 3]) for n in range(700)]
        await gatherResults([old.apply(make.create(f"/d/{n}", blob=blob)) for n, blob in enumerate(blobs)])
        await old.apply(make.remove("/d/0"))
        before = await old.walk("/", limit=10_000)
        on_nodes = [await old.list_blobs(limit=10_000, instance_id=place) for place in ("node-1", "node-2")]
        assert [len(found) for found in on_nodes] == [466, 466]
        await old.close()
        server.command("DEL", "test:{fs}:blobs:local")
        server.command("HSET", "test:{fs}:store", "format", "1", "id", old.store_id)
        server.command("HDEL", "test:{fs}:store", "identity")
        one, other = await gatherResults([self._opening(), self._opening()])
        assert server.command("HGET", "test:{fs}:store", "format") == "2"
        assert one.store_id == other.store_id == old.store_id
        # This is what a node of the older version looks for: it must not go on without keeping the list.
        assert server.command("HGET", "test:{fs}:store", "id") is None
        assert not one.was_empty
        assert await one.walk("/", limit=10_000) == before
        assert on_nodes == [
            await other.list_blobs(limit=10_000, instance_id=place) for place in ("node-1", "node-2")
        ]
        assert await one.verify() == []
        await one.apply(make.create("/new", replicate=TO_S3))
        assert len(await other.replications(make.now, "node-1")) == 1

    def _opening(self) -> Deferred[RedisStore]:
        return Deferred.fromCoroutine(self.opened("test:"))

    async def test_a_store_without_its_identity(self) -> None:
        """Isn't made anew over what is there."""
        server = self.started()
        await self.opened("test:")
        server.command("DEL", "test:{fs}:store")
        assert "damaged" in await self.refused()

    async def test_a_server_that_throws_away(self) -> None:
        """Eviction of any key would lose files: refused."""
        self.started(maxmemory="100mb", maxmemory_policy="allkeys-lru")
        assert "noeviction" in await self.refused()

    async def test_strong_persistence(self) -> None:
        """With every write synced to the disk there is nothing to warn of."""
        self.started(**DURABLE)
        assert not [name for name in await self.events() if "persistence" in name]

    async def test_weak_persistence(self) -> None:
        """The operator is warned, with the settings that are there and those that are needed."""
        self.started(appendonly="yes", appendfsync="everysec")
        warning = (await self.events())["redis_persistence_weak"]
        assert (warning["appendonly"], warning["appendfsync"]) == ("yes", "everysec")
        assert warning["log_level"].name == "warn"

    async def test_settings_that_cannot_be_read(self) -> None:
        """The operator is warned that nothing is known."""
        self.started(rename_command='CONFIG ""')
        assert "redis_persistence_unknown" in await self.events()

    async def test_a_name_and_a_socket(self) -> None:
        """All forms of addresses lead to the server."""
        socket = f"/tmp/callfs-{free_port()}.sock"
        server = self.started(unixsocket=socket)
        by_name = await self.opened("test:", address=f"localhost:{server.port}")
        by_socket = await self.opened("test:", address=f"unix:{socket}")
        assert by_name.store_id == by_socket.store_id
