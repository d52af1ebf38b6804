"""Members of a metadata cluster that come and go: a wiped one, and one that joins when the log has been cut."""

from __future__ import annotations

import json
import secrets
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from callfs.metadata.transfer import Header, InodeRecord, Writing
from callfs.model import ROOT_INODE, Inode, InodeType
from tests.acceptance.conftest import ROOMY_LIMITS, shown_on_failure
from tests.support.cluster import instance_of
from tests.support.daemon import Daemon, callfs, merged
from tests.support.http import Wire, file_target
from tests.support.raftcluster import RaftCluster, running_raft_cluster
from tests.support.userload import listed
from tests.support.waiting import eventually, stays

ENTRIES = 2_500
"""Several times what the log keeps."""
LARGE = 10_000
"""Entries of a store that a new node gets at once."""
AT_ONCE = 20
"""Connections that fill a directory."""
PIPELINED = 25
"""Requests that are sent before the first of them is answered."""
SETTINGS = {"limits": ROOMY_LIMITS, "raft": {"apply_timeout": "4s", "snapshot_threshold": 500}}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RaftCluster]:
    """Three daemons that soon cut their logs."""
    with running_raft_cluster(tmp_path_factory.mktemp("raft-members"), settings=SETTINGS) as cluster:
        yield cluster


@pytest.fixture
def cluster(nodes: RaftCluster, request: pytest.FixtureRequest) -> RaftCluster:
    """All of one mind."""
    nodes.whole()
    for node in nodes.nodes:
        shown_on_failure(request, node)
    return nodes


def commanded(node: Daemon, *arguments: str) -> str:
    """Give a node's ``callfs cluster`` command, which must succeed; what it says."""
    done = callfs("cluster", *arguments, "-c", str(node.config_path), folder=node.folder, timeout_seconds=90)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def status(node: Daemon) -> dict[str, Any]:
    """What a node knows of the cluster; findings are no failure."""
    done = callfs("cluster", "status", "--json", "-c", str(node.config_path), folder=node.folder)
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def all_vote(cluster: RaftCluster) -> bool:
    """Whether all nodes are voters, by what each of them says."""
    names = {instance_of(node) for node in cluster.nodes}
    views = [status(node) for node in cluster.nodes]
    return all({each["node_id"] for each in view["nodes"] if each["voter"]} == names for view in views)


def is_advised(node: Daemon, command: str) -> bool:
    """Whether a node's log tells to give that command."""
    return command in node.log_text()


def wiped(cluster: RaftCluster, node: Daemon) -> None:
    """Start a node again that has lost all it knew of the cluster."""
    node.kill()
    shutil.rmtree(cluster.raft_folder(node))
    node.launch()


def joined(cluster: RaftCluster, node: Daemon, through: Daemon) -> str:
    """Let a node join as soon as it listens; what the command says."""
    host, _, port = cluster.raft_address(node).rpartition(":")

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((host, int(port))) == 0

    eventually(listens, within_seconds=20, what="a listening node")
    return commanded(node, "join", "--leader", through.origin)


def fill(node: Daemon, home: str, number: int) -> None:
    """Make one part of many directories, fast: the answers are only looked at when several requests are sent."""
    key = {"Authorization": f"Bearer {node.keys['alice']}", "Content-Length": "0"}
    names = [f"{home}/{each:05}/" for each in range(number, ENTRIES, AT_ONCE)]
    with Wire(node.address) as wire:
        for start in range(0, len(names), PIPELINED):
            some = names[start : start + PIPELINED]
            for name in some:
                wire.send_request("POST", file_target(name), key)
            for _ in some:
                head = wire.read_head()
                assert head.status == 201, head
                wire.read_body(head, "POST")


