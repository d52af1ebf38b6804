"""
When a descriptor beside Twisted's transports can be written to or read from.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor, IWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(IReadDescriptor, IWriteDescriptor)
class _Readiness:
    """Fires once, and is then nothing to the reactor any more."""

    def __init__(self, descriptor: int, leave: Callable[[_Readiness], None]) -> None:
        self._descriptor = descriptor
        self._leave = leave
        self.fired: Deferred[None] = Deferred(lambda _: leave(self))

    def fileno(self) -> int:
        """For the reactor."""
        return self._descriptor

    def logPrefix(self) -> str:
        """For the reactor."""
        return "readiness"

    def doRead(self) -> None:
        """The descriptor is readable."""
        self._ready()

    def doWrite(self) -> None:
        """The descriptor is writable."""
        self._ready()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor gave the descriptor up: whoever uses it next is told why."""
        self._ready()

    def _ready(self) -> None:
        self._leave(self)
        if not self.fired.called:
            self.fired.callback(None)


def writable(reactor: IReactorFDSet, descriptor: int) -> Deferred[None]:
    """
    Fires when a descriptor can be written to, or can't ever be again; the next attempt tells.

    :param descriptor: not closed before this has fired or was cancelled.
    """
    readiness = _Readiness(descriptor, reactor.removeWriter)
    reactor.addWriter(readiness)
    return readiness.fired


def readable(reactor: IReactorFDSet, descriptor: int) -> Deferred[None]:
    """
    Fires when a descriptor has something to read, or its end; the next attempt tells.

    :param descriptor: not closed before this has fired or was cancelled.
    """
    readiness = _Readiness(descriptor, reactor.removeReader)
    reactor.addReader(readiness)
    return readiness.fired
