"""
One request from its head to its access event, whatever carries it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from types import MappingProxyType
from typing import Protocol, TypeVar
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from callfs import tracing
from callfs.errors import BadRequest, CallFSError, ServiceUnavailable
from callfs.model import INTERNAL_USER, Principal
from callfs.paths import from_url
from callfs.web.access_event import NO_INTERNAL_ROUTE, NO_ROUTE, Ended, report
from callfs.web.app import Target, found, open_before_ready
from callfs.web.context import Context, Upgraded
from callfs.web.errors import error_answer, internal_error
from callfs.web.http1 import RequestHead
from callfs.web.incoming import BodyStream
from callfs.web.messages import Request, Response
from callfs.web.outgoing import ClientGone, ResponseStream, head_of, release, send, send_at_once
from callfs.web.routes import Access

CLIENT_CLOSED_REQUEST = 499
"""What the access event says of a request whose client went away before there was an answer (as nginx has it)."""

T = TypeVar("T")

_UPGRADE_PREFIX = "/v1/files/ws/"
_UPGRADE_PATTERN = "/v1/files/ws/{path}"
REQUEST_ID_BYTES = 8
_NOBODY = Principal("")
_NO_PARAMETERS: Mapping[str, str] = MappingProxyType({})


class Carrier(ResponseStream, Protocol):
    """The connection as an exchange sees it."""

    peer_host: str
    secure: bool
    bytes_sent: int
    """Bytes of the response's body so far."""

    begun: bool
    """Whether the response's headers are out."""

    was_cut: bool
    """Whether :meth:`cut` was called, or an idle limit did as much."""

    def hand_over(self, upgraded: Upgraded) -> None:
        """Leave the connection to another protocol; :meth:`Exchange.upgrade_ended` is called when it ends."""

    def cut(self) -> None:
        """End the connection at once, so that the client can't take what it got for the whole."""

    def exchange_ended(self) -> None:
        """The exchange is over."""


