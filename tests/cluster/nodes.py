"""Clusters of nodes in one process, over real sockets or over a network in memory, with real logs on disk."""

from __future__ import annotations

import random
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import TestCase

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.python.threadpool import ThreadPool

from callfs.cluster.disklog import DiskLog
from callfs.cluster.driver import RaftNode
from callfs.cluster.interfaces import Applied
from callfs.cluster.link import LinkTiming
from callfs.cluster.peers import PeerTransport
from callfs.cluster.settings import ClusterSettings
from callfs.cluster.tls import PeerTLS
from callfs.raft.boundary import Role
from tests.cluster.proxy import TcpProxy
from tests.support.ports import free_port
from tests.support.raft import MemoryState, MemoryTransport, Network, Recording

reactor: Any = global_reactor

SECRET = b"an internal secret"
ELECTION_SECONDS = 0.5


def instant() -> int:
    """The wall clock."""
    return time.time_ns() // 1000


def temporary_folder(case: TestCase) -> Path:
    """An empty folder that goes away with the test."""
    folder = tempfile.TemporaryDirectory(prefix="callfs-cluster-")
    case.addCleanup(folder.cleanup)
    return Path(folder.name)


async def until(probe: Callable[[], Any], what: str, within_seconds: float = 15.0) -> Any:
    """Turn the reactor until the answer is true."""
    deadline = reactor.seconds() + within_seconds
    while not (answer := probe()):
        assert reactor.seconds() < deadline, f"{what} didn't come within {within_seconds} s"
        await deferLater(reactor, 0.01)
    return answer


async def turns(seconds: float) -> None:
    """Let time pass where that nothing happens is what is tested."""
    await deferLater(reactor, seconds)


@contextmanager
def logged(event: str) -> Iterator[list[str]]:
    """The lines of the log that have this event."""
    lines: list[str] = []

    def observe(entry: LogEvent) -> None:
        if entry.get("event") == event:
            lines.append(formatEvent(entry))

    globalLogPublisher.addObserver(observe)  # type: ignore[arg-type]
    try:
        yield lines
    finally:
        globalLogPublisher.removeObserver(observe)  # type: ignore[arg-type]


class Place:
    """
    What stays of a node between its starts: name, address, folder.

    :param network: the network in memory, or none for sockets.
    """

    def __init__(self, node_id: str, folder: Path, pool: ThreadPool, network: Network | None) -> None:
        self.node_id = node_id
        self.folder = folder
        self.network = network
        self.address = f"127.0.0.1:{free_port()}" if network is None else f"{node_id}:1"
        self.bind_address = self.address
        self.proxy: TcpProxy | None = None
        self.secrets = [SECRET]
        self.tls: PeerTLS | None = None
        self.options: dict[str, Any] = {}
        self.failures: list[str] = []
        self.command_version = 1
        self.state_type = MemoryState
        self.reached: Callable[[str], None] = lambda _: None
        self.instant = instant
        self.random: Any = random.SystemRandom()
        self._pool = pool

    def make(self) -> None:
        """A node, not yet started."""
        settings = ClusterSettings(
            **{
                "node_id": self.node_id,
                "raft_address": self.address,
                "api_endpoint": f"http://{self.node_id}",
                "election_timeout_seconds": ELECTION_SECONDS,
                "heartbeat_interval_seconds": ELECTION_SECONDS / 10,
                "apply_timeout_seconds": 5.0,
                "forward_timeout_seconds": 5.0,
                **self.options,
            }
        )
        self.folder.mkdir(exist_ok=True)
        self.observer = Recording()
        self.state = self.make_state()
        transport: Any
        if self.network is None:
            transport = PeerTransport(
                self.bind_address,
                reactor=reactor,
                secrets=lambda: self.secrets,
                token_bytes=secrets.token_bytes,
                random=random.random,
                observer=self.observer,
                timing=LinkTiming(connect_seconds=1.0, idle_seconds=1.0, longest_retry_seconds=0.3),
                tls=self.tls,
            )
        else:
            transport = MemoryTransport(self.network, self.node_id, self.address)
        self.transport = transport
        self.log = DiskLog(
            self.folder,
            self.node_id,
            reactor=reactor,
            token_bytes=secrets.token_bytes,
            seconds=time.monotonic,
            reached=lambda step: self.reached(step),
        )
        self.node = RaftNode(
            settings,
            reactor=reactor,
            pool=self._pool,
            log=self.log,
            state=self.state,
            transport=transport,
            instant=self.instant,
            random=self.random,
            token_bytes=secrets.token_bytes,
            observer=self.observer,
            failed=self.failures.append,
        )

    def stand_behind_a_proxy(self) -> None:
        """Others reach this node by a way that can be disturbed."""
        self.proxy = TcpProxy(reactor, int(self.bind_address.rpartition(":")[2]))
        self.address = self.proxy.address

    def make_state(self) -> Any:
        """What its commands are applied to."""
        return self.state_type(self.folder / "state", self.command_version)

    def start(self) -> Deferred[None]:
        """Make and start a node."""
        self.make()
        return self.node.start()

    @property
    def leads(self) -> bool:
        """Whether it leads."""
        if not self.is_up:
            return False
        return self.node.status().raft.role is Role.LEADER

    @property
    def is_up(self) -> bool:
        """Whether it takes part."""
        try:
            return not self.node.status().stopped_because
        except Exception:
            return False