def test_wiped(cluster: RaftCluster) -> None:
    """
    A follower that lost its log has forgotten its votes: it doesn't count, so with one other the cluster has no
    majority; it says what to do; and after remove and join it is a member like the others.
    """
    home = cluster.nodes[0].client().made(f"/{secrets.token_hex(6)}")
    leader = cluster.leader()
    victim = next(node for node in cluster.others(leader) if node is not cluster.nodes[0])
    (third,) = cluster.others(leader, victim)
    name = instance_of(victim)
    wiped(cluster, victim)
    leader.client().stored(f"{home}/without", b"content")
    for node in (victim, leader):
        advised = partial(is_advised, node, f"callfs cluster remove {name}")
        eventually(advised, within_seconds=20, what=f"advice in the log of {instance_of(node)}")
    third.kill()
    eventually(lambda: cluster.leader_as_seen(leader, victim) is None, what="the leader's retreat")
    assert stays(lambda: cluster.leader_as_seen(leader, victim) is None, for_seconds=3.0)
    leader.client().put(f"{home}/f", b"content").refused(503, "METADATA_UNAVAILABLE")
    third.start()
    assert leader.wait_ready()
    commanded(leader, "remove", name)
    assert cluster.leader(leader, third).client().names(home) == ["without"]
    wiped(cluster, victim)
    joined(cluster, victim, leader)
    assert victim.wait_ready()
    cluster.whole()
    assert [node.client().names(home) for node in cluster.nodes] == [["without"]] * 3
    third.kill()
    assert cluster.leader(leader, victim).wait_ready()
    victim.client().stored(f"{home}/by-two", b"content")
    third.start()


def test_new_node(cluster: RaftCluster, request: pytest.FixtureRequest) -> None:
    """
    A node joins when the beginning of the log is gone: it gets the state, then what came since; it votes, serves
    what was there before, and stays a member when all start again.
    """
    home = cluster.nodes[0].client().made(f"/{secrets.token_hex(6)}")

    leader = cluster.leader()
    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(partial(fill, leader, home), range(AT_ONCE)))
    new = cluster.add_node()
    shown_on_failure(request, new)
    new.launch()
    said = joined(cluster, new, cluster.others(leader)[0])
    assert f"Node {instance_of(new)} belongs to the cluster" in said
    assert new.wait_ready()
    assert joined(cluster, new, leader)
    cluster.whole()
    new.client().stored(f"{home}/by-the-new-one", b"content")
    assert leader.client().content(f"{home}/by-the-new-one") == b"content"
    assert listed(new, home) == listed(leader, home)
    installed = [event["index"] for event in new.events() if event.get("event") == "raft_snapshot_installed"]
    assert installed
    assert installed[0] >= ENTRIES
    eventually(partial(all_vote, cluster), what="the new voter")
    for node in cluster.nodes:
        node.kill()
    cluster.whole()
    assert new.client().exists(f"{home}/{ENTRIES - 1:05}")


def large_export() -> bytes:
    """An export of a store with a large directory."""
    home = Inode(
        id="f" * 32,
        path="/large",
        parent_id=ROOT_INODE.id,
        type=InodeType.DIRECTORY,
        mode=0o755,
        owner="alice",
        mtime=1,
        ctime=1,
        created_at=1,
    )
    inodes = [
        msgspec.structs.replace(home, id=f"{number:032x}", path=f"/large/{number:05}", parent_id=home.id)
        for number in range(1, LARGE + 1)
    ]
    writing = Writing(Header(store_id="5" * 32, at=1))
    records = [InodeRecord(inode=inode) for inode in (ROOT_INODE, home, *inodes)]
    return b"".join((writing.begin(), writing.records(records), writing.end()))


def test_new_node_of_a_large_store(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """
    A store of ten thousand entries is brought into a cluster of one, and another node joins: it gets the state, has
    every entry, and lets the first one go without any being lost.
    """
    cluster = RaftCluster(tmp_path, merged(SETTINGS, {"raft": {"snapshot_threshold": 5}}), nodes=1)
    (first,) = cluster.nodes
    shown_on_failure(request, first)
    (tmp_path / "export").write_bytes(large_export())
    try:
        path = str(first.config_path)
        done = callfs("metadata", "import", "-c", path, str(tmp_path / "export"), timeout_seconds=90)
        assert done.returncode == 0, done.stdout + done.stderr
        cluster.start()
        second = cluster.add_node()
        shown_on_failure(request, second)
        second.launch()
        joined(cluster, second, first)
        assert second.wait_ready()
        cluster.whole()
        assert any(event.get("event") == "raft_snapshot_installed" for event in second.events())
        entries = listed(second, "/large")
        assert [entry["name"] for entry in entries] == [f"{number:05}" for number in range(1, LARGE + 1)]
        eventually(partial(all_vote, cluster), what="the new voter")
        commanded(second, "remove", instance_of(first))
        assert cluster.leader(second) is second
        assert listed(second, "/large") == entries
        second.client().stored("/large/more", b"content")
    finally:
        cluster.close()
