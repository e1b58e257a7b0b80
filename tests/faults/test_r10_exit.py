"""R10: the exit is bounded, and the last window goes out."""

from __future__ import annotations

import pytest
from draining import arrived, drain

from peakhold.testing import BlackHole

TIMES = 5
LIMIT = 2.2
WINDOWS = ("a", "b", "c")


def leave(start, **options):
    """Run a program to its exit; returns the seconds it took to leave."""
    process = start("leave", *WINDOWS, **options)
    took = float(process.hear_until("took"))
    assert process.ended() == 0, process.errors()
    return took


@pytest.mark.flaky(reruns=1)
def test_the_exit_does_not_wait_for_a_server_that_never_answers(api, start, figure):
    api.always = BlackHole()
    took = [leave(start) for _ in range(TIMES)]
    assert max(took) <= LIMIT
    figure("R10", f"{TIMES} exits from a black hole, {max(took):.2f} s at most")


def test_the_control_a_patient_exit_takes_longer(api, start, figure):
    api.always = BlackHole()
    took = leave(start, mutant="patient")
    assert took > LIMIT
    figure("R10n", f"a patient exit takes {took:.2f} s")


def test_what_could_not_be_sent_goes_out_with_the_next_process(api, start, figure):
    api.always = BlackHole()
    leave(start)
    api.always = None
    drain(start)
    assert arrived(api) == set(WINDOWS)
    figure("R10", f"{len(WINDOWS)} last windows committed at exit, 0 lost")


def test_the_control_an_exit_that_sends_without_committing_loses_them(
    api, start, figure
):
    api.always = BlackHole()
    leave(start, PEAKHOLD_DURABILITY="memory")
    api.always = None
    drain(start)
    assert arrived(api) == set()
    figure("R10n", f"nothing committed: {len(WINDOWS)} of {len(WINDOWS)} lost")
