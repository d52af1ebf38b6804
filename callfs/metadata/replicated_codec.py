"""Commands and what becomes of them as bytes, for a log that every node applies."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from callfs import errors
from callfs.errors import CallFSError, InternalError, RetryableError
from callfs.metadata import commands, importing
from callfs.metadata.commands import Command

COMMAND_VERSION = 1
"""
The newest version of any kind. A kind that comes later gets the next number, here and in :data:`VERSIONS`, so that
it isn't proposed before all nodes know it.
"""

VERSIONS: Mapping[type[Command[Any]], int] = MappingProxyType({})
"""Kinds that are newer than version 1."""


class UnknownCommand(Exception):
    """These bytes are no command that this version knows."""


class _Refusal(msgspec.Struct, frozen=True, array_like=True):
    code: str
    message: str
    retry_after_seconds: float | None
    details: dict[str, Any]


class _Answer(msgspec.Struct, frozen=True, array_like=True):
    """Either the refusal is set, or the result is one."""

    refusal: _Refusal | None
    result: Any


class _RawAnswer(msgspec.Struct, frozen=True, array_like=True):
    refusal: _Refusal | None
    result: msgspec.Raw


def _kinds() -> tuple[type[Command[Any]], ...]:
    """Every kind of command that there is."""
    found = {
        value
        for module in (commands, importing)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Command) and value is not Command
    }
    return tuple(sorted(found, key=lambda kind: kind.__name__))


def _family(base: type[CallFSError]) -> Iterator[type[CallFSError]]:
    yield base
    for derived in base.__subclasses__():
        yield from _family(derived)


KINDS = _kinds()
_COMMANDS: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(typing.Union[KINDS])  # noqa: UP007 - made at run time
_ANSWERS = msgspec.msgpack.Decoder(_RawAnswer)
_RESULTS: Mapping[type[Command[Any]], msgspec.msgpack.Decoder[Any]] = MappingProxyType(
    {
        kind: msgspec.msgpack.Decoder(typing.get_args(typing.cast("Any", kind).__orig_bases__[0])[0])
        for kind in KINDS
    }
)
_ERRORS: Mapping[str, type[CallFSError]] = MappingProxyType(
    {
        kind.code: kind
        for kind in _family(CallFSError)
        if kind.__module__ == errors.__name__
        and "code" in vars(kind)
        # Others say more than a message and details, and aren't what a command is refused with.
        and kind.__init__ in (CallFSError.__init__, RetryableError.__init__)
    }
)
_encode = msgspec.msgpack.Encoder().encode


def version_of(command: Command[Any]) -> int:
    """What a node must know to apply the command."""
    return VERSIONS.get(type(command), 1)


def encode_command(command: Command[Any]) -> bytes:
    """A command as bytes."""
    return _encode(command)


def decode_command(data: bytes) -> Command[Any]:
    """
    A command from its bytes.

    :raises UnknownCommand: they aren't one.
    """
    try:
        command: Command[Any] = _COMMANDS.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnknownCommand(str(error)) from None
    return command


def encode_result(result: Any) -> bytes:
    """What a command returned."""
    return _encode(_Answer(None, result))


def encode_refusal(error: CallFSError) -> bytes:
    """What a command was refused with."""
    retry = error.retry_after_seconds if isinstance(error, RetryableError) else None
    try:
        return _encode(_Answer(_Refusal(error.code, error.message, retry, error.details), None))
    except (TypeError, ValueError, OverflowError):
        # The details help whoever reads them; that they can't be carried must not stop the log.
        return _encode(_Answer(_Refusal(error.code, error.message, retry, {}), None))


def decode_answer(command: Command[Any], data: bytes) -> Any:
    """
    What applying ``command`` came to.

    :return: what the command says it returns.
    :raises callfs.errors.CallFSError: what it was refused with.
    """
    answer = _ANSWERS.decode(data)
    if answer.refusal is None:
        return _RESULTS[type(command)].decode(answer.result)
    raise _error(answer.refusal)


def _error(refusal: _Refusal) -> CallFSError:
    kind = _ERRORS.get(refusal.code, InternalError)
    if issubclass(kind, RetryableError):
        return kind(refusal.message, refusal.retry_after_seconds or 1.0, **refusal.details)
    return kind(refusal.message, **refusal.details)