class Exchange:
    """
    A request and its response.

    :param carrier: what it came on.
    :param body: filled by the carrier.
    """

    def __init__(self, context: Context, carrier: Carrier, head: RequestHead, body: BodyStream) -> None:
        self.request_id = context.token_bytes(REQUEST_ID_BYTES).hex()
        self.body = body
        self._context = context
        self._carrier = carrier
        self._head = head
        self._started_at = context.clock.seconds()
        self._route = NO_ROUTE
        self._user = ""
        self._origin: tracing.Origin | None = None
        self._status = 0
        self._gone = False
        self._cut_short = False
        self._running: Deferred[None] | None = None
        self._cancellable = False
        self._upgraded: Upgraded | None = None

    def start(self) -> None:
        """Begin; the headers are there, the body may still be on its way."""
        self._context.metrics.request_started()
        self._running = Deferred.fromCoroutine(self._run())
        self._running.addErrback(self._lost_track)

    def connection_lost(self) -> None:
        """The client went away: a route that waits for the body is told by the body, another is cancelled."""
        self._gone = True
        told = self.body.fail(BadRequest("the client went away before its request was complete"))
        if self._cancellable and self._running is not None and not told:
            self._running.cancel()

    def body_cut_short(self) -> None:
        """
        The client sends nothing more, though its body isn't complete; it may still read an answer.

        A route that wants the body finds out when it comes to it, and a route that doesn't goes on.
        """
        self._cut_short = True
        self.body.fail(BadRequest("the request ended before its body was complete"))

    async def _run(self) -> None:
        response = await self._respond()
        if self._upgraded is not None:
            return
        if response is not None:
            self._status = response.status
            whole = await self._deliver(response)
            if response.sent is not None:
                response.sent(whole)
        self._finish()

    async def _respond(self) -> Response | None:
        """The route's answer, or an error's; ``None`` when nobody is there to get it, or after an upgrade."""
        try:
            return await self._answer()
        except CallFSError as error:
            return None if self._gone else error_as_response(error)
        except CancelledError:
            return None if self._gone else self._failed()
        except Exception:
            return self._failed()

    async def _answer(self) -> Response | None:
        context, head = self._context, self._head
        if not context.ready and not open_before_ready(head.path):
            raise ServiceUnavailable("the server is starting; try again soon")
        if self._asks_for_upgrade():
            await self._upgrade()
            return None
        route = found(context.application, head.method, head.path)
        if isinstance(route, CallFSError):
            access = context.application.required_access(head.path)
            if access is Access.INTERNAL:
                self._route = NO_INTERNAL_ROUTE
            self._authenticate(head.headers.get("authorization"), access)
            raise route
        self._route = route.entry.pattern
        principal = self._authenticate(head.headers.get("authorization"), route.entry.access)
        request = self._request(principal, route.target())
        return await self._waiting_for(route.call(request))

    def _authenticate(self, authorization: str | None, access: Access) -> Principal:
        if access is Access.PUBLIC:
            return _NOBODY
        principal = self._context.authenticate(authorization, access)
        self._user = principal.user
        return principal

    def _asks_for_upgrade(self) -> bool:
        head = self._head
        return (
            self._context.upgrade is not None
            and head.method == "GET"
            and head.body_length == 0
            and head.path.startswith(_UPGRADE_PREFIX)
            and head.upgrades_to("websocket")
        )

    async def _upgrade(self) -> None:
        upgrade = self._context.upgrade
        assert upgrade is not None
        self._route = _UPGRADE_PATTERN
        principal = self._authenticate(upgrade.authorization(self._head.headers), Access.USER)
        path, directory_expected = from_url(self._head.path[len(_UPGRADE_PREFIX) :].encode("latin-1"))
        request = self._request(principal, Target(path, directory_expected, {}))
        upgraded = await self._waiting_for(upgrade.upgrade(request))
        if self._gone:
            raise CancelledError
        self._upgraded = upgraded
        self._status = 101
        self._carrier.hand_over(upgraded)

    def _request(self, principal: Principal, target: Target) -> Request:
        head, carrier = self._head, self._carrier
        self._trace(principal)
        return Request(
            method=head.method,
            path=target.path,
            directory_expected=target.directory_expected,
            captured=target.captured,
            principal=principal,
            request_id=self.request_id,
            client_address=self._client_address(),
            secure=carrier.secure,
            host=head.host,
            headers=head.headers,
            parameters=query_parameters(head.query) if head.query else _NO_PARAMETERS,
            body=self.body,
        )

    def _trace(self, principal: Principal) -> None:
        """What this request sets going is done for its user, or for the one that a peer asks for."""
        if principal.user == INTERNAL_USER:
            self._origin = tracing.from_headers(self._head.headers)
        tracing.enter(self._origin or tracing.Origin(self.request_id, principal.user))

    def _client_address(self) -> str:
        return self._context.settings.trusted_proxies.client_address(self._carrier.peer_host, self._head.headers)

    async def _waiting_for(self, work: Awaitable[T]) -> T:
        """Wait for what a client that goes away cancels."""
        self._cancellable = True
        try:
            return await work
        finally:
            self._cancellable = False

    async def _deliver(self, response: Response) -> bool:
        """Send the response; whether all of it reached the transport."""
        try:
            if self._gone:
                return False
            head = head_of(response, self.request_id, self._head.method)
            if not send_at_once(self._carrier, head):
                await self._waiting_for(send(self._carrier, head))
            return not self._gone
        except (CancelledError, ClientGone):
            self._carrier.cut()
            return False
        except Exception as error:
            self._not_delivered(error)
            return False
        finally:
            await self._release(response)

    def _not_delivered(self, error: Exception) -> None:
        """The source of a response failed: another answer if nothing is out yet, else the connection is cut."""
        if self._gone:
            return
        if not isinstance(error, CallFSError):
            self._log_failure()
        if self._carrier.begun:
            self._carrier.cut()
            return
        response = error_as_response(error if isinstance(error, CallFSError) else internal_error())
        self._status = response.status
        send_at_once(self._carrier, head_of(response, self.request_id, self._head.method))

    async def _release(self, response: Response) -> None:
        if isinstance(response.body, bytes):
            return
        try:
            await release(response)
        except Exception:
            self._log_failure()

    def _failed(self) -> Response:
        self._log_failure()
        return error_as_response(internal_error())

    def _log_failure(self) -> None:
        self._context.log.failure("request {request_id} failed", request_id=self.request_id)

    def _lost_track(self, failure: Failure) -> None:
        """A fault in this module: nothing may stay open because of it."""
        self._context.log.failure("request {request_id} failed", failure, request_id=self.request_id)
        self._carrier.cut()

    def upgrade_ended(self) -> None:
        """The connection that was handed over has ended."""
        self._gone = False
        self._finish()

    def _finish(self) -> None:
        if not self._status:
            self._status = CLIENT_CLOSED_REQUEST
        received, sent = self.body.bytes_received, self._carrier.bytes_sent
        if self._upgraded is not None:
            received, sent = self._upgraded.traffic()
        ended = Ended(
            method=self._head.method,
            route=self._route,
            status=self._status,
            bytes_in=received,
            bytes_out=sent,
            duration_seconds=self._context.clock.seconds() - self._started_at,
            request_id=self.request_id,
            user=self._user,
            client_address=self._client_address(),
            aborted=self._gone or self._cut_short or self._carrier.was_cut,
            origin=self._origin,
        )
        report(self._context, ended)
        self._carrier.exchange_ended()


def error_as_response(error: CallFSError) -> Response:
    """An error as the response that a client gets."""
    answer = error_answer(error)
    return Response(status=answer.status, headers=answer.headers, body=answer.body)


def query_parameters(query: str) -> dict[str, str]:
    """
    Decode a query, once; the last value where a name came more than once.

    :param query: as it stands in the request target, its bytes read as Latin-1.
    :raises callfs.errors.BadRequest: it is no UTF-8.
    """
    parameters = {}
    try:
        for field in query.split("&"):
            name, _, value = field.partition("=")
            if name:
                parameters[_decoded(name)] = _decoded(value)
    except UnicodeDecodeError:
        raise BadRequest("the query isn't valid UTF-8") from None
    return parameters


def _decoded(text: str) -> str:
    return unquote_to_bytes(text.replace("+", " ").encode("latin-1")).decode("utf-8")
