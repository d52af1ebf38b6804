"""
A blocking HTTP/1.1 client on plain sockets: it sends exactly what a test says, be it malformed, and stops
sending its body when an answer is there before the end.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlencode

Address = tuple[str, int]
Body = bytes | Iterable[bytes] | None

_PIECE_BYTES = 64 * 1024


def quoted(path: str) -> str:
    """Percent-encode a path, all but its slashes."""
    return quote(path, safe="/")


def file_target(path: str, query: str = "") -> str:
    """The request target of a file or directory under ``/v1/files``."""
    return "/v1/files" + quoted(path) + (f"?{query}" if query else "")


def directory_target(path: str, **query: object) -> str:
    """The request target of a listing under ``/v1/directories``."""
    text = urlencode({name: str(value) for name, value in query.items()})
    return "/v1/directories" + quoted(path) + (f"?{text}" if text else "")


@dataclass(frozen=True)
class Answer:
    """A response: ``headers`` as sent, in order, names in lower case."""

    version: str
    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(default=b"", repr=False)

    def all(self, name: str) -> list[str]:
        """Every value of a header."""
        return [value for key, value in self.headers if key == name.lower()]

    def get(self, name: str) -> str | None:
        """The header's value, or None; a header sent twice fails the test."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} was sent {len(values)} times: {values}"
        return values[0] if values else None

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        assert value is not None, f"no {name} in {self!r}"
        return value

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The error code; fails the test unless the body is an error as specified."""
        assert self["Content-Type"] == "application/json", self
        error = self.json()
        assert isinstance(error["message"], str)
        assert error["message"]
        assert isinstance(error["code"], str)
        return str(error["code"])

    @property
    def closes(self) -> bool:
        """Whether the server says that this connection ends here."""
        options = ",".join(self.all("Connection")).lower()
        return "close" in options or (self.version == "HTTP/1.0" and "keep-alive" not in options)

    def refused(self, status: int, code: str) -> bool:
        """Assert that this is the given refusal."""
        assert self.status == status, f"{self!r} {self.body[:300]!r}"
        assert self.code == code, self.body
        return True


class Wire:
    """One TCP connection, byte by byte."""

    def __init__(
        self, address: Address, *, timeout_seconds: float = 20.0, receive_buffer_bytes: int | None = None
    ) -> None:
        self.address = address
        self.socket = socket.socket()
        self.socket.settimeout(timeout_seconds)
        if receive_buffer_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.socket.connect(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = bytearray()

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # sending

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self.socket.sendall(data)

    def send_request(self, method: str, target: str, headers: Mapping[str, str] | None = None) -> None:
        """Send a request's head; ``Host`` is added unless given."""
        given = dict(headers or {})
        if not any(name.lower() == "host" for name in given):
            given = {"Host": f"{self.address[0]}:{self.address[1]}", **given}
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
        self.send("\r\n".join([*lines, "", ""]).encode("utf-8"))

    def send_while_unanswered(self, pieces: Iterable[bytes]) -> bool:
        """
        Send a body, but stop as soon as the server has something to say.

        :param pieces: the bytes as they go on the wire.
        :return: whether all of it was sent.
        """
        for piece in pieces:
            for start in range(0, len(piece), _PIECE_BYTES):
                if self.readable(0):
                    return False
                try:
                    self.send(piece[start : start + _PIECE_BYTES])
                except (BrokenPipeError, ConnectionResetError):
                    return False
        return True

    # receiving

    def readable(self, within_seconds: float) -> bool:
        """Whether bytes, or the end, are there within the time."""
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return bool(self._received) or bool(poll.poll(within_seconds * 1000))

    def read_some(self, most_bytes: int = _PIECE_BYTES) -> bytes:
        """What is there, at least one byte, or empty at the end."""
        if self._received:
            taken = bytes(self._received[:most_bytes])
            del self._received[:most_bytes]
            return taken
        return self.socket.recv(most_bytes)

    def read_exactly(self, count: int) -> bytes:
        """That many bytes; EOFError if the connection ends before."""
        parts = bytearray()
        while len(parts) < count:
            some = self.read_some(min(count - len(parts), 1 << 20))
            if not some:
                raise EOFError(f"{len(parts)} of {count} bytes, then the end")
            parts += some
        return bytes(parts)

    def read_line(self) -> bytes:
        """A line without its CRLF; EOFError if the connection ends before."""
        while True:
            end = self._received.find(b"\r\n")
            if end >= 0:
                line = bytes(self._received[:end])
                del self._received[: end + 2]
                return line
            some = self.socket.recv(_PIECE_BYTES)
            if not some:
                raise EOFError(f"the connection ended in a line: {bytes(self._received)!r}")
            self._received += some

    def read_head(self) -> Answer:
        """A response's status line and headers; the body stays on the wire."""
        line = self.read_line().decode("latin-1")
        version, _, rest = line.partition(" ")
        status, _, reason = rest.partition(" ")
        assert version in ("HTTP/1.0", "HTTP/1.1"), f"not a status line: {line!r}"
        headers = []
        while line := self.read_line().decode("utf-8"):
            name, separator, value = line.partition(":")
            assert separator, f"not a header: {line!r}"
            headers.append((name.lower(), value.strip()))
        return Answer(version, int(status), reason, tuple(headers))

    def read_body(self, head: Answer, method: str = "GET") -> bytes:
        """The body that belongs to a head."""
        if method == "HEAD" or head.status in (204, 304) or head.status < 200:
            return b""
        if "chunked" in (head.get("Transfer-Encoding") or "").lower():
            return b"".join(self._chunks())
        if (length := head.get("Content-Length")) is not None:
            return self.read_exactly(int(length))
        return self.read_to_end()

    def read_answer(self, method: str = "GET") -> Answer:
        """The next final response, whole; interim ones (1xx) are passed over."""
        head = self.read_head()
        while 100 <= head.status < 200 and head.status != 101:
            head = self.read_head()
        body = self.read_body(head, method)
        return Answer(head.version, head.status, head.reason, head.headers, body)

    def read_to_end(self) -> bytes:
        """All until the connection ends, be it by a reset."""
        parts = bytearray()
        with contextlib.suppress(ConnectionResetError):
            while some := self.read_some():
                parts += some
        return bytes(parts)

    def ends(self, within_seconds: float = 5.0) -> bool:
        """Whether the server ends the connection, without another byte, within the time."""
        self.socket.settimeout(within_seconds)
        try:
            return self.read_some() == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.read_line().partition(b";")[0], 16):
            yield self.read_exactly(size)
            assert self.read_line() == b""
        while self.read_line():
            pass

    # ending

    def half_close(self) -> None:
        """Say that nothing more will be sent."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Vanish: the peer gets a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        """Close in the ordinary way."""
        self.socket.close()


def as_chunks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Bring pieces into the chunked transfer coding, end included."""
    for piece in pieces:
        if piece:
            yield b"%x\r\n%s\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"


