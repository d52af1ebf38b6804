"""A histogram of durations that takes many at a time."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector


class Durations(Collector):
    """
    Counts durations in buckets, for one thread.

    The library's own histogram takes a lock and walks all buckets for each value, which at tens of thousands a
    second is much of what a small change costs.

    :param name: of the series.
    :param description: for people.
    :param buckets: upper bounds in seconds, rising.
    :param registry: where the series goes.
    """

    def __init__(
        self, name: str, description: str, *, buckets: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name = name
        self._description = description
        self._bounds = tuple(float(bound) for bound in buckets)
        self._counts = [0] * (len(buckets) + 1)
        self._sum_seconds = 0.0
        registry.register(self)

    def observe(self, seconds: Sequence[float]) -> None:
        """Count these."""
        bounds, counts = self._bounds, self._counts
        for each in seconds:
            counts[bisect_left(bounds, each)] += 1
        self._sum_seconds += sum(seconds)

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """The name, so that no other series takes it."""
        return [HistogramMetricFamily(self._name, self._description)]

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """What a scrape gets."""
        bounds = (*(str(bound) for bound in self._bounds), "+Inf")
        buckets = list(zip(bounds, accumulate(self._counts), strict=True))
        return [HistogramMetricFamily(self._name, self._description, buckets, self._sum_seconds)]
