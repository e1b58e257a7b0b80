"""R7: no fault is felt by the frame loop."""

from __future__ import annotations

import json
import socket
import statistics

import pytest
from redis_server import shared_by

from peakhold.testing import Answer, BlackHole, MisbehavingApi

LIMIT = 1.1
PIECES = 6
TRIALS = 3
STRETCHES, SECONDS = 2, 5
"""How often the disk is fine, and then full, and for how long."""


@pytest.fixture
def destinations():
    """The addresses of an API that works, of a black hole, and of one that fails."""
    with MisbehavingApi() as fine, MisbehavingApi() as hole, MisbehavingApi() as bad:
        hole.always = BlackHole()
        bad.always = Answer(500)
        yield fine.url, hole.url, bad.url


def run(start, destinations, stretches, **options):
    """Return the nanoseconds of all frames by disk and fault, and the seals."""
    process = start("frames", *destinations, stretches, SECONDS, **options)
    times = json.loads(process.hear_until("times"))
    assert process.hear_until("wrong") == "0"
    sealed, unexplained = process.hear_until("sealed").split()
    assert unexplained == "0"
    assert process.ended() == 0, process.errors()
    assert "Traceback" not in process.errors()
    return times, int(sealed)


def p99s(times):
    """Return the p99 of each piece of a run; noise does not last for all of them."""
    size = len(times) // PIECES
    pieces = [times[at : at + size] for at in range(0, size * PIECES, size)]
    return [sorted(piece)[int(size * 0.99)] for piece in pieces]


def ratios(times):
    """Return how the p99 of faulty frames compares, in the median of the pieces."""
    healthy = p99s(times["fine"]["healthy"])
    return {
        (disk, fault): statistics.median(
            one / other for one, other in zip(p99s(taken), healthy, strict=True)
        )
        for disk, faults in times.items()
        for fault, taken in faults.items()
        if (disk, fault) != ("fine", "healthy")
    }


@pytest.mark.flaky(reruns=1)
def test_a_frame_takes_no_longer_whatever_fails(start, destinations, figure):
    """Take of each ratio the best of up to three runs.

    Who else uses the machine can only add to a time, and rarely to those of the same
    fault in every run. What a fault itself costs is there in all of them.
    """
    best, runs = {}, 0
    while runs < TRIALS and max(best.values(), default=LIMIT + 1) > LIMIT:
        times, sealed = run(start, destinations, STRETCHES)
        for case, ratio in ratios(times).items():
            best[case] = min(ratio, best.get(case, ratio))
        runs += 1
    told = ", ".join(f"{disk} {fault} {best[disk, fault]:.2f}" for disk, fault in best)
    assert max(best.values()) <= LIMIT, told
    figure(
        "R7",
        f"p99 against healthy, by disk: {told}; best of {runs} runs, 0 exceptions, "
        f"{sealed} sealed, 0 unexplained",
    )


@pytest.mark.flaky(reruns=1)
def test_the_control_a_disk_that_is_asked_on_the_frame_is_felt(
    start, destinations, figure
):
    times, _ = run(start, destinations, 1, mutant="disk_on_the_frame")
    least = min(ratios(times).values())
    assert least > LIMIT
    figure("R7n", f"p99 against healthy with the disk on the frame: {least:.1f}")


@pytest.fixture
def silent_redis():
    """The port of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def shared_and_not(start, directory, port, timeout=2.0, **options):
    """Return how the p99 of shared windows compares, in the median of the pieces.

    The two programs run side by side, for who else uses the machine is felt by both.
    """
    off, on = (
        start(
            "sharing_frames",
            SECONDS,
            **options,
            **share,
            PEAKHOLD_STATE_DIR=str(directory / share["PEAKHOLD_SHARE"]),
        )
        for share in ({"PEAKHOLD_SHARE": "off"}, shared_by(port, timeout))
    )
    for program in (off, on):
        program.hear_until("up")
    for program in (off, on):
        program.tell("go")
    one, other = (p99s(json.loads(it.hear_until("times"))) for it in (on, off))
    assert int(on.hear_until("parts")) >= SECONDS - 1
    assert off.hear_until("parts") == "0"
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


@pytest.mark.flaky(reruns=1)
def test_a_frame_takes_no_longer_if_the_redis_of_shared_windows_is_silent(
    api, start, tmp_path, silent_redis, figure
):
    best = LIMIT + 1
    runs = 0
    while runs < 2 * TRIALS and best > LIMIT:
        directory = tmp_path / str(runs)
        best = min(best, shared_and_not(start, directory, silent_redis))
        runs += 1
    assert best <= LIMIT
    figure("R7", f"p99, Redis silent against not sharing: {best:.2f}, best of {runs}")


@pytest.mark.flaky(reruns=1)
def test_the_control_a_redis_that_is_asked_on_the_frame_is_felt(
    api, start, tmp_path, silent_redis, figure
):
    mutant = "redis_on_the_frame"
    ratio = shared_and_not(start, tmp_path, silent_redis, 0.02, mutant=mutant)
    assert ratio > LIMIT
    figure("R7n", f"p99 against not sharing with Redis on the frame: {ratio:.0f}")
