"""Nodes in processes of their own, killed without warning."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from callfs.cluster.logfile import LogFile
from callfs.raft.messages import EntryKind
from tests.support.forking import begin
from tests.support.mounts import SmallDisk
from tests.support.ports import free_port
from tests.support.raft import KeptState
from tests.support.waiting import eventually


class NodeProcess:
    """
    One node.

    :ivar done: commands that it was told are done, in order.
    """

    def __init__(self, node_id: str, folder: Path, peers: dict[str, str], wrapper: Sequence[str] = ()) -> None:
        self.node_id = node_id
        self._wrapper = wrapper
        self.folder = folder
        self.done: list[str] = []
        self.lines: list[str] = []
        self.leader = ""
        self._peers = peers
        self._starts = 0
        self.start()

    def start(self) -> None:
        """Begin, with what is on disk."""
        self._starts += 1
        peers = [f"{name}={address}" for name, address in self._peers.items()]
        arguments = [self.node_id, str(self.folder), str(self._starts), *peers]
        command = [*self._wrapper, sys.executable, "-m", "tests.cluster.node_process", *arguments]
        reading, writing = os.pipe()
        self.process = begin(command, stdout=writing, stderr=writing)
        os.close(writing)
        self._reading = threading.Thread(target=self._read, args=(reading,), daemon=True)
        self._reading.start()

    def _read(self, reading: int) -> None:
        with open(reading, encoding="utf-8") as said:
            for line in said:
                self.lines.append(line)
                words = line.split()
                # The last line of a killed process may be cut off.
                if words and words[0] == "done" and line.endswith("\n"):
                    self.leader = words[2]
                    self.done.append(words[1])
                    assert words[4] == words[5], "something was applied twice"

    def kill(self) -> None:
        """End it without warning."""
        self.process.kill()
        self.process.wait()
        self._reading.join()

    def goes_on(self) -> None:
        """Wait until more of its commands are done."""
        before = len(self.done)
        eventually(
            lambda: len(self.done) > before + 5,
            what=f"progress of {self.node_id}: {self.lines[-3:]}",
            within_seconds=20,
        )


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[dict[str, NodeProcess]]:
    """Three nodes that append."""
    peers = {f"n{number}": f"127.0.0.1:{free_port()}" for number in (1, 2, 3)}
    running = {name: NodeProcess(name, tmp_path / name, peers) for name in peers}
    try:
        for each in running.values():
            each.goes_on()
        yield running
    finally:
        for each in running.values():
            each.kill()


def recorded(node: NodeProcess) -> list[str]:
    """What a stopped node's disk says was done, in its state and the committed part of its log."""
    file = LogFile(node.folder, node.node_id)
    saved = file.open(os.urandom).saved
    file.close()
    values: list[str] = []
    applied = 0
    with contextlib.suppress(FileNotFoundError):
        state = msgspec.msgpack.decode((node.folder / "state").read_bytes(), type=KeptState)
        values, applied = state.values, state.meta.index
    later = [
        msgspec.msgpack.decode(entry.data)[5].decode("latin-1")
        for entry in saved.entries
        if entry.kind is EntryKind.COMMAND and entry.index > applied
    ]
    return values + later


def rounds(
    nodes: dict[str, NodeProcess], choose: Callable[[dict[str, NodeProcess]], NodeProcess], times: int
) -> None:
    """Kill a node, see the others go on, start it again, see it go on; several times."""
    for _ in range(times):
        victim = choose(nodes)
        victim.kill()
        for each in nodes.values():
            if each is not victim:
                each.goes_on()
        victim.start()
        victim.goes_on()


def check(nodes: dict[str, NodeProcess]) -> None:
    """Nothing that was acknowledged is missing on a majority."""
    for each in nodes.values():
        each.kill()
    disks = {name: set(recorded(each)) for name, each in nodes.items()}
    for each in nodes.values():
        for command in each.done:
            assert sum(command in disk for disk in disks.values()) >= 2, f"{command} was acknowledged and is lost"
        assert not any(line.startswith(("failed", "Traceback")) for line in each.lines), each.lines[-20:]


def test_killed_leaders_lose_nothing(nodes: dict[str, NodeProcess]) -> None:
    """Whoever leads is killed again and again: all that was acknowledged is on a majority of the disks."""
    rounds(nodes, lambda all_: all_[next(iter(all_.values())).leader], 3)
    check(nodes)


def test_killed_followers_lose_nothing(nodes: dict[str, NodeProcess]) -> None:
    """The same with followers."""
    rounds(nodes, lambda all_: next(each for each in all_.values() if each.leader != each.node_id), 3)
    check(nodes)


def test_all_killed_at_once_lose_nothing(nodes: dict[str, NodeProcess]) -> None:
    """A power cut of the whole cluster: it comes back with everything."""
    for each in nodes.values():
        each.kill()
    for each in nodes.values():
        each.start()
    for each in nodes.values():
        each.goes_on()
    check(nodes)


def test_a_frozen_leader_is_replaced_and_comes_back(nodes: dict[str, NodeProcess]) -> None:
    """A leader that stands still for a while finds another one leading, and loses nothing."""
    leader = nodes[nodes["n1"].leader]
    leader.process.send_signal(signal.SIGSTOP)
    for each in nodes.values():
        if each is not leader:
            each.goes_on()
    leader.process.send_signal(signal.SIGCONT)
    leader.goes_on()
    check(nodes)


def test_a_full_disk_refuses_writes_and_keeps_reads_and_heals(tmp_path: Path) -> None:
    """A node whose disk is full takes no writes and doesn't lead; the others go on; with room it is back."""
    peers = {f"n{number}": f"127.0.0.1:{free_port()}" for number in (1, 2, 3)}
    small = tmp_path / "small"
    small.mkdir()
    disk = SmallDisk(small, 24 * 1024 * 1024)
    folders = {"n1": small / "n1", "n2": tmp_path / "n2", "n3": tmp_path / "n3"}
    nodes = {
        name: NodeProcess(name, folders[name], peers, disk.wrapper if name == "n1" else ())
        for name in ("n2", "n3", "n1")
    }
    full = nodes["n1"]
    try:
        for each in nodes.values():
            each.goes_on()
        disk.fill()
        eventually(lambda: "error InsufficientStorage\n" in full.lines, what="a refusal", within_seconds=30)
        for name in ("n2", "n3"):
            nodes[name].goes_on()
            assert nodes[name].leader != "n1"
        disk.free()
        full.goes_on()
        assert not any(line.startswith(("failed", "Traceback")) for line in full.lines), full.lines[-20:]
    finally:
        for each in nodes.values():
            each.kill()
        disk.close()
