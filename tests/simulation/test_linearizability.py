"""The checker of histories: what could have happened passes, what could not is found."""

from __future__ import annotations

import random

import pytest

from tests.simulation.history import DONE, EXISTS, MISMATCH, MISSING, Kind, Operation, Request, decide
from tests.simulation.linearizability import Judgement, check


def create(path: str, value: str) -> Request:
    """Make a file that isn't there."""
    return Request(Kind.CREATE, path, value)


def write(path: str, value: str) -> Request:
    """Make or replace a file."""
    return Request(Kind.WRITE, path, value)


def replace(path: str, expected: str, value: str) -> Request:
    """Replace a file if it has a content."""
    return Request(Kind.REPLACE, path, value, expected)


def move(path: str, target: str) -> Request:
    """Move a file to where none is."""
    return Request(Kind.MOVE, path, target=target)


def delete(path: str) -> Request:
    """Remove a file."""
    return Request(Kind.DELETE, path)


def read(path: str) -> Request:
    """Read a file."""
    return Request(Kind.READ, path)


def done(request: Request, invoked: int, returned: int, answer: str | None = DONE) -> Operation:
    """A request that was answered."""
    return Operation(request, invoked, returned, answer)


def lost(request: Request, invoked: int) -> Operation:
    """A request whose answer never came."""
    return Operation(request, invoked)


GOOD = {
    "nothing at all": [],
    "one after the other": [
        done(create("a", "1"), 0, 1),
        done(read("a"), 2, 3, "1"),
        done(replace("a", "1", "2"), 4, 5),
        done(replace("a", "1", "3"), 6, 7, MISMATCH),
        done(move("a", "b"), 8, 9),
        done(delete("a"), 10, 11, MISSING),
        done(create("b", "4"), 12, 13, EXISTS),
        done(read("b"), 14, 15, "2"),
        done(delete("b"), 16, 17),
        done(read("b"), 18, 19, None),
    ],
    "the later of two overlapping writes is read": [
        done(write("a", "1"), 0, 10),
        done(write("a", "2"), 0, 10),
        done(read("a"), 11, 12, "1"),
    ],
    "a read sees a write under way, the next one too": [
        done(write("a", "1"), 0, 100),
        done(read("a"), 10, 20, "1"),
        done(read("a"), 30, 40, "1"),
    ],
    "a lost write takes effect late": [
        lost(write("a", "1"), 0),
        done(read("a"), 10, 20, None),
        done(write("a", "2"), 30, 40),
        done(read("a"), 50, 60, "2"),
        done(read("a"), 70, 80, "1"),
    ],
    "a lost write never takes effect": [
        lost(write("a", "1"), 0),
        done(write("a", "2"), 30, 40),
        done(read("a"), 50, 60, "2"),
    ],
    "a lost removal explains why a file is gone": [
        done(create("a", "1"), 0, 1),
        lost(delete("a"), 2),
        done(read("a"), 10, 11, "1"),
        done(create("a", "2"), 20, 21),
    ],
    "a lost move is seen at both ends": [
        done(create("a", "1"), 0, 1),
        lost(move("a", "b"), 2),
        done(read("a"), 10, 11, None),
        done(read("b"), 12, 13, "1"),
    ],
    "an instant that two operations share does not order them": [
        done(write("a", "1"), 0, 5),
        done(read("a"), 5, 6, None),
    ],
    "one of two conditional replaces wins": [
        done(create("a", "0"), 0, 1),
        done(replace("a", "0", "1"), 2, 10),
        done(replace("a", "0", "2"), 2, 10, MISMATCH),
        done(read("a"), 11, 12, "1"),
    ],
}

