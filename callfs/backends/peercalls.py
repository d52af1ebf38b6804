"""
Calls to one other node: made when its breaker allows, counted, and taken for an answer only if it is this node's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger, LogLevel
from twisted.web.iweb import IBodyProducer, IResponse

from callfs.backends.breaker import Breaker, BreakerState
from callfs.backends.interfaces import BlobMissing
from callfs.backends.peeranswers import Unreadable, abandon, header, read_small, refusal_text
from callfs.backends.peerclient import PeerClient
from callfs.backends.peerfaults import Fault, explain, was_cancelled
from callfs.backends.peermetrics import PeerObserver
from callfs.errors import InsufficientStorage, PeerUnavailable

INSTANCE_HEADER = "X-CallFS-Instance-ID"

_GOOD = frozenset((200, 201, 204, 206))
_PASSING = frozenset((502, 503, 504))
"""A node that still starts answers so, and so does a proxy whose node is down: neither says which node it is."""

_COMPLAINT_SECONDS = 30.0


class BlobExists(Exception):
    """The peer has a blob of this id, with other content."""


@dataclass(frozen=True, kw_only=True)
class PeerContext:
    """
    What the calls to all peers share.

    :param clock: for time limits; never goes back.
    :param chance: a random number from 0 to 1.
    :param timeout_seconds: how long a peer may keep silent where it is its turn.
    """

    client: PeerClient
    clock: IReactorTime
    chance: Callable[[], float]
    observer: PeerObserver
    timeout_seconds: float


class _Limit:
    """Cancels a request that isn't answered in time."""

    def __init__(self, clock: IReactorTime, seconds: float, answer: Deferred[IResponse]) -> None:
        self.expired = False
        self._answer = answer
        self._call = clock.callLater(seconds, self._expire)

    def _expire(self) -> None:
        self.expired = True
        self._answer.cancel()

    def stop(self) -> None:
        """There is an answer."""
        if self._call.active():
            self._call.cancel()


