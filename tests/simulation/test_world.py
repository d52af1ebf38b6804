"""The parts that the simulated nodes live among keep their promises, else a green seed would prove nothing."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import pytest

from callfs.raft.messages import Entry, EntryKind
from tests.simulation.disk import Disk
from tests.simulation.history import DONE, EXISTS, Kind, Request
from tests.simulation.invariants import Invariants, Violation
from tests.simulation.machine import REFUSED, SILENCE, Client, Command, Machine
from tests.simulation.network import Network, Weather
from tests.simulation.schedule import Schedule


def run_until(schedule: Schedule, instant: int) -> None:
    """Let everything happen up to an instant."""
    while schedule.step(instant):
        pass


# time


def test_events_happen_in_order() -> None:
    """Events happen by their instants, those of one instant in the order in which they were planned."""
    schedule, seen = Schedule(), list[Any]()
    for delay, name in ((5, "late"), (1, "first"), (1, "second")):
        schedule.after(delay, lambda name: seen.append((schedule.now, name)), name)
    run_until(schedule, 10)
    assert seen == [(1, "first"), (1, "second"), (5, "late")]
    assert schedule.now == 10


# network


class Post:
    """A network whose messages are collected."""

    def __init__(self, weather: Weather) -> None:
        self.schedule = Schedule()
        self.arrived: list[Any] = []
        self.network = Network(self.schedule, random.Random(1), lambda *letter: self.arrived.append(letter))
        self.network.weather = weather

    def send(self, count: int) -> list[Any]:
        """Send numbers from a to b; what arrives of them."""
        for number in range(count):
            self.network.send("a", "b", number)
        run_until(self.schedule, self.schedule.now + 10**9)
        return [number for _, _, number in self.arrived]


def test_calm_weather_loses_nothing() -> None:
    """Every message arrives once, though not in order."""
    numbers = Post(Weather()).send(500)
    assert sorted(numbers) == list(range(500))
    assert numbers != sorted(numbers)


def test_rough_weather_loses_and_doubles() -> None:
    """Messages get lost and arrive twice as often as the weather says."""
    numbers = Post(Weather(dropping=0.2, doubling=0.1)).send(5000)
    assert 0.15 < 1 - len(set(numbers)) / 5000 < 0.25
    assert 0.05 < (len(numbers) - len(set(numbers))) / 5000 < 0.15


def test_a_one_way_cut() -> None:
    """A cut link carries nothing, the way back does; what was under way when it was cut is lost."""
    post = Post(Weather())
    post.network.send("a", "b", "under way")
    post.network.cut_off(["a"], ["b"], both_ways=False)
    post.network.send("b", "a", "back")
    assert post.send(3) == ["back"]
    post.network.heal()
    assert post.send(1) == ["back", 0]


# disk


class Platter:
    """A disk with what reached it, what was reported, and its troubles."""

    def __init__(self, seed: int = 0) -> None:
        self.schedule = Schedule()
        self.stored: list[int] = []
        self.reported: list[int] = []
        self.troubles: list[Any] = []
        self.disk = Disk(
            self.schedule,
            random.Random(seed),
            self.stored.append,
            self.troubles.append,
            lambda: self.troubles.append("fsync"),
        )

    def write(self, *numbers: int) -> None:
        """Write numbers."""
        for number in numbers:
            self.disk.write(number, partial(self.reported.append, number))


def test_writes_become_durable_in_order() -> None:
    """A write is reported once it is stored, in order."""
    platter = Platter()
    platter.write(1, 2, 3)
    assert platter.stored == platter.reported == []
    run_until(platter.schedule, 10_000)
    assert platter.stored == platter.reported == [1, 2, 3]


def test_a_crash_loses_what_is_not_durable() -> None:
    """After a crash what waited is lost; what was under way is there whole or not at all, and is never reported."""
    ends = set()
    for seed in range(20):
        platter = Platter(seed)
        platter.write(1, 2, 3)
        platter.disk.crash()
        run_until(platter.schedule, 10_000)
        assert platter.reported == []
        ends.add(tuple(platter.stored))
    assert ends == {(), (1,)}


def test_a_stall_holds_everything_up() -> None:
    """Nothing becomes durable while a disk stalls, also of what was under way."""
    platter = Platter()
    platter.write(1)
    platter.disk.stall(50_000)
    run_until(platter.schedule, 49_999)
    assert platter.stored == []
    run_until(platter.schedule, 60_000)
    assert platter.reported == [1]


def test_a_full_disk_takes_writes_again() -> None:
    """A full disk says so once; when it has room all that was due is written before it says that."""
    platter = Platter()
    platter.disk.fill(True)
    platter.write(1, 2)
    run_until(platter.schedule, 50_000)
    assert (platter.stored, platter.troubles) == ([], [False])
    platter.disk.fill(False)
    run_until(platter.schedule, 100_000)
    assert (platter.reported, platter.troubles) == ([1, 2], [False, True])


def test_a_failed_fsync_is_told() -> None:
    """A failed fsync stores and reports nothing by itself."""
    platter = Platter()
    platter.disk.failing = True
    platter.write(1)
    run_until(platter.schedule, 50_000)
    assert (platter.stored, platter.reported, platter.troubles) == ([], [], ["fsync"])


# state machine

ALICE = Client("alice", 0)


class Applied:
    """A machine with its log."""

    def __init__(self) -> None:
        self.machine = Machine()

    def apply(self, client: Client, sequence: int, lowest: int, at: int, request: Request) -> str | None:
        """Apply a command as the next entry."""
        entry = Entry(self.machine.index + 1, 1, EntryKind.COMMAND, b"")
        return self.machine.apply(entry, Command(client, sequence, lowest, at, request))


def test_a_repeated_command_has_its_effect_once() -> None:
    """A command that comes again gets its first answer again, in whatever order, and does nothing."""
    log = Applied()
    create, delete = Request(Kind.CREATE, "a", "1"), Request(Kind.DELETE, "a")
    assert log.apply(ALICE, 2, 1, 0, create) == DONE
    assert log.apply(ALICE, 1, 1, 0, create) == EXISTS
    assert log.apply(ALICE, 3, 1, 0, delete) == DONE
    assert log.apply(ALICE, 2, 1, 0, create) == DONE
    assert log.machine.files == {}


def test_a_closed_command_is_refused() -> None:
    """A command below the lowest open one never takes effect."""
    log = Applied()
    log.apply(ALICE, 2, 2, 0, Request(Kind.WRITE, "a", "1"))
    assert log.apply(ALICE, 1, 1, 0, Request(Kind.WRITE, "a", "2")) == REFUSED
    assert log.machine.files == {"a": "1"}


def test_a_silent_client_is_dropped() -> None:
    """A client that was silent for too long by the log's time is refused from then on, a new start of it isn't."""
    log = Applied()
    log.apply(ALICE, 1, 1, 0, Request(Kind.WRITE, "a", "1"))
    late = SILENCE + 2
    log.apply(Client("bob", late), 1, 1, late, Request(Kind.READ, "a"))
    assert log.apply(ALICE, 1, 1, 0, Request(Kind.WRITE, "a", "1")) == REFUSED
    assert log.apply(ALICE, 2, 2, late, Request(Kind.WRITE, "a", "2")) == REFUSED
    assert log.apply(Client("alice", late), 1, 1, late, Request(Kind.WRITE, "a", "3")) == DONE


def test_a_copy_is_apart() -> None:
    """A copy has the same state, answers included, and later commands don't change it."""
    log = Applied()
    log.apply(ALICE, 1, 1, 0, Request(Kind.CREATE, "a", "1"))
    copy = log.machine.copy()
    assert copy.state() == log.machine.state()
    log.apply(ALICE, 2, 1, 0, Request(Kind.DELETE, "a"))
    assert copy.files == {"a": "1"}
    assert copy.state() != log.machine.state()


