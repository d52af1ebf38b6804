"""Copies of the state on their way between two nodes: made, sent, lost, installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from callfs.raft.boundary import SnapshotMeta
from callfs.raft.core import Core
from tests.simulation.invariants import Violation
from tests.simulation.machine import Machine
from tests.simulation.schedule import MILLISECONDS
from tests.simulation.world import Copy, CopyReceived, World

PATIENCE = 400 * MILLISECONDS
"""A sender that hears nothing of a copy for so long takes it for lost."""


class Owner(Protocol):
    """What copies need of their node."""

    name: str
    world: World

    @property
    def core(self) -> Core:
        """The node's core."""

    @property
    def machine(self) -> Machine:
        """The node's state."""

    def send(self, to: str, message: object) -> None:
        """Send something to another node."""

    def later(self, delay: int, act: Callable[..., None], *arguments: object) -> None:
        """Plan an input."""

    def apply_now(self) -> None:
        """Apply what was handed out for it."""

    def exchange(self, state: Machine) -> None:
        """Put another state into the place of the node's own, durably."""


class Copies:
    """The copies that one node sends, and the one that it fetches."""

    def __init__(self, node: Owner) -> None:
        self._node = node
        self._sent: dict[str, Copy] = {}
        self._incoming: Copy | None = None

    def send(self, to: str) -> None:
        """Make a copy and stream it."""
        node = self._node
        meta: SnapshotMeta = node.core.snapshot_meta(node.machine.index)
        node.world.note(node.name, f"sends {to} its state up to {meta.index}")
        if meta != node.machine.meta:
            raise Violation("snapshots", f"{node.name} calls {meta} what is {node.machine.meta}")
        copy = Copy(meta, node.machine.copy())
        self._sent[to] = copy
        node.later(node.world.rng.randrange(1_000, 60_000), node.send, to, copy)
        node.later(PATIENCE, self._nothing_heard, to, copy)

    def heard(self, to: str, news: CopyReceived) -> None:
        """The receiver tells what became of a copy."""
        copy = self._sent.get(to)
        if copy is None or copy.meta.index != news.index:
            return
        del self._sent[to]
        if news.installed:
            self._node.core.snapshot_sent(to, news.index)
        else:
            self._node.core.snapshot_failed(to)

    def fetch(self, source: str, copy: Copy) -> None:
        """Write a copy to the disk, beside the state."""
        if self._incoming is not None or not self._node.core.wants_snapshot(copy.meta):
            self._tell(source, copy, False)
            return
        self._incoming = copy
        self._node.later(self._node.world.rng.randrange(500, 20_000), self._fetched, source, copy)

    def _nothing_heard(self, to: str, copy: Copy) -> None:
        if self._sent.get(to) is copy:
            del self._sent[to]
            self._node.core.snapshot_failed(to)

    def _fetched(self, source: str, copy: Copy) -> None:
        node = self._node
        if not node.core.wants_snapshot(copy.meta) or not node.core.begin_installation(copy.meta):
            self._incoming = None
            self._tell(source, copy, False)
            return
        node.apply_now()
        node.later(node.world.rng.randrange(5_000), self._exchange, source, copy)

    def _exchange(self, source: str, copy: Copy) -> None:
        """Put the copy into the place of the state, which may fail; the core is told a little later."""
        node = self._node
        self._incoming = None
        if node.world.rng.random() < 0.05:
            node.core.installation_failed()
            self._tell(source, copy, False)
            return
        node.exchange(copy.state)
        node.world.note(node.name, f"has installed the state up to {copy.meta.index}")
        node.later(node.world.rng.randrange(2_000), self._installed, source, copy)

    def _installed(self, source: str, copy: Copy) -> None:
        self._node.core.snapshot_installed(copy.meta)
        self._tell(source, copy, True)

    def _tell(self, source: str, copy: Copy, installed: bool) -> None:
        self._node.send(source, CopyReceived(copy.meta.index, installed))
