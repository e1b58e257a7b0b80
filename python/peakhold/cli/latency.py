"""How long run() took, measured without disturbing what is measured."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

_KEPT = 1 << 20
"""Calls the percentiles are over: the latest million, 8 MiB."""


@dataclass(frozen=True)
class LatencySummary:
    """Durations of one sink's run(), in microseconds.

    Attributes:
        calls: How many there were.
        p50: The median of the latest million.
        p99: Their 99th percentile.
        maximum: The longest of all.
    """

    calls: int
    p50: float
    p99: float
    maximum: float


class Latencies:
    """Durations in a preallocated ring: adding one allocates nothing that stays."""

    def __init__(self, kept: int = _KEPT) -> None:
        self._kept = kept
        self._ring = array("q", bytes(8 * kept))
        self._calls = 0
        self._longest = 0

    def add(self, nanoseconds: int) -> None:
        """Take one duration in."""
        self._ring[self._calls % self._kept] = nanoseconds
        self._calls += 1
        self._longest = max(self._longest, nanoseconds)

    def summary(self) -> LatencySummary:
        """Return the figures so far; all zero before the first call."""
        ordered = sorted(self._ring[: min(self._calls, self._kept)])

        def percentile(share: float) -> float:
            # Nearest rank: a value that occurred.
            rank = max(0, -int(-share * len(ordered) // 1) - 1)
            return ordered[rank] / 1_000 if ordered else 0.0

        return LatencySummary(
            self._calls, percentile(0.5), percentile(0.99), self._longest / 1_000
        )
