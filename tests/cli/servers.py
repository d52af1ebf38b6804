"""A server on a real socket that plays the daemon towards a command: what it was asked, and what it answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Asked:
    """A request."""

    method: str
    target: str
    authorization: str
    body: Any


class Reply(Exception):
    """
    What a behaviour raises to answer with something else than JSON and 200.

    :param body: bytes, or a value that goes as JSON.
    """

    def __init__(self, status: int, body: object = b"", **headers: str) -> None:
        super().__init__(status)
        self.status = status
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.headers = headers


def refusal(status: int, code: str, message: str, **details: object) -> Reply:
    """An error as the daemon answers it."""
    return Reply(status, {"code": code, "message": message, **details})


Behaviour = Callable[[Asked], object]


class PlayedDaemon:
    """
    Listens on a free port of 127.0.0.1.

    :param behaviour: gives what is answered as JSON, or raises a :class:`Reply`.
    """

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.asked: list[Asked] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._class())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def _class(self) -> type[BaseHTTPRequestHandler]:
        daemon = self

        class Conversation(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                body = json.loads(self.rfile.read(length)) if length else None
                asked = Asked(self.command, self.path, self.headers.get("Authorization", ""), body)
                daemon.asked.append(asked)
                try:
                    reply = Reply(200, daemon.behaviour(asked))
                except Reply as other:
                    reply = other
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)

            do_POST = do_GET

            def log_message(self, format: str, *args: object) -> None:
                """Keep quiet."""

        return Conversation

    def close(self) -> None:
        """End."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def played(behaviour: Behaviour) -> Iterator[PlayedDaemon]:
    """A :class:`PlayedDaemon` for the length of a block."""
    daemon = PlayedDaemon(behaviour)
    try:
        yield daemon
    finally:
        daemon.close()
