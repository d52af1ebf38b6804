"""
Machines of their own for daemons: network namespaces around a router, whose rules cut any way between two of them,
silently, in one direction or both. It all goes away with its last process. Needs root.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.daemon import Daemon
from tests.support.forking import die_with_parent
from tests.support.http import Client, Wire
from tests.support.ports import free_port
from tests.support.raftcluster import RaftCluster

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A network of its own, kept by a process."""

    def __init__(self) -> None:
        script = "ip link set lo up && echo 1 > /proc/sys/net/ipv4/ip_forward && echo ready && exec sleep 100000"
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            preexec_fn=die_with_parent,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"ready\n", "this test makes network namespaces: run it as root"

    @property
    def pid(self) -> int:
        """Of the process that keeps it."""
        return self._holder.pid

    @property
    def wrapper(self) -> tuple[str, ...]:
        """The command that puts another into it."""
        return ("nsenter", "--target", str(self.pid), "--net")

    def ip(self, *arguments: str) -> None:
        """Change it."""
        subprocess.run([*self.wrapper, "ip", *arguments], check=True, capture_output=True)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """What this thread opens within the block is inside of it."""
        with Path("/proc/thread-self/ns/net").open("rb") as before:
            with Path(f"/proc/{self.pid}/ns/net").open("rb") as inside:
                _enter(inside.fileno())
            try:
                yield
            finally:
                _enter(before.fileno())

    def close(self) -> None:
        """Let go of it."""
        self._holder.kill()
        self._holder.wait()
        if self._holder.stdout is not None:
            self._holder.stdout.close()


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Network:
    """
    A router and the machines around it; clients are at the router, and reach all of them whatever is cut.

    :param machines: how many; they have numbers from 1.
    """

    def __init__(self, machines: int) -> None:
        self.router = Namespace()
        self.machines = [Namespace() for _ in range(machines)]
        self._cut: list[tuple[str, str]] = []
        for number, machine in enumerate(self.machines, 1):
            port = f"to{number}"
            self.router.ip(
                "link", "add", "name", port, "type", "veth", "peer", "name", "up0", "netns", str(machine.pid)
            )
            for namespace, name, last in ((self.router, port, 1), (machine, "up0", 2)):
                namespace.ip("addr", "add", f"10.77.{number}.{last}/24", "dev", name)
                namespace.ip("link", "set", "dev", name, "up")
            machine.ip("route", "add", "default", "via", f"10.77.{number}.1")

    @staticmethod
    def host(number: int) -> str:
        """The address of a machine."""
        return f"10.77.{number}.2"

    def cut(self, sender: str, receiver: str) -> None:
        """From now on nothing gets from one host to another."""
        self.router.ip("rule", "add", "from", sender, "to", receiver, "blackhole")
        self._cut.append((sender, receiver))

    def heal(self) -> None:
        """All ways are open again."""
        while self._cut:
            sender, receiver = self._cut.pop()
            self.router.ip("rule", "del", "from", sender, "to", receiver, "blackhole")

    def close(self) -> None:
        """Let go of it all."""
        for namespace in (*self.machines, self.router):
            namespace.close()


class RoutedClient(Client):
    """A client at the router."""

    def __init__(self, router: Namespace, address: tuple[str, int], key: str | None, **options: Any) -> None:
        super().__init__(address, key, **options)
        self._router = router

    def twin(self) -> RoutedClient:
        """See :meth:`Client.twin`."""
        return RoutedClient(self._router, self.address, self.key, timeout_seconds=self.timeout_seconds)

    def connect(self, **options: Any) -> Wire:
        """See :meth:`Client.connect`."""
        with self._router.entered():
            return super().connect(**options)


class MachineDaemon(Daemon):
    """A daemon on a machine of its own."""

    def __init__(self, network: Network, number: int, folder: Path, settings: Mapping[str, Any]) -> None:
        machine = network.machines[number - 1]
        self._router = network.router
        with machine.entered():
            super().__init__(folder, settings, host=network.host(number), wrapper=machine.wrapper)

    def client(self, user: str | None = "alice", **options: Any) -> Client:
        """See :meth:`Daemon.client`."""
        return RoutedClient(self._router, self.address, None if user is None else self.keys[user], **options)


class SpreadRaftCluster(RaftCluster):
    """Each node on a machine of its own."""

    def __init__(self, folder: Path, settings: Mapping[str, Any] | None = None, nodes: int = 3) -> None:
        self.network = Network(nodes)
        super().__init__(folder, settings, nodes)

    def _free_address(self, number: int) -> str:
        host = self.network.host(number)
        with self.network.machines[number - 1].entered():
            return f"{host}:{free_port(host)}"

    def _daemon(self, number: int, folder: Path, settings: Mapping[str, Any]) -> Daemon:
        return MachineDaemon(self.network, number, folder, settings)

    def close(self) -> None:
        """See :meth:`Cluster.close`."""
        super().close()
        self.network.close()
