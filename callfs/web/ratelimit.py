"""
How often each client may ask: a token bucket per client address, in bounded memory.

A bucket is one number, the time at which it is full again (the generic cell rate algorithm): a request moves it on
by ``1 / rate`` seconds and is refused when it would lie more than ``burst / rate`` ahead. A bucket that is full
again says nothing and is forgotten.
"""

from __future__ import annotations

from collections import OrderedDict

# Seconds since 1970 as floats are this coarse: without it whoever waits exactly as long as told could be refused.
_SLACK_SECONDS = 1e-6


class RateLimiter:
    """
    Token buckets by client.

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
