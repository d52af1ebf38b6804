"""What peers answer besides bytes of blobs: headers, and small bodies."""

from __future__ import annotations

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.iweb import IResponse

from callfs.deferreds import with_timeout

_MOST_BYTES = 64 * 1024


class Unreadable(Exception):
    """The body was too long, came too late, or was cut."""


class _Refusal(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Small(Protocol):
    """Collects a body, up to a limit."""

    def __init__(self) -> None:
        self.received = 0
        self.pieces: list[bytes] = []
        self.ended: Deferred[bytes] = Deferred(self._stop)

    def _stop(self, _ended: Deferred[bytes]) -> None:
        if self.transport is not None:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        """For Twisted."""
        self.pieces.append(data)
        self.received += len(data)
        if self.received > _MOST_BYTES and self.transport is not None:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = Failure(ResponseDone())) -> None:
        """For Twisted."""
        if self.ended.called:
            return
        if reason.check(ResponseDone) and self.received <= _MOST_BYTES:
            self.ended.callback(b"".join(self.pieces))
        else:
            self.ended.errback(Unreadable(str(reason.value)))


def read_small(response: IResponse, clock: IReactorTime, seconds: float) -> Deferred[bytes]:
    """
    A short body.

    :param seconds: how long it may take.
    :raises Unreadable: as it says.
    """
    small = _Small()
    response.deliverBody(small)
    return with_timeout(small.ended, seconds, clock, lambda: Unreadable("it came too late"))


def abandon(response: IResponse, clock: IReactorTime, seconds: float) -> None:
    """
    Let go of a response whose body nobody wants. A short one is taken in, so that the connection can be kept.

    :param seconds: how long it may take; then the connection is ended.
    """
    read_small(response, clock, seconds).addErrback(_unwanted)


def _unwanted(failure: Failure) -> None:
    failure.trap(Unreadable)


def header(response: IResponse, name: str) -> str | None:
    """The last value of a header."""
    # By its name as bytes: as text, Twisted would decode the value and stumble over one that is no UTF-8.
    values: list[bytes] | None = response.headers.getRawHeaders(name.encode("ascii"))
    return values[-1].decode("latin-1") if values else None


def refusal_text(body: bytes) -> str:
    """The code and the message of an error as CallFS answers it; nothing if it isn't one."""
    try:
        refusal = msgspec.json.decode(body, type=_Refusal)
    except msgspec.MsgspecError:
        return ""
    return f"{refusal.code}: {refusal.message}"[:300]
