"""The leader's side of membership changes (thesis 4.1, 4.2.1, 4.2.2)."""

from __future__ import annotations

from callfs.raft.boundary import Position
from callfs.raft.membership import Disown, MembershipChange, Promote, RemoveMember, changed, encoded
from callfs.raft.messages import EntryKind, Removed
from callfs.raft.progress import Phase
from callfs.raft.refusal import Refusal
from callfs.raft.replica import Replica
from callfs.raft.replication import Replication


class Changes:
    """
    One server at a time: the next change waits until the last is committed.

    :param replica: what all parts share.
    :param replication: feeds those that are members.
    """

    def __init__(self, replica: Replica, replication: Replication) -> None:
        self._replica = replica
        self._replication = replication
        self._leaving: set[str] = set()

    def propose(self, change: MembershipChange) -> Position | Refusal:
        """
        Put the new membership into the log, where it is in force at once.

        Not before an entry of the leader's own term is committed (Ongaro's correction of 2015 to 4.1): else two
        leaders could each have changed the same membership by one, to two whose majorities don't overlap. Nor is a
        node removed while the others that are there are no majority of the rest: the change is in force before it
        is committed, so it never would be, and nothing else either.
        """
        replica = self._replica
        if not replica.knows_own_term_committed:
            return Refusal.NOT_YET
        if self.is_pending():
            return Refusal.CHANGE_PENDING
        outcome = changed(replica.membership, change)
        if isinstance(outcome, Refusal):
            return outcome
        if isinstance(change, RemoveMember) and not self._replication.hears_majority_of(outcome.voters):
            return Refusal.WITHOUT_MAJORITY
        position = replica.append_own(EntryKind.MEMBERSHIP, encoded(outcome))
        self._replication.follow_membership()
        if isinstance(change, RemoveMember):
            self._leaving.add(change.node_id)
        return position

    def is_pending(self) -> bool:
        """Whether the membership in force isn't committed."""
        return self._replica.history.index > self._replica.commit

    def lost_leadership(self) -> None:
        """Others finish what was begun."""
        self._leaving.clear()

    def promote_if_near(self, peer: str) -> None:
        """A learner whose log is near the end becomes a voter."""
        replica, progress = self._replica, self._replication.peers[peer]
        member = replica.membership.get(peer)
        lag = replica.commit - progress.match
        near = progress.phase is Phase.REPLICATE and lag <= replica.settings.promotion_lag
        if member is not None and not member.voter and near and replica.writable:
            self.propose(Promote(peer))

    def disown_if_set_back(self, peer: str) -> None:
        """
        A follower whose disk was set back has forgotten its votes as well as its entries. The next leader knows
        nothing of what it acknowledged and would feed it again, so all are told by the membership.
        """
        if self._replication.peers[peer].has_forgotten and self._replica.writable:
            self.propose(Disown(peer))

    def committed(self) -> bool:
        """
        The commit index has moved: tell those that have left.

        :returns: whether this leader itself has left, and has to step down (4.2.2).
        """
        if self.is_pending():
            return False
        for peer in sorted(self._leaving):
            self.tell_removed(peer)
        self._leaving.clear()
        own = self._replica.membership.get(self._replica.node_id)
        return own is None or not own.voter

    def tell_removed(self, peer: str) -> None:
        """Say to a node that it is no member, if that is sure."""
        replica = self._replica
        if not self.is_pending() and peer != replica.node_id:
            replica.send(peer, Removed(replica.term, replica.history.index))
