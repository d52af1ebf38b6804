"""
Whether a transport has room, for one who writes in a straight line.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer


@implementer(IPushProducer)
class Outflow:
    """
    Registered with a transport as its streaming producer, it keeps what the transport says about its buffer.

    :param filled: called when the buffer is full.
    :param emptied: called when it is empty again, before those who wait.
    """

    def __init__(self, filled: Callable[[], None], emptied: Callable[[], None]) -> None:
        self.is_full = False
        self._filled = filled
        self._emptied = emptied
        self._waiting: list[Deferred[None]] = []
        self._closed = False

    def room(self) -> Deferred[None] | None:
        """Fires when there is room, or never will be because the connection is gone; ``None`` when there is."""
        if not self.is_full or self._closed:
            return None
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        return waiting

    def close(self) -> None:
        """The connection is gone: nobody is kept waiting."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            if not deferred.called:
                deferred.callback(None)

    # For the transport.

    def pauseProducing(self) -> None:
        """The buffer is full."""
        if not self.is_full:
            self.is_full = True
            self._filled()

    def resumeProducing(self) -> None:
        """The buffer is empty."""
        if self.is_full:
            self.is_full = False
            self._emptied()
            self._wake()

    def stopProducing(self) -> None:
        """The connection is lost; whoever writes is told so otherwise."""
