"""
Several daemons upon one metadata server, a real PostgreSQL or Redis; and clients whose requests go to any of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from threading import Barrier
from typing import Any, Protocol, TypeVar

from tests.support.daemon import Daemon, merged
from tests.support.http import Answer, Body, Client
from tests.support.postgres import PASSWORD as POSTGRES_PASSWORD
from tests.support.postgres import PostgresServer
from tests.support.redis import DURABLE, RedisServer

T = TypeVar("T")

KINDS = ("postgres", "redis")
REDIS_PASSWORD = "nine-lives-of-a-cat"


class MetadataServer(Protocol):
    """A server that daemons keep their metadata in."""

    kind: str
    password: str

    def settings(self, password: str | None = None) -> dict[str, Any]:
        """The configuration that leads to it; with another password than its own if one is given."""

    def start(self) -> None:
        """Start, also again after a kill; on the same port, with what it has on disk."""

    def kill(self) -> None:
        """As a crash does."""

    def pause(self) -> None:
        """It stays connected and answers nothing."""

    def resume(self) -> None:
        """It goes on with what came meanwhile."""

    def close(self) -> None:
        """End it and remove its folder."""


class PostgresMetadata:
    """PostgreSQL: locks are in each daemon's process."""

    kind = "postgres"
    password = POSTGRES_PASSWORD

    def __init__(self, *, durable: bool) -> None:
        self._server = PostgresServer(durable=durable)
        self._running = False
        self.pause = self._server.pause
        self.close = self._server.close

    def start(self) -> None:
        """See :class:`MetadataServer`."""
        self._server.start()
        self._running = True

    def kill(self) -> None:
        """See :class:`MetadataServer`."""
        self._running = False
        self._server.kill()

    def resume(self) -> None:
        """See :class:`MetadataServer`."""
        if self._running:
            self._server.resume()

    def settings(self, password: str | None = None) -> dict[str, Any]:
        """See :class:`MetadataServer`."""
        dsn = self._server.dsn(password=password or self.password)
        return {"metadata_store": {"type": "postgres", "dsn": dsn, "pool_size": 4}}


class RedisMetadata:
    """Redis: for metadata and for locks."""

    kind = "redis"
    password = REDIS_PASSWORD

    def __init__(self, *, durable: bool) -> None:
        self._server = RedisServer(requirepass=self.password, **(DURABLE if durable else {}))
        self.kill = self._server.kill
        self.pause = self._server.pause
        self.resume = self._server.resume
        self.close = self._server.stop

    def start(self) -> None:
        """See :class:`MetadataServer`."""
        self._server.start()

    def settings(self, password: str | None = None) -> dict[str, Any]:
        """See :class:`MetadataServer`."""
        place = {"redis_addr": self._server.address, "redis_password": password or self.password}
        return {
            "metadata_store": {"type": "redis", "pool_size": 4, **place},
            "dlm": {"type": "redis", **place},
        }


def metadata_server(kind: str, *, durable: bool = False) -> MetadataServer:
    """
    A server of that kind, not yet started.

    :param durable: whether what it acknowledged survives its crash.
    """
    return {"postgres": PostgresMetadata, "redis": RedisMetadata}[kind](durable=durable)


class Cluster:
    """
    Nodes with the same keys and secrets, each with folders and an address of its own: the n-th is ``node-n`` on
    127.0.0.n. They are told nothing of each other.

    :param folder: an empty folder.
    :param settings: configuration of every node.
    """

    def __init__(
        self, folder: Path, server: MetadataServer, settings: Mapping[str, Any] | None = None, nodes: int = 3
    ) -> None:
        self.server = server
        self.nodes: list[Daemon] = []
        self._folder = folder
        self._settings = settings or {}
        self._numbers = count(1)
        for _ in range(nodes):
            self.add_node()

    def add_node(self, settings: Mapping[str, Any] | None = None) -> Daemon:
        """
        One node more, not started.

        :param settings: its own configuration, over that of every node.
        """
        number = next(self._numbers)
        folder = self._folder / f"node-{number}"
        folder.mkdir(parents=True)
        own = merged({"instance_discovery": {"instance_id": f"node-{number}"}}, settings or {})
        wanted = merged(merged(self.server.settings(), self._settings), own)
        node = self._daemon(number, folder, wanted)
        if self.nodes:
            first = self.nodes[0]
            node.keys, node.internal_secret, node.link_secret = first.keys, first.internal_secret, first.link_secret
            node.write_config({"auth": {**first.settings["auth"], **wanted.get("auth", {})}})
        self.nodes.append(node)
        return node

    def _daemon(self, number: int, folder: Path, settings: Mapping[str, Any]) -> Daemon:
        return Daemon(folder, settings, host=f"127.0.0.{number}")

    def node(self, instance_id: str) -> Daemon:
        """The node of that name."""
        return next(node for node in self.nodes if instance_of(node) == instance_id)

    def start(self) -> None:
        """Start all nodes at once, and wait until they are ready."""
        for node in self.nodes:
            node.launch()
        for node in self.nodes:
            assert node.wait_ready(), f"a node has ended:\n{node.tail()}"

    def close(self) -> None:
        """Leave nothing behind that runs."""
        for node in self.nodes:
            node.close()

    def clients(self, user: str | None = "alice", **options: Any) -> list[Client]:
        """A client of that user at each node."""
        return [node.client(user, **options) for node in self.nodes]

    def client(self, user: str | None = "alice") -> SpreadClient:
        """A client of that user whose requests go to any node."""
        return SpreadClient(self.clients(user), random.Random(0))


def instance_of(node: Daemon) -> str:
    """The name of a node."""
    return str(node.settings["instance_discovery"]["instance_id"])


class SpreadClient(Client):
    """
    A user each of whose requests goes to any node.

    :param clients: of the same user.
    """

    def __init__(self, clients: Sequence[Client], chance: random.Random) -> None:
        super().__init__(clients[0].address, clients[0].key)
        self._clients = tuple(clients)
        self._chance = chance

    def reseed(self, seed: int) -> None:
        """Choose other nodes from now on."""
        self._chance.seed(seed)

    def request(
        self, method: str, target: str, body: Body = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """See :class:`Client`."""
        return self._chance.choice(self._clients).request(method, target, body, headers)

    def close(self) -> None:
        """See :class:`Client`."""
        for client in self._clients:
            client.close()


@contextmanager
def running_cluster(
    folder: Path,
    kind: str,
    *,
    durable: bool = False,
    settings: Mapping[str, Any] | None = None,
    nodes: int = 3,
) -> Iterator[Cluster]:
    """Nodes and their server for the time of a block."""
    server = metadata_server(kind, durable=durable)
    try:
        server.start()
        cluster = Cluster(folder, server, settings, nodes)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.close()
    finally:
        server.close()


def at_once(actions: list[Callable[[], T]]) -> list[T]:
    """Do all of it at the same moment, each in a thread of its own; the results in order."""
    barrier = Barrier(len(actions))

    def act(action: Callable[[], T]) -> T:
        barrier.wait(10)
        return action()

    with ThreadPoolExecutor(len(actions)) as threads:
        return list(threads.map(act, actions))
