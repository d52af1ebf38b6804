"""A node that answers before its state contains what it answered, and is killed right then."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.metadata.replicated_binding import SingleLogBinding
from tests.support.ports import free_port

_HERE = Path(__file__).parents[2]

_NODE = """
import os, random, secrets, signal, sys, time
from pathlib import Path
from twisted.internet import reactor, task
from twisted.python.threadpool import ThreadPool
from callfs.cluster.disklog import DiskLog
from callfs.cluster.driver import RaftNode
from callfs.cluster.peers import PeerTransport
from callfs.cluster.settings import ClusterSettings
from callfs.errors import FileAlreadyExists
from callfs.metadata.replicated import ReplicatedStore
from callfs.metadata.replicated_state import MetadataState
from callfs.metadata.sqlite import Unobserved
from tests.support.commands import Commands
from tests.support.raft import Recording

folder, address, start, kill_at = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
commits = 0

def reached(step):
    global commits
    if step == "metadata.before_commit":
        commits += 1
        if commits == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

async def main(reactor):
    pool = ThreadPool(0, 2)
    pool.start()
    reactor.addSystemEventTrigger("during", "shutdown", pool.stop)
    state = MetadataState(
        folder, reactor=reactor, pool=pool, query_pool=pool, token_bytes=secrets.token_bytes,
        op_timeout_seconds=20, observer=Unobserved(), reached=reached,
    )
    node = RaftNode(
        ClusterSettings(
            node_id="n1", raft_address=address, bootstrap=True, peers={"n1": address},
            election_timeout_seconds=0.3, heartbeat_interval_seconds=0.03,
        ),
        reactor=reactor, pool=pool, state=state,
        log=DiskLog(folder, "n1", reactor=reactor, token_bytes=secrets.token_bytes, seconds=time.monotonic),
        transport=PeerTransport(
            address, reactor=reactor, secrets=lambda: [b"secret"], token_bytes=secrets.token_bytes,
            random=random.random, observer=Recording(),
        ),
        instant=lambda: time.time_ns() // 1000, random=random.SystemRandom(), token_bytes=secrets.token_bytes,
        observer=Recording(), failed=lambda reason: print("failed", reason, flush=True),
    )
    await node.start()
    store = ReplicatedStore(node, state)
    await store.open()
    make = Commands(start)
    found = [inode.path for inode in await store.walk("/")]
    print("found", *found, flush=True)
    for path in found:
        try:
            await store.apply(make.create(path))
        except FileAlreadyExists:
            continue
        raise AssertionError("it was there and was made again")
    number = start
    while kill_at or number < start + 5:
        number += 1
        await store.apply(make.create(f"/{number:06}"))
        print("made", f"/{number:06}", flush=True)
        if number % 3 == 0:
            assert (await store.get(f"/{number:06}")).path == f"/{number:06}", "an old read"
    await store.close()
    await node.stop()

task.react(main)
"""


class KilledTests(SingleLogBinding, TestCase):
    def setUp(self) -> None:
        self.place = self.folder()
        self.address = f"127.0.0.1:{free_port()}"

    def run_until_killed(self, start: int, kill_at: int) -> tuple[set[str], set[str]]:
        """What a node found at its start, and what it acknowledged till it was killed at a commit; 0: never."""
        ended = subprocess.run(
            [sys.executable, "-c", _NODE, str(self.place), self.address, str(start), str(kill_at)],
            env={**os.environ, "PYTHONPATH": str(_HERE)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == (-signal.SIGKILL if kill_at else 0), ended.stdout + ended.stderr
        lines = [line.split() for line in ended.stdout.splitlines()]
        (found,) = [words[1:] for words in lines if words[0] == "found"]
        return set(found), {words[1] for words in lines if words[0] == "made"}

    def in_the_state(self) -> set[str]:
        """What the state has without the log."""
        copy = self.folder() / "state"
        shutil.copytree(self.place / "state", copy)
        connection = sqlite3.connect(copy / (copy / "current").read_text().strip())
        try:
            return {path for (path,) in connection.execute("SELECT path FROM inodes")}
        finally:
            connection.close()

    async def test_between_the_answer_and_the_commit(self) -> None:
        """What was acknowledged is there after a kill before its commit: the log brings it again, once."""
        acknowledged: set[str] = set()
        only_in_the_log: set[str] = set()
        for turn, kill_at in enumerate((9, 12, 15)):
            found, made = self.run_until_killed(turn * 100, kill_at)
            assert acknowledged <= found
            acknowledged |= made
            only_in_the_log |= acknowledged - self.in_the_state()
        assert only_in_the_log
        found, _ = self.run_until_killed(300, 0)
        assert acknowledged <= found
