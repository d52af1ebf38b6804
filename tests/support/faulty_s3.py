"""
An S3 server that misbehaves as a test wants: a proxy on a real socket in front of a server that works.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import SSL4ServerEndpoint, TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol

_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Seen:
    """A request, as it came over the wire; headers by lower-case name."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    raw: bytes


Act = Callable[["_Near", Seen], object]


class FaultyS3:
    """
    Passes requests on until one comes that a test waits for.

    :ivar seen: all requests, in their order.
    """

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.seen: list[Seen] = []
        self._rules: list[_Rule] = []
        self._listening: Any = None
        self._near: set[_Near] = set()
        self.far: set[_Far] = set()
        self._awaited: list[tuple[re.Pattern[str], Deferred[Seen]]] = []

    async def listen(self, tls: Any = None) -> str:
        """
        Begin; the URL.

        :param tls: the options of the certificate, for HTTPS.
        """
        factory = Factory.forProtocol(lambda: _Near(self))
        if tls is None:
            endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        else:
            endpoint = SSL4ServerEndpoint(reactor, 0, tls, interface="127.0.0.1")
        self._listening = await endpoint.listen(factory)
        return f"http{'s' if tls else ''}://127.0.0.1:{self._listening.getHost().port}"

    async def close(self) -> None:
        """End, connections too."""
        for near in list(self._near):
            near.reset()
        # All first: while one is waited for another may end by itself.
        for cut in [far.cut() for far in list(self.far)]:
            await cut
        await self._listening.stopListening()

    def on(self, pattern: str, act: Act, times: int = 1) -> None:
        """
        Do something else with requests.

        :param pattern: found in ``METHOD target``.
        :param times: with how many of them.
        """
        self._rules.append(_Rule(re.compile(pattern), act, times))

    def forget_rules(self) -> None:
        """Do with all requests what the server does."""
        self._rules.clear()

    def comes(self, pattern: str) -> Deferred[Seen]:
        """Fires with the next request of this pattern."""
        awaited: Deferred[Seen] = Deferred()
        self._awaited.append((re.compile(pattern), awaited))
        return awaited

    def matching(self, pattern: str) -> list[Seen]:
        """The requests seen of this pattern."""
        return [seen for seen in self.seen if re.search(pattern, f"{seen.method} {seen.target}")]

    @property
    def open_connections(self) -> int:
        """Of clients."""
        return len(self._near)

    def take(self, near: _Near, seen: Seen) -> None:
        """For a connection: a request has come."""
        self.seen.append(seen)
        line = f"{seen.method} {seen.target}"
        rule = next((rule for rule in self._rules if rule.times > 0 and rule.pattern.search(line)), None)
        if rule is None:
            near.pass_on(seen)
        else:
            rule.times -= 1
            rule.act(near, seen)
        for pattern, awaited in list(self._awaited):
            if pattern.search(line):
                self._awaited.remove((pattern, awaited))
                awaited.callback(seen)

    def connected(self, near: _Near) -> None:
        """For a connection: it is there."""
        self._near.add(near)

    def gone(self, near: _Near) -> None:
        """For a connection: it has ended."""
        self._near.discard(near)


@dataclass
class _Rule:
    pattern: re.Pattern[str]
    act: Act
    times: int


