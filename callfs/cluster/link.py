"""The way to one peer: a connection that is made again and again, and what waits for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IDelayedCall, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from callfs.cluster.certified import CertifiedNames
from callfs.cluster.connections import Dropped, OutgoingConnection, PeerConnection
from callfs.cluster.frames import MAX_FRAME_BYTES
from callfs.cluster.handshake import Dialer, HandshakeRefused
from callfs.cluster.identity import PeerIdentity
from callfs.cluster.outbox import Outbox
from callfs.cluster.wire import Answer, Declined, Message, Question

_ENVELOPE_BYTES = 64
MAX_PAYLOAD_BYTES = MAX_FRAME_BYTES - _ENVELOPE_BYTES
"""What a message or a question may carry."""


class Unsent(Exception):
    """The question certainly didn't reach the peer."""


class Unanswered(Exception):
    """The question may have reached the peer; no answer came."""


class DeclinedByPeer(Exception):
    """
    The peer got the question and declined.

    :param reason: a code; for all but ``failed`` it changed nothing.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"the peer declined: {reason}")
        self.reason = reason


class LinkObserver(Protocol):
    """Who is told what becomes of connections and messages."""

    def peer_connected(self, node_id: str, connected: bool) -> None:
        """The way to a peer is open, or isn't any more."""

    def peer_message_lost(self, node_id: str) -> None:
        """A message to a peer was thrown away."""

    def peer_refused(self, reason: str) -> None:
        """A connection was refused or dropped, by either side."""


@dataclass(frozen=True, kw_only=True)
class LinkTiming:
    """
    How long things may take.

    :param connect_seconds: for making a connection.
    :param idle_seconds: for a peer's silence, and for a handshake.
    :param shortest_retry_seconds: before the first attempt after a lost connection; doubled with each attempt.
    :param longest_retry_seconds: the most between two attempts.
    """

    connect_seconds: float = 2.0
    idle_seconds: float = 4.0
    shortest_retry_seconds: float = 0.05
    longest_retry_seconds: float = 1.0


class _Dialling(Factory):
    noisy = False

    def __init__(self, make: Callable[[], OutgoingConnection]) -> None:
        self._make = make

    def buildProtocol(self, _address: Any) -> OutgoingConnection:
        return self._make()


