"""A process with one node of a cluster, that appends without end and says what was acknowledged."""

from __future__ import annotations

import random
import secrets
import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react
from twisted.python.threadpool import ThreadPool

from callfs.cluster.disklog import DiskLog
from callfs.cluster.driver import RaftNode
from callfs.cluster.link import LinkTiming
from callfs.cluster.peers import PeerTransport
from callfs.cluster.settings import ClusterSettings
from callfs.errors import CallFSError
from tests.support.raft import MemoryState, Recording

reactor: Any = global_reactor


async def run(node_id: str, folder: str, start: str, peers: dict[str, str]) -> None:
    """
    Take part for ever.

    :param start: makes this process's commands different from those of an earlier one.
    """
    pool = ThreadPool(0, 4)
    pool.start()
    reactor.addSystemEventTrigger("during", "shutdown", pool.stop)
    observer = Recording()
    state = MemoryState(Path(folder) / "state")
    node = RaftNode(
        ClusterSettings(
            node_id=node_id,
            raft_address=peers[node_id],
            bootstrap=node_id == "n1",
            peers=peers,
            election_timeout_seconds=0.5,
            heartbeat_interval_seconds=0.05,
            apply_timeout_seconds=5.0,
            snapshot_threshold=200,
        ),
        reactor=reactor,
        pool=pool,
        log=DiskLog(
            Path(folder), node_id, reactor=reactor, token_bytes=secrets.token_bytes, seconds=time.monotonic
        ),
        state=state,
        transport=PeerTransport(
            peers[node_id],
            reactor=reactor,
            secrets=lambda: [b"secret"],
            token_bytes=secrets.token_bytes,
            random=random.random,
            observer=observer,
            timing=LinkTiming(connect_seconds=1.0, idle_seconds=1.0, longest_retry_seconds=0.3),
        ),
        instant=lambda: time.time_ns() // 1000,
        random=random.SystemRandom(),
        token_bytes=secrets.token_bytes,
        observer=observer,
        failed=lambda reason: print("failed", reason, flush=True),
    )
    await node.start()
    number = 0
    while True:
        number += 1
        command = f"{node_id}.{start}.{number}"
        try:
            await node.propose(command.encode())
            await node.read_barrier()
        except CallFSError as error:
            print("error", type(error).__name__, flush=True)
            await deferLater(reactor, 0.05)
            continue
        assert command in state.values[-500:], "an acknowledged command isn't there"
        leader = node.status().raft.leader
        print("done", command, leader, state.meta.index, len(state.values), len(set(state.values)), flush=True)
        await deferLater(reactor, 0.002)


def main(node_id: str, folder: str, start: str, *peers: str) -> None:
    """Run until killed."""
    Path(folder).mkdir(exist_ok=True)
    addresses = dict(peer.split("=") for peer in peers)
    react(lambda _: Deferred.fromCoroutine(run(node_id, folder, start, addresses)))


if __name__ == "__main__":
    main(*sys.argv[1:])