def reply(status: int, code: str = "", more: str = "", body: bytes | None = None, **headers: str) -> Act:
    """
    Answer with an error in S3's form.

    :param more: further elements of it.
    :param body: instead.
    """
    error = f"<?xml version='1.0'?>\n<Error><Code>{code}</Code><Message>scripted</Message>{more}</Error>".encode()
    content = (error if code else b"") if body is None else body

    def act(near: _Near, seen: Seen) -> None:
        lines = [f"HTTP/1.1 {status} X"] + [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        length = len(content)
        head = "\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode()
        near.send(head if seen.method == "HEAD" else head + content)

    return act


def reset(near: _Near, seen: Seen) -> None:
    """The connection breaks."""
    near.reset()


def silence(near: _Near, seen: Seen) -> None:
    """Nothing comes."""


def lose_reply(near: _Near, seen: Seen) -> None:
    """The request is carried out, but its reply is lost."""
    near.pass_on(seen, lambda data: near.reset())


def cut_after(count: int) -> Act:
    """The reply is cut after so many bytes of its body."""

    def act(near: _Near, seen: Seen) -> None:
        def cut(data: bytes) -> None:
            near.send(data[: data.index(_HEAD_END) + len(_HEAD_END) + count])
            near.end()

        near.pass_on(seen, cut)

    return act


def stall_after(count: int) -> Act:
    """Nothing comes after so many bytes of the reply's body."""

    def act(near: _Near, seen: Seen) -> None:
        near.pass_on(seen, lambda data: near.send(data[: data.index(_HEAD_END) + len(_HEAD_END) + count]))

    return act


def changed(change: Callable[[bytes], bytes]) -> Act:
    """The reply is another."""

    def act(near: _Near, seen: Seen) -> None:
        near.pass_on(seen, lambda data: near.send(change(data)))

    return act


def asked_for(change: Callable[[bytes], bytes]) -> Act:
    """The request is passed on as another."""

    def act(near: _Near, seen: Seen) -> None:
        near.pass_on(Seen(seen.method, seen.target, seen.headers, seen.body, change(seen.raw)))

    return act


class Held:
    """Requests that are kept until they are let go."""

    def __init__(self) -> None:
        self.waiting: list[tuple[_Near, Seen]] = []

    def __call__(self, near: _Near, seen: Seen) -> None:
        self.waiting.append((near, seen))

    def let_go(self) -> None:
        """Pass on all that are kept."""
        waiting, self.waiting = self.waiting, []
        for near, seen in waiting:
            near.pass_on(seen)


class _Near(Protocol):
    """The side of the client: one request after the other."""

    transport: Any

    def __init__(self, server: FaultyS3) -> None:
        self._server = server
        self._data = bytearray()

    def connectionMade(self) -> None:
        self._server.connected(self)

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        head_size = self._data.find(_HEAD_END) + len(_HEAD_END)
        if head_size < len(_HEAD_END):
            return
        length = _LENGTH.search(self._data, 0, head_size)
        size = head_size + (int(length[1]) if length else 0)
        if len(self._data) >= size:
            raw, self._data = bytes(self._data[:size]), self._data[size:]
            self._server.take(self, _parsed(raw, head_size))

    def connectionLost(self, reason: object = None) -> None:
        self._server.gone(self)

    def pass_on(self, seen: Seen, then: Callable[[bytes], object] | None = None) -> None:
        """To the real server; its reply goes to ``then``, or back."""
        far = _Far(self._server, seen.raw, self.send if then is None else then, self.reset)
        target = TCP4ClientEndpoint(reactor, "127.0.0.1", self._server.target_port)
        connectProtocol(target, far).addErrback(lambda _: self.reset())

    def send(self, data: bytes) -> None:
        """To the client."""
        self.transport.write(data)

    def reset(self) -> None:
        """Break the connection."""
        self.transport.abortConnection()

    def end(self) -> None:
        """Close the connection when everything is out."""
        self.transport.loseConnection()


class _Far(Protocol):
    """The side of the server: one request, one reply."""

    transport: Any

    def __init__(
        self, server: FaultyS3, request: bytes, then: Callable[[bytes], object], lost: Callable[[], object]
    ) -> None:
        self._server = server
        self._cut: Deferred[None] | None = None
        line, _, rest = request.partition(b"\r\n")
        self._request = line + b"\r\nConnection: close\r\n" + rest.replace(b"Connection: keep-alive\r\n", b"", 1)
        self._then = then
        self._lost = lost
        self._reply = bytearray()

    def connectionMade(self) -> None:
        self._server.far.add(self)
        self.transport.write(self._request)

    def cut(self) -> Deferred[None]:
        """End; fires when it has ended."""
        self._cut = Deferred()
        self.transport.abortConnection()
        return self._cut

    def dataReceived(self, data: bytes) -> None:
        self._reply += data

    def connectionLost(self, reason: object = None) -> None:
        self._server.far.discard(self)
        if self._cut is not None:
            self._cut.callback(None)
            return
        if not self._reply:
            # As without the proxy: nobody is left waiting for a reply that won't come.
            self._lost()
            return
        self._then(bytes(self._reply).replace(b"\r\nConnection: close\r\n", b"\r\n", 1))


def _parsed(raw: bytes, head_size: int) -> Seen:
    line, *lines = raw[: head_size - len(_HEAD_END)].decode("latin-1").split("\r\n")
    method, target, _ = line.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Seen(method, target, headers, raw[head_size:], raw)
