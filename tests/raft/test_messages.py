"""The form of messages on the wire."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from callfs.raft.messages import Append, AppendResponse, Entry, EntryKind, Heartbeat, Message, VoteRequest

WIRE = msgspec.msgpack.Decoder(Message)


@pytest.mark.parametrize(
    ("message", "value"),
    [
        (Heartbeat(3, 7, 2), [4, 3, 7, 2]),
        (AppendResponse(3, 7), [2, 3, 7]),
        (VoteRequest(3, 7, 2, True, False), [6, 3, 7, 2, True, False]),
        (Append(3, 7, 2, 6, (Entry(8, 3, EntryKind.COMMAND, b"x"),)), [1, 3, 7, 2, 6, [[8, 3, 1, b"x"]]]),
    ],
)
def test_the_form_is_fixed(message: Message, value: list[object]) -> None:
    """Other versions of this software must read it: arrays that begin with the kind."""
    wire = msgspec.msgpack.encode(message)
    assert msgspec.msgpack.decode(wire) == value
    assert WIRE.decode(wire) == message


def test_kinds_are_told_apart() -> None:
    """Each has a number of its own."""
    tags = [kind.__struct_config__.tag for kind in get_args(Message)]
    assert sorted(tags) == list(range(1, len(tags) + 1))


@pytest.mark.parametrize(
    "value",
    [
        [4, 3, 7],
        [4, -1, 7, 2],
        [4, 2**62 + 1, 7, 2],
        [99, 3],
        [4, "3", 7, 2],
        {},
        [1, 3, 7, 2, 6, [[8, 3, 9, b"x"]]],
    ],
)
def test_nonsense_is_refused(value: object) -> None:
    """By the decoder already: what is missing, out of range, unknown, or of another type."""
    with pytest.raises(msgspec.DecodeError):
        WIRE.decode(msgspec.msgpack.encode(value))
