"""Leadership transfer (thesis 3.10)."""

from __future__ import annotations

from callfs.raft.messages import TimeoutNow
from callfs.raft.refusal import Refusal
from callfs.raft.replica import Replica
from callfs.raft.replication import Replication


class Handover:
    """
    A leader's wish that another leads: it takes no proposals, brings the other up to date, and has it campaign.

    :param replica: what all parts share.
    :param replication: knows how far the others are.
    """

    def __init__(self, replica: Replica, replication: Replication) -> None:
        self._replica = replica
        self._replication = replication
        self._elapsed = 0
        self._tried: set[str] = set()
        self.to: str | None = None

    def start(self, to: str | None) -> Refusal | None:
        """Begin; ``None`` stands for the voter that is furthest."""
        heir = self.best_heir() if to is None else to
        if heir is None:
            return Refusal.UNREACHABLE
        refusal = self._refuses(heir)
        if refusal is None and heir not in (self.to, self._replica.node_id):
            self.to, self._elapsed = heir, 0
            self.go_on(heir)
        return refusal

    def stop(self) -> None:
        """This node leads no more, by this or otherwise."""
        self.to = None
        self._tried.clear()

    def tick(self) -> None:
        """Time has passed; after an election timeout the old leader goes on."""
        self._elapsed += 1
        if self.to is not None and self._elapsed >= self._replica.settings.election_ticks:
            self._tried.add(self.to)
            self.to = None

    def go_on(self, peer: str) -> None:
        """A follower was heard; if it is the one and has the whole log, it is told, again each time."""
        if peer == self.to and self._replication.peers[peer].match == self._replica.log.last_index:
            self._replica.send(peer, TimeoutNow(self._replica.term))

    def best_heir(self) -> str | None:
        """The voter that is heard and has most of the log; one that didn't take over when asked comes last."""
        candidates = [
            (voter not in self._tried, self._replication.peers[voter].match, voter)
            for voter in self._replica.membership.voters
            if voter != self._replica.node_id and self._refuses(voter) is None
        ]
        return max(candidates)[-1] if candidates else None

    def _refuses(self, to: str) -> Refusal | None:
        member = self._replica.membership.get(to)
        if member is None:
            return Refusal.UNKNOWN_MEMBER
        if not member.voter:
            return Refusal.NOT_A_VOTER
        if to != self._replica.node_id and (
            not self._replication.is_heard(to) or self._replication.peers[to].other_disk
        ):
            return Refusal.UNREACHABLE
        return None
