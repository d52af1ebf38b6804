"""What the nodes of a simulation share, and what they say to each other besides raft's own messages."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from callfs.raft.boundary import RandomSource, Saved, Settings, SnapshotMeta
from callfs.raft.core import Core
from callfs.raft.membership import MembershipChange
from tests.simulation.invariants import Invariants
from tests.simulation.machine import Command, Machine
from tests.simulation.network import Network
from tests.simulation.schedule import MILLISECONDS, Schedule


class CoreFactory(Protocol):
    """Makes a core; a mutant is another factory than :class:`callfs.raft.core.Core`."""

    def __call__(
        self, *, node_id: str, disk_id: str, saved: Saved, settings: Settings, random: RandomSource
    ) -> Core:
        """Make the core of one start of a node."""


@dataclass(frozen=True, slots=True)
class Forwarded:
    """Something that a follower gives to the leader to propose."""

    content: bytes | MembershipChange


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of the state on its way to a node that needs one."""

    meta: SnapshotMeta
    state: Machine


@dataclass(frozen=True, slots=True)
class CopyReceived:
    """What became of a copy of the state up to an index."""

    index: int
    installed: bool


@dataclass(slots=True)
class World:
    """
    What all nodes of a simulation share.

    :param commands: every command that was ever proposed; its place here is what stands in the log.
    :param note: called with a node and a line for people.
    """

    schedule: Schedule
    rng: random.Random
    network: Network
    invariants: Invariants
    settings: Settings
    core: CoreFactory
    threshold: int
    note: Callable[[str, str], None]
    commands: list[Command] = field(default_factory=list)
    tick: int = 25 * MILLISECONDS
