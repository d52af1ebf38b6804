"""
A daemon against nginx and a bare Klein route over loopback, each figure printed as a ratio.

``python -m benchmarks.transfer [folder]``: the folder, on the disk that is to be measured, defaults to the system's
temporary one. Needs nginx and 5 GiB there, which are removed at the end.

- one 1 GiB download: at least 0.7 of nginx serving the same bytes;
- one 1 GiB upload, with SHA-256 and fsync: at least 0.5 of nginx's WebDAV PUT, which does neither;
- GET of 1 KiB files, 32 connections: at least 0.5 of a bare Klein route that returns 1 KiB.

Each is the best of several rounds that take turns, so that what else the machine does falls on both.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support.daemon import Daemon, die_with_parent, free_port

GIB = 1 << 30
BUFFER_BYTES = 1 << 20
ROUNDS = 5
CONNECTIONS = 32
LOAD_SECONDS = 2.0

NGINX = """\
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
{user}
events {{ worker_connections 512; }}
http {{
  access_log off; sendfile on; tcp_nopush on; client_max_body_size 0;
  client_body_temp_path {folder}/nginx-body; proxy_temp_path {folder}/nginx-proxy;
  fastcgi_temp_path {folder}/nginx-fastcgi; uwsgi_temp_path {folder}/nginx-uwsgi;
  scgi_temp_path {folder}/nginx-scgi;
  server {{ listen 127.0.0.1:{port}; root {folder}/nginx-files; dav_methods PUT DELETE; }}
}}
"""

KLEIN = """\
import sys
from klein import Klein
from twisted.internet import reactor
from twisted.web.server import Site

app = Klein()

@app.route("/small")
def small(request):
    return b"x" * 1024

reactor.listenTCP(int(sys.argv[1]), Site(app.resource()), interface="127.0.0.1", backlog=500)
reactor.run()
"""


class Server:
    """Where requests go, and with which headers."""

    def __init__(self, port: int, headers: str = "") -> None:
        self.port = port
        self._headers = headers

    def connect(self) -> socket.socket:
        """A connection."""
        connection = socket.create_connection(("127.0.0.1", self.port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def head(self, method: str, target: str, more: str = "") -> bytes:
        """A request's head."""
        return f"{method} {target} HTTP/1.1\r\nHost: x\r\n{self._headers}{more}\r\n".encode()

    def done(self, method: str, target: str) -> None:
        """Make a small request whose answer doesn't matter."""
        with self.connect() as connection:
            connection.sendall(self.head(method, target, "Connection: close\r\n"))
            while connection.recv(65536):
                pass


def download(server: Server, target: str) -> float:
    """Seconds for 1 GiB."""
    buffer = bytearray(BUFFER_BYTES)
    with server.connect() as connection:
        began = time.perf_counter()
        connection.sendall(server.head("GET", target, "Connection: close\r\n"))
        received = 0
        while count := connection.recv_into(buffer):
            received += count
        took = time.perf_counter() - began
    if received < GIB:
        raise SystemExit(f"only {received} bytes came from {target}")
    return took


def upload(server: Server, target: str, source: Path) -> float:
    """Seconds for 1 GiB, from the page cache by sendfile, until the answer is there."""
    with server.connect() as connection, source.open("rb") as file:
        began = time.perf_counter()
        connection.sendall(server.head("PUT", target, f"Content-Length: {GIB}\r\nConnection: close\r\n"))
        connection.sendfile(file)
        answer = connection.recv(65536)
        took = time.perf_counter() - began
    if b" 20" not in answer[:12]:
        raise SystemExit(f"upload to {target}: {answer!r}")
    return took


def rate(server: Server, target: str) -> float:
    """GETs a second over 32 connections that are kept."""
    request = server.head("GET", target)
    size = _answer_size(server, request)
    poll = select.epoll()
    outstanding: dict[int, tuple[socket.socket, list[int]]] = {}
    with contextlib.ExitStack() as stack:
        for _ in range(CONNECTIONS):
            connection = stack.enter_context(server.connect())
            outstanding[connection.fileno()] = (connection, [size])
            poll.register(connection, select.EPOLLIN)
            connection.sendall(request)
        began = time.perf_counter()
        answers = 0
        while time.perf_counter() - began < LOAD_SECONDS:
            for descriptor, _ in poll.poll():
                connection, missing = outstanding[descriptor]
                missing[0] -= len(connection.recv(65536))
                if missing[0] <= 0:
                    answers += 1
                    missing[0] += size
                    connection.sendall(request)
        took = time.perf_counter() - began
    poll.close()
    return answers / took


