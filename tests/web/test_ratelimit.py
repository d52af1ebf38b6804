"""How often a client may ask."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callfs.web.ratelimit import RateLimiter, client_of


class TestRateLimiter:
    """Token buckets."""

    def test_a_burst_goes_through_and_then_the_rate_counts(self) -> None:
        """10 a second with a burst of 5: five at once, then one each tenth of a second."""
        limiter = RateLimiter(rate=10, burst=5)
        assert [limiter.take("a", 100.0) for _ in range(5)] == [0.0] * 5
        assert limiter.take("a", 100.0) == pytest.approx(0.1)
        assert limiter.take("a", 100.05) == pytest.approx(0.05)
        assert limiter.take("a", 100.1) == 0.0
        assert limiter.take("a", 100.1) > 0

    def test_whoever_waits_as_told_gets_through(self) -> None:
        """The seconds that a refusal names are enough, rounding or not."""
        limiter = RateLimiter(rate=3, burst=1)
        now = 1_700_000_000.678
        limiter.take("a", now)
        for _ in range(1000):
            now += limiter.take("a", now)
            assert limiter.take("a", now) == 0.0

    def test_clients_do_not_share_a_bucket(self) -> None:
        """One client's haste costs no other anything."""
        limiter = RateLimiter(rate=1, burst=1)
        assert limiter.take("a", 0.0) == 0.0
        assert limiter.take("b", 0.0) == 0.0
        assert limiter.take("a", 0.0) > 0

    def test_a_refused_request_is_not_counted(self) -> None:
        """Hammering doesn't lock a client out for longer."""
        limiter = RateLimiter(rate=1, burst=1)
        limiter.take("a", 0.0)
        for _ in range(1000):
            limiter.take("a", 0.5)
        assert limiter.take("a", 1.0) == 0.0

    @given(
        st.lists(st.floats(0, 2), min_size=1, max_size=200),
        st.integers(1, 50),
        st.integers(1, 10),
    )
    def test_never_more_than_burst_and_rate_allow(self, steps: list[float], rate: int, burst: int) -> None:
        """In any stretch of time at most burst + rate * seconds requests go through."""
        limiter = RateLimiter(rate=rate, burst=burst)
        now, allowed = 0.0, []
        for step in steps:
            now += step
            if limiter.take("a", now) == 0.0:
                allowed.append(now)
        for first, start in enumerate(allowed):
            for count, end in enumerate(allowed[first:], 1):
                assert count <= burst + rate * (end - start) + 1e-4

    def test_full_buckets_are_forgotten(self) -> None:
        """Clients that went away take no memory."""
        limiter = RateLimiter(rate=10, burst=5)
        for number in range(10_000):
            limiter.take(f"client {number}", number * 1.0)
        assert len(limiter) <= 3

    def test_memory_is_bounded_at_any_rate_of_new_clients(self) -> None:
        """Beyond the maximum the bucket used longest ago goes."""
        limiter = RateLimiter(rate=0.001, burst=1, max_clients=100)
        for number in range(10_000):
            limiter.take(f"client {number}", 0.0)
        assert len(limiter) <= 100
        assert limiter.take("client 9999", 0.0) > 0

    def test_a_clock_set_back_locks_nobody_out(self) -> None:
        """After it a client waits for the time of one request at most."""
        limiter = RateLimiter(rate=1, burst=1)
        limiter.take("a", 3600.0)
        assert 0 < limiter.take("a", 0.0) <= 1.0

    def test_limits_can_be_replaced(self) -> None:
        """A reload of the configuration counts from the next request on."""
        limiter = RateLimiter(rate=1, burst=1)
        limiter.take("a", 0.0)
        limiter.replace(rate=1, burst=2)
        assert limiter.take("a", 0.0) == 0.0

    @pytest.mark.parametrize(("rate", "burst"), [(0, 1), (-1, 1), (1, 0)])
    def test_limits_that_let_nothing_through_are_refused(self, rate: float, burst: int) -> None:
        """Such a limiter would be a closed door."""
        with pytest.raises(ValueError, match="rate"):
            RateLimiter(rate, burst)


class TestClients:
    """Whose bucket it is."""

    def test_ipv6_by_network(self) -> None:
        """All addresses of a /64 are one client, which can have as many of them as it likes."""
        limiter = RateLimiter(rate=1, burst=1)
        assert limiter.take("2001:db8:1:2::1", 0.0) == 0.0
        assert limiter.take("2001:db8:1:2:ffff:eeee:dddd:cccc", 0.0) > 0
        assert limiter.take("2001:DB8:1:2::1", 0.0) > 0
        assert limiter.take("2001:db8:1:3::1", 0.0) == 0.0

    def test_ipv4_by_address(self) -> None:
        """IPv4 addresses are clients of their own, in whichever form they come."""
        limiter = RateLimiter(rate=1, burst=1)
        assert limiter.take("192.0.2.1", 0.0) == 0.0
        assert limiter.take("192.0.2.2", 0.0) == 0.0
        assert limiter.take("::ffff:192.0.2.1", 0.0) > 0
        assert limiter.take("::ffff:192.0.2.3", 0.0) == 0.0

    @pytest.mark.parametrize("address", ["", "unix", "10.0.0.1", "fe80::1%eth0", "no:address", "2001:db8::/32"])
    def test_as_they_are(self, address: str) -> None:
        """What has no network, or is no address, stands for itself."""
        assert client_of(address) == address
