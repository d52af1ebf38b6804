"""What all parts of one node's Raft share."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from callfs.raft.boundary import HardState, Position, RandomSource, Role, Saved, Settings, SnapshotMeta
from callfs.raft.durability import Durability
from callfs.raft.log import Log
from callfs.raft.membership import History, Membership
from callfs.raft.messages import Entry, EntryKind, Message, Outgoing


class Replica:
    """
    The state of figure 3.1 of the thesis, and the way out for messages.

    :param node_id: this node.
    :param disk_id: the identity of its disk.
    :param saved: what was durable.
    :raises ValueError: that contradicts itself.
    """

    def __init__(
        self, *, node_id: str, disk_id: str, saved: Saved, settings: Settings, random: RandomSource
    ) -> None:
        check_saved(saved)
        self.history = history_of(saved)
        self.node_id = node_id
        self.disk_id = disk_id
        self.settings = settings
        self.random = random
        self.log = Log(saved.point.index, saved.point.term)
        self.log.append(saved.entries)
        self.term = saved.hard_state.term
        self.vote = saved.hard_state.vote
        self.commit = max(saved.hard_state.commit, saved.applied)
        self.applied = saved.applied
        self.durability = Durability(self.log.last_index, (self.term, self.vote))
        if saved.log_is_stale:
            self.durability.restarted(saved.point)
        self.role = Role.FOLLOWER
        self.leader: str | None = None
        self.removed = False
        self.writable = True
        self.refused_conflicts = 0
        self.outbox: list[Outgoing] = []

    @property
    def membership(self) -> Membership:
        """The one in force: the last in the log (thesis 4.1)."""
        return self.history.current

    @property
    def committed(self) -> Membership:
        """The last one that is known to be committed."""
        return self.history.at(self.commit)

    @property
    def hard_state(self) -> HardState:
        """What must be durable before anything is promised."""
        return HardState(self.term, self.vote, self.commit)

    @property
    def knows_own_term_committed(self) -> bool:
        """Whether an entry of this term is committed: only then a leader knows what is (thesis 6.4)."""
        return self.log.term_at(self.commit) == self.term

    def send(self, to: str, message: Message) -> None:
        """It may go out at once."""
        self.outbox.append(Outgoing(to, message))

    def promise(self, to: str, message: Message) -> None:
        """It may go out once everything that is in memory now is durable."""
        self.durability.promise(to, message)

    def append(self, entries: tuple[Entry, ...]) -> None:
        """
        The log grows.

        :raises msgspec.ValidationError, msgspec.DecodeError: an entry holds no membership; nothing was taken.
        """
        self.history.append(entries)
        self.log.append(entries)

    def append_own(self, kind: EntryKind, data: bytes) -> Position:
        """A leader's next entry."""
        entry = Entry(self.log.last_index + 1, self.term, kind, data)
        self.append((entry,))
        return Position(entry.term, entry.index)

    def append_commands(self, commands: Sequence[bytes]) -> None:
        """A leader's next entries, none of them a membership."""
        term, kind = self.term, EntryKind.COMMAND
        self.log.append(
            [Entry(index, term, kind, data) for index, data in enumerate(commands, self.log.last_index + 1)]
        )

    def truncate(self, index: int) -> None:
        """The entries from ``index`` on, none of them committed, give way to the leader's."""
        self.log.truncate(index)
        self.history.truncate(index)
        self.durability.replaced(index)

    def point_at(self, index: int) -> SnapshotMeta:
        """
        What a state contains that has everything up to ``index``.

        :raises ValueError: the log doesn't reach there or was cut after it.
        """
        term = self.log.term_at(index)
        if term is None:
            raise ValueError(f"entry {index} isn't in the log")
        return SnapshotMeta(index, term, self.history.at(index))

    def cut(self, index: int) -> None:
        """Entries up to ``index`` are in a durable state and not needed any more."""
        point = self.point_at(index)
        self.log.cut(index)
        self.history.cut(index)
        self.durability.cut(point)

    def restart_log(self, point: SnapshotMeta) -> None:
        """A state has taken the place of the whole log."""
        self.log.restart(point.index, point.term)
        self.history = History(point.index, point.membership)
        self.durability.restarted(point)


def history_of(saved: Saved) -> History:
    """
    The memberships that a node starts from.

    :raises ValueError: an entry that should hold one doesn't.
    """
    history = History(saved.point.index, saved.point.membership)
    try:
        history.append(saved.entries)
    except msgspec.DecodeError as error:
        raise ValueError(f"an entry of the log holds no membership: {error}") from error
    return history


def check_saved(saved: Saved) -> None:
    """
    Whether a node can start from that.

    :raises ValueError: entries are missing, out of order, or newer than the term; or the commit or applied index is
        outside of the log.
    """
    index, term = saved.point.index, saved.point.term
    for entry in saved.entries:
        if entry.index != index + 1 or entry.term < term:
            raise ValueError(
                f"in the log the entry after {index} of term {term} is {entry.index} of term {entry.term}"
            )
        index, term = entry.index, entry.term
    if saved.hard_state.term < term:
        raise ValueError(f"the log ends in term {term}, but the node has only known {saved.hard_state.term}")
    if saved.hard_state.commit > index:
        raise ValueError(f"the log ends at {index}, but {saved.hard_state.commit} was committed")
    if not saved.point.index <= saved.applied <= index:
        raise ValueError(f"the state has {saved.applied}, the log goes from {saved.point.index} to {index}")
