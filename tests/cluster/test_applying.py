"""Committed entries on their way into the state machine: in order, once, told of as early as can be, not before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from unittest import TestCase

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from callfs.cluster.applying import FULL_DISK_RETRY_SECONDS, MOST_PUT_OFF, PUT_OFF_SECONDS, Applier
from callfs.cluster.foresight import MOST_FORESEEN
from callfs.cluster.interfaces import IForesightedState, IStateMachine, Membership, Outcome, StateUnusable, Step
from callfs.cluster.requests import Request, encode_request
from callfs.errors import InsufficientStorage
from callfs.raft.membership import encoded
from callfs.raft.messages import Entry, EntryKind

MEMBERS = Membership("cluster-1", ())


@implementer(IForesightedState)
class Machine:
    """
    A state machine that does what it is asked when the test lets it.

    :ivar asked: what it is asked for just now: ``prepare`` or ``apply``, and the indexes.
    :ivar contains: the last entry that was applied.
    :ivar patient: what it says of whether steps can wait.
    """

    command_version = 1

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[int]]] = []
        self.contains = 0
        self.patient = True
        self._answers: list[tuple[Deferred[Any], list[Step]]] = []

    def prepare(self, steps: Sequence[Step]) -> Callable[[], Deferred[Sequence[Outcome] | None]]:
        """Asked beforehand."""
        answer = self._ask("prepare", steps)
        return lambda: answer

    def apply(self, steps: Sequence[Step]) -> Deferred[Sequence[Outcome]]:
        """Asked to."""
        return self._ask("apply", steps)

    def can_wait(self, steps: Sequence[Step]) -> bool:
        """As the test says."""
        return self.patient and all(step.request is not None for step in steps)

    def _ask(self, what: str, steps: Sequence[Step]) -> Deferred[Any]:
        assert not self.asked, "one thing at a time"
        answer: Deferred[Any] = Deferred()
        self.asked.append((what, [step.index for step in steps]))
        self._answers.append((answer, list(steps)))
        return answer

    def go(self, otherwise: Any = ...) -> None:
        """Do what it is asked, or say something else."""
        (what, indexes), (answer, steps) = self.asked.pop(), self._answers.pop()
        if isinstance(otherwise, Exception):
            answer.errback(otherwise)
            return
        if what == "apply":
            assert steps[0].index == self.contains + 1
            self.contains = indexes[-1]
        answer.callback([outcome_of(step) for step in steps] if otherwise is ... else otherwise)


def outcome_of(step: Step) -> Outcome:
    """What a step comes to."""
    return None if step.request is None else b"%d of %d" % (step.index, step.term)


def command(index: int, term: int = 1, version: int = 1) -> Entry:
    """An entry of the log."""
    data = encode_request(Request(2, index, index, 0, version, b"do it"))
    return Entry(index, term, EntryKind.COMMAND, data)


class ApplierCase(TestCase):
    """An applier, and what it reports."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.machine = Machine()
        self.told: list[tuple[int, Outcome]] = []
        self.reports: list[str] = []
        self.applier = self.applier_of(self.machine)

    def applier_of(self, state: Any) -> Applier:
        """An applier."""

        def decided(steps: Sequence[Step], outcomes: Sequence[Outcome]) -> None:
            self.told += [(step.index, outcome) for step, outcome in zip(steps, outcomes, strict=True)]

        return Applier(
            state,
            self.clock,
            decided=decided,
            applied=lambda steps: self.reports.append(f"applied {steps[-1].index}"),
            failed=self.reports.append,
            full=lambda full: self.reports.append("full" if full else "room"),
        )

    def expect(self, *entries: Entry) -> None:
        """Entries are on their way, and the reactor has turned."""
        self.applier.expect(entries)
        self.clock.advance(0)