class PeerLink:
    """
    Dials one peer for as long as it runs.

    :param node_id: the peer; empty for whoever is there.
    :param endpoint: where it is.
    :param handshake: makes a handshake for a new connection.
    :param random: from 0 to 1, so that nodes that lost each other don't dial in step.
    :param opened: called with who is there whenever a connection is proven.
    :param failed: called with why an attempt came to nothing, or a connection ended.
    :param is_probe: only to see who is there: whether it is connected is of no interest.
    """

    _log = Logger()

    def __init__(
        self,
        node_id: str,
        endpoint: IStreamClientEndpoint,
        *,
        clock: IReactorTime,
        timing: LinkTiming,
        handshake: Callable[[PeerConnection], Dialer],
        random: Callable[[], float],
        observer: LinkObserver,
        opened: Callable[[PeerIdentity], None],
        failed: Callable[[Exception], None] = lambda _: None,
        is_probe: bool = False,
    ) -> None:
        self.node_id = node_id
        self._is_probe = is_probe
        self._endpoint = endpoint
        self._clock = clock
        self._timing = timing
        self._handshake = handshake
        self._random = random
        self._observer = observer
        self._opened = opened
        self._failed = failed
        self._outbox = Outbox()
        self._questions: dict[int, Deferred[bytes]] = {}
        self._number = 0
        self._open: OutgoingConnection | None = None
        self._latest: OutgoingConnection | None = None
        self._writable = False
        self._attempt: Deferred[Any] | None = None
        self._retry: IDelayedCall | None = None
        self._failures = 0
        self._stopped: Deferred[None] | None = None
        self._last_error = ""

    @property
    def peer(self) -> PeerIdentity | None:
        """Who is there, while there is a proven connection."""
        return None if self._open is None else self._open.peer

    def certified(self) -> CertifiedNames:
        """Whom the certificate of who is there names; only with TLS, and while there is a proven connection."""
        assert self._open is not None
        return self._open.certified()

    def start(self) -> None:
        """Begin to dial."""
        self._dial()

    def stop(self) -> Deferred[None]:
        """Hang up; fires when the connection is gone."""
        if self._stopped is None:
            self._stopped = Deferred()
            if self._retry is not None and self._retry.active():
                self._retry.cancel()
            if self._latest is not None:
                self._latest.drop(Dropped("stopped"))
            elif self._attempt is not None:
                self._attempt.cancel()
            self._finish_stop()
        return self._stopped

    def renew(self) -> None:
        """Make the connection anew, because what the handshake said isn't true any more."""
        if self._latest is not None:
            self._latest.drop(Dropped("replaced"))

    def send(self, payload: bytes) -> bool:
        """Send a message, or lose it; false when it is certainly lost."""
        if self._open is None or len(payload) > MAX_PAYLOAD_BYTES or not self._put(Message(payload)):
            self._observer.peer_message_lost(self.node_id)
            return False
        return True

    def ask(self, payload: bytes, seconds: float) -> Deferred[bytes]:
        """
        Ask the peer.

        :param seconds: how long to wait for the answer.
        :return: the answer. Cancelled, the answer is thrown away when it comes.
        :raises Unsent: it certainly didn't get there.
        :raises Unanswered: it may have.
        :raises DeclinedByPeer: it did, and the peer says no.
        """
        self._number += 1
        number = self._number
        answer: Deferred[bytes] = Deferred(lambda _: self._forget(number))
        if self._open is None or len(payload) > MAX_PAYLOAD_BYTES or not self._put(Question(number, payload)):
            answer.errback(Unsent("there is no way to the peer just now"))
            return answer
        self._questions[number] = answer
        timer = self._clock.callLater(seconds, self._too_late, number)

        def ended(result: bytes | Failure) -> bytes | Failure:
            if timer.active():
                timer.cancel()
            return result

        return answer.addBoth(ended)

    def _put(self, frame: Message | Question) -> bool:
        if self._writable and not self._outbox and self._open is not None:
            self._open.send(frame)
            return True
        return self._outbox.put(frame)

    def _forget(self, number: int) -> None:
        self._questions.pop(number, None)
        self._outbox.withdraw(number)

    def _too_late(self, number: int) -> None:
        answer = self._questions.pop(number, None)
        if answer is not None:
            withdrawn = self._outbox.withdraw(number)
            answer.errback(Unsent("the peer is too slow") if withdrawn else Unanswered("no answer in time"))

    # The connection

    def _dial(self) -> None:
        self._retry = None
        attempt = self._attempt = self._endpoint.connect(_Dialling(self._connection))
        attempt.addCallbacks(self._made, self._not_connected)

    def _made(self, _connection: object) -> None:
        self._attempt = None
        if self._stopped is not None and self._latest is not None:
            self._latest.drop(Dropped("stopped"))

    def _connection(self) -> OutgoingConnection:
        connection = self._latest = OutgoingConnection(
            self._clock,
            self._timing.idle_seconds,
            handshake=self._handshake,
            opened=self._connected,
            answered=self._answered,
            writable=self._set_writable,
            lost=self._disconnected,
        )
        return connection

    def _not_connected(self, failure: Failure) -> None:
        self._attempt = None
        error = failure.value if isinstance(failure.value, Exception) else ConnectError()
        if self._stopped is None:
            self._failed(error)
        self._again(error)

    def _connected(self, connection: OutgoingConnection) -> None:
        assert connection.peer is not None
        self._open = connection
        self._failures = 0
        self._last_error = ""
        self._tell(True)
        self._set_writable(True)
        self._opened(connection.peer)

    def _tell(self, connected: bool) -> None:
        if not self._is_probe:
            self._observer.peer_connected(self.node_id, connected)

    def _set_writable(self, writable: bool) -> None:
        self._writable = writable and self._open is not None
        while self._writable and self._open is not None:
            frame = self._outbox.take()
            if frame is None:
                return
            self._open.send(frame)

    def _answered(self, frame: Answer | Declined) -> None:
        answer = self._questions.pop(frame.number, None)
        if answer is None:
            return
        if isinstance(frame, Answer):
            answer.callback(frame.payload)
        else:
            answer.errback(DeclinedByPeer(frame.reason))

    def _disconnected(self, connection: OutgoingConnection, reason: Exception) -> None:
        if connection is not self._latest:
            return  # an address may have several ways, of which the first that is open is used
        self._latest = None
        if self._open is connection:
            self._open = None
            self._writable = False
            self._tell(False)
        unsent = set(self._outbox.clear())
        questions, self._questions = self._questions, {}
        for number, answer in questions.items():
            answer.errback(Unsent("the way broke") if number in unsent else Unanswered("the way broke"))
        if isinstance(reason, Dropped | HandshakeRefused) and reason.reason not in ("stopped", "replaced"):
            self._observer.peer_refused(reason.reason)
        self._failed(reason)
        self._again(reason, self._is_in_order(connection, reason))

    def _is_in_order(self, connection: OutgoingConnection, reason: Exception) -> bool:
        """
        A node that begins to belong to a cluster makes its connections anew, those that are just being made, too.
        That is nothing to speak of, unless the next attempt fails.
        """
        if isinstance(reason, Dropped | HandshakeRefused):
            return reason.reason == "replaced"
        if connection.peer is None:
            return self._failures == 0
        return not connection.peer.cluster_id

    def _again(self, reason: Exception, is_in_order: bool = False) -> None:
        if self._stopped is not None:
            self._finish_stop()
            return
        if not is_in_order and str(reason) != self._last_error and not self._is_probe:
            self._last_error = str(reason)
            self._log.info(
                "no raft connection to {node}: {reason}",
                event="raft_peer_lost",
                node=self.node_id,
                reason=str(reason),
            )
        self._retry = self._clock.callLater(self._pause_seconds(), self._dial)

    def _pause_seconds(self) -> float:
        """Half of it fixed, half of it chance, so that peers that lost each other together don't dial in step."""
        timing = self._timing
        longest = min(timing.shortest_retry_seconds * 2.0 ** min(self._failures, 30), timing.longest_retry_seconds)
        self._failures += 1
        return longest * (0.5 + self._random() / 2)

    def _finish_stop(self) -> None:
        if (
            self._stopped is not None
            and not self._stopped.called
            and self._latest is None
            and self._attempt is None
        ):
            self._stopped.callback(None)
