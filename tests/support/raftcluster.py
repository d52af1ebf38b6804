"""Daemons that keep the metadata themselves, by Raft: without any server but themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.support.cluster import Cluster, at_once
from tests.support.daemon import Daemon, merged
from tests.support.ports import free_port
from tests.support.waiting import eventually

ELECTION_SECONDS = 1.0
HEARTBEAT_SECONDS = 0.1
APPLY_SECONDS = 10.0
ELECTED_SECONDS = 20.0
"""How long a leader is waited for where the time isn't what is tested: the machine may be busy."""


class NoServer:
    """What stands in the place of the metadata server of the other clusters."""

    kind = "raft"
    password = "there is none"

    def settings(self, _password: str | None = None) -> dict[str, Any]:
        """The configuration of every node."""
        raft = {
            "election_timeout": f"{round(ELECTION_SECONDS * 1000)}ms",
            "heartbeat_interval": f"{round(HEARTBEAT_SECONDS * 1000)}ms",
            "apply_timeout": f"{round(APPLY_SECONDS * 1000)}ms",
        }
        return {"metadata_store": {"type": "raft"}, "dlm": {"type": "raft"}, "raft": raft}

    def start(self) -> None:
        """Nothing to start."""

    kill = pause = resume = close = start


class RaftCluster(Cluster):
    """
    Nodes that form a cluster of their own. The first ones know each other from the start; those added later have
    to join.

    :param folder: an empty folder.
    :param settings: configuration of every node.
    :param nodes: how many form the cluster.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any] | None = None, nodes: int = 3) -> None:
        self._forming = nodes
        self._raft_addresses = [self._free_address(number) for number in range(1, nodes + 1)]
        super().__init__(folder, NoServer(), settings, nodes)

    def add_node(self, settings: Mapping[str, Any] | None = None) -> Daemon:
        """See :meth:`Cluster.add_node`."""
        number = len(self.nodes) + 1
        own: dict[str, Any] = {"data_dir": str(self._folder / f"node-{number}" / "raft")}
        if number <= self._forming:
            own["bootstrap"] = number == 1
            own["peers"] = {f"node-{each}": address for each, address in enumerate(self._raft_addresses, 1)}
        else:
            self._raft_addresses.append(self._free_address(number))
        own["bind_addr"] = self._raft_addresses[number - 1]
        return super().add_node(merged({"raft": own}, settings or {}))

    def _free_address(self, number: int) -> str:
        host = f"127.0.0.{number}"
        return f"{host}:{free_port(host)}"

    def raft_address(self, node: Daemon) -> str:
        """Where its peers reach a node."""
        return str(node.settings["raft"]["bind_addr"])

    def raft_folder(self, node: Daemon) -> Path:
        """Where a node keeps its log and its copy of the metadata."""
        return Path(node.settings["raft"]["data_dir"])

    # who leads

    def leader_as_seen(self, *nodes: Daemon) -> Daemon | None:
        """Who leads by its own word, in the highest term; of these nodes, or of all that run."""
        asked = [node for node in nodes or self.nodes if node.running]
        views = at_once([partial(raft_view, node) for node in asked]) if asked else []
        leading = [
            (view["term"], number) for number, view in enumerate(views) if view and view.get("role") == "leader"
        ]
        return asked[max(leading)[1]] if leading else None

    def leader(self, *nodes: Daemon) -> Daemon:
        """Wait until one of these nodes, or of all that run, leads."""
        return eventually(lambda: self.leader_as_seen(*nodes), within_seconds=ELECTED_SECONDS, what="a leader")  # type: ignore[return-value]

    def followers(self, *nodes: Daemon) -> list[Daemon]:
        """The nodes, or these, but the leader; waits for one."""
        leader = self.leader(*nodes)
        return [node for node in nodes or self.nodes if node is not leader]

    def others(self, *nodes: Daemon) -> list[Daemon]:
        """All nodes but these."""
        return [node for node in self.nodes if node not in nodes]

    def whole(self) -> None:
        """Let all nodes run, and wait until they are ready and know one leader, and have applied the same."""
        for node in self.nodes:
            if not node.running:
                node.launch()
            else:
                node.cont()
        for node in self.nodes:
            assert node.wait_ready(), f"a node has ended:\n{node.tail()}"

        def agreed() -> bool:
            views = at_once([partial(raft_view, node) for node in self.nodes])
            return len({str(view and (view["leader"], view["term"], view["applied_index"])) for view in views}) == 1

        eventually(agreed, within_seconds=ELECTED_SECONDS, what="agreement of all nodes")


def raft_view(node: Daemon) -> dict[str, Any] | None:
    """What a node's readiness says of its part in the cluster; ``None`` when it says nothing."""
    answer = node.health()
    if answer is None:
        return None
    view = answer.json()["parts"].get("raft")
    return view if view and "role" in view else None


@contextmanager
def running_raft_cluster(
    folder: Path,
    *,
    settings: Mapping[str, Any] | None = None,
    nodes: int = 3,
    make: Callable[..., RaftCluster] = RaftCluster,
) -> Iterator[RaftCluster]:
    """Nodes that form a cluster, for the time of a block."""
    cluster = make(folder, settings, nodes)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()
