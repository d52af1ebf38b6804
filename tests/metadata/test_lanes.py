"""Which commands go at the same time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import CancelledError

from callfs.metadata.commands import Command
from callfs.metadata.lanes import Lanes, Turn, footprint
from tests.support.commands import Commands

make = Commands()


def come(*turns: Turn) -> list[bool]:
    """Whose turn it is."""
    return [turn.come.called for turn in turns]


def meet(one: Command[Any], other: Command[Any]) -> bool:
    """Whether the later of two commands waits for the earlier."""
    lanes = Lanes()
    lanes.enter(footprint(one))
    return not lanes.enter(footprint(other)).come.called


def test_what_is_about_other_things_passes_by() -> None:
    """Files in one folder don't meet, nor do names of which one merely begins like the other."""
    assert not meet(make.create("/d/a"), make.create("/d/b"))
    assert not meet(make.create("/d/a"), make.remove("/d/ab"))
    assert not meet(make.consume_link(b"a"), make.consume_link(b"b"))


def test_what_is_about_the_same_thing_meets() -> None:
    """A path and itself, a folder and what is in it, either end of a move, a link and its use."""
    assert meet(make.create("/d"), make.put("/d"))
    assert meet(make.create("/d/a/b"), make.remove("/d"))
    assert meet(make.move("/x", "/d"), make.create("/d/a"))
    assert meet(make.move("/d", "/x"), make.create("/d/a"))
    assert meet(make.consume_link(b"a"), make.consume_link(b"a"))


def test_turns_come_in_order() -> None:
    """Who meets an earlier one waits for it, also where that one waits itself; others go ahead."""
    lanes = Lanes(10)
    first, second, third, other = (lanes.enter(f) for f in (("/a",), ("/a/b",), ("/a/b/c",), ("/x",)))
    assert come(first, second, third, other) == [True, False, False, True]
    lanes.leave(first)
    assert come(second, third) == [True, False]
    lanes.leave(second)
    assert come(third) == [True]


def test_no_more_than_may_at_once() -> None:
    """The width is kept, and a place that becomes free is given to the one who waits longest."""
    lanes = Lanes(2)
    turns = [lanes.enter((f"/{number}",)) for number in range(4)]
    assert come(*turns) == [True, True, False, False]
    lanes.leave(turns[1])
    assert come(*turns) == [True, True, True, False]


def test_who_gives_up_is_passed_over() -> None:
    """A place that was given up holds up nobody."""
    lanes = Lanes(2)
    first, second, third = (lanes.enter(("/a",)) for _ in range(3))
    second.come.addErrback(lambda failure: failure.trap(CancelledError))
    second.come.cancel()
    lanes.leave(first)
    assert come(third) == [True]


def test_many_of_which_one_passes_below_the_other() -> None:
    """Who comes after one that gave up waits for those before it alone, be they many."""
    lanes = Lanes()
    inside = [lanes.enter((f"/a/{number}",)) for number in range(3)]
    whole, behind = lanes.enter(("/a",)), lanes.enter(("/a/3",))
    assert come(*inside, whole, behind) == [True, True, True, False, False]
    whole.come.addErrback(lambda failure: failure.trap(CancelledError))
    whole.come.cancel()
    assert come(behind) == [True]
    last = lanes.enter(("/a",))
    for turn in (*inside, behind):
        assert come(last) == [False]
        lanes.leave(turn)
    assert come(last) == [True]


def test_a_move_into_what_it_names_itself() -> None:
    """Whose two ends are one, or lie in one another, doesn't wait for itself."""
    for things in (("/a", "/a"), ("/a", "/a/b"), ("/a/b", "/a")):
        lanes = Lanes()
        first, second = lanes.enter(things), lanes.enter(("/a/b",))
        assert come(first, second) == [True, False]
        lanes.leave(first)
        assert come(second) == [True]


def test_leaving_twice() -> None:
    """It makes no room for others that isn't there."""
    lanes = Lanes(1)
    first, second, third = (lanes.enter((f"/{number}",)) for number in range(3))
    lanes.leave(first)
    lanes.leave(first)
    assert come(second, third) == [True, False]


def test_thousands_that_end_at_once() -> None:
    """However many wait in a row and end as soon as they are called, the stack doesn't grow."""
    lanes = Lanes()
    first = lanes.enter(("/a",))
    turns = [lanes.enter(("/a",)) for _ in range(10_000)]

    def ends(_: None, turn: Turn) -> None:
        lanes.leave(turn)

    for turn in turns:
        turn.come.addCallback(ends, turn)
    lanes.leave(first)
    assert all(come(*turns))


def blocked(things: Sequence[str], earlier: Sequence[Sequence[str]]) -> bool:
    """The rule, said plainly: some earlier one names the same thing, or what lies above or below it."""
    starts = [thing.rstrip("/") + "/" for thing in things]
    others = [other.rstrip("/") + "/" for each in earlier for other in each]
    return any(one.startswith(other) or other.startswith(one) for one in starts for other in others)


def test_any_order_keeps_the_rule() -> None:
    """Whatever comes, ends and gives up: exactly those are called who meet nobody that came before and is there."""
    chance = random.Random(1)
    names = ["/", "/a", "/a/a", "/a/b", "/a/b/c", "/b", "/b/a", "word", "word 2"]
    lanes = Lanes()
    there: list[Turn] = []
    things: dict[Turn, tuple[str, ...]] = {}
    for _ in range(3000):
        if len(there) < 12 and chance.random() < 0.55:
            named = tuple(chance.sample(names, chance.randint(1, 2)))
            turn = lanes.enter(named)
            turn.come.addErrback(lambda failure: failure.trap(CancelledError))
            things[turn] = named
            there.append(turn)
        elif there:
            turn = there.pop(chance.randrange(len(there)))
            if turn.come.called:
                lanes.leave(turn)
            else:
                turn.come.cancel()
        for number, turn in enumerate(there):
            assert turn.come.called != blocked(things[turn], [things[each] for each in there[:number]])
