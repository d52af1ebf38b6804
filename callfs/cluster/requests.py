"""
A command on its way through the log: whose it is, so that it takes effect once, and how new its kind is.

A client is one start of a process (thesis 6.3). It becomes one by a request of its own, whose place in the log is
its number: nobody else ever has it. It numbers its commands and says with each which of its numbers is the lowest
that it still waits for. So a command that comes twice, because an answer or a leader got lost, has its effect once
and gets its first result again, whatever the order.

==============================================  ==================================================================
a request                                       a state machine
==============================================  ==================================================================
with client 0                                   knows its index as a client from now on; result: nothing (``b""``)
of a client that isn't known                    refuses (``ClientForgotten``)
below the lowest number its client ever gave    refuses
whose result is kept                            gives that result again
any other                                       carries it out and keeps the result
==============================================  ==================================================================

With each request of a known client, even a refused one, results below its ``lowest`` are forgotten and the client
was heard at the time of the log: the highest ``at`` so far, this request's included. A client that was last heard
more than :data:`SILENT_CLIENT_MICROSECONDS` before it isn't known any more. A clock that jumps makes clients
register again and can't make anything happen twice.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

SILENT_CLIENT_MICROSECONDS = 3_600_000_000
"""A client from whom the log heard nothing for so long is forgotten; what comes from it later is refused."""

NONCE_BYTES = 16
"""Of the command of a request that makes a client: random, so that its maker recognises it."""

Number = Annotated[int, msgspec.Meta(ge=0, le=2**62)]


class Request(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """
    A command with its envelope.

    :param client: the index of the request that made the client; 0 for such a request itself.
    :param sequence: counts up from 1 for each client.
    :param lowest: the client still waits for this number or higher ones.
    :param at: an instant of the proposer's clock in microseconds.
    :param version: what a node must know (its ``command_version``) to apply it.
    :param command: opaque here.
    """

    client: Number
    sequence: Number
    lowest: Number
    at: Number
    version: Number
    command: bytes


class NotARequest(Exception):
    """Bytes in the log, or from a peer, that aren't a request."""


_DECODER = msgspec.msgpack.Decoder(Request)
encode_request = msgspec.msgpack.Encoder().encode


def decode_request(data: bytes) -> Request:
    """
    Read a request.

    :raises NotARequest: it is none.
    """
    try:
        return _DECODER.decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError):
        raise NotARequest("these bytes are no request") from None
