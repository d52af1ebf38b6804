"""
Connections to one Redis server, kept open and made again, and scripts on them.

The connections are txredisapi's protocol; the pool isn't, because txredisapi's gives up for good when a server
refuses a password once, waits without a limit for a free connection, and keeps one request on a connection at a
time. Here requests share connections: Redis answers in order, and the next request doesn't wait for the reply to
the last.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Protocol

from twisted.application.internet import ClientService
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from callfs.deferreds import returns_deferred
from callfs.redis_connection import Argument, Connection, Connections, endpoint_for, retry_seconds
from callfs.redis_errors import NotAsked, Refused, Unanswered

_PASSING_SECONDS = 0.05
_AGAIN_SECONDS = 0.01


class PoolObserver(Protocol):
    """Who is told what happens; called on the reactor's thread."""

    def error(self, component: str, error_type: str) -> None:
        """Something went wrong that its operator should know."""


@dataclass(frozen=True)
class Script:
    """
    A Lua script.

    :param body: its text.
    :ivar digest: what ``EVALSHA`` calls it.
    """

    body: str
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.body.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "digest", digest)


class RedisPool:
    """
    :param address: see :func:`endpoint_for`.
    :param clock: measures time; the reactor when ``None``.
    :param size: how many connections.
    :param op_timeout_seconds: a connection that is silent for longer is given up.
    :param password: for ``AUTH``.
    :param db: the number for ``SELECT``.
    :param component: how faults are called towards the observer.
    """

    _log = Logger()

    def __init__(
        self,
        address: str,
        *,
        reactor: Any,
        clock: IReactorTime | None,
        size: int,
        op_timeout_seconds: float,
        password: str | None,
        db: int,
        component: str,
        observer: PoolObserver | None,
    ) -> None:
        self.clock = IReactorTime(reactor) if clock is None else clock
        self.op_timeout_seconds = op_timeout_seconds
        self.component = component
        self._server = f"the Redis server at {address}"
        self._password = password
        self._db = db
        self._observer = observer
        self._ready: list[Connection] = []
        self._waiters: list[Deferred[None]] = []
        self._all: set[Connection] = set()
        self._rejections = 0
        self._refusal: Refused | None = None
        self._complaint = ""
        endpoint = endpoint_for(address, reactor, op_timeout_seconds)
        factory = Connections(self.clock, self._made, self._lost)
        self._services = [
            ClientService(endpoint, factory, retryPolicy=self._retry_seconds, clock=reactor) for _ in range(size)
        ]

    @property
    def refusal(self) -> Refused | None:
        """Why the server refused the last connection, as long as none is open."""
        return self._refusal

    @property
    def is_connected(self) -> bool:
        """Whether a connection is open."""
        return bool(self._ready)

    def start(self) -> None:
        """Begin to connect."""
        for service in self._services:
            service.startService()

    @returns_deferred
    async def stop(self) -> None:
        """Close all connections; whoever waits is told that nothing was asked."""
        self._tell_waiters(NotAsked("the pool is closed"))
        stopped = [service.stopService() for service in self._services]
        for connection in self._all:
            # A silent server wouldn't take what is left to be written.
            connection.transport.abortConnection()
        await DeferredList(stopped)

    def deadline(self) -> float:
        """When a request that begins now has to be over, in seconds of the clock."""
        return self.clock.seconds() + self.op_timeout_seconds

    async def ask(self, *request: Argument, deadline: float) -> Any:
        """
        Send one request when there is a connection.

        :param deadline: on the clock.
        :raises callfs.redis_errors.RedisFault: as it says.
        """
        connection = await self._connection(deadline)
        try:
            return await connection.ask(request, deadline - self.clock.seconds())
        except Unanswered:
            if connection.silent_seconds() >= self.op_timeout_seconds * 0.9 and connection in self._ready:
                self._complain("silent", f"a connection to {self._server} is given up: no reply came in time")
                connection.transport.abortConnection()
            raise
        except Refused as refusal:
            if refusal.is_elsewhere:
                connection.transport.loseConnection()
            raise

    async def run(self, script: Script, keys: tuple[str, ...], *arguments: Argument, deadline: float) -> Any:
        """
        Run a script, which the server keeps from the first time on; wait while the server is loading or busy.

        :raises callfs.redis_errors.RedisFault: as it says.
        """
        request = ("EVALSHA", script.digest, len(keys), *keys, *arguments)
        while True:
            try:
                return await self.ask(*request, deadline=deadline)
            except Refused as refusal:
                if refusal.code == "NOSCRIPT":
                    await self.ask("SCRIPT", "LOAD", script.body, deadline=deadline)
                elif not refusal.is_passing or self.clock.seconds() + _PASSING_SECONDS >= deadline:
                    raise
                else:
                    await self.pause(_PASSING_SECONDS)

    async def run_again(self, script: Script, keys: tuple[str, ...], *arguments: Argument, deadline: float) -> Any:
        """
        Run a script that may run any number of times: again when the connection broke.

        :raises callfs.redis_errors.RedisFault: as it says.
        """
        while True:
            try:
                return await self.run(script, keys, *arguments, deadline=deadline)
            except Unanswered:
                if self.clock.seconds() + _AGAIN_SECONDS >= deadline:
                    raise
                await self.pause(_AGAIN_SECONDS)

    def pause(self, seconds: float) -> Deferred[None]:
        """Fires after a while."""
        pause: Deferred[None] = Deferred(lambda _: timer.cancel())
        timer = self.clock.callLater(seconds, lambda: pause.callback(None))
        return pause

    async def _connection(self, deadline: float) -> Connection:
        while not self._ready:
            await self._some_connection(deadline)
        return min(self._ready, key=lambda connection: connection.waiting)

    def _some_connection(self, deadline: float) -> Deferred[None]:
        waiter: Deferred[None] = Deferred()
        self._waiters.append(waiter)

        def give_up() -> None:
            waiter.errback(NotAsked("no connection in time") if self._refusal is None else self._refusal)

        timer = self.clock.callLater(max(deadline - self.clock.seconds(), 0.0), give_up)

        def over(result: Failure | None) -> Failure | None:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            if timer.active():
                timer.cancel()
            return result

        return waiter.addBoth(over)

    def _made(self, connection: Connection) -> None:
        self._all.add(connection)
        Deferred.fromCoroutine(self._prepare(connection))

    async def _prepare(self, connection: Connection) -> None:
        """
        Make a new connection ready, or end it.

        Not by ``prepareConnection`` of ``ClientService``, which breaks when it is stopped in the meantime.
        """
        try:
            if self._password is not None:
                await connection.ask(("AUTH", self._password), self.op_timeout_seconds)
            if self._db:
                await connection.ask(("SELECT", self._db), self.op_timeout_seconds)
            await self._greet(connection)
        except (Refused, Unanswered) as fault:
            self._rejected(fault)
            connection.transport.abortConnection()
            return
        if connection in self._all:
            self._rejections, self._refusal, self._complaint = 0, None, ""
            self._ready.append(connection)
            self._tell_waiters(None)

    def _retry_seconds(self, attempt: int) -> float:
        """``ClientService`` forgets failed attempts with a connection, which may then be of no use."""
        if attempt > 1 and not self._all:
            self._complain("unreachable", f"no connection to {self._server} can be made; trying again")
        return retry_seconds(max(attempt, self._rejections))

    async def _greet(self, connection: Connection) -> None:
        """A server that wants a password says so only when it is asked something; one that loads is fine."""
        try:
            await connection.ask(("PING",), self.op_timeout_seconds)
        except Refused as refusal:
            if not refusal.is_passing and refusal.code != "MISCONF":
                raise

    def _rejected(self, fault: Refused | Unanswered) -> None:
        """A new connection can't be used; a refusal is no matter of waiting, so whoever waits is told."""
        self._rejections += 1
        self._refusal = fault if isinstance(fault, Refused) else None
        text = str(fault) if not self._password else str(fault).replace(self._password, "***")
        kind = fault.code if isinstance(fault, Refused) else "silent"
        self._complain(kind, f"{self._server} doesn't take a connection: {text}")
        if isinstance(fault, Refused) and not self._ready:
            self._tell_waiters(fault)

    def _lost(self, connection: Connection) -> None:
        self._all.discard(connection)
        if connection in self._ready:
            self._ready.remove(connection)
            if not self._ready and self._services[0].running:
                self._complain("disconnected", f"all connections to {self._server} are lost; connecting again")

    def _tell_waiters(self, outcome: Exception | None) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.called:
                waiter.callback(None if outcome is None else Failure(outcome))

    def _complain(self, kind: str, sentence: str) -> None:
        """Tell the operator, once for the same cause."""
        if self._observer is not None:
            self._observer.error(self.component, kind)
        if sentence != self._complaint:
            self._complaint = sentence
            self._log.error("{sentence}", sentence=sentence, event="redis_unavailable", component=self.component)
