"""Why a node has no part in a cluster, in words for whoever waits for what only a member can answer."""

from __future__ import annotations

from callfs.raft.core import Core

_REMOVED = "this node was removed from the metadata cluster: ask one of its members"
_NOT_LET_IN = (
    "this node belongs to no metadata cluster yet: 'callfs cluster join' lets it into one, and with "
    "raft.bootstrap: true a first node begins one"
)
_NOTHING_YET = (
    "this node has nothing of the metadata cluster's log yet: it comes by itself to a node that was let in with "
    "the disk that it has now; 'callfs cluster status' says whether this one was"
)


def why_outside(core: Core, cluster_id: str) -> str | None:
    """
    What keeps a node out of its cluster.

    :param cluster_id: of the cluster that it belongs to; empty as long as there is none.
    :return: nothing for a member.
    """
    if not cluster_id:
        return _NOT_LET_IN
    if core.status().removed:
        return _REMOVED
    return None if core.membership.members else _NOTHING_YET
