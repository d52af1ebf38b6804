"""
Clients that cost little: raw sockets, so that what is measured is the server.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.servers import Server

CONNECTIONS = 32
_BUFFER_BYTES = 1 << 20
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_HEAD_END = b"\r\n\r\n"


class UnexpectedAnswer(Exception):
    """A server refused what the benchmark asks."""


def answered(server: Server, method: str, target: str, body: bytes = b"") -> bytes:
    """
    One request on a connection of its own; the body of the answer.

    :raises UnexpectedAnswer: the status isn't 2xx.
    """
    with server.connect() as connection:
        more = f"Content-Length: {len(body)}\r\nConnection: close\r\n"
        connection.sendall(server.head(method, target, more) + body)
        pieces = []
        while piece := connection.recv(_BUFFER_BYTES):
            pieces.append(piece)
    head, _, content = b"".join(pieces).partition(_HEAD_END)
    if not head.startswith(b"HTTP/1.1 2"):
        raise UnexpectedAnswer(f"{method} {target}: {head!r}")
    return content


def download(server: Server, target: str, size: int) -> float:
    """Bytes a second of one download."""
    buffer = bytearray(_BUFFER_BYTES)
    with server.connect() as connection:
        began = time.perf_counter()
        connection.sendall(server.head("GET", target, "Connection: close\r\n"))
        received = 0
        while count := connection.recv_into(buffer):
            received += count
        took = time.perf_counter() - began
    if received < size:
        raise UnexpectedAnswer(f"only {received} bytes came from {target}")
    return size / took


def upload(server: Server, target: str, source: Path) -> float:
    """Bytes a second of one upload, from the page cache by ``sendfile``, until the answer is there."""
    size = source.stat().st_size
    with server.connect() as connection, source.open("rb") as file:
        began = time.perf_counter()
        connection.sendall(server.head("PUT", target, f"Content-Length: {size}\r\nConnection: close\r\n"))
        connection.sendfile(file)
        answer = connection.recv(65536)
        took = time.perf_counter() - began
    if not answer.startswith(b"HTTP/1.1 20"):
        raise UnexpectedAnswer(f"upload to {target}: {answer!r}")
    return size / took


def rate(server: Server, requests: Iterator[bytes], seconds: float) -> float:
    """
    Requests answered a second over 32 connections that are kept; each carries one request at a time.

    :param requests: complete requests, body included; as many as are needed.
    :raises UnexpectedAnswer: a status isn't 2xx.
    """
    with contextlib.ExitStack() as stack:
        poll = stack.enter_context(select.epoll())
        connections: dict[int, _Connection] = {}
        for _ in range(CONNECTIONS):
            connection = _Connection(stack.enter_context(server.connect()))
            connections[connection.socket.fileno()] = connection
            poll.register(connection.socket, select.EPOLLIN)
            connection.socket.sendall(next(requests))
        began = time.perf_counter()
        answers = 0
        while time.perf_counter() - began < seconds:
            for descriptor, _ in poll.poll():
                connection = connections[descriptor]
                if connection.received():
                    answers += 1
                    connection.socket.sendall(next(requests))
        return answers / (time.perf_counter() - began)


class _Connection:
    """A connection that waits for an answer."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._data = b""

    def received(self) -> bool:
        """Take what has come; whether the answer is complete."""
        piece = self.socket.recv(65536)
        if not piece:
            raise UnexpectedAnswer("the server closed the connection")
        self._data += piece
        head_size = self._data.find(_HEAD_END) + len(_HEAD_END)
        if head_size < len(_HEAD_END):
            return False
        length = _LENGTH.search(self._data, 0, head_size)
        if len(self._data) < head_size + (int(length[1]) if length else 0):
            return False
        if not self._data.startswith(b"HTTP/1.1 2"):
            raise UnexpectedAnswer(repr(self._data))
        self._data = b""
        return True
