"""A node's roles: what time and messages make of it (thesis 3.3, figure 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from callfs.raft.boundary import Role
from callfs.raft.changes import Changes
from callfs.raft.election import Election, ElectionTimer, has_own_disk
from callfs.raft.following import Following
from callfs.raft.handover import Handover
from callfs.raft.law import LAW, Action, Newer, Older, newer_term, older_term
from callfs.raft.messages import (
    Append,
    AppendRejection,
    AppendResponse,
    EntryKind,
    Heartbeat,
    HeartbeatResponse,
    Message,
    ReadIndexRequest,
    ReadIndexResponse,
    Removed,
    Sender,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from callfs.raft.quorum import Outcome
from callfs.raft.reads import Reads
from callfs.raft.replica import Replica
from callfs.raft.replication import Replication


class Roles:
    """
    Follower, pre-candidate, candidate, leader.

    :param replica: what all parts share; the others are those parts.
    """

    def __init__(
        self,
        replica: Replica,
        *,
        election: Election,
        replication: Replication,
        reads: Reads,
    ) -> None:
        self._replica = replica
        self._election = election
        self._replication = replication
        self._reads = reads
        self._following = Following(replica)
        self.changes = Changes(replica, replication)
        self.handover = Handover(replica, replication)
        self._timer = ElectionTimer(replica.settings, replica.random)
        self._heartbeat_elapsed = 0
        self.leader_silent_ticks = 0
        self._actions: Mapping[Action, Callable[[Sender, Any], None]] = {
            Action.TAKE_ENTRIES: self._take_entries,
            Action.HEAR_LEADER: self._hear_leader,
            Action.NOTE_MATCH: self._note_match,
            Action.GO_BACK: self._go_back,
            Action.NOTE_ROUND: self._note_round,
            Action.VOTE: self._vote,
            Action.COUNT_VOTE: self._count_vote,
            Action.NOTE_READER: self._note_reader,
            Action.RELEASE_READS: self._release_reads,
            Action.CAMPAIGN: self._campaign_at_once,
        }

    # -- time

    def tick(self) -> None:
        """One unit of time has passed."""
        self._reads.tick()
        if self._replica.role is Role.LEADER:
            self._tick_leader()
            return
        self.leader_silent_ticks += 1
        if self._timer.tick():
            self.campaign()

    def _tick_leader(self) -> None:
        self._replication.tick()
        if not self._replication.hears_majority():
            self.follow(self._replica.term, None)
            return
        self.handover.tick()
        if not self._replica.writable and self.handover.to is None:
            self.handover.start(None)
        self._heartbeat_elapsed += 1
        if self._heartbeat_elapsed >= self._replica.settings.heartbeat_ticks:
            self._heartbeat_elapsed = 0
            self._replication.heartbeat(self._reads.newest_round)

    # -- messages

    def step(self, sender: Sender, message: Message) -> None:
        """A message has come in."""
        replica = self._replica
        if isinstance(message, Removed):
            self._note_removal(message)
        elif replica.role is Role.LEADER and not self._counts(sender, message):
            return
        elif message.term < replica.term:
            self._answer_older(sender, message)
        elif message.term == replica.term or self._meets_newer(sender, message):
            action = LAW[type(message)][replica.role]
            if action is not Action.IGNORE:
                self._actions[action](sender, message)

    def _counts(self, sender: Sender, message: Message) -> bool:
        """A leader listens to members only, on the disks that they joined with; others are told, or seen."""
        progress = self._replication.peers.get(sender.node_id)
        if progress is None:
            self.changes.tell_removed(sender.node_id)
            return False
        progress.other_disk = not has_own_disk(self._replica.membership, sender)
        if not progress.other_disk and message.term == self._replica.term:
            progress.silent_ticks = 0
        return not progress.other_disk

    def _meets_newer(self, sender: Sender, message: Message) -> bool:
        """What a newer term means; whether the message is to be looked at any further."""
        match newer_term(message):
            case Newer.UNLESS_LED | Newer.STAY_UNLESS_LED if self._is_led():
                return False
            case Newer.FOLLOW_SENDER:
                self.follow(message.term, sender.node_id)
            case Newer.FOLLOW_NOBODY | Newer.UNLESS_LED:
                self.follow(message.term, None)
        return True

    def _is_led(self) -> bool:
        """Whether a leader was heard within the shortest election timeout; then nobody is elected (4.2.3)."""
        replica = self._replica
        return replica.role is Role.LEADER or (
            replica.leader is not None and self.leader_silent_ticks < replica.settings.election_ticks
        )

    def _answer_older(self, sender: Sender, message: Message) -> None:
        replica, answer = self._replica, older_term(message)
        if answer is Older.TERM:
            replica.send(sender.node_id, AppendResponse(replica.term, 0))
        elif answer is Older.REFUSAL and isinstance(message, VoteRequest):
            replica.send(sender.node_id, VoteResponse(replica.term, False, message.preliminary))

    # -- messages to a follower

    def _take_entries(self, sender: Sender, append: Append) -> None:
        self._hear(sender)
        self._following.append(sender.node_id, append)

    def _hear_leader(self, sender: Sender, heartbeat: Heartbeat) -> None:
        self._hear(sender)
        self._following.heartbeat(sender.node_id, heartbeat)

    def _hear(self, sender: Sender) -> None:
        replica = self._replica
        if replica.role is not Role.FOLLOWER or replica.leader != sender.node_id:
            self.follow(replica.term, sender.node_id)
        self._timer.restart()
        self.leader_silent_ticks = 0
        replica.removed = False

    def _vote(self, sender: Sender, request: VoteRequest) -> None:
        replica = self._replica
        granted = self._election.grants(sender, request)
        if request.preliminary or not granted:
            term = request.term if granted else replica.term
            replica.send(sender.node_id, VoteResponse(term, granted, request.preliminary))
            return
        replica.vote = sender.node_id
        self._timer.reset()
        replica.promise(sender.node_id, VoteResponse(replica.term, True, False))

    def _release_reads(self, sender: Sender, response: ReadIndexResponse) -> None:
        if sender.node_id == self._replica.leader:
            self._reads.answered(response)

    def _campaign_at_once(self, sender: Sender, _: TimeoutNow) -> None:
        if self._election.may_campaign():
            self._stand(forced=True)

    def _note_removal(self, removal: Removed) -> None:
        """A leader's word, unless this node's own log has a newer membership, or it never was a member."""
        replica, history = self._replica, self._replica.history
        newest = history.index if history.current.get(replica.node_id) is None else history.index + 1
        was_member = history.has_known(replica.node_id, replica.disk_id)
        if replica.role is not Role.LEADER and was_member and removal.index >= newest:
            self.follow(replica.term, None)
            replica.removed = True

    # -- messages to a leader or candidate

    def _note_match(self, sender: Sender, response: AppendResponse) -> None:
        self._replication.matched(sender.node_id, response)
        self.advance()
        self._see_to(sender.node_id)

    def _go_back(self, sender: Sender, rejection: AppendRejection) -> None:
        self._replication.rejected(sender.node_id, rejection)
        self.changes.disown_if_set_back(sender.node_id)

    def _note_round(self, sender: Sender, response: HeartbeatResponse) -> None:
        self._replication.answered_heartbeat(sender.node_id, response)
        self._reads.confirm()
        self._see_to(sender.node_id)

    def _see_to(self, peer: str) -> None:
        """What a follower's progress may allow, if this node still leads it."""
        if self._replica.role is Role.LEADER and peer in self._replication.peers:
            self.handover.go_on(peer)
            if self.handover.to is None:
                self.changes.promote_if_near(peer)

    def _note_reader(self, sender: Sender, request: ReadIndexRequest) -> None:
        self._reads.asked_by(sender.node_id, request)

    def _count_vote(self, sender: Sender, response: VoteResponse) -> None:
        self._conclude(self._election.answered(sender, response))

    # -- transitions

    def follow(self, term: int, leader: str | None) -> None:
        """Become a follower, in that term, of that leader if known."""
        replica = self._replica
        self._leave(term, leader)
        replica.role = Role.FOLLOWER

    def campaign(self) -> None:
        """The time is up: seek election, or at least stop counting on a leader that is silent."""
        replica = self._replica
        if not self._election.may_campaign():
            self.follow(replica.term, None)
            replica.removed = replica.removed or self._has_left()
        elif self._election.rehearses():
            self._leave(replica.term, None)
            replica.role = Role.PRE_CANDIDATE
            self._conclude(self._election.rehearse())
        else:
            self._stand(forced=False)

    def own_write_is_durable(self) -> None:
        """This node's own vote or entries may count now."""
        replica = self._replica
        if replica.role is Role.CANDIDATE and replica.durability.ballot == (replica.term, replica.node_id):
            self._conclude(self._election.own_vote_is_durable())
        elif replica.role is Role.LEADER:
            self.advance()

    def advance(self) -> None:
        """Commit what can be committed; a leader that has left the cluster by that steps down."""
        if self._replication.advance_commit() and self.changes.committed():
            self._retire()

    def state_installed(self, index: int) -> None:
        """The log goes on after a state from the leader, who is told."""
        self._following.state_installed(index)
        self.acknowledge()

    def acknowledge(self) -> None:
        """Tell the leader what is committed here, by which it knows where to go on."""
        replica = self._replica
        if replica.role is Role.FOLLOWER and replica.leader is not None:
            response = AppendResponse(replica.term, replica.commit)
            replica.durability.acknowledge(replica.leader, response)

    def _stand(self, *, forced: bool) -> None:
        replica = self._replica
        self._leave(replica.term + 1, None)
        replica.role, replica.vote = Role.CANDIDATE, replica.node_id
        self._election.stand(forced=forced)

    def _lead(self) -> None:
        replica = self._replica
        replica.role, replica.leader = Role.LEADER, replica.node_id
        self.leader_silent_ticks = 0
        self._heartbeat_elapsed = 0
        self._replication.start()
        replica.append_own(EntryKind.NOOP, b"")

    def _conclude(self, outcome: Outcome) -> None:
        replica = self._replica
        if outcome is Outcome.LOST:
            self.follow(replica.term, None)
        elif outcome is Outcome.WON and replica.role is Role.PRE_CANDIDATE:
            self._stand(forced=False)
        elif outcome is Outcome.WON:
            self._lead()

    def _leave(self, term: int, leader: str | None) -> None:
        """Give up the present role and leader for another."""
        replica = self._replica
        if term > replica.term:
            replica.term, replica.vote = term, None
            self._following.new_term()
        if replica.role is Role.LEADER:
            self._reads.leader_lost()
            self._replication.stop()
            self.changes.lost_leadership()
            self.handover.stop()
        elif replica.leader != leader:
            self._reads.leader_changed()
        replica.leader = leader
        self._timer.reset()

    def _retire(self) -> None:
        """Not a member any more: tell the others what is committed, and the furthest of them to take over."""
        heir = self.handover.best_heir()
        self._replication.feed(tell_commit=True)
        if heir is not None:
            self._replica.send(heir, TimeoutNow(self._replica.term))
        self.follow(self._replica.term, None)
        self._replica.removed = True

    def _has_left(self) -> bool:
        """Whether this node's own log says that it was a member and is none any more; a newcomer never was one."""
        replica = self._replica
        return (
            replica.membership.get(replica.node_id) is None
            and not self.changes.is_pending()
            and replica.history.has_known(replica.node_id, replica.disk_id)
        )
