"""
What nodes say of locks in the log that they share: the commands, several of them in one entry, and their answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypeAlias

import msgspec

MAX_TOGETHER = 1024
"""Commands in one entry."""

Name = Annotated[bytes, msgspec.Meta(min_length=1, max_length=64)]


class Claim(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="claim"):
    """
    Stand in line for keys. Answered with a :class:`Place`.

    :param session: whose it is.
    :param claim: its own, random.
    """

    session: Name
    claim: Name
    keys: tuple[str, ...]


class Release(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="release"):
    """Leave the lines of some keys, held or not. A claim that isn't there is no error."""

    claim: Name
    keys: tuple[str, ...]


class Renew(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="renew"):
    """A session gives a sign of life."""

    session: Name


class EndSession(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="end_session"):
    """
    All claims of a session go.

    :param heard: only if it wasn't heard of in a later entry than this; ``None``: whatever was heard.
    """

    session: Name
    heard: int | None


LockCommand: TypeAlias = Claim | Release | Renew | EndSession


class Place(msgspec.Struct, frozen=True, array_like=True):
    """
    Where a claim stands.

    :param number: grows with every claim: the fencing number.
    :param held: whether it held its keys at once.
    """

    number: int
    held: bool


class UnknownLockCommand(Exception):
    """These bytes are no commands about locks that this version knows."""


class UnknownAnswer(Exception):
    """These bytes are no answers to commands about locks."""


_Commands = Annotated[tuple[LockCommand, ...], msgspec.Meta(max_length=MAX_TOGETHER)]
_COMMANDS: msgspec.msgpack.Decoder[tuple[LockCommand, ...]] = msgspec.msgpack.Decoder(_Commands)
_ANSWERS: msgspec.msgpack.Decoder[tuple[Place | None, ...]] = msgspec.msgpack.Decoder(tuple[Place | None, ...])
_encode = msgspec.msgpack.Encoder().encode


def encode_command(command: LockCommand) -> bytes:
    """One command, to be put together with others."""
    return _encode(command)


def encode_commands(commands: Sequence[msgspec.Raw | LockCommand]) -> bytes:
    """Commands that are carried out in this order, in one entry; at most :data:`MAX_TOGETHER`."""
    return _encode(commands)


def decode_commands(data: bytes) -> tuple[LockCommand, ...]:
    """
    The commands of an entry.

    :raises UnknownLockCommand: it is of another kind.
    """
    try:
        return _COMMANDS.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnknownLockCommand(str(error)) from None


def encode_answers(answers: Sequence[Place | None]) -> bytes:
    """An answer for each command of an entry."""
    return _encode(answers)


def decode_answers(data: bytes) -> tuple[Place | None, ...]:
    """
    The answers of an entry.

    :raises UnknownAnswer: the entry was refused as a whole.
    """
    try:
        return _ANSWERS.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnknownAnswer(str(error)) from None
