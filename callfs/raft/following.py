"""The follower's side of the log (thesis 3.5, figure 3.1 "Receiver implementation")."""

from __future__ import annotations

import msgspec

from callfs.raft.membership import decoded
from callfs.raft.messages import (
    Append,
    AppendRejection,
    AppendResponse,
    Entry,
    EntryKind,
    Heartbeat,
    HeartbeatResponse,
)
from callfs.raft.replica import Replica


class Following:
    """
    What a follower knows of its leader's log.

    A leader's commit index counts only as far as the own log is known to be the leader's in this term. So it can be
    told to everybody, whatever they have.

    :param replica: what all parts share.
    """

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._same_up_to = 0

    def new_term(self) -> None:
        """Another leader: nothing is known of its log."""
        self._same_up_to = 0

    def append(self, leader: str, append: Append) -> None:
        """Take a leader's entries, and answer once they are durable; or say where the logs part."""
        replica = self._replica
        if not is_well_formed(append):
            return
        if append.previous_index <= replica.commit and self._contradicts(append):
            replica.refused_conflicts += 1
        elif append.previous_index < replica.commit:
            # What is committed here is in every later leader's log (thesis 3.6.3), cut or not.
            self._agree(leader, replica.commit, append.commit)
        elif replica.log.term_at(append.previous_index) != append.previous_term:
            replica.send(leader, self._rejection(append))
        elif append.entries and append.previous_index <= self._same_up_to and not self.takes_entries():
            # Without an answer it comes again with the next heartbeat; with one it would at once, for ever.
            self._commit(append.commit)
        else:
            entries = append.entries if self.takes_entries() else ()
            self._take(entries)
            self._agree(leader, append.previous_index + len(entries), append.commit)

    def heartbeat(self, leader: str, heartbeat: Heartbeat) -> None:
        """The leader is there, and says how far the log is committed."""
        self._commit(heartbeat.commit)
        if heartbeat.round:
            self._replica.send(leader, HeartbeatResponse(self._replica.term, heartbeat.round, self._same_up_to))

    def state_installed(self, index: int) -> None:
        """Up to there everything is committed, so it is any leader's."""
        self._same_up_to = max(self._same_up_to, index)

    def takes_entries(self) -> bool:
        """Not into a memory that waits for the log to be cut."""
        return self._replica.log.size_bytes <= 2 * self._replica.settings.max_log_bytes

    def _contradicts(self, append: Append) -> bool:
        """Whether something in it differs from what is committed here: someone has lost or forged data."""
        log, commit = self._replica.log, self._replica.commit
        if log.term_at(append.previous_index) not in (None, append.previous_term):
            return True
        common = append.entries[: commit - append.previous_index]
        return any(log.term_at(entry.index) not in (None, entry.term) for entry in common)

    def _take(self, entries: tuple[Entry, ...]) -> None:
        """Keep what is the same, so that a late append takes nothing back; what isn't gives way."""
        log = self._replica.log
        known = 0
        while known < len(entries) and log.term_at(entries[known].index) == entries[known].term:
            known += 1
        new = entries[known:]
        if new and new[0].index <= log.last_index:
            self._replica.truncate(new[0].index)
        self._replica.append(new)

    def _agree(self, leader: str, index: int, commit: int) -> None:
        self._same_up_to = max(self._same_up_to, index)
        self._commit(commit)
        self._replica.durability.acknowledge(leader, AppendResponse(self._replica.term, index))

    def _commit(self, index: int) -> None:
        self._replica.commit = max(self._replica.commit, min(index, self._same_up_to))

    def _rejection(self, append: Append) -> AppendRejection:
        """The hint: the term in conflict and its first index here, or where the log ends (thesis 3.3)."""
        log, term, index = self._replica.log, self._replica.term, append.previous_index
        conflict = log.term_at(index)
        if conflict is None:
            return AppendRejection(term, index, 0, log.last_index + 1)
        return AppendRejection(term, index, conflict, log.first_index_of(conflict))


def is_well_formed(append: Append) -> bool:
    """Whether entries follow on each other without a gap, in terms that never fall, with data that can be read."""
    entries, first = append.entries, append.previous_index + 1
    terms = [append.previous_term, *[entry.term for entry in entries], append.term]
    return (
        terms == sorted(terms)
        and [entry.index for entry in entries] == list(range(first, first + len(entries)))
        and all(_is_membership(entry.data) for entry in entries if entry.kind is EntryKind.MEMBERSHIP)
    )


def _is_membership(data: bytes) -> bool:
    try:
        decoded(data)
    except msgspec.DecodeError:
        return False
    return True
