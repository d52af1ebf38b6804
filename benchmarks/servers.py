"""
The servers that are compared: a daemon, nginx, and a bare Klein route, each a process of its own on loopback.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.cluster import running_cluster
from tests.support.daemon import Daemon
from tests.support.forking import die_with_parent
from tests.support.ports import free_port

USER = "alice"
_START_SECONDS = 10

_NGINX = """\
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

_KLEIN = """\
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
    """
    Where requests go.

    :param headers: lines that every request carries.
    :param host: an address of this machine.
    """

    def __init__(self, port: int, headers: str = "", host: str = "127.0.0.1") -> None:
        self.port = port
        self.host = host
        self._headers = headers

    def connect(self) -> socket.socket:
        """A connection."""
        connection = socket.create_connection((self.host, self.port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def head(self, method: str, target: str, more: str = "") -> bytes:
        """
        A request's head.

        :param more: further header lines, each with its line end.
        """
        return f"{method} {target} HTTP/1.1\r\nHost: x\r\n{self._headers}{more}\r\n".encode()


@contextlib.contextmanager
def daemon(folder: Path) -> Iterator[tuple[Daemon, Server]]:
    """A daemon on a new folder, and how to speak to it; it can be restarted."""
    folder.mkdir()
    node = Daemon(folder, fresh=True)
    node.start()
    try:
        yield node, _server_of(node)
    finally:
        node.close()


@contextlib.contextmanager
def two_nodes(folder: Path) -> Iterator[list[tuple[Daemon, Server]]]:
    """Two daemons, each with a disk of its own, that share their metadata in a Redis server."""
    folder.mkdir()
    with running_cluster(folder, "redis", nodes=2) as cluster:
        for node in cluster.nodes:
            # What is measured was started as an operator does it, not forked from something that has imported all.
            node.fresh = True
            node.restart()
        yield [(node, _server_of(node)) for node in cluster.nodes]


def _server_of(node: Daemon) -> Server:
    return Server(node.port, f"Authorization: Bearer {node.keys[USER]}\r\n", node.host)


@contextlib.contextmanager
def nginx(folder: Path) -> Iterator[Server]:
    """nginx with one process and WebDAV on a folder of its own."""
    (folder / "nginx-files").mkdir(parents=True)
    port = free_port()
    user = "user root;" if os.geteuid() == 0 else ""
    configuration = folder / "nginx.conf"
    configuration.write_text(_NGINX.format(folder=folder, port=port, user=user))
    with _process("nginx", "-e", str(folder / "nginx.log"), "-c", str(configuration), port=port) as server:
        yield server


def require_nginx() -> None:
    """
    See that nginx is there.

    :raises SystemExit: it isn't; the message says how to install it.
    """
    if shutil.which("nginx") is None:
        raise SystemExit("the benchmarks compare with nginx, which is missing: apt-get install -y nginx-light")


@contextlib.contextmanager
def bare_klein(folder: Path) -> Iterator[Server]:
    """A Klein application whose one route ``/small`` returns 1 KiB."""
    folder.mkdir()
    script = folder / "bare_klein.py"
    script.write_text(_KLEIN)
    port = free_port()
    with _process(sys.executable, str(script), str(port), port=port) as server:
        yield server


@contextlib.contextmanager
def _process(*command: str, port: int) -> Iterator[Server]:
    """A server for as long as it is needed."""
    running = subprocess.Popen(command, preexec_fn=die_with_parent, stderr=subprocess.DEVNULL)
    server = Server(port)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(server):
            if time.monotonic() > deadline or running.poll() is not None:
                raise SystemExit(f"{command[0]} doesn't start")
            time.sleep(0.05)
        yield server
    finally:
        running.terminate()
        running.wait()


def _answers(server: Server) -> bool:
    try:
        server.connect().close()
    except OSError:
        return False
    return True
