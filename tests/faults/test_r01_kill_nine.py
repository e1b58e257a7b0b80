"""R1, R1n, R2: a sealed window survives kill -9, and is sent again as it was."""

from __future__ import annotations

import os

import pytest
from draining import altered, arrived, drain, keys_and_bodies
from nursery import kill_at_random

from peakhold.testing import LostAcknowledgement, RandomFaults, refuse

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

KILLS = 200
KILLS_OF_A_CONTROL = 60
LOST_ANSWERS = 0.05
LIVES = 0.25
"""Seconds that a process lives at most."""


class Faults(RandomFaults):
    """Those of the promise; counts the answers that were lost."""

    def __init__(self, seed):
        """Draw from a seed."""
        super().__init__(
            seed,
            (0.08, refuse(503)),
            (0.04, refuse(429)),
            (LOST_ANSWERS, LostAcknowledgement()),
        )
        self.lost_answers = 0

    def __call__(self, request):
        """Draw a fault."""
        fault = super().__call__(request)
        self.lost_answers += isinstance(fault, LostAcknowledgement)
        return fault


class Run:
    """Kills, then a drain.

    Attributes:
        kills: How many processes were killed.
        committed: The windows that were told to be committed.
        lost: Those of them that never took effect.
        repeats: Requests that took effect again.
        allowed: As many of them as there may be.
        altered: Idempotency keys that came with different bodies.
        new_keys: How many keys too many bodies came with.
    """

    def __init__(self, api, start, kills, seed, longest=LIVES, **options):
        """Make the run."""
        api.faults = Faults(seed)
        options["PEAKHOLD_REQUESTS_PER_SECOND"] = "2000"
        said = kill_at_random(
            start("nursery", "sealing", **options), kills, seed, longest=longest
        )
        self.sealed = drain(start, **options)
        self.kills = said.kills
        self.committed = {name for (name,) in said.of("committed")}
        self.lost = self.committed - arrived(api)
        accepted = api.accepted(kind="report")
        windows = {request.body for request in accepted}
        self.repeats = len(accepted) - len(windows)
        self.allowed = self.kills + api.faults.lost_answers
        self.altered = altered(api)
        self.new_keys = len(keys_and_bodies(api)) - len(windows)


@pytest.fixture
def run(api, start, seed, environment):
    environment.setenv("PEAKHOLD_REQUESTS_PER_SECOND", "2000")
    return lambda kills, **options: Run(api, start, kills, seed, **options)


def test_no_committed_window_is_lost_and_what_is_repeated_is_the_same(run, figure):
    result = run(KILLS)
    assert result.kills == KILLS
    assert len(result.committed) > KILLS
    assert result.lost == set()
    assert result.altered == set()
    assert result.new_keys == 0
    assert 0 < result.repeats <= result.allowed
    figure("R1", f"{KILLS} kills, {len(result.committed)} committed, 0 lost")
    figure(
        "R2",
        f"{result.repeats} repeats, {result.allowed} allowed, each with its key and "
        "body",
    )
    figure("R21", f"sealed == delivered == {result.sealed}, 0 unexplained")


@pytest.mark.flaky(reruns=1)
@pytest.mark.parametrize("mutant", ["take_before_send", "tell_before_commit"])
def test_the_control_a_window_that_is_not_kept_until_sent_is_lost(run, mutant, figure):
    result = run(KILLS_OF_A_CONTROL, mutant=mutant)
    assert result.lost != set()
    figure("R1n", f"{mutant}: {len(result.lost)} lost of {KILLS_OF_A_CONTROL} kills")


@pytest.mark.flaky(reruns=1)
def test_the_control_records_without_an_owner_are_repeated_too_often(run, figure):
    result = run(10, mutant="no_owner", longest=10 * LIVES)
    assert result.repeats > result.allowed
    figure("R2n", f"no owner: {result.repeats} repeats, {result.allowed} allowed")


@pytest.mark.flaky(reruns=1)
def test_the_control_a_new_key_for_each_attempt_is_seen(run, figure):
    result = run(KILLS_OF_A_CONTROL, mutant="new_id")
    assert result.new_keys > 0
    figure("R2n", f"a key for each attempt: {result.new_keys} keys too many")
