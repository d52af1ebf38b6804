"""
What must hold after every step, checked from what the nodes hand out, never by asking them.

The properties of figure 3.2 of the Raft thesis, each checked only where something changed, and rules that make a
mistake show before it does damage: a node votes once a term, what a leader commits is durable on a majority.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from callfs.raft.messages import Entry


class Violation(Exception):
    """A property of raft does not hold."""

    def __init__(self, rule: str, fault: str) -> None:
        super().__init__(f"{rule}: {fault}")
        self.rule = rule


class Invariants:
    """
    All that was ever seen of a cluster, as far as later events must agree with it.

    A disk stands for a node here: what was promised on one that was wiped isn't expected of the next.

    :param founding: the first entry of the log, which is committed from the start.
    :param founders: the disks that it is on.
    """

    def __init__(self, founding: Entry, founders: Iterable[str]) -> None:
        self.steady = False
        self._committed: list[Entry | None] = [None, founding]
        self._leaders: dict[int, str] = {}
        self._entries: dict[tuple[int, int], tuple[int, Entry]] = {(1, founding.term): (0, founding)}
        self._votes: dict[tuple[str, int], str] = {}
        self._terms: dict[str, int] = {}
        self._holders: dict[tuple[int, int], set[str]] = {(1, founding.term): set(founders)}

    @property
    def commit(self) -> int:
        """The highest index that any leader called committed."""
        return len(self._committed) - 1

    def committed_term(self, index: int) -> int:
        """The term of the committed entry at an index."""
        entry = self._committed[index]
        return 0 if entry is None else entry.term

    def leads(self, disk: str, term: int, term_at: Callable[[int], int | None]) -> None:
        """
        A node became leader: the only one of its term (3.4), with all that was committed before (3.6.3).

        While the cluster is ``steady`` nobody has a reason to replace a leader (9.6).

        :param term_at: the term of the node's own entry at an index; ``None`` where it has none.
        """
        if self.steady and self._leaders and term not in self._leaders:
            former = self._leaders[max(self._leaders)]
            raise Violation("a good leader stays", f"{disk} leads term {term} in place of {former}")
        other = self._leaders.setdefault(term, disk)
        if other != disk:
            raise Violation("election safety", f"{other} and {disk} both lead term {term}")
        index = self.commit
        found, wanted = term_at(index), self.committed_term(index)
        if wanted < term and found != wanted:
            raise Violation(
                "leader completeness",
                f"{disk} leads term {term} with term {found} at {index}; committed is {wanted}",
            )

    def votes(self, disk: str, term: int, candidate: str) -> None:
        """A node promised its vote: to one candidate a term (3.4)."""
        other = self._votes.setdefault((disk, term), candidate)
        if other != candidate:
            raise Violation("one vote a term", f"{disk} votes for {other} and {candidate} in term {term}")

    def promises(self, disk: str, message: object, durable: bool) -> None:
        """A message leaves a node that others will count on: what it says is durable (3.8)."""
        if not durable:
            raise Violation("durable before promised", f"{disk} says {message}")

    def writes(self, disk: str, before: int, entry: Entry) -> None:
        """
        A node put an entry into its log: whoever has an entry of this index and term has all the same before (3.5).

        :param before: the term of the node's entry before it.
        """
        mine = (before, entry)
        other = self._entries.setdefault((entry.index, entry.term), mine)
        if (other[1] is not entry and other != mine) or other[0] != before:
            raise Violation("log matching", f"{disk} has {entry} after term {before}, another has {other}")

    def holds(self, disk: str, entries: Iterable[Entry]) -> None:
        """Entries became durable on a disk."""
        for entry in entries:
            self._holders.setdefault((entry.index, entry.term), set()).add(disk)

    def truncates(self, disk: str, entry: Entry) -> None:
        """A node cut an entry off the end of its log: it was none that is committed (3.6.3)."""
        if entry.index <= self.commit and self.committed_term(entry.index) == entry.term:
            raise Violation("leader completeness", f"{disk} cut off {entry}, which is committed")

    def commits(
        self, disk: str, term: int, entries: Iterable[Entry], configurations: Iterable[Collection[str]]
    ) -> None:
        """
        The leader of a term called entries committed, the last ones of which it counted.

        That one is of its own term (3.6.2) and durable on a majority (3.5, 10.2.1).

        :param entries: everything new up to the leader's commit index.
        :param configurations: the disks of the voters; of more than one configuration when it has just changed.
        """
        last = None
        for last in entries:
            if last.index == len(self._committed):
                self._committed.append(last)
            elif self._committed[last.index] != last:
                raise Violation(
                    "state-machine safety", f"{disk} committed {last}, before it was {self._committed[last.index]}"
                )
        if last is None:
            return
        if last.term != term:
            raise Violation("commit by counting in the own term", f"{disk}, leader of term {term}, counted {last}")
        holders = self._holders.get((last.index, term), set())
        if not any(2 * len(holders & set(voters)) > len(voters) for voters in configurations):
            raise Violation("durable before committed", f"{disk} committed {last}, durable on {sorted(holders)}")

    def applies(self, disk: str, entry: Entry) -> None:
        """A node applies an entry: the one that is committed there, the same on every node (3.6.3)."""
        if entry.index > self.commit:
            raise Violation("state-machine safety", f"{disk} applies {entry}, committed is {self.commit}")
        if self._committed[entry.index] != entry:
            raise Violation(
                "state-machine safety", f"{disk} applies {entry}, committed is {self._committed[entry.index]}"
            )

    def reads(self, disk: str, applied: int, index: int, committed: int) -> None:
        """
        A read is served: from a state that has all that was committed when it was asked for (6.4).

        :param applied: what the node has applied.
        :param index: what it has to have applied, as it says.
        :param committed: what any leader had called committed when the read was asked for.
        """
        if not applied >= index >= committed:
            raise Violation(
                "linearizable reads", f"{disk} reads with {applied} applied at {index}; {committed} was committed"
            )

    def advances(self, disk: str, term: int) -> None:
        """A term became durable on a disk: they never go back (3.3)."""
        if term < self._terms.get(disk, 0):
            raise Violation("terms only grow", f"{disk} went from term {self._terms[disk]} back to {term}")
        self._terms[disk] = term
