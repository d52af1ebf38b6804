"""Kinds of addresses: where to listen, where others are."""

from __future__ import annotations

import ipaddress

from callfs.config.addresses import base_url, is_listen_address, parse_host_port
from callfs.config.given import Origin
from callfs.config.kinds import Kind
from callfs.config.texts import Text

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class ListenAddress(Text):
    """Where to listen."""

    def __init__(self) -> None:
        super().__init__(
            "host:port, :port, [v6]:port, or a Twisted endpoint such as unix:/run/callfs.sock", is_listen_address
        )


class Address(Text):
    """A host and a port."""

    def __init__(self, host_needed: bool = True) -> None:
        def accepts(text: str) -> bool:
            parsed = parse_host_port(text)
            return parsed is not None and bool(parsed.host or not host_needed) and parsed.port > 0

        super().__init__("host:port" if host_needed else "host:port or :port", accepts)


class BaseUrl(Kind):
    """The base URL of a node, without a slash at the end when parsed."""

    def __init__(self, scheme_needed: bool = True) -> None:
        example = "https://files.example.org" + ("" if scheme_needed else ", with or without scheme")
        self.allowed = f"a URL with a host, without user and query, like {example}"
        self._text = Text(self.allowed, lambda text: base_url(text, "" if scheme_needed else "http") is not None)

    def check(self, key: str, value: object, origin: Origin) -> str:
        return self._text.check(key, value, origin).rstrip("/")


class NetworkAddress(Kind):
    """An IP address or a network of them."""

    allowed = "an IP address, or a network like 10.0.0.0/8 with no bit set behind its prefix"

    def check(self, key: str, value: object, origin: Origin) -> Network:
        try:
            # A bare number would be taken for an address.
            return ipaddress.ip_network(value) if isinstance(value, str) else self.refuse(key, value, origin)
        except ValueError:
            self.refuse(key, value, origin)
