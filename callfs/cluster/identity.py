"""Who a node is, as it says in a handshake."""

from __future__ import annotations

import msgspec

ID_BYTES = 128
"""The longest id of a node, a cluster or a disk."""

MAX_VERSION = 2**31
"""The highest version of commands: it goes into memberships, and every node has to be able to read those."""


class PeerIdentity(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """
    A start of a node.

    :param node_id: its name.
    :param cluster_id: of the cluster that it belongs to; empty while it belongs to none.
    :param disk_id: random, made together with its log: another one means that the log was lost, votes included.
    :param command_version: the newest kind of command that its state machine knows.
    :param raft_address: ``host:port`` where it is reached by its peers.
    :param api_endpoint: the base URL of its API; may be empty.
    """

    node_id: str
    cluster_id: str
    disk_id: str
    command_version: int
    raft_address: str
    api_endpoint: str

    def is_plausible(self) -> bool:
        """Whether every part has a sane length; the node's name and its disk's id can't be empty."""
        ids = (self.node_id, self.disk_id)
        texts = (*ids, self.cluster_id, self.raft_address, self.api_endpoint)
        if not 0 <= self.command_version <= MAX_VERSION:
            return False
        return all(ids) and all(len(text) <= ID_BYTES * 4 for text in texts)
