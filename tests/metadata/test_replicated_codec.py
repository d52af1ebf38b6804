"""Commands and answers as bytes, as the nodes of a cluster read them from one another, whatever their version."""

from __future__ import annotations

import hashlib
import inspect
from typing import Any

import msgspec
import pytest

from callfs import errors
from callfs.errors import CallFSError, Conflict, InternalError, MetadataUnavailable
from callfs.metadata.commands import Command
from callfs.metadata.replicated_codec import (
    COMMAND_VERSION,
    KINDS,
    VERSIONS,
    UnknownCommand,
    decode_answer,
    decode_command,
    encode_command,
    encode_refusal,
    version_of,
)
from tests.support.commands import Commands

WIRE_FORMAT = "07c9f884f4af9cd1cfe236b66ff21fbd207ce63aa2ea8a855b8d47e7e20f612c"
"""
Of all kinds and their fields. When it changes, commands in the logs of older nodes mean something else, or can't be
read: the changed kind has to be a new one with the next number in ``VERSIONS``; then this is brought up to date.
"""

REFUSALS = [
    kind
    for kind in vars(errors).values()
    if inspect.isclass(kind)
    and issubclass(kind, CallFSError)
    and kind not in (errors.MethodNotAllowed, errors.RangeNotSatisfiable)
    and "code" in vars(kind)
    and kind is not CallFSError
]


def wire_format() -> str:
    """A digest of what all commands consist of."""
    schema = described(msgspec.json.schema_components(KINDS))
    return hashlib.sha256(msgspec.json.encode(schema, order="deterministic")).hexdigest()


def described(schema: Any) -> Any:
    """A schema without its words."""
    if isinstance(schema, dict):
        return {name: described(value) for name, value in schema.items() if name != "description"}
    return [described(each) for each in schema] if isinstance(schema, (list, tuple)) else schema


def test_wire_format() -> None:
    """No kind of command changes under the nodes that read it."""
    assert wire_format() == WIRE_FORMAT


def test_versions() -> None:
    """Every kind has a version that this program knows."""
    assert set(VERSIONS) <= set(KINDS)
    assert all(1 <= version <= COMMAND_VERSION for version in VERSIONS.values())


def test_command() -> None:
    """A command is the same after its way through the log."""
    command = Commands().create("/f")
    assert decode_command(encode_command(command)) == command
    assert version_of(command) == 1


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", b"\x80", b"\x81\xa7command\xa3fly", encode_command(Commands().put("/"))[:-1]]
)
def test_unknown_command(data: bytes) -> None:
    """What isn't a command is recognised as such."""
    with pytest.raises(UnknownCommand):
        decode_command(data)


def test_unknown_field() -> None:
    """A command with a field that this version doesn't know isn't taken for one without it."""
    fields = msgspec.msgpack.decode(encode_command(Commands().create("/f")))
    with pytest.raises(UnknownCommand):
        decode_command(msgspec.msgpack.encode({**fields, "newer": 1}))


@pytest.mark.parametrize("kind", REFUSALS)
def test_refusal(kind: type[CallFSError]) -> None:
    """A refusal is the same error on whichever node it is read."""
    again = refusal(kind("as it is", existing_path="/f", count=3))
    assert (type(again), again.message, again.details) == (kind, "as it is", {"existing_path": "/f", "count": 3})


def test_retry() -> None:
    """So is how long to wait before the next attempt."""
    again = refusal(MetadataUnavailable("later", 60))
    assert isinstance(again, MetadataUnavailable)
    assert again.retry_after_seconds == 60


def test_unknown_refusal() -> None:
    """An error that this version doesn't know is a fault of the daemon to whoever asked."""

    class Newer(CallFSError):
        code = "NEWER"

    assert type(refusal(Newer("what"))) is InternalError
    assert type(refusal(errors.RangeNotSatisfiable("what", 3))) is InternalError


@pytest.mark.parametrize("detail", [object(), 2**70, "\ud800"])
def test_details_that_cannot_be_carried(detail: Any) -> None:
    """An error goes without details rather than stopping the log."""
    again = refusal(Conflict("taken", what=detail))
    assert (type(again), again.details) == (Conflict, {})


def refusal(error: CallFSError) -> CallFSError:
    """The error after its way through the log."""
    command: Command[Any] = Commands().create("/f")
    with pytest.raises(CallFSError) as caught:
        decode_answer(command, encode_refusal(error))
    return caught.value