class Client:
    """
    A user of the API. Requests share one connection as long as both sides keep it; one client belongs to
    one thread, :meth:`twin` makes another.
    """

    def __init__(self, address: Address, key: str | None, *, timeout_seconds: float = 30.0) -> None:
        self.address = address
        self.key = key
        self.timeout_seconds = timeout_seconds
        self._wire: Wire | None = None

    def twin(self) -> Client:
        """Another client of the same user, with a connection of its own."""
        return Client(self.address, self.key, timeout_seconds=self.timeout_seconds)

    def authorization(self) -> dict[str, str]:
        """The header that proves who this is."""
        return {} if self.key is None else {"Authorization": f"Bearer {self.key}"}

    def connect(self, **options: Any) -> Wire:
        """A fresh connection for a test that speaks byte by byte."""
        return Wire(self.address, **{"timeout_seconds": self.timeout_seconds, **options})

    def close(self) -> None:
        """Give the connection up."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def request(
        self, method: str, target: str, body: Body = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """
        Make one request.

        :param method: as sent.
        :param target: as sent, percent-encoded by the caller.
        :param body: None sends neither length nor body, bytes go with ``Content-Length``, else chunked.
        :param headers: more headers; they replace the client's own.
        :return: the final answer, whole.
        """
        all_headers = {**self.authorization(), **(headers or {})}
        pieces: Iterable[bytes] = ()
        if isinstance(body, bytes):
            all_headers.setdefault("Content-Length", str(len(body)))
            pieces = (body,)
        elif body is not None:
            all_headers["Transfer-Encoding"] = "chunked"
            pieces = as_chunks(body)
        wire = self._open_wire()
        try:
            wire.send_request(method, target, all_headers)
            sent = wire.send_while_unanswered(pieces)
            answer = wire.read_answer(method)
        except BaseException:
            self.close()
            raise
        if answer.closes or not sent:
            self.close()
        return answer

    def _open_wire(self) -> Wire:
        if self._wire is not None and self._wire.readable(0):
            self.close()  # ended by the server meanwhile
        if self._wire is None:
            self._wire = self.connect()
        return self._wire

    # the file API in a test's words

    def get(self, path: str, query: str = "", headers: Mapping[str, str] | None = None) -> Answer:
        """GET under ``/v1/files``."""
        return self.request("GET", file_target(path, query), None, headers)

    def head(self, path: str, query: str = "", headers: Mapping[str, str] | None = None) -> Answer:
        """HEAD under ``/v1/files``."""
        return self.request("HEAD", file_target(path, query), None, headers)

    def put(self, path: str, body: Body = b"", query: str = "", headers: Mapping[str, str] | None = None) -> Answer:
        """PUT under ``/v1/files``."""
        return self.request("PUT", file_target(path, query), body, headers)

    def post(
        self, path: str, body: Body = b"", query: str = "", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """POST under ``/v1/files``."""
        return self.request("POST", file_target(path, query), body, headers)

    def delete(self, path: str, query: str = "", headers: Mapping[str, str] | None = None) -> Answer:
        """DELETE under ``/v1/files``."""
        return self.request("DELETE", file_target(path, query), None, headers)

    def patch(self, path: str, query: str = "", **fields: object) -> Answer:
        """PATCH under ``/v1/files`` with a JSON object."""
        return self.request("PATCH", file_target(path, query), json.dumps(fields).encode())

    def directory(self, path: str, headers: Mapping[str, str] | None = None, **query: object) -> Answer:
        """GET under ``/v1/directories``."""
        return self.request("GET", directory_target(path, **query), None, headers)

    def link(self, path: str, expiry_seconds: object = 60) -> Answer:
        """Ask for a single-use link."""
        body = json.dumps({"path": path, "expiry_seconds": expiry_seconds}).encode()
        return self.request("POST", "/v1/links/generate", body)

    # a test's preparations, which must succeed

    def stored(self, path: str, content: bytes = b"content", **headers: str) -> str:
        """Put a file there; the path is given back."""
        answer = self.put(path, content, headers={name.replace("_", "-"): value for name, value in headers.items()})
        assert answer.status in (200, 201), f"{answer!r} {answer.body[:300]!r}"
        return path

    def made(self, path: str) -> str:
        """Make a directory; the path is given back."""
        answer = self.post(path + "/")
        assert answer.status == 201, f"{answer!r} {answer.body[:300]!r}"
        return path

    def content(self, path: str) -> bytes:
        """A file's bytes."""
        answer = self.get(path)
        assert answer.status == 200, f"{answer!r} {answer.body[:300]!r}"
        return answer.body

    def exists(self, path: str) -> bool:
        """Whether there is something."""
        status = self.head(path).status
        assert status in (200, 404), status
        return status == 200

    def names(self, path: str) -> list[str]:
        """The names in a directory."""
        answer = self.directory(path)
        assert answer.status == 200, f"{answer!r} {answer.body[:300]!r}"
        return [str(entry["name"]) for entry in answer.json()["items"]]
