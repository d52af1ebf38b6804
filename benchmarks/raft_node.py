"""
A node of CallFS's raft in ``benchmarks.raft``: ``python -m benchmarks.raft_node STATE FOLDER ID ID=ADDRESS ...``.

It has the log, the transport and the metrics of the daemon. ``STATE`` is ``metadata``, the daemon's, where an entry
makes a directory; or ``light``, which counts entries in memory, so that what is left is the cost of raft itself.
"""

from __future__ import annotations

import json
import random
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.stdio import StandardIO
from twisted.internet.task import deferLater, react
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from benchmarks.raft_loads import ENTRY_BYTES, Alone, Ended, Load
from callfs.cluster.disklog import DiskLog
from callfs.cluster.driver import RaftNode
from callfs.cluster.interfaces import ISnapshot, IStateMachine, Outcome, SnapshotMeta, Step
from callfs.cluster.metrics import ClusterMetrics
from callfs.cluster.peers import PeerTransport
from callfs.cluster.settings import ClusterSettings
from callfs.engine.chance import DrawnAhead
from callfs.identifiers import new_inode_id
from callfs.metadata.commands import CreateDirectory
from callfs.metadata.replicated import ReplicatedStore
from callfs.metadata.replicated_codec import encode_command
from callfs.metadata.replicated_state import MetadataState
from callfs.metrics import Metrics
from callfs.model import Principal
from callfs.raft.boundary import Role
from callfs.raft.membership import NOBODY

reactor: Any = global_reactor


@implementer(IStateMachine)
class CountingState:
    """Counts entries, and keeps nothing: for one start of a cluster whose nodes all stay."""

    command_version = 1

    def __init__(self) -> None:
        self._count = 0
        self._index = 0
        self._term = 0
        self._membership = NOBODY

    def open(self) -> Deferred[SnapshotMeta]:
        """Empty."""
        return succeed(SnapshotMeta(0, 0, NOBODY))

    def apply(self, steps: Sequence[Step]) -> Deferred[Sequence[Outcome]]:
        """Count."""
        outcomes: list[Outcome] = []
        for step in steps:
            if step.request is None:
                outcomes.append(None)
            else:
                self._count += 1
                outcomes.append(b"%d" % self._count)
        self._index = steps[-1].index
        return succeed(outcomes)

    def checkpoint(self) -> Deferred[int]:
        """As if it were durable."""
        return succeed(self._index)

    def snapshot(self) -> Deferred[ISnapshot]:
        """Nobody comes later."""
        raise NotImplementedError

    def install(self, file: Path, meta: SnapshotMeta) -> Deferred[None]:
        """Nobody falls behind."""
        raise NotImplementedError

    def close(self) -> Deferred[None]:
        """Nothing is open."""
        return succeed(None)


class Work:
    """
    What the node can be asked to do.

    :param store: over the node; none for the light state.
    """

    def __init__(self, node: RaftNode, node_id: str, store: ReplicatedStore | None) -> None:
        self._node = node
        self._node_id = node_id
        self._store = store
        self._token_bytes = DrawnAhead(secrets.token_bytes)
        self._entry = bytes(ENTRY_BYTES)
        self._made = 0

    def write(self, ended: Ended) -> None:
        """One entry."""
        writing: Deferred[Any]
        writing = self._node.propose(self._entry) if self._store is None else self._store.apply(self._command())
        writing.addCallbacks(lambda _: ended(), _broken)

    def read(self, ended: Ended) -> None:
        """One linearizable read: of a directory, or with the light state of nothing."""
        reading: Deferred[Any]
        reading = self._node.read_barrier() if self._store is None else self._store.get("/n1-1")
        reading.addCallbacks(lambda _: ended(), _broken)

    def entry_bytes(self) -> int:
        """How long a command is."""
        return len(self._entry if self._store is None else encode_command(self._command()))

    def leads(self) -> bool:
        """Whether this node leads."""
        return self._node.status().raft.role is Role.LEADER

    def _command(self) -> CreateDirectory:
        self._made += 1
        return CreateDirectory(
            at=time.time_ns() // 1000,
            principal=Principal("alice"),
            path=f"/{self._node_id}-{self._made}",
            inode_id=new_inode_id(self._token_bytes),
            parent_ids=(),
        )


def _broken(failure: Any) -> None:
    failure.printTraceback()
    reactor.stop()


class Asked(LineOnlyReceiver):
    """Does what standard input says."""

    delimiter = b"\n"

    def __init__(self, work: Work) -> None:
        self._work = work

    def lineReceived(self, line: bytes) -> None:
        """One thing to do."""
        asked = json.loads(line)
        start: Callable[[Ended], None] = self._work.read if asked.get("what") == "read" else self._work.write
        if asked["do"] == "load":
            Load(start, asked["in_flight"], asked["seconds"], self._answer)
        elif asked["do"] == "alone":
            Alone(start, asked["count"], self._answer)
        elif asked["do"] == "leads":
            self._answer(self._work.leads())
        elif asked["do"] == "entry_bytes":
            self._answer(self._work.entry_bytes())
        else:
            self._answer(time.process_time())

    def connectionLost(self, reason: Any = None) -> None:
        """Nobody asks any more."""
        if reactor.running:
            reactor.stop()

    def _answer(self, answer: Any) -> None:
        self.sendLine(json.dumps(answer).encode())  # type: ignore[no-untyped-call]


async def run(kind: str, folder: Path, node_id: str, peers: dict[str, str]) -> None:
    """Take part until nobody asks any more."""
    pool, query_pool = ThreadPool(0, 10), ThreadPool(0, 2)
    for each in (pool, query_pool):
        each.start()
        reactor.addSystemEventTrigger("during", "shutdown", each.stop)
    metrics = Metrics()
    observer = ClusterMetrics(metrics.registry, metrics.error)
    state: CountingState | MetadataState = CountingState()
    if kind == "metadata":
        state = MetadataState(
            folder,
            reactor=reactor,
            pool=pool,
            query_pool=query_pool,
            token_bytes=secrets.token_bytes,
            op_timeout_seconds=10,
            observer=metrics,
        )
    node = RaftNode(
        ClusterSettings(node_id=node_id, raft_address=peers[node_id], bootstrap=node_id == min(peers), peers=peers),
        reactor=reactor,
        pool=pool,
        log=DiskLog(folder, node_id, reactor=reactor, token_bytes=secrets.token_bytes, seconds=reactor.seconds),
        state=state,
        transport=PeerTransport(
            peers[node_id],
            reactor=reactor,
            secrets=lambda: [b"secret"],
            token_bytes=secrets.token_bytes,
            random=random.random,
            observer=observer,
        ),
        instant=lambda: time.time_ns() // 1000,
        random=random.SystemRandom(),
        token_bytes=secrets.token_bytes,
        observer=observer,
        failed=lambda reason: print("failed:", reason, file=sys.stderr, flush=True),
    )
    await node.start()
    store = None
    if isinstance(state, MetadataState):
        store = ReplicatedStore(node, state)
        await store.open()
    while node.status().raft.leader is None:
        await deferLater(reactor, 0.05)
    StandardIO(Asked(Work(node, node_id, store)))
    await Deferred()


def main(kind: str, folder: str, node_id: str, *peers: str) -> None:
    """Run until killed."""
    Path(folder).mkdir(exist_ok=True)
    addresses = dict(peer.split("=") for peer in peers)
    react(lambda _: Deferred.fromCoroutine(run(kind, Path(folder), node_id, addresses)))


if __name__ == "__main__":
    main(*sys.argv[1:])
