"""The leader's side of the log: feeding followers, and counting what a majority has (thesis 3.5, 3.6, 10.2)."""

from __future__ import annotations

from collections.abc import Collection

from callfs.raft.boundary import PeerStatus
from callfs.raft.messages import Append, AppendRejection, AppendResponse, Heartbeat, HeartbeatResponse
from callfs.raft.progress import Phase, Progress
from callfs.raft.quorum import agreed, majority
from callfs.raft.replica import Replica


class Replication:
    """
    What a leader knows of its followers.

    :param replica: what all parts share.
    """

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self.peers: dict[str, Progress] = {}
        self._made: dict[int, Append] = {}

    def start(self) -> None:
        """This node leads from now on: nothing is known of anybody."""
        self.peers = {}
        self.follow_membership()

    def stop(self) -> None:
        """It doesn't any more."""
        self.peers = {}
        self._made.clear()

    def follow_membership(self) -> None:
        """Those in the membership in force are fed, new ones from the end backwards."""
        replica = self._replica
        self.peers = {
            member.node_id: self.peers.get(member.node_id) or Progress(replica.log.last_index + 1)
            for member in replica.membership.members
            if member.node_id != replica.node_id
        }

    # -- counting

    def own_match(self) -> int:
        """How far this node's own log counts: only what is durable (thesis 10.2.1)."""
        return self._replica.durability.index

    def may_commit(self, index: int) -> bool:
        """Only entries of the leader's own term are committed by counting; others along with them (3.6.2)."""
        return self._replica.log.term_at(index) == self._replica.term

    def advance_commit(self) -> bool:
        """Commit what a majority of the voters has; whether that is more than before."""
        replica = self._replica
        index = agreed(
            [
                self.own_match() if voter == replica.node_id else self.peers[voter].match
                for voter in replica.membership.voters
            ]
        )
        if index <= replica.commit or not self.may_commit(index):
            return False
        replica.commit = index
        return True

    def confirmed_round(self, own_round: int) -> int:
        """The newest round that a majority of the voters has answered; the leader itself has answered all."""
        replica = self._replica
        return agreed(
            [
                own_round if voter == replica.node_id else self.peers[voter].round
                for voter in replica.membership.voters
            ]
        )

    def hears_majority(self) -> bool:
        """Whether a majority was heard within the shortest election timeout (CheckQuorum, thesis 6.2)."""
        return self.hears_majority_of(self._replica.membership.voters)

    def hears_majority_of(self, voters: Collection[str]) -> bool:
        """The same for other voters, all of them members."""
        heard = sum(voter == self._replica.node_id or self.is_heard(voter) for voter in voters)
        return heard >= majority(len(voters))

    def is_heard(self, peer: str) -> bool:
        """Whether it answered within the shortest election timeout."""
        return self.peers[peer].silent_ticks < self._replica.settings.election_ticks

    def tick(self) -> None:
        """Time has passed without a word, until one comes."""
        for progress in self.peers.values():
            progress.silent_ticks += 1

    # -- what followers say

    def matched(self, peer: str, response: AppendResponse) -> None:
        """A follower has entries, durably."""
        if response.match <= self._replica.log.last_index:
            progress = self.peers[peer]
            if progress.phase is Phase.SNAPSHOT and response.match >= self._replica.log.point_index:
                progress.snapshot_ended(response.match)
            progress.matched(response.match)

    def rejected(self, peer: str, rejection: AppendRejection) -> None:
        """
        A follower's log is another: go back to before the conflict (thesis 3.3).

        Where this log has the follower's term too, the logs may agree up to that term's end here; else nothing of
        that term is of use, and one round trip skips all of it.
        """
        common = self._replica.log.last_index_of(rejection.conflict_term) if rejection.conflict_term else None
        retry = rejection.conflict_index if common is None else common + 1
        last = None if rejection.conflict_term else rejection.conflict_index - 1
        self.peers[peer].rejected(rejection.previous_index, retry, last)

    def answered_heartbeat(self, peer: str, response: HeartbeatResponse) -> None:
        """A follower is there; if appends to it seem lost, ask where it is, unless they were cut meanwhile."""
        progress = self.peers[peer]
        self._remind(peer, progress, response.agreed)
        if not progress.answered_heartbeat(response.round):
            return
        if progress.next_index <= self._replica.log.point_index:
            progress.lost()
        else:
            self._append(peer, progress, self._made_for(progress, progress.next_index - 1))

    def _remind(self, peer: str, progress: Progress, agreed: int | None) -> None:
        """A follower that was started anew has what it had, and doesn't know that it is this leader's."""
        replica, match = self._replica, progress.match
        if agreed is None or progress.phase is not Phase.REPLICATE or agreed >= min(match, replica.commit):
            return
        term = replica.log.term_at(match)
        if term is not None:
            replica.send(peer, Append(replica.term, match, term, replica.commit, ()))

    # -- what followers are told

    def heartbeat(self, round_number: int) -> None:
        """Tell everybody that this node leads."""
        for peer, progress in self.peers.items():
            self._heartbeat(peer, progress, round_number)

    def feed(self, *, tell_commit: bool) -> tuple[str, ...]:
        """
        Send everybody what it lacks, as far as the windows allow.

        :param tell_commit: also how far the log is committed, where no entries say so.
        :returns: those that need a copy of the state from now on.
        """
        self._made.clear()
        in_need = tuple(peer for peer, progress in self.peers.items() if self._feed(peer, progress))
        for peer, progress in self.peers.items():
            behind = progress.phase is Phase.REPLICATE and progress.sent_commit < self._replica.commit
            if behind and tell_commit:
                self._heartbeat(peer, progress, 0)
        return in_need

    def status(self) -> tuple[PeerStatus, ...]:
        """For people."""
        members = self._replica.membership
        return tuple(
            PeerStatus(
                node_id=member.node_id,
                voter=member.voter,
                state=progress.phase.value,
                match=progress.match,
                next_index=progress.next_index,
                inflight=progress.inflight,
                silent_ticks=progress.silent_ticks,
                other_disk=progress.other_disk or progress.has_forgotten,
            )
            for member in members.members
            if (progress := self.peers.get(member.node_id)) is not None
        )

    def _feed(self, peer: str, progress: Progress) -> bool:
        replica, settings = self._replica, self._replica.settings
        while progress.may_send(settings.max_inflight, settings.max_inflight_bytes):
            if progress.next_index <= replica.log.point_index:
                if not self.is_heard(peer):
                    return False
                if progress.is_doubted:
                    self._doubt(peer, progress)
                    return False
                progress.needs_snapshot()
                return True
            if progress.phase is Phase.REPLICATE and progress.next_index > replica.log.last_index:
                return False
            self._append(peer, progress, self._next_for(progress))
        return False

    def _next_for(self, progress: Progress) -> Append:
        """What it lacks; followers that lack the same get the same value, which has to be encoded but once."""
        known = self._made.get(progress.next_index)
        if known is None:
            known = self._made[progress.next_index] = self._made_for(progress, self._replica.log.last_index)
        return known

    def _made_for(self, progress: Progress, limit: int) -> Append:
        replica = self._replica
        log, previous = replica.log, progress.next_index - 1
        previous_term = log.term_at(previous)
        assert previous_term is not None, "what is next wasn't cut"
        entries = log.slice(progress.next_index, limit, replica.settings.max_batch_bytes)
        return Append(replica.term, previous, previous_term, replica.commit, entries)

    def _append(self, peer: str, progress: Progress, append: Append) -> None:
        self._replica.send(peer, append)
        previous = append.previous_index
        last = previous + len(append.entries)
        progress.sent(last, self._replica.log.bytes_between(previous, last), append.commit)

    def _doubt(self, peer: str, progress: Progress) -> None:
        """Ask a follower where its log ends; it lacks what was cut here, or has it after all."""
        replica, log = self._replica, self._replica.log
        term = log.term_at(log.point_index)
        assert term is not None, "the term of what was cut last is kept"
        replica.send(peer, Append(replica.term, log.point_index, term, replica.commit, ()))
        progress.doubted(log.point_index, replica.commit)

    def _heartbeat(self, peer: str, progress: Progress, round_number: int) -> None:
        replica = self._replica
        replica.send(peer, Heartbeat(replica.term, replica.commit, round_number))
        progress.sent_commit = replica.commit
