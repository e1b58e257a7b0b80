"""Pacing and latencies."""

from __future__ import annotations

import time

import pytest

from peakhold.cli import pacing
from peakhold.cli.latency import Latencies
from peakhold.cli.pacing import Schedule


@pytest.fixture
def clock(monkeypatch):
    """Replace time by one in which sleeping is late by a tenth of a millisecond."""

    class Clock:
        now = 100.0

        def perf_counter(self):
            return self.now

        def sleep(self, seconds):
            self.now += seconds + 1e-4

    replacement = Clock()
    monkeypatch.setattr(pacing, "time", replacement)
    return replacement


def test_sleeping_late_does_not_add_up(clock):
    schedule = Schedule(1000)

    for _ in range(1001):
        schedule.wait()

    # Period by period a thousand late sleeps would have made it 1.1 s.
    assert clock.now == pytest.approx(101.0, abs=2e-4)


def test_a_late_frame_is_caught_up_without_a_pause(clock):
    schedule = Schedule(10)
    schedule.wait()
    clock.now += 0.35
    for _ in range(3):
        schedule.wait()
        assert clock.now == pytest.approx(100.35)

    schedule.wait()

    assert clock.now == pytest.approx(100.4, abs=2e-4)


def test_without_a_rate_nothing_waits(clock):
    schedule = Schedule(0)

    for _ in range(10):
        schedule.wait()

    assert clock.now == 100.0


def test_a_thousand_frames_a_second_are_a_thousand():
    schedule = Schedule(1000)
    start = time.perf_counter()

    for _ in range(501):
        schedule.wait()

    # Never early; how late is up to the machine.
    assert time.perf_counter() - start >= 0.5


def test_percentiles_are_values_that_occurred():
    latencies = Latencies()
    for microseconds in range(100, 0, -1):
        latencies.add(microseconds * 1_000)

    summary = latencies.summary()

    assert (summary.calls, summary.p50, summary.p99) == (100, 50.0, 99.0)
    assert summary.maximum == 100.0


def test_the_longest_is_remembered_past_the_ring():
    latencies = Latencies(kept=4)
    for nanoseconds in (9_000, 1_000, 2_000, 3_000, 4_000):
        latencies.add(nanoseconds)

    summary = latencies.summary()

    assert (summary.calls, summary.p50, summary.p99) == (5, 2.0, 4.0)
    assert summary.maximum == 9.0


def test_without_calls_all_figures_are_zero():
    summary = Latencies().summary()

    assert (summary.calls, summary.p50, summary.p99, summary.maximum) == (0, 0, 0, 0)
