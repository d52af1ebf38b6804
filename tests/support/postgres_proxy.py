"""Stands between a client and a PostgreSQL server and breaks connections: at a COMMIT, or all at once."""

from __future__ import annotations

import contextlib
import enum
import socket
import threading
from collections.abc import Callable

COMMIT = b"COMMIT"
_BLOCK = 65536


class Fate(enum.Enum):
    """What becomes of the next COMMIT."""

    PASSED = "passed on"
    LOST = "thrown away; both connections end"
    UNANSWERED = "passed on; the server's answer is thrown away and both connections end"
    HELD = "thrown away; the client's connection ends, the server's stays open"


class CommitProxy:
    """
    Listens on a port of its own and passes everything on.

    :param server_port: where the server is.
    :ivar fate: of the next COMMIT; then again :attr:`Fate.PASSED`.
    """

    def __init__(self, server_port: int) -> None:
        self.fate = Fate.PASSED
        self._server_port = server_port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._silent = False
        self._open: list[socket.socket] = []
        self._swallowing: socket.socket | None = None
        self._answered = threading.Event()
        self._run(self._accept)

    @staticmethod
    def _run(function: Callable[..., None], *args: object) -> None:
        threading.Thread(target=function, args=args, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                if self._silent:
                    self._open.append(client)
                    continue
                server = socket.create_connection(("127.0.0.1", self._server_port))
                self._open += [client, server]
                self._run(self._pass_requests, client, server)
                self._run(self._pass_answers, server, client)

    def _pass_requests(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(_BLOCK):
                if COMMIT in data and self.fate is not Fate.PASSED:
                    self._end(data, client, server)
                    return
                server.sendall(data)
        _shut(server)

    def _end(self, commit: bytes, client: socket.socket, server: socket.socket) -> None:
        fate, self.fate = self.fate, Fate.PASSED
        if fate is Fate.UNANSWERED:
            # The other direction is cut first: nobody but this thread sees the answer.
            self._swallowing = server
            server.sendall(commit)
            self._answered.wait(10)
        _shut(client)
        if fate is not Fate.HELD:
            _shut(server)

    def _pass_answers(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(_BLOCK):
                if server is self._swallowing:
                    self._answered.set()
                    return
                client.sendall(data)
        _shut(client)

    def fall_silent(self) -> None:
        """End all connections; new ones are taken, and nothing is ever said on them."""
        self._silent = True
        for each in self._open:
            _shut(each)

    def close(self) -> None:
        """End all connections."""
        _shut(self._listening)
        self._listening.close()
        for each in self._open:
            _shut(each)
            each.close()


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