class TestForesight(ApplierCase):
    def test_told_when_committed(self) -> None:
        """What was found out beforehand is told as soon as the entry is committed; applying it comes after."""
        self.expect(command(1))
        assert self.machine.asked == [("prepare", [1])]
        self.machine.go()
        assert self.told == []
        self.applier.add([command(1)])
        assert (self.told, self.machine.asked, self.reports) == ([(1, b"1 of 1")], [("apply", [1])], [])
        self.machine.go()
        assert (self.told, self.reports) == ([(1, b"1 of 1")], ["applied 1"])

    def test_not_committed(self) -> None:
        """What never gets committed is told to nobody, and not applied."""
        self.expect(command(1))
        self.machine.go()
        self.clock.advance(60)
        assert (self.told, self.machine.asked, self.reports) == ([], [], [])

    def test_another_entry_in_its_place(self) -> None:
        """Where another leader's entry is committed instead, it is carried out by itself."""
        self.expect(command(1))
        self.machine.go()
        self.applier.add([command(1, term=2)])
        assert self.told == []
        self.machine.go()
        assert (self.told, self.reports) == ([(1, b"1 of 2")], ["applied 1"])

    def test_committed_meanwhile(self) -> None:
        """An entry that is committed while it is being looked at is told of when that is done."""
        self.expect(command(1))
        self.applier.add([command(1)], later=True)
        assert self.machine.asked == [("prepare", [1])]
        self.machine.go()
        assert (self.told, self.machine.asked) == ([(1, b"1 of 1")], [("apply", [1])])

    def test_not_to_be_known(self) -> None:
        """What the state can't say beforehand is told once it is applied."""
        self.expect(command(1))
        self.machine.go(None)
        self.applier.add([command(1)])
        assert self.told == []
        self.machine.go()
        assert (self.told, self.reports) == ([(1, b"1 of 1")], ["applied 1"])

    def test_more_than_expected(self) -> None:
        """What is committed along with it follows behind, in order."""
        self.expect(command(1))
        self.machine.go()
        self.applier.add([command(1), command(2), command(3)])
        assert self.told == [(1, b"1 of 1")]
        self.machine.go()
        assert self.machine.asked == [("apply", [2, 3])]
        self.machine.go()
        assert [index for index, _ in self.told] == [1, 2, 3]
        assert self.reports == ["applied 1", "applied 3"]

    def test_less_than_expected(self) -> None:
        """Where only the first of them are committed, those are carried out by themselves."""
        self.expect(command(1), command(2))
        self.machine.go()
        self.applier.add([command(1)])
        assert (self.told, self.machine.asked) == ([], [("apply", [1])])
        self.machine.go()
        assert self.told == [(1, b"1 of 1")]

    def test_while_another_is_applied(self) -> None:
        """What is expected meanwhile is looked at when the state is free; what was committed till then isn't."""
        self.applier.add([command(1)])
        self.expect(command(2))
        assert self.machine.asked == [("apply", [1])]
        self.machine.go()
        assert self.machine.asked == [("prepare", [2])]
        self.applier.add([command(2)])
        self.machine.go()
        self.expect(command(3))
        self.applier.add([command(3)])
        self.machine.go()
        assert self.machine.asked == [("apply", [3])]
        self.machine.go()
        assert [index for index, _ in self.told] == [1, 2, 3]
        assert self.machine.asked == []

    def test_gathered(self) -> None:
        """Entries that come one after the other are looked at together; too many not at all."""
        for count, looked_at in ((MOST_FORESEEN, True), (MOST_FORESEEN + 1, False)):
            self.setUp()
            for index in range(1, count + 1):
                self.applier.expect([command(index)])
            self.clock.advance(0)
            assert bool(self.machine.asked) is looked_at

    def test_not_the_next(self) -> None:
        """Entries behind others that aren't applied yet can't be looked at."""
        self.expect(command(2))
        assert self.machine.asked == []

    def test_not_understood(self) -> None:
        """An entry that this program doesn't know stops the node when it is committed, not before."""
        self.expect(command(1, version=2))
        assert (self.machine.asked, self.reports) == ([], [])
        self.applier.add([command(1, version=2)])
        assert "install the newer version" in self.reports[0]

    def test_a_full_disk_after_the_answer(self) -> None:
        """What was told holds where the disk is full then: it is applied when there is room, and told once."""
        self.expect(command(1))
        self.machine.go()
        self.applier.add([command(1)])
        self.machine.go(InsufficientStorage("full"))
        assert self.reports == ["full"]
        self.clock.advance(FULL_DISK_RETRY_SECONDS)
        self.machine.go()
        assert (self.told, self.reports) == ([(1, b"1 of 1")], ["full", "room", "applied 1"])

    def test_a_state_that_contradicts_itself(self) -> None:
        """A state that applies something else than it said is of no use any more."""
        self.expect(command(1))
        self.machine.go()
        self.applier.add([command(1)])
        self.machine.go([b"something else"])
        assert "something else than was foreseen" in self.reports[-1]
        self.applier.add([command(2)])
        assert self.machine.asked == []

    def test_a_state_that_fails(self) -> None:
        """A state that fails after the answer stops the node."""
        self.expect(command(1))
        self.machine.go()
        self.applier.add([command(1)])
        self.machine.go(StateUnusable("an I/O error"))
        assert self.reports == ["the state of the raft node can't be changed: an I/O error"]

    def test_a_stop(self) -> None:
        """An end comes through while the state is being asked, and nothing is told or applied after it."""
        self.applier.expect([command(1)])
        ended: list[None] = []
        self.applier.stop().addCallback(ended.append)
        self.clock.advance(0)
        assert (ended, self.machine.asked) == ([None], [])
        self.setUp()
        self.expect(command(1))
        self.applier.add([command(1)])
        self.applier.stop().addCallback(ended.append)
        assert ended == [None]
        self.machine.go()
        assert (ended, self.told, self.machine.asked) == ([None, None], [], [])


