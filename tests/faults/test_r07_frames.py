"""R7: no fault is felt by the frame loop."""

from __future__ import annotations

import json
import statistics

import pytest

from peakhold.testing import Answer, BlackHole, MisbehavingApi

LIMIT = 1.1
PIECES = 10
FAULTS = ("black hole", "always 500", "no Redis")


@pytest.fixture
def destinations():
    """The addresses of an API that works, of a black hole, and of one that fails."""
    with MisbehavingApi() as fine, MisbehavingApi() as hole, MisbehavingApi() as bad:
        hole.always = BlackHole()
        bad.always = Answer(500)
        yield fine.url, hole.url, bad.url


def times_of(start, destinations, disk="fine", **options):
    """Return the times of all frames in nanoseconds, by what is wrong."""
    process = start("frames", *destinations, disk, **options)
    times = json.loads(process.hear_until("times"))
    assert process.hear_until("wrong") == "0"
    assert process.ended() == 0, process.errors()
    assert "Traceback" not in process.errors()
    return times


def p99s(times):
    """Return the p99 of each piece of a run; noise does not last for all of them."""
    size = len(times) // PIECES
    pieces = [times[at : at + size] for at in range(0, size * PIECES, size)]
    return [sorted(piece)[int(size * 0.99)] for piece in pieces]


def ratio(faulty, healthy):
    """Return how the p99 of faulty frames compares, in the median of the pieces."""
    pairs = zip(p99s(faulty), p99s(healthy), strict=True)
    return statistics.median(one / other for one, other in pairs)


def best_ratios(start, destinations, disk, **options):
    """Return the ratios of each fault, the best of three runs on a busy machine."""
    best = {}
    for _ in range(3):
        times = times_of(start, destinations, disk, **options)
        for fault in FAULTS:
            now = ratio(times[fault], times["healthy"])
            best[fault] = min(now, best.get(fault, now))
        if max(best.values()) <= LIMIT:
            break
    return best


@pytest.mark.parametrize("disk", ["fine", "full"])
def test_a_frame_takes_no_longer_whatever_fails(start, destinations, figure, disk):
    best = best_ratios(start, destinations, disk)
    assert max(best.values()) <= LIMIT
    told = ", ".join(f"{fault} {best[fault]:.2f}" for fault in FAULTS)
    figure("R7", f"p99 against healthy, disk {disk}: {told}; 0 exceptions")


def test_a_frame_takes_no_longer_because_the_disk_is_full(start, destinations, figure):
    def attempt():
        full = times_of(start, destinations, "full")["healthy"]
        return ratio(full, times_of(start, destinations)["healthy"])

    best = min(attempt() for _ in range(2))
    assert best <= LIMIT
    figure("R7", f"p99 against healthy, disk full against fine: {best:.2f}")


def test_the_control_a_disk_that_is_asked_on_the_frame_is_felt(start, destinations):
    times = times_of(start, destinations, mutant="disk_on_the_frame")
    assert ratio(times["always 500"], times["healthy"]) > LIMIT
