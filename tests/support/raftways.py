"""
The ways between the nodes of a metadata cluster, in the hands of a test: all that its members say to each other
goes through here, and can be held up in one direction or both, slowed down, or broken off in the middle of a frame.

For whoever may not make network namespaces, and for weather that those don't have.
"""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from tests.support.daemon import Daemon, merged
from tests.support.raftcluster import RaftCluster
from tests.support.waiting import pace

_BLOCK = 16 * 1024
_LENGTH_BYTES = 4
_IDENTITY = 4
"""Where the dialer's identity is in its first frame, and the node's id is first in that."""


class Weather:
    """
    What becomes of the pieces that are on their way.

    :param seed: of all that follows, as far as the order of the pieces does.
    :param longest_seconds: the most that a piece is late.
    :param break_chance: from 0 to 1, that a piece is the last of its connection, and only a part of it arrives.
    """

    def __init__(self, seed: int, *, longest_seconds: float, break_chance: float) -> None:
        self.broken = 0
        self._chance = random.Random(seed)
        self._longest_seconds = longest_seconds
        self._break_chance = break_chance

    def carry(self, data: bytes, sink: socket.socket) -> None:
        """
        Bring a piece to its end.

        :raises ConnectionResetError: it was the last.
        """
        pace(self._longest_seconds * self._chance.random() ** 3)
        if self._chance.random() < self._break_chance:
            self.broken += 1
            sink.sendall(data[: self._chance.randrange(len(data))])
            raise ConnectionResetError
        sink.sendall(data)


class Ways:
    """
    Listens in the place of nodes.

    :ivar weather: of all ways; none while they are good.
    """

    def __init__(self) -> None:
        self.weather: Weather | None = None
        self._names: dict[str, str] = {}
        self._cut: set[tuple[str, str]] = set()
        self._changed = threading.Condition()
        self._closed = False
        self._sockets: set[socket.socket] = set()

    def to(self, node_id: str, address: str) -> str:
        """The address where others reach a node from now on."""
        host, _, port = address.rpartition(":")
        self._names[host] = node_id
        listening = socket.create_server((host, 0), backlog=128)
        self._keep(listening)
        target = (host, int(port))
        threading.Thread(target=self._accept, args=(listening, node_id, target), daemon=True).start()
        return f"{host}:{listening.getsockname()[1]}"

    def cut(self, sender: str, receiver: str) -> None:
        """From now on nothing gets from one host to another."""
        with self._changed:
            self._cut.add((self._names[sender], self._names[receiver]))

    def heal(self) -> None:
        """What was held up goes on."""
        with self._changed:
            self._cut.clear()
            self._changed.notify_all()

    def close(self) -> None:
        """End it all."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            ending = list(self._sockets)
        for each in ending:
            self._end(each)

    def _keep(self, connection: socket.socket) -> None:
        with self._changed:
            self._sockets.add(connection)

    def _end(self, *connections: socket.socket) -> None:
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
            with self._changed:
                self._sockets.discard(connection)

    def _accept(self, listening: socket.socket, node_id: str, target: tuple[str, int]) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listening.accept()
                self._keep(near)
                threading.Thread(target=self._connect, args=(near, node_id, target), daemon=True).start()

    def _connect(self, near: socket.socket, node_id: str, target: tuple[str, int]) -> None:
        """Who dials says so in its first frame."""
        try:
            hello = _first_frame(near)
            dialer = msgspec.msgpack.decode(hello[_LENGTH_BYTES:])[_IDENTITY][0]
            far = socket.create_connection(target)
        except (OSError, EOFError, msgspec.DecodeError):
            self._end(near)
            return
        self._keep(far)
        back = threading.Thread(target=self._pass_on, args=(far, near, (node_id, dialer), b""), daemon=True)
        back.start()
        self._pass_on(near, far, (dialer, node_id), hello)

    def _pass_on(self, source: socket.socket, sink: socket.socket, way: tuple[str, str], early: bytes) -> None:
        try:
            with contextlib.suppress(OSError):
                while data := early or source.recv(_BLOCK):
                    early = b""
                    self._wait_for(way)
                    weather = self.weather
                    if weather is None:
                        sink.sendall(data)
                    else:
                        weather.carry(data, sink)
            # Beyond a cut nobody hears of an end either.
            self._wait_for(way)
        finally:
            self._end(source, sink)

    def _wait_for(self, way: tuple[str, str]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or way not in self._cut)


def _first_frame(connection: socket.socket) -> bytes:
    received = b""
    while len(received) < _LENGTH_BYTES or len(received) < _LENGTH_BYTES + int.from_bytes(received[:_LENGTH_BYTES]):
        some = connection.recv(_BLOCK)
        if not some:
            raise EOFError
        received += some
    return received


class DetouredRaftCluster(RaftCluster):
    """Nodes that reach each other by ways that can be disturbed; clients, and what nodes fetch files by, don't."""

    def __init__(self, folder: Path, settings: Mapping[str, Any] | None = None, nodes: int = 3) -> None:
        self.network = Ways()
        self._own: dict[int, str] = {}
        super().__init__(folder, settings, nodes)

    def add_node(self, settings: Mapping[str, Any] | None = None) -> Daemon:
        """See :meth:`RaftCluster.add_node`."""
        number = len(self.nodes) + 1
        own = {"advertise_addr": self._raft_addresses[number - 1], "bind_addr": self._own[number]}
        return super().add_node(merged(settings or {}, {"raft": own}))

    def _free_address(self, number: int) -> str:
        self._own[number] = super()._free_address(number)
        return self.network.to(f"node-{number}", self._own[number])

    def close(self) -> None:
        """See :meth:`Cluster.close`."""
        super().close()
        self.network.close()
