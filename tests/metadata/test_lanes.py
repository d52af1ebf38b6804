"""Which commands go at the same time."""

from __future__ import annotations

from twisted.internet.defer import CancelledError

from callfs.metadata.lanes import Lanes, Turn, footprint, meet
from tests.support.commands import Commands

make = Commands()


def come(*turns: Turn) -> list[bool]:
    """Whose turn it is."""
    return [turn.come.called for turn in turns]


def test_what_is_about_other_things_passes_by() -> None:
    """Files in one folder don't meet, nor do names of which one merely begins like the other."""
    assert not meet(footprint(make.create("/d/a")), footprint(make.create("/d/b")))
    assert not meet(footprint(make.create("/d/a")), footprint(make.remove("/d/ab")))
    assert not meet(footprint(make.consume_link(b"a")), footprint(make.consume_link(b"b")))


def test_what_is_about_the_same_thing_meets() -> None:
    """A path and itself, a folder and what is in it, either end of a move, a link and its use."""
    assert meet(footprint(make.create("/d")), footprint(make.put("/d")))
    assert meet(footprint(make.create("/d/a/b")), footprint(make.remove("/d")))
    assert meet(footprint(make.move("/x", "/d")), footprint(make.create("/d/a")))
    assert meet(footprint(make.move("/d", "/x")), footprint(make.create("/d/a")))
    assert meet(footprint(make.consume_link(b"a")), footprint(make.consume_link(b"a")))


def test_turns_come_in_order() -> None:
    """Who meets an earlier one waits for it, also where that one waits itself; others go ahead."""
    lanes = Lanes(10)
    first, second, third, other = (lanes.enter(f) for f in (("/a/",), ("/a/b/",), ("/a/b/c/",), ("/x/",)))
    assert come(first, second, third, other) == [True, False, False, True]
    lanes.leave(first)
    assert come(second, third) == [True, False]
    lanes.leave(second)
    assert come(third) == [True]


def test_no_more_than_may_at_once() -> None:
    """The width is kept, and a place that becomes free is given to the one who waits longest."""
    lanes = Lanes(2)
    turns = [lanes.enter((f"/{number}/",)) for number in range(4)]
    assert come(*turns) == [True, True, False, False]
    lanes.leave(turns[1])
    assert come(*turns) == [True, True, True, False]


def test_who_gives_up_is_passed_over() -> None:
    """A place that was given up holds up nobody."""
    lanes = Lanes(2)
    first, second, third = (lanes.enter(("/a/",)) for _ in range(3))
    second.come.addErrback(lambda failure: failure.trap(CancelledError))
    second.come.cancel()
    lanes.leave(first)
    assert come(third) == [True]
