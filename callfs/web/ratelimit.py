"""
How often each client may ask: a token bucket per client address, in bounded memory.

A bucket is one number, the time at which it is full again (the generic cell rate algorithm): a request moves it on
by ``1 / rate`` seconds and is refused when it would lie more than ``burst / rate`` ahead. A bucket that is full
again says nothing and is forgotten.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

IPV6_PREFIX_BITS = 64
"""
Who has an IPv6 address has all of its /64 (RFC 4291, section 2.5.1: the rest names interfaces): limited one by one,
2**64 of them would be no limit.
"""

# Seconds since 1970 as floats are this coarse: without it whoever waits exactly as long as told could be refused.
_SLACK_SECONDS = 1e-6


def client_of(address: str) -> str:
    """
    Who is behind an address: for IPv4 the address, for IPv6 its /64; what is no address stands for itself.

    An IPv4 address in the form of an IPv6 one (``::ffff:192.0.2.1``) is what it is.
    """
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    if parsed.scope_id is not None:
        return address  # of one link, so each is a machine of its own
    return str(ipaddress.IPv6Network((parsed, IPV6_PREFIX_BITS), strict=False))


class RateLimiter:
    """
    Token buckets by client, see :func:`client_of`.

    :param rate: requests for each second and client, above 0.
    :param burst: how many may come at once, at least 1.
    :param max_clients: buckets that are kept; beyond it the one used longest ago is forgotten, which forgives its
        client.
    """

    def __init__(self, rate: float, burst: int, max_clients: int = 65536) -> None:
        self._full_at: OrderedDict[str, float] = OrderedDict()
        self._max_clients = max_clients
        self.replace(rate, burst)

    def replace(self, rate: float, burst: int) -> None:
        """Other limits from now on, after a reload of the configuration."""
        if rate <= 0 or burst < 1:
            raise ValueError("a rate limit needs a rate above 0 and a burst of at least 1")
        self._interval = 1.0 / rate
        self._tolerance = burst * self._interval

    def take(self, client: str, now: float) -> float:
        """
        Count a request.

        :param client: the address.
        :param now: seconds of a clock that never goes back.
        :return: 0 when the request may go on, else the seconds until one may; a refused one isn't counted.
        """
        self._forget_full(now)
        client = client_of(client)
        # No bucket is emptier than empty: after other limits, or a clock set back, nobody is locked out for long.
        full_at = min(max(self._full_at.get(client, now), now), now + self._tolerance) + self._interval
        wait = full_at - now - self._tolerance
        if wait > _SLACK_SECONDS:
            return wait
        self._full_at[client] = full_at
        self._full_at.move_to_end(client)  # the front is what was used longest ago
        return 0.0

    def _forget_full(self, now: float) -> None:
        """Two looks at the front for each request: the buckets can't outgrow the clients of the last moments."""
        for _ in range(2):
            front = next(iter(self._full_at), None)
            if front is None or (self._full_at[front] > now and len(self._full_at) < self._max_clients):
                return
            del self._full_at[front]

    def __len__(self) -> int:
        """How many buckets are kept."""
        return len(self._full_at)
