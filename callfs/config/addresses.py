"""
Addresses as operators write them: where to listen, where others are.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

ENDPOINT_NAMES = frozenset(("tcp", "tcp6", "ssl", "unix", "systemd", "stdio", "haproxy"))
BACKLOG = 1024
"""Connections that may wait to be accepted: Twisted's own 50 is too few when a thousand clients come at once."""

_LAST_PORT = 65535
_ENDPOINT = re.compile(r"([a-z][a-z0-9_]*):(.+)", re.DOTALL)
_HOST_PORT = re.compile(r"(?:\[(?P<v6>[^\[\]]*)\]|(?P<host>[^\[\]:/\s]*)):(?P<port>[0-9]{1,5})")
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?")
_DIGITS_AND_DOTS = re.compile(r"[0-9.]+")


@dataclass(frozen=True)
class HostPort:
    """
    A host and a port.

    :param host: a name or an address, without brackets; empty for every address of this machine.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_host_port(text: str) -> HostPort | None:
    """``host:port``, ``:port`` or ``[v6]:port``; ``None`` for anything else."""
    match = _HOST_PORT.fullmatch(text)
    if match is None or int(match["port"]) > _LAST_PORT:
        return None
    if match["v6"] is not None:
        return HostPort(match["v6"], int(match["port"])) if _is_v6(match["v6"]) else None
    host = match["host"]
    return HostPort(host, int(match["port"])) if host == "" or is_host(host) else None


def is_host(text: str) -> bool:
    """Whether ``text`` can be a host: a name, or an IP address (IPv6 without brackets)."""
    if _is_v6(text):
        return True
    if _DIGITS_AND_DOTS.fullmatch(text):
        return _is_v4(text)
    return _HOST_NAME.fullmatch(text) is not None


def _is_v4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def _is_v6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def is_endpoint_string(text: str) -> bool:
    """
    Whether ``text`` is for Twisted's ``serverFromString`` rather than a host and a port.

    ``tcp:8080`` is an endpoint, ``localhost:8080`` a host and a port: the names of Twisted's own endpoints aren't
    taken for hosts, and what has the form ``name:rest`` without being a host and a port is an endpoint.
    """
    match = _ENDPOINT.fullmatch(text)
    return match is not None and (match[1] in ENDPOINT_NAMES or parse_host_port(text) is None)


def is_listen_address(text: str) -> bool:
    """Whether ``text`` says where to listen."""
    if is_endpoint_string(text):
        name, _, rest = text.partition(":")
        if name in ("tcp", "tcp6"):
            match = re.fullmatch(r"([0-9]{1,5})(:.+)?", rest)
            return match is not None and int(match[1]) <= _LAST_PORT
        # Of an endpoint that a plug-in brings little is known; without any structure it's rather a mistyped port.
        return name in ENDPOINT_NAMES or re.search(r"[:=/]", rest) is not None
    return parse_host_port(text) is not None


def endpoint_description(listen_addr: str, dual_stack: bool) -> str:
    r"""
    The Twisted endpoint string of a ``listen_addr``.

    ``:port`` means every address of the machine. A socket on ``::`` takes IPv4 as well, as mapped addresses
    (``::ffff:192.0.2.1``), but only where the kernel has IPv6 and doesn't separate the two, which the caller has
    to find out; anywhere else the safe choice is every IPv4 address.

    :param dual_stack: whether a socket on ``::`` takes connections by IPv4, too.
    :return: ``tcp:8443``, ``tcp6:8443:interface=\:\:``, ...; an endpoint string is returned as it is.
    """
    if is_endpoint_string(listen_addr):
        return listen_addr
    address = parse_host_port(listen_addr)
    if address is None:
        raise ValueError("not an address to listen on")
    if address.host == "":
        where = f"tcp6:{address.port}:interface=\\:\\:" if dual_stack else f"tcp:{address.port}"
        return f"{where}:backlog={BACKLOG}"
    family = "tcp6" if ":" in address.host else "tcp"
    return f"{family}:{address.port}:interface={address.host.replace(':', chr(92) + ':')}:backlog={BACKLOG}"


def base_url(text: str, default_scheme: str) -> str | None:
    """
    A base URL without the slash at its end.

    :param default_scheme: what to put in front when ``text`` has no scheme.
    :return: ``None`` when ``text`` is no usable base: another scheme than http and https, no host, a query, a user.
    """
    if "://" not in text:
        text = f"{default_scheme}://{text}"
    try:
        parts = urlsplit(text)
        usable = parts.port is None or parts.port > 0
    except ValueError:
        return None
    if not usable or parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        return None
    if "?" in text or "#" in text or re.search(r"[\s\x00-\x1f\x7f\\<>\"]", text) or not is_host(parts.hostname):
        return None
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def default_base_url(listen_addr: str, scheme: str) -> str:
    """
    The base URL that follows from ``listen_addr``: its host, or ``localhost`` where that says none, and its port.
    """
    address = _tcp_address(listen_addr)
    if address is None:
        return f"{scheme}://localhost"
    host = "localhost" if address.host in ("", "0.0.0.0", "::") else address.host  # noqa: S104 - compared, not bound
    return f"{scheme}://{HostPort(host, address.port)}"


def is_localhost(url: str) -> bool:
    """Whether a base URL names ``localhost``, which is another machine for everybody who reads it."""
    return urlsplit(url).hostname == "localhost"


def _tcp_address(listen_addr: str) -> HostPort | None:
    if not is_endpoint_string(listen_addr):
        return parse_host_port(listen_addr)
    name, port, *options = re.split(r"(?<!\\):", listen_addr)
    if name not in ("tcp", "tcp6") or not port.isdigit():
        return None
    interface = next((option.partition("=")[2] for option in options if option.startswith("interface=")), "")
    return HostPort(interface.replace("\\:", ":"), int(port))
