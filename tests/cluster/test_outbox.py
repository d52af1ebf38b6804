"""What waits for a peer is bounded."""

from __future__ import annotations

from callfs.cluster.outbox import Outbox
from callfs.cluster.wire import Message, Question


def test_frames_come_out_in_their_order() -> None:
    """First in, first out."""
    outbox = Outbox()
    for number in range(3):
        assert outbox.put(Question(number, b""))
    assert [frame.number for _ in range(3) if isinstance(frame := outbox.take(), Question)] == [0, 1, 2]
    assert outbox.take() is None


def test_no_more_than_so_many_wait() -> None:
    """A frame over the number is refused."""
    outbox = Outbox(most=2)
    assert outbox.put(Message(b"1"))
    assert outbox.put(Message(b"2"))
    assert not outbox.put(Message(b"3"))
    outbox.take()
    assert outbox.put(Message(b"3"))


def test_no_more_than_so_many_bytes_wait() -> None:
    """A frame over the bytes is refused, unless it would wait alone."""
    outbox = Outbox(most_bytes=10)
    assert outbox.put(Message(bytes(20)))
    assert not outbox.put(Message(b"x"))
    outbox.take()
    assert outbox.put(Message(bytes(6)))
    assert not outbox.put(Message(bytes(6)))


def test_a_question_can_be_taken_back_until_it_is_sent() -> None:
    """Withdrawn, it certainly wasn't sent, and makes room."""
    outbox = Outbox(most=1)
    outbox.put(Question(7, b"x"))
    assert outbox.withdraw(7)
    assert not outbox.withdraw(7)
    assert outbox.put(Question(8, b"x"))


def test_clearing_says_which_questions_were_not_sent() -> None:
    """Their askers know for certain."""
    outbox = Outbox()
    outbox.put(Message(b""))
    outbox.put(Question(7, b""))
    assert outbox.clear() == [7]
    assert len(outbox) == 0
