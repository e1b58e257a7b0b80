"""R4: kill -9 loses no maximum that was observed, and repeats no report by another."""

from __future__ import annotations

import os

import pytest
from draining import altered, drain, keys_and_bodies
from nursery import kill_at_random

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

KILLS = 200
KILLS_OF_A_CONTROL = 40
LONG_LIVES = 15
"""Kills of processes that live long enough to deliver windows themselves."""
LIVES = 0.25


def lost(api, start, kills, seed, longest=LIVES, **options):
    """Kill observers at random; returns what was seen, and what of it was lost."""
    options["PEAKHOLD_REQUESTS_PER_SECOND"] = "2000"
    process = start("nursery", "observing", **options)
    said = kill_at_random(process, kills, seed, longest=longest)
    drain(start, **options)
    seen, reported = {}, {}
    for name, text in said.of("seen"):
        seen[name] = max(float(text), seen.get(name, 0.0))
    for result in api.results():
        name, confidence = result["class_name"], result["confidence"]
        reported[name] = max(confidence, reported.get(name, 0.0))
    return seen, {
        name: (confidence, reported.get(name))
        for name, confidence in seen.items()
        if reported.get(name, 0.0) < confidence
    }


def repeats(api):
    """Return how many reports took effect again."""
    accepted = api.accepted(kind="report")
    return len(accepted) - len(
        {request.headers["Idempotency-Key"] for request in accepted}
    )


def test_no_maximum_that_was_observed_is_lost(api, start, seed, figure):
    seen, gone = lost(api, start, KILLS, seed)
    assert len(seen) > KILLS
    assert gone == {}
    assert altered(api) == set()
    figure("R4", f"{KILLS} kills, {len(seen)} maxima observed, 0 lost")


@pytest.mark.flaky(reruns=1)
def test_the_control_without_a_journal_maxima_are_lost(api, start, seed, figure):
    _, gone = lost(api, start, KILLS_OF_A_CONTROL, seed, PEAKHOLD_DURABILITY="memory")
    assert gone != {}
    figure("R4n", f"without a journal: {len(gone)} maxima lost")


@pytest.mark.flaky(reruns=1)
def test_the_control_a_promise_before_the_write_is_broken(api, start, seed, figure):
    _, gone = lost(
        api, start, 2 * KILLS_OF_A_CONTROL, seed, mutant="tell_before_observing"
    )
    assert gone != {}
    figure("R4n", f"told before it was written: {len(gone)} maxima lost")


def test_a_journal_that_outlives_its_window_does_not_have_it_sent_anew(
    api, start, seed, figure
):
    lost(api, start, LONG_LIVES, seed, 4 * LIVES, mutant="keep_journals")
    assert altered(api) == set()
    assert repeats(api) <= LONG_LIVES
    figure(
        "R2",
        f"{len(keys_and_bodies(api))} reports, journals kept: no key with two bodies, "
        f"{repeats(api)} repeats, {LONG_LIVES} allowed",
    )


@pytest.mark.flaky(reruns=1)
def test_the_control_an_outbox_that_forgets_has_it_sent_anew(api, start, seed, figure):
    mutant = "keep_journals_and_forget"
    lost(api, start, LONG_LIVES, seed, 4 * LIVES, mutant=mutant)
    assert repeats(api) > LONG_LIVES
    figure("R2n", f"journals kept and forgotten: {repeats(api)} repeats")
