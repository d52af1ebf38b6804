"""What nodes ask each other beside what raft itself says, and the answers."""

from __future__ import annotations

import msgspec

from callfs.raft.boundary import SnapshotMeta
from callfs.raft.membership import Membership
from callfs.raft.messages import Count

CHUNK_BYTES = 256 * 1024
"""The pieces that a state is sent in: heartbeats on the same connection wait for one of them at most."""

_CHECKSUM_BYTES = 8


class _Value(msgspec.Struct, frozen=True, array_like=True):
    pass


class Forward(_Value, frozen=True, array_like=True, tag=1):
    """Propose these requests, in order; answered by :class:`Places` at once."""

    requests: tuple[bytes, ...]


class Join(_Value, frozen=True, array_like=True, tag=2):
    """Let a node in; answered by :class:`Changed` or :class:`NotChanged`."""

    node_id: str
    raft_address: str
    api_endpoint: str


class Remove(_Value, frozen=True, array_like=True, tag=3):
    """Remove a node; answered by :class:`Changed` or :class:`NotChanged`."""

    node_id: str


class Announce(_Value, frozen=True, array_like=True, tag=4):
    """The asker has these addresses and knows this version; answered by :class:`Changed` or :class:`NotChanged`."""

    raft_address: str
    api_endpoint: str
    version: Count


class Transfer(_Value, frozen=True, array_like=True, tag=5):
    """Hand the leadership over; answered by :class:`Changed` or :class:`NotChanged`."""

    node_id: str


class Offer(_Value, frozen=True, array_like=True, tag=6):
    """A state can be had; answered by :class:`Wanted`."""

    meta: SnapshotMeta
    size: Count
    sha256: bytes


class Chunk(_Value, frozen=True, array_like=True, tag=7):
    """A piece of the state with this digest; answered by :class:`Wanted`."""

    sha256: bytes
    offset: Count
    data: bytes
    checksum: bytes


class Install(_Value, frozen=True, array_like=True, tag=8):
    """All pieces are there; answered by :class:`Wanted`, with ``finished`` once the state is in place."""

    sha256: bytes


class Sighted(_Value, frozen=True, array_like=True, tag=9):
    """The asker reaches a member there, where the membership doesn't have it; answered by :class:`Changed`."""

    node_id: str
    raft_address: str


Asking = Forward | Join | Remove | Announce | Transfer | Offer | Chunk | Install | Sighted


class Place(_Value, frozen=True, array_like=True, tag=1, gc=False):
    """Where a request is in the log."""

    term: Count
    index: Count


class Refused(_Value, frozen=True, array_like=True, tag=2, gc=False):
    """Why a request isn't in the log: a name of ``callfs.raft.boundary.Refusal``, ``TOO_NEW``, ``MALFORMED``."""

    reason: str


class Places(_Value, frozen=True, array_like=True, tag=1):
    """What became of each request."""

    outcomes: tuple[Place | Refused, ...]


class Changed(_Value, frozen=True, array_like=True, tag=2):
    """It is done, or was before; this is the membership now."""

    membership: Membership


class NotChanged(_Value, frozen=True, array_like=True, tag=3):
    """It isn't done; ``reason`` is a code, the message for the operator."""

    reason: str
    message: str


class Wanted(_Value, frozen=True, array_like=True, tag=4):
    """
    What is missing of a state.

    :param offset: the next piece begins there.
    :param finished: nothing is: the state is in place, or isn't of use any more.
    """

    offset: Count
    finished: bool


Reply = Places | Changed | NotChanged | Wanted

encode = msgspec.msgpack.Encoder().encode
_ASKING: msgspec.msgpack.Decoder[Asking] = msgspec.msgpack.Decoder(Asking)
_REPLY: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


class NotUnderstood(Exception):
    """A question or an answer that isn't one."""


def decode_asking(data: bytes) -> Asking:
    """
    Read a question.

    :raises NotUnderstood: it is none.
    """
    try:
        return _ASKING.decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError):
        raise NotUnderstood("no question") from None


def decode_reply(data: bytes) -> Reply:
    """
    Read an answer.

    :raises NotUnderstood: it is none.
    """
    try:
        return _REPLY.decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError):
        raise NotUnderstood("no answer") from None