class TestPuttingOff(ApplierCase):
    def add_unawaited(self, *entries: Entry) -> None:
        """Entries that nobody waits for here."""
        self.applier.add(entries, awaited=False)

    def test_together(self) -> None:
        """What nobody waits for is applied a moment later, together with what has come by then."""
        self.add_unawaited(command(1))
        self.clock.advance(PUT_OFF_SECONDS / 2)
        self.add_unawaited(command(2), command(3))
        assert self.machine.asked == []
        self.clock.advance(PUT_OFF_SECONDS / 2)
        assert self.machine.asked == [("apply", [1, 2, 3])]
        self.machine.go()
        assert self.reports == ["applied 3"]
        self.clock.advance(60)
        assert self.machine.asked == []

    def test_hurried(self) -> None:
        """It is applied at once when somebody begins to wait, or something that is waited for follows."""
        self.add_unawaited(command(1))
        self.applier.hurry()
        assert self.machine.asked == [("apply", [1])]
        self.machine.go()
        self.applier.hurry()
        assert self.machine.asked == []
        self.add_unawaited(command(2))
        self.applier.add([command(3)])
        assert self.machine.asked == [("apply", [2, 3])]
        self.machine.go()
        self.add_unawaited(command(4))
        self.applier.add([command(5)], later=True)
        self.clock.advance(0)
        assert self.machine.asked == [("apply", [4, 5])]
        self.machine.go()
        self.clock.advance(60)
        assert self.machine.asked == []

    def test_many(self) -> None:
        """Only so few are put off that a read isn't held up by them."""
        self.add_unawaited(*[command(index) for index in range(1, MOST_PUT_OFF + 1)])
        assert self.machine.asked == []
        self.add_unawaited(command(MOST_PUT_OFF + 1))
        assert len(self.machine.asked[0][1]) == MOST_PUT_OFF + 1

    def test_what_cannot_wait(self) -> None:
        """What the state says can't wait doesn't, nor do no-ops and memberships, nor what isn't understood."""
        membership = Entry(1, 1, EntryKind.MEMBERSHIP, encoded(MEMBERS))
        for entry in (Entry(1, 1, EntryKind.NOOP, b""), membership):
            self.setUp()
            self.add_unawaited(entry)
            assert self.machine.asked == [("apply", [1])]
        self.setUp()
        self.machine.patient = False
        self.add_unawaited(command(1))
        assert self.machine.asked == [("apply", [1])]
        self.setUp()
        self.add_unawaited(command(1, version=2))
        assert "install the newer version" in self.reports[0]

    def test_drained(self) -> None:
        """Who waits until all is applied doesn't wait for the moment to pass."""
        self.add_unawaited(command(1))
        drained: list[None] = []
        self.applier.drained().addCallback(drained.append)
        self.machine.go()
        assert (drained, self.reports) == ([None], ["applied 1"])

    def test_stopped(self) -> None:
        """What was put off isn't applied any more after the end: the log has it."""
        self.add_unawaited(command(1))
        self.applier.stop()
        self.clock.advance(60)
        assert self.machine.asked == []

    def test_plain_state(self) -> None:
        """A state that knows nothing of this gets everything at once, and is asked nothing beforehand."""

        @implementer(IStateMachine)
        class Plain:
            command_version = 1
            apply = self.machine.apply

        self.applier = self.applier_of(Plain())
        self.expect(command(1))
        assert self.machine.asked == []
        self.add_unawaited(command(1))
        assert self.machine.asked == [("apply", [1])]