# invariants


def entry(index: int, term: int, data: bytes = b"") -> Entry:
    """A log entry."""
    return Entry(index, term, EntryKind.COMMAND, data)


@pytest.fixture
def invariants() -> Invariants:
    """A cluster of three of which nothing is known but its first entry."""
    return Invariants(entry(1, 1), ["a", "b", "c"])


def broken(rule: str) -> Any:
    """A rule is to be found broken."""
    return pytest.raises(Violation, match=rule)


VOTERS = [["a", "b", "c"]]


def test_two_leaders_of_a_term(invariants: Invariants) -> None:
    """Two leaders of one term are found, one leader that says so twice is none."""
    invariants.leads("a", 2, lambda index: 1)
    invariants.leads("a", 2, lambda index: 1)
    with broken("election safety"):
        invariants.leads("b", 2, lambda index: 1)


def test_a_leader_without_a_committed_entry(invariants: Invariants) -> None:
    """A leader that lacks a committed entry is found."""
    for disk in "ab":
        invariants.holds(disk, [entry(2, 2)])
    invariants.commits("a", 2, [entry(2, 2)], VOTERS)
    with broken("leader completeness"):
        invariants.leads("c", 3, lambda index: None)


def test_two_votes(invariants: Invariants) -> None:
    """Two votes in a term are found; the same one twice is none."""
    invariants.votes("a", 2, "b")
    invariants.votes("a", 2, "b")
    with broken("one vote a term"):
        invariants.votes("a", 2, "c")