BAD = {
    "a stale read": [
        done(write("a", "1"), 0, 1),
        done(write("a", "2"), 2, 3),
        done(read("a"), 4, 5, "1"),
    ],
    "a lost update": [done(write("a", "1"), 0, 1), done(read("a"), 2, 3, None)],
    "time runs back between two reads": [
        done(write("a", "1"), 0, 1),
        done(write("a", "2"), 2, 20),
        done(read("a"), 3, 4, "2"),
        done(read("a"), 5, 6, "1"),
    ],
    "both conditional replaces win": [
        done(create("a", "0"), 0, 1),
        done(replace("a", "0", "1"), 2, 10),
        done(replace("a", "0", "2"), 2, 10),
    ],
    "two creations of one file": [done(create("a", "1"), 0, 10), done(create("a", "2"), 0, 10)],
    "a write took effect twice": [
        done(write("a", "1"), 0, 1),
        done(write("a", "2"), 2, 3),
        done(read("a"), 4, 5, "2"),
        done(read("a"), 6, 7, "1"),
    ],
    "a lost write takes effect twice": [
        lost(write("a", "1"), 0),
        done(read("a"), 1, 2, "1"),
        done(write("a", "2"), 3, 4),
        done(read("a"), 5, 6, "2"),
        done(read("a"), 7, 8, "1"),
    ],
    "a lost write took effect before it was asked for": [
        done(read("a"), 0, 1, "1"),
        lost(write("a", "1"), 2),
    ],
    "a moved file is at both ends": [
        done(create("a", "1"), 0, 1),
        done(move("a", "b"), 2, 3),
        done(read("b"), 4, 5, "1"),
        done(read("a"), 6, 7, "1"),
    ],
    "a move that its two ends see in different orders": [
        done(create("a", "1"), 0, 1),
        done(move("a", "b"), 2, 30),
        done(read("b"), 4, 5, "1"),
        done(read("a"), 6, 7, "1"),
    ],
    "a content out of nowhere": [done(read("a"), 0, 1, "9")],
    "two clients see two writes in different orders": [
        done(write("a", "1"), 0, 100),
        done(write("a", "2"), 0, 100),
        done(read("a"), 10, 20, "1"),
        done(read("a"), 30, 40, "2"),
        done(read("a"), 50, 60, "1"),
    ],
}


@pytest.mark.parametrize("name", GOOD)
def test_possible_histories_pass(name: str) -> None:
    """A history that some order explains is linearizable."""
    assert check(GOOD[name]).judgement is Judgement.LINEARIZABLE


@pytest.mark.parametrize("name", BAD)
def test_impossible_histories_are_found(name: str) -> None:
    """A history that no order explains is not, and the operations that cannot be placed are named."""
    verdict = check(BAD[name])
    assert verdict.judgement is Judgement.VIOLATED
    assert verdict.stuck
    assert "stuck" in str(verdict)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_path_is_found_among_good_ones(name: str) -> None:
    """Other paths, connected or not, neither hide a violation nor make one."""
    others = [done(write(f"x{n}", "x"), n, n + 3) for n in range(20)] + [done(move("x1", "y"), 30, 31)]
    assert check([*others, *BAD[name]]).judgement is Judgement.VIOLATED
    assert check(others).judgement is Judgement.LINEARIZABLE


def test_the_search_is_bounded() -> None:
    """A search that would take too long ends undecided, which is not a pass."""
    history = [done(write("a", str(n)), 0, 100) for n in range(24)] + [done(read("a"), 101, 102, "none of them")]
    assert check(history, budget=500).judgement is Judgement.UNDECIDED


def made_up_history(rng: random.Random, length: int) -> list[Operation]:
    """A history that is linearizable by the way it is made: each operation has its effect at one instant within."""
    files: dict[str, str] = {}
    effects = sorted((rng.randrange(length * 10), number) for number in range(length))
    history = []
    for instant, number in effects:
        path, target = rng.sample(("a", "b", "c"), 2)
        kind = rng.choice(list(Kind))
        value = "" if kind in (Kind.READ, Kind.DELETE, Kind.MOVE) else f"v{number}"
        request = Request(kind, path, value, expected=files.get(path, "none"), target=target)
        invoked, returned = instant - rng.randrange(30), instant + rng.randrange(30)
        is_lost = kind is not Kind.READ and rng.random() < 0.05
        if is_lost and rng.random() < 0.5:
            history.append(lost(request, invoked))
            continue
        answer, changes = decide(request, files)
        for changed, content in changes.items():
            if content is None:
                del files[changed]
            else:
                files[changed] = content
        history.append(lost(request, invoked) if is_lost else done(request, invoked, returned, answer))
    rng.shuffle(history)
    return history


@pytest.mark.parametrize("seed", range(40))
def test_histories_made_in_order_pass(seed: int) -> None:
    """A long concurrent history with lost answers that was made from an order is found to have one."""
    assert check(made_up_history(random.Random(seed), 150)).judgement is Judgement.LINEARIZABLE


@pytest.mark.parametrize("seed", range(40))
def test_one_wrong_answer_is_found(seed: int) -> None:
    """A read of what was overwritten long ago turns such a history into a bad one."""
    rng = random.Random(seed)
    history = made_up_history(rng, 100)
    end = max(operation.returned or operation.invoked for operation in history)
    history = [operation for operation in history if operation.known]
    good = check(history).judgement
    tail = [
        done(write("a", "old"), end + 1, end + 2),
        done(write("a", "new"), end + 3, end + 4),
        done(read("a"), end + 5, end + 6, "old"),
    ]
    assert check([*history, *tail]).judgement is Judgement.VIOLATED
    assert good in (Judgement.LINEARIZABLE, Judgement.VIOLATED)  # without the lost ones it may have gaps
