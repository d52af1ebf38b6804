"""
The answer to a connection over the limit.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.python.failure import Failure

from callfs.errors import ServiceUnavailable
from callfs.web.context import Context
from callfs.web.exchange import REQUEST_ID_BYTES, error_as_response
from callfs.web.outgoing import head_of, send_at_once
from callfs.web.timers import IdleTimer
from callfs.web.writing import WritingHalf

MAX_REFUSED = 64
"""How many connections at once get an answer to their refusal; more are closed without a word."""


class RefusedConnection(WritingHalf):
    """Answers 503 at once, without looking at the request, and ends."""

    def __init__(self, context: Context, ended: Callable[[RefusedConnection], object]) -> None:
        super().__init__(context)
        self._ended = ended
        self._linger_timer = IdleTimer(context.clock, self.close_when_sent)

    def connectionMade(self) -> None:
        """For Twisted."""
        super().connectionMade()
        error = ServiceUnavailable("the server has too many connections; try again soon", retry_after_seconds=5)
        request_id = self._context.token_bytes(REQUEST_ID_BYTES).hex()
        send_at_once(self, head_of(error_as_response(error), request_id, "GET"))
        self.half_close()
        self._linger_timer.start(self._context.settings.linger_seconds)

    def must_close(self) -> bool:
        """There is but this one response."""
        return True

    def dataReceived(self, data: bytes) -> None:
        """For Twisted: thrown away, so that closing doesn't reset the connection under the answer."""

    def connectionLost(self, reason: Failure | None = None) -> None:
        """For Twisted."""
        super().connectionLost(reason)
        self._linger_timer.close()
        self._ended(self)