class Cluster:
    """
    Several nodes.

    :param folder: for their files.
    :param network: in memory, or none for sockets.
    """

    def __init__(self, folder: Path, size: int, network: Network | None = None) -> None:
        self.pool = ThreadPool(0, 8)
        self.pool.start()
        self.folder = folder
        self.network = network
        self.places: dict[str, Place] = {}
        for number in range(1, size + 1):
            self.place(f"n{number}")

    def place(self, node_id: str) -> Place:
        """Room for one more node."""
        place = self.places[node_id] = Place(node_id, self.folder / node_id, self.pool, self.network)
        return place

    def __getitem__(self, node_id: str) -> Place:
        return self.places[node_id]

    async def form(self) -> None:
        """Start all nodes; the first forms the cluster."""
        addresses = {place.node_id: place.address for place in self.places.values()}
        for place in self.places.values():
            place.options = {"peers": addresses, **place.options}
        first, *others = self.places.values()
        first.options = {**first.options, "bootstrap": True}
        await gatherResults([place.start() for place in (*others, first)])
        await self.known_to_all()

    async def known_to_all(self) -> None:
        """
        Wait for a leader, and until all know the members: before that the others can't do without the first. What
        the leader has heard of all is heard over connections that are made for good.
        """
        await self.leader()
        places = [place for place in self.places.values() if hasattr(place, "node")]
        await until(lambda: all(place.node.membership().members for place in places), "a membership on all nodes")
        await until(self._all_are_heard, "a word of all nodes")

    def _all_are_heard(self) -> bool:
        leader = self._leader()
        return leader is not None and all(peer.match > 0 for peer in leader.node.status().raft.peers)

    async def leader(self) -> Place:
        """The one that leads."""
        found: Place = await until(self._leader, "a leader")
        return found

    def _leader(self) -> Place | None:
        up = [place for place in self.places.values() if hasattr(place, "node") and place.is_up]
        leaders = [place for place in up if place.leads]
        if not leaders:
            return None
        return max(leaders, key=lambda place: place.node.status().raft.term)

    async def leader_and_follower(self) -> tuple[Place, Place]:
        """The one that leads and one that knows it, as they are at one moment."""
        found: tuple[Place, Place] = await until(self._leader_and_follower, "a leader that another knows")
        return found

    async def follower(self) -> Place:
        """One that doesn't lead, and knows who does."""
        return (await self.leader_and_follower())[1]

    def _leader_and_follower(self) -> tuple[Place, Place] | None:
        leader = self._leader()
        if leader is None:
            return None
        others = [place for place in self.places.values() if place is not leader and place.is_up]
        follower = next((each for each in others if each.node.status().raft.leader == leader.node_id), None)
        return None if follower is None else (leader, follower)

    async def agree(self) -> list[str]:
        """Wait until all running nodes have applied the same, and everything that one of them knows committed."""

        def same() -> bool:
            up = [place for place in self.places.values() if place.is_up]
            applied = {place.state.meta.index for place in up}
            return len(applied) == 1 and applied == {place.node.status().raft.commit for place in up}

        await until(same, "agreement")
        up = [place for place in self.places.values() if place.is_up]
        assert all(place.state.values == up[0].state.values for place in up)
        return up[0].state.values

    async def stop(self) -> None:
        """Stop all."""
        await gatherResults([place.node.stop() for place in self.places.values() if hasattr(place, "node")])
        for place in self.places.values():
            if place.proxy is not None:
                await place.proxy.close()
        self.pool.stop()


async def propose_all(place: Place, commands: list[str]) -> list[Applied]:
    """Propose at once, and wait for all."""
    return await gatherResults([place.node.propose(command.encode()) for command in commands])