def _answer_size(server: Server, request: bytes) -> int:
    """How long a complete answer is, headers included."""
    with server.connect() as connection:
        connection.settimeout(0.5)
        connection.sendall(request)
        size = 0
        with contextlib.suppress(TimeoutError):
            while data := connection.recv(65536):
                size += len(data)
    return size


@contextlib.contextmanager
def process(*command: str, port: int) -> Iterator[Server]:
    """A server for as long as it is needed."""
    running = subprocess.Popen(command, preexec_fn=die_with_parent, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                Server(port).connect().close()
                break
            except OSError:
                if time.monotonic() > deadline or running.poll() is not None:
                    raise SystemExit(f"{command[0]} doesn't start") from None
                time.sleep(0.05)
        yield Server(port)
    finally:
        running.terminate()
        running.wait()


@contextlib.contextmanager
def nginx(folder: Path) -> Iterator[Server]:
    """nginx with one process on a folder of its own."""
    if shutil.which("nginx") is None:
        raise SystemExit("nginx is missing: apt-get install -y nginx-light")
    (folder / "nginx-files").mkdir()
    port = free_port()
    user = "user root;" if os.geteuid() == 0 else ""
    configuration = folder / "nginx.conf"
    configuration.write_text(NGINX.format(folder=folder, port=port, user=user))
    with process("nginx", "-e", str(folder / "nginx.log"), "-c", str(configuration), port=port) as server:
        yield server


def report(what: str, ratio: float, target: float, figures: str) -> bool:
    """Print a ratio; whether it reaches its target."""
    reached = ratio >= target
    print(f"{what}: {ratio:.2f} (target {target}, {'reached' if reached else 'missed'}); {figures}")
    return reached


def best(*measures: Callable[[], float], better: Callable[..., float]) -> list[float]:
    """The best of several rounds of each, the measures taking turns."""
    rounds = [[measure() for measure in measures] for _ in range(ROUNDS)]
    return [better(figures) for figures in zip(*rounds, strict=True)]


def transfers(folder: Path, ours: Server, theirs: Server) -> bool:
    """Large bodies both ways."""
    source = folder / "source"
    with source.open("wb") as file:
        block = os.urandom(1 << 24)
        for _ in range(GIB // len(block)):
            file.write(block)

    def put(server: Server, target: str) -> float:
        server.done("DELETE", target)
        return upload(server, target, source)

    our_put, their_put = best(lambda: put(ours, "/v1/files/big"), lambda: put(theirs, "/big"), better=min)
    our_get, their_get = best(lambda: download(ours, "/v1/files/big"), lambda: download(theirs, "/big"), better=min)
    reached = report(
        "1 GiB download, of nginx", their_get / our_get, 0.7, f"{1 / our_get:.2f} and {1 / their_get:.2f} GiB/s"
    )
    return (
        report(
            "1 GiB upload, of nginx", their_put / our_put, 0.5, f"{1 / our_put:.2f} and {1 / their_put:.2f} GiB/s"
        )
        and reached
    )


def small_files(ours: Server, folder: Path) -> bool:
    """Many small downloads."""
    with ours.connect() as connection:
        connection.sendall(ours.head("PUT", "/v1/files/small", "Content-Length: 1024\r\n") + b"x" * 1024)
        connection.recv(65536)
    script = folder / "bare_klein.py"
    script.write_text(KLEIN)
    port = free_port()
    with process(sys.executable, str(script), str(port), port=port) as klein:
        our_rate, their_rate = best(
            lambda: rate(ours, "/v1/files/small"), lambda: rate(klein, "/small"), better=max
        )
    return report(
        "GET of 1 KiB, 32 connections, of a bare Klein route",
        our_rate / their_rate,
        0.5,
        f"{our_rate:.0f} and {their_rate:.0f} a second",
    )


def main(arguments: list[str]) -> int:
    """Measure and print; 1 when a target is missed."""
    with (
        tempfile.TemporaryDirectory(dir=arguments[0] if arguments else None) as name,
        contextlib.ExitStack() as stack,
    ):
        folder = Path(name)
        theirs = stack.enter_context(nginx(folder))
        (folder / "daemon").mkdir()
        daemon = Daemon(folder / "daemon")
        daemon.start()
        stack.callback(daemon.stop)
        ours = Server(daemon.port, f"Authorization: Bearer {daemon.keys['alice']}\r\n")
        reached = [transfers(folder, ours, theirs), small_files(ours, folder)]
    return 0 if all(reached) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