class PeerCalls:
    """
    One node at one endpoint.

    :param instance_id: the node that has to answer.
    :param endpoint: base URL of its API, without a slash at its end.
    :param failed: called when the node couldn't be reached there, or another one was.
    :param answered: called when something was reached there.
    """

    _log = Logger()

    def __init__(
        self,
        context: PeerContext,
        instance_id: str,
        endpoint: str,
        breaker: Breaker,
        *,
        failed: Callable[[], None],
        answered: Callable[[], None],
    ) -> None:
        self.instance_id = instance_id
        self.endpoint = endpoint
        self.context = context
        self._breaker = breaker
        self._failed = failed
        self._reached = answered
        self._complained: dict[str, float] = {}
        context.observer.peer_breaker(instance_id, breaker.state)

    def check_spared(self) -> None:
        """
        Whether the node is to be left alone for now.

        :raises PeerUnavailable: it failed repeatedly, and the time to try it again hasn't come.
        """
        now = self.context.clock.seconds()
        if self._breaker.refuses(now):
            self.context.observer.peer_failure(self.instance_id, "spared")
            raise PeerUnavailable(
                f"the node {self.instance_id} doesn't answer; it is tried again soon",
                max(1.0, self._breaker.wait_seconds(now)),
            )

    async def ask(
        self,
        operation: str,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: IBodyProducer | None = None,
    ) -> IResponse:
        """
        Make a request.

        :param operation: what metrics call it.
        :param path: of the URL, with its first slash, encoded.
        :param body: the caller sees to it that it ends, or cancels: the time limit is only for requests without.
        :return: a response of that node, a good one, whose body hasn't been read.
        :raises PeerUnavailable: no answer in time, none at all, or one that can't be used.
        :raises BlobMissing: 404.
        :raises BlobExists: 409.
        :raises callfs.errors.InsufficientStorage: 507.
        """
        response = await self._request(operation, method, path, headers or {}, body)
        await self._check_identity(response)
        if response.code in _GOOD:
            return response
        raise self._refused(response.code, path, await self._text(response))

    async def _request(
        self, operation: str, method: str, path: str, headers: Mapping[str, str], body: IBodyProducer | None
    ) -> IResponse:
        context = self.context
        self.check_spared()
        self._breaker.admits(context.clock.seconds())
        self._show_breaker()
        context.observer.peer_request(self.instance_id, operation)
        sent = {**headers, INSTANCE_HEADER: self.instance_id}
        try:
            answer = context.client.request(method, self.endpoint + path, sent, body)
        except ValueError as error:
            raise self.failure(Fault("connection", "its endpoint isn't a URL")) from error
        limit = None if body is not None else _Limit(context.clock, context.timeout_seconds, answer)
        try:
            response = await answer
        except Exception as error:
            if limit is not None and limit.expired:
                raise self.failure(Fault("timeout", "no answer in time")) from error
            if was_cancelled(error):
                self._breaker.given_up(context.clock.seconds())
                self._show_breaker()
                raise CancelledError from error
            raise self.failure(explain(error)) from error
        finally:
            if limit is not None:
                limit.stop()
        self._answered()
        return response

    def abandon(self, response: IResponse) -> None:
        """Let go of a response whose body nobody wants."""
        abandon(response, self.context.clock, self.context.timeout_seconds)

    def failure(self, fault: Fault) -> PeerUnavailable:
        """Something went wrong on the way to the node: count it; what the caller is told."""
        context = self.context
        context.observer.peer_failure(self.instance_id, fault.reason)
        self._breaker.failed(context.clock.seconds(), context.chance())
        self._show_breaker()
        self._failed()
        self._complain(
            LogLevel.warn,
            "peer_failed",
            "the node {instance_id} can't be reached at {endpoint}: {reason}",
            reason=fault.text,
        )
        told = f"the node {self.instance_id} can't be reached"
        return PeerUnavailable(f"{told}: {fault.text}" if fault.reason == "tls" else told)

    def unusable(self, text: str, level: Any = LogLevel.error) -> PeerUnavailable:
        """The node answered, but nothing that makes sense: what the caller is told."""
        self.context.observer.peer_failure(self.instance_id, "answer")
        self._complain(
            level,
            "peer_answer_unusable",
            "the answer of the node {instance_id} at {endpoint} can't be used: {reason}",
            reason=text,
        )
        return PeerUnavailable(f"the node {self.instance_id} can't serve this just now")

    def _answered(self) -> None:
        if self._breaker.state is not BreakerState.CLOSED:
            self._log.info("the node {instance_id} answers again", event="peer_back", instance_id=self.instance_id)
        self._breaker.succeeded()
        self._reached()
        self._complained.pop("peer_failed", None)
        self._show_breaker()

    def _show_breaker(self) -> None:
        self.context.observer.peer_breaker(self.instance_id, self._breaker.state)

    async def _check_identity(self, response: IResponse) -> None:
        """
        :raises PeerUnavailable: the secret was refused, or it isn't the node that it should be.
        """
        if response.code == 401:
            self.abandon(response)
            raise self._misconfigured(
                "credentials",
                "peer_refuses_secret",
                "the node {instance_id} at {endpoint} refuses the internal secret: make"
                " auth.internal_proxy_secret the same on all nodes",
            )
        found = header(response, INSTANCE_HEADER)
        if found == self.instance_id:
            return
        if found is not None:
            self.abandon(response)
            raise self._misconfigured(
                "identity",
                "peer_is_another",
                "{endpoint} is the node {found}, not {instance_id}: correct instance_discovery.peer_endpoints here,"
                " or server.external_url and instance_discovery.instance_id there",
                found=found[:64],
            )
        text = await self._text(response)
        if response.code in _PASSING:
            raise self.unusable(f"status {response.code} {text}".rstrip(), LogLevel.warn)
        raise self.unusable(f"status {response.code}, and it doesn't say which node it comes from {text}".rstrip())

    async def _text(self, response: IResponse) -> str:
        try:
            body = await read_small(response, self.context.clock, self.context.timeout_seconds)
        except Unreadable:
            return ""
        return refusal_text(body)

    def _misconfigured(self, reason: str, event: str, text: str, **fields: str) -> PeerUnavailable:
        self.context.observer.peer_failure(self.instance_id, reason)
        self._failed()
        self._complain(LogLevel.critical, event, text, **fields)
        return PeerUnavailable(f"the node {self.instance_id} can't be reached")

    def _refused(self, status: int, path: str, text: str) -> Exception:
        if status == 404:
            return BlobMissing(path.rpartition("/")[2])
        if status == 409:
            return BlobExists(path.rpartition("/")[2])
        if status == 507:
            self.context.observer.peer_failure(self.instance_id, "storage")
            return InsufficientStorage(f"the disk of the node {self.instance_id} is full")
        return self.unusable(f"status {status} {text}")

    def _complain(self, level: Any, event: str, text: str, **fields: str) -> None:
        """Log, but the same of the same node not again and again."""
        now = self.context.clock.seconds()
        last = self._complained.get(event)
        if last is None or now - last >= _COMPLAINT_SECONDS:
            self._complained[event] = now
            self._log.emit(level, text, event=event, instance_id=self.instance_id, endpoint=self.endpoint, **fields)
