"""Who may lead: timers, votes and their counting (thesis 3.4, 3.6, 4.2.3, 6.2, 9.6)."""

from __future__ import annotations

from callfs.raft.boundary import RandomSource, Role, Settings
from callfs.raft.membership import Membership
from callfs.raft.messages import Sender, VoteRequest, VoteResponse
from callfs.raft.quorum import Outcome, tally
from callfs.raft.replica import Replica


class ElectionTimer:
    """
    Counts ticks to a limit that is drawn again for each election (thesis 3.4: so that split votes are rare).

    :param settings: the limit is ``election_ticks`` up to twice as many.
    """

    def __init__(self, settings: Settings, random: RandomSource) -> None:
        self._shortest = settings.election_ticks
        self._random = random
        self.reset()

    def restart(self) -> None:
        """A leader is there: count from here, to the same limit."""
        self._elapsed = 0

    def reset(self) -> None:
        """Start again with another limit."""
        self._elapsed = 0
        self._limit = self._random.randrange(self._shortest, 2 * self._shortest)

    def tick(self) -> bool:
        """One more; whether the time is up, after which it starts again."""
        self._elapsed += 1
        if self._elapsed < self._limit:
            return False
        self.reset()
        return True


class Election:
    """
    The votes of one node, given and received.

    :param replica: what all parts share.
    """

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._votes: dict[str, bool] = {}
        self._forced = False

    def rehearses(self) -> bool:
        """Whether a rehearsal comes first, so that who can't win disturbs nobody (PreVote, thesis 9.6)."""
        return True

    def may_campaign(self) -> bool:
        """
        A node that votes, on the disk that it joined with, with room for the entries of a leader.

        One whose own removal is in its log, but not known to be committed, goes on (4.2.2, figure 4.6): if its log
        is the longest nobody else can be elected. It doesn't count itself then.
        """
        replica, history = self._replica, self._replica.history
        memberships = [history.current] if history.index <= replica.commit else [history.current, replica.committed]
        votes = any(is_voter(membership, replica.node_id, replica.disk_id) for membership in memberships)
        return votes and replica.writable and not replica.removed

    def rehearse(self) -> Outcome:
        """Ask who would vote for this node in the next term; nobody's term changes. Its own answer is yes."""
        self._votes = {self._replica.node_id: True}
        for peer in self._other_voters():
            self._replica.send(peer, self._request(self._replica.term + 1, preliminary=True))
        return self.outcome()

    def stand(self, *, forced: bool) -> None:
        """
        Ask for votes in this node's term, in which it has voted for itself.

        The requests go out once the term and that vote are durable: a candidate that forgot them could stand again
        in the same term with a shorter log, and count votes that were given to the longer one.
        """
        self._votes = {}
        self._forced = forced
        for peer in self._other_voters():
            self._replica.promise(peer, self._request(self._replica.term, preliminary=False))

    def own_vote_is_durable(self) -> Outcome:
        """This node's vote counts from now on."""
        self._votes[self._replica.node_id] = True
        return self.outcome()

    def answered(self, sender: Sender, response: VoteResponse) -> Outcome:
        """A vote has come in. One from another disk than the voter joined with doesn't count."""
        replica = self._replica
        rehearsing = replica.role is Role.PRE_CANDIDATE
        asked_term = replica.term + 1 if rehearsing and response.granted else replica.term
        if (response.preliminary, response.term) == (rehearsing, asked_term) and has_own_disk(
            replica.membership, sender
        ):
            self._votes.setdefault(sender.node_id, response.granted)
        return self.outcome()

    def outcome(self) -> Outcome:
        """How it stands, by the membership in force."""
        return tally(self._replica.membership.voters, self._votes)

    def grants(self, sender: Sender, request: VoteRequest) -> bool:
        """
        Whether this node's vote may go to a candidate (thesis 3.4, 3.6.1), its term being this node's or above.

        A node that is in no membership yet votes too (thesis 4.2.2): it may be needed for the majority that the
        candidate counts. On another disk than it joined with it has forgotten its votes, and gives none.
        """
        replica = self._replica
        own = replica.membership.get(replica.node_id)
        if own is not None and own.disk_id != replica.disk_id:
            return False
        if (request.last_term, request.last_index) < (replica.log.last_term, replica.log.last_index):
            return False
        if request.preliminary:
            return request.term > replica.term
        return replica.vote == sender.node_id or (replica.vote is None and replica.leader is None)

    def _other_voters(self) -> list[str]:
        return [voter for voter in self._replica.membership.voters if voter != self._replica.node_id]

    def _request(self, term: int, *, preliminary: bool) -> VoteRequest:
        log = self._replica.log
        return VoteRequest(term, log.last_index, log.last_term, preliminary, self._forced and not preliminary)


def has_own_disk(membership: Membership, sender: Sender) -> bool:
    """Whether a member speaks from the disk that it joined with; only then it counts."""
    member = membership.get(sender.node_id)
    return member is not None and member.disk_id == sender.disk_id


def is_voter(membership: Membership, node_id: str, disk_id: str) -> bool:
    """Whether that node counts, on that disk."""
    member = membership.get(node_id)
    return member is not None and member.voter and member.disk_id == disk_id
