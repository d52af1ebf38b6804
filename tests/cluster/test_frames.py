"""Frames: any bytes, in any pieces."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callfs.cluster.frames import MAX_FRAME_BYTES, FrameBuffer, FrameTooLong, framed
from callfs.cluster.questions import NotUnderstood, decode_asking, decode_reply
from callfs.cluster.requests import NotARequest, decode_request
from callfs.cluster.wire import Malformed, decode


@given(st.lists(st.binary(max_size=200), max_size=10), st.lists(st.integers(1, 50)))
def test_frames_come_out_as_they_went_in_whatever_the_pieces(bodies: list[bytes], cuts: list[int]) -> None:
    """However the stream is cut, the frames are the same."""
    stream = b"".join(framed(body) for body in bodies)
    buffer, out = FrameBuffer(), []
    for size in [*cuts, len(stream)]:
        piece, stream = stream[:size], stream[size:]
        out += list(buffer.feed(piece))
    assert out == bodies


def test_a_long_frame_is_refused_when_its_length_is_known() -> None:
    """Of a frame over the limit no byte is waited for."""
    buffer = FrameBuffer()
    with pytest.raises(FrameTooLong):
        list(buffer.feed((MAX_FRAME_BYTES + 1).to_bytes(4, "big")))


def test_the_limit_may_change_between_two_frames() -> None:
    """What a frame changes holds for the next, even of the same piece."""
    buffer = FrameBuffer(4)
    seen = []
    for body in buffer.feed(framed(b"tiny") + framed(b"longer than four")):
        seen.append(body)
        buffer.limit_bytes = 100
    assert seen == [b"tiny", b"longer than four"]


def test_no_frame_is_made_that_nobody_would_read() -> None:
    """The sender refuses what the receiver would."""
    with pytest.raises(FrameTooLong):
        framed(bytes(MAX_FRAME_BYTES + 1))


@given(st.binary(max_size=300))
def test_any_bytes_are_either_understood_or_refused(data: bytes) -> None:
    """No parser of the cluster raises anything but its own refusal."""
    for parser, refusal in (
        (decode, Malformed),
        (decode_asking, NotUnderstood),
        (decode_reply, NotUnderstood),
        (decode_request, NotARequest),
    ):
        with contextlib.suppress(refusal):
            parser(data)


@pytest.mark.parametrize("depth", [100, 100_000])
def test_deep_nesting_is_refused(depth: int) -> None:
    """Arrays in arrays don't exhaust the stack."""
    data = b"\x91" * depth
    with pytest.raises(Malformed):
        decode(data)
    with pytest.raises(NotUnderstood):
        decode_asking(data)
    with pytest.raises(NotARequest):
        decode_request(data)
