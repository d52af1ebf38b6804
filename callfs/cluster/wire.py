"""What is in a frame once two peers have proven themselves; what raft says is in it as bytes."""

from __future__ import annotations

import msgspec


class _Frame(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    pass


class Ping(_Frame, frozen=True, array_like=True, forbid_unknown_fields=True, tag=0):
    """The dialer is there."""


class Pong(_Frame, frozen=True, array_like=True, forbid_unknown_fields=True, tag=1):
    """The acceptor is there, and has heard something of late."""


class Message(_Frame, frozen=True, array_like=True, forbid_unknown_fields=True, tag=2):
    """Something that may get lost."""

    payload: bytes


class Question(_Frame, frozen=True, array_like=True, forbid_unknown_fields=True, tag=3):
    """Something that wants an answer; numbers are the dialer's."""

    number: int
    payload: bytes


class Answer(_Frame, frozen=True, array_like=True, forbid_unknown_fields=True, tag=4):
    """The acceptor's answer to the question of this number."""

    number: int
    payload: bytes


class Declined(_Frame, frozen=True, array_like=True, forbid_unknown_fields=True, tag=5):
    """The acceptor doesn't answer the question, which changed nothing; the reason is a code."""

    number: int
    reason: str


Frame = Ping | Pong | Message | Question | Answer | Declined

_DECODER: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)
encode = msgspec.msgpack.Encoder().encode


class Malformed(Exception):
    """The other side says what nobody understands."""


def decode(body: bytes) -> Frame:
    """
    Read a frame.

    :raises Malformed: it is none.
    """
    try:
        return _DECODER.decode(body)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError):
        raise Malformed("a frame that isn't understood") from None
