"""A server that can be out of reach: a port that leads to another one, or nowhere."""

from __future__ import annotations

import contextlib
import socket
import threading

_BLOCK = 64 * 1024


class TcpSwitch:
    """
    Passes every connection on, as long as it is up.

    :param target_port: where the server is.
    :ivar port: where it listens, the same one all its life.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listening: socket.socket | None = None
        self.port = 0
        self.up()

    def up(self) -> None:
        """Let it be reached."""
        if self._listening is None:
            listening = socket.create_server(("127.0.0.1", self.port), backlog=128)
            self.port = listening.getsockname()[1]
            self._listening = listening
            threading.Thread(target=self._accept, args=(listening,), daemon=True).start()

    def down(self) -> None:
        """Cut what there is; new connections are refused."""
        listening, self._listening = self._listening, None
        if listening is not None:
            _end(listening)
        with self._lock:
            ending, self._open = self._open, set()
        for each in ending:
            _end(each)

    def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listening.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self._target_port))
                except OSError:
                    _end(near)
                    continue
                with self._lock:
                    wanted = self._listening is listening
                    if wanted:
                        self._open |= {near, far}
                if not wanted:
                    _end(near)
                    _end(far)
                    return
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError):
                while data := source.recv(_BLOCK):
                    sink.sendall(data)
        finally:
            with self._lock:
                self._open -= {source, sink}
            for each in (source, sink):
                _end(each)


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
