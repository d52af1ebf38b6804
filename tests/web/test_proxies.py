"""The client's address behind proxies."""

from __future__ import annotations

import pytest

from callfs.web.proxies import TrustedProxies, plain_address

PROXIES = TrustedProxies(["127.0.0.1", "10.0.0.0/8", "fd00::/8"])


@pytest.mark.parametrize(
    ("peer", "headers", "address"),
    [
        ("192.0.2.1", {"x-forwarded-for": "198.51.100.1"}, "192.0.2.1"),
        ("127.0.0.1", {}, "127.0.0.1"),
        ("127.0.0.1", {"x-forwarded-for": "198.51.100.1"}, "198.51.100.1"),
        ("127.0.0.1", {"x-forwarded-for": "203.0.113.9, 198.51.100.1, 10.1.2.3"}, "198.51.100.1"),
        ("127.0.0.1", {"x-forwarded-for": "10.0.0.2, 10.0.0.1"}, "10.0.0.2"),
        ("127.0.0.1", {"x-forwarded-for": "198.51.100.1:4711"}, "198.51.100.1"),
        ("127.0.0.1", {"x-forwarded-for": "[2001:db8::1]:4711"}, "2001:db8::1"),
        ("127.0.0.1", {"x-forwarded-for": "198.51.100.1, garbage"}, "127.0.0.1"),
        ("127.0.0.1", {"x-forwarded-for": ""}, "127.0.0.1"),
        ("127.0.0.1", {"forwarded": 'for=198.51.100.1;proto=https, by=x;For="[2001:db8::7]:99"'}, "2001:db8::7"),
        (
            "127.0.0.1",
            {"forwarded": "for=198.51.100.1", "x-forwarded-for": "198.51.100.1, 10.0.0.1"},
            "198.51.100.1",
        ),
        ("127.0.0.1", {"forwarded": "for=198.51.100.1", "x-forwarded-for": "203.0.113.9"}, "127.0.0.1"),
        ("127.0.0.1", {"forwarded": "for=unknown", "x-forwarded-for": "203.0.113.9"}, "127.0.0.1"),
        ("127.0.0.1", {"x-forwarded-for": "::ffff:198.51.100.1"}, "198.51.100.1"),
        ("127.0.0.1", {"forwarded": "for=unknown"}, "127.0.0.1"),
        ("127.0.0.1", {"forwarded": "proto=https"}, "127.0.0.1"),
        ("fd00::5", {"x-forwarded-for": "2001:db8::1"}, "2001:db8::1"),
        ("::ffff:127.0.0.1", {"x-forwarded-for": "198.51.100.1"}, "198.51.100.1"),
        ("fe80::1%eth0", {"x-forwarded-for": "198.51.100.1"}, "fe80::1%eth0"),
        ("", {"x-forwarded-for": "198.51.100.1"}, ""),
    ],
)
def test_client_address(peer: str, headers: dict[str, str], address: str) -> None:
    """The list is read from its end, as long as who wrote the entry is trusted."""
    assert PROXIES.client_address(peer, headers) == address


def test_nobody_is_trusted() -> None:
    """Without trusted proxies the headers are ignored."""
    assert TrustedProxies().client_address("127.0.0.1", {"x-forwarded-for": "198.51.100.1"}) == "127.0.0.1"


def test_bad_network() -> None:
    """What is no network is refused."""
    with pytest.raises(ValueError, match="nonsense"):
        TrustedProxies(["nonsense"])


def test_plain_addresses() -> None:
    """An IPv4 client of a socket that listens on :: has its IPv4 address."""
    for host, address in (
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:c000:201", "192.0.2.1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("192.0.2.1", "192.0.2.1"),
        ("", ""),
        ("no address", "no address"),
    ):
        assert plain_address(host) == address