@pytest.mark.parametrize("other", [(1, entry(3, 2, b"y")), (2, entry(3, 2, b"x"))])
def test_logs_that_do_not_match(invariants: Invariants, other: tuple[int, Entry]) -> None:
    """Entries of one index and term that differ, or follow on different ones, are found."""
    invariants.writes("a", 1, entry(3, 2, b"x"))
    invariants.writes("b", 1, entry(3, 2, b"x"))
    with broken("log matching"):
        invariants.writes("c", *other)


def test_a_truncated_committed_entry(invariants: Invariants) -> None:
    """A committed entry that is cut off the end of a log is found, an uncommitted one may be."""
    invariants.truncates("a", entry(2, 1))
    with broken("leader completeness"):
        invariants.truncates("a", entry(1, 1))


def test_a_commit_without_a_majority(invariants: Invariants) -> None:
    """A commit index that one disk of three has is found."""
    invariants.holds("b", [entry(2, 2)])
    with broken("durable before committed"):
        invariants.commits("a", 2, [entry(2, 2)], VOTERS)


def test_a_commit_of_an_old_term(invariants: Invariants) -> None:
    """A leader that counts an entry of another term is found."""
    for disk in "ab":
        invariants.holds(disk, [entry(2, 2)])
    with broken("commit by counting"):
        invariants.commits("a", 3, [entry(2, 2)], VOTERS)


def test_applied_otherwise(invariants: Invariants) -> None:
    """An entry that isn't committed, or another than the committed one, is found when it is applied."""
    invariants.applies("a", entry(1, 1))
    with broken("state-machine safety"):
        invariants.applies("a", entry(2, 1))
    with broken("state-machine safety"):
        invariants.applies("a", entry(1, 2))


@pytest.mark.parametrize(("applied", "index", "committed"), [(4, 5, 5), (5, 4, 5), (4, 4, 5)])
def test_a_stale_read(invariants: Invariants, applied: int, index: int, committed: int) -> None:
    """A read that misses something committed before it was asked for is found, or one before its time."""
    invariants.reads("a", 6, 5, 5)
    with broken("linearizable reads"):
        invariants.reads("a", applied, index, committed)


def test_a_hasty_promise(invariants: Invariants) -> None:
    """A message that promises what isn't durable is found."""
    invariants.promises("a", "a vote", True)
    with broken("durable before promised"):
        invariants.promises("a", "a vote", False)


def test_a_term_that_goes_back(invariants: Invariants) -> None:
    """A durable term that falls is found."""
    invariants.advances("a", 4)
    with broken("terms only grow"):
        invariants.advances("a", 3)


def test_a_good_leader_that_is_replaced(invariants: Invariants) -> None:
    """A new leader of a steady cluster is found."""
    invariants.leads("a", 2, lambda index: 1)
    invariants.steady = True
    with broken("a good leader stays"):
        invariants.leads("b", 3, lambda index: 1)
