"""R4 and R21 for windows that processes share: nothing lost, nothing in two reports."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing

import pytest
from children import (
    KILLS,
    PATIENCE,
    PROCESSES,
    Children,
    kill_at_random,
    kill_in_gaps,
    lost_and_repeated,
    observers,
    reports,
)
from draining import altered, drain, drained

from peakhold.outbox import StateDirectory, admin

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

GAPS = 14
"""Steps of ``programs/sharing.py``."""


@pytest.fixture
def children(start, environment):
    """Forks processes that observe into one window, and what they told."""
    environment.setenv("PEAKHOLD_SHARE", "host")
    environment.setenv("PEAKHOLD_REQUESTS_PER_SECOND", "2000")
    running = []

    def begin(**options):
        running.append(Children(start("nursery", "sharing", **options)))
        return running[-1]

    yield begin
    for each in running:
        each.kill_all()


def killed_in_gaps(api, start, children, **options):
    """Kill a process after each step; returns who died, what is lost, and repeated."""
    begun = children(**options)
    kill_in_gaps(begun, GAPS)
    drain(start, **options)
    return (begun, *lost_and_repeated(api, begun.seen))


def killed_at_random(api, start, children, seed, kills, **options):
    """Kill, stop and fork; returns what is lost, and what is in two reports."""
    begun = children(**options)
    kill_at_random(begun, GAPS, seed, kills)
    drain(start, **options)
    return (begun, *lost_and_repeated(api, begun.seen))


def test_a_kill_in_any_gap_loses_nothing_and_repeats_nothing(
    api, start, children, figure
):
    begun, lost, repeated = killed_in_gaps(api, start, children)
    assert begun.died == set(range(GAPS))
    assert (lost, repeated) == (set(), set())
    assert altered(api) == set()
    figure("R4", f"shared windows: a kill in each of {GAPS} gaps, 0 lost, 0 twice")


def test_kills_stops_and_forks_lose_nothing_and_repeat_nothing(
    api, start, children, seed, figure, state
):
    begun, lost, repeated = killed_at_random(api, start, children, seed, KILLS)
    assert len(observers(begun.seen)) > KILLS
    assert (lost, repeated) == (set(), set())
    assert altered(api) == set()
    (late,) = (
        each["late"]
        for each in admin.status(StateDirectory(state))["sharing"]
        if each["aggregator_key"] == "k"
    )
    assert late > 0
    figure(
        "R4",
        f"shared windows: {KILLS} kills, {len(observers(begun.seen))} processes, "
        f"{late} late parts, 0 lost, 0 twice",
    )


def killed_after_reporting_alone(api, start, children, state, **options):
    """Kill a process that met a locked outbox; returns what is lost, and repeated."""
    begun = children(**options)
    begun.fork(GAPS + 1)  # which forks
    begun.listen(2.2)
    with closing(sqlite3.connect(state / "outbox.sqlite3")) as database:
        database.execute("BEGIN EXCLUSIVE")
        before = len(reports(api))
        deadline = time.monotonic() + PATIENCE
        while len(reports(api)) < before + 2 and time.monotonic() < deadline:
            begun.listen(0.1)
        begun.kill_all()
    alone = len(reports(api)) - before
    drain(start)
    return (alone, *lost_and_repeated(api, begun.seen))


def test_what_was_reported_alone_is_in_no_other_report_after_a_kill(
    api, start, children, state, figure
):
    alone, lost, repeated = killed_after_reporting_alone(api, start, children, state)
    assert alone >= 2
    assert (lost, repeated) == (set(), set())
    assert altered(api) == set()
    figure("R4", f"outbox locked: {alone} parts reported alone, 0 lost, 0 twice")


def test_the_control_without_a_mark_it_is_in_two(api, start, children, state, figure):
    alone, _, repeated = killed_after_reporting_alone(
        api, start, children, state, mutant="no_mark"
    )
    assert repeated
    figure("R4n", f"{alone} parts reported alone, not marked: {len(repeated)} twice")


@pytest.mark.unbalanced
def test_the_control_a_close_in_two_steps_loses_parts(api, start, children, figure):
    begun = children(mutant="close_in_two_steps")
    for number in range(GAPS, GAPS + PROCESSES):
        begun.fork(number)
    begun.listen(4.5)
    begun.kill_all()
    unexplained = drained(start).unexplained
    assert unexplained > 0
    figure("R4n", f"shared windows, closed in two steps: {unexplained} parts lost")


@pytest.mark.unbalanced
def test_the_control_an_outbox_that_forgets_has_maxima_in_two_reports(
    api, start, children, figure
):
    mutant = "keep_journals_and_forget"
    begun = children(mutant=mutant)
    for number in range(GAPS, GAPS + PROCESSES):
        begun.fork(number)
    begun.listen(4.0)
    begun.kill_all()
    drained(start, mutant=mutant)
    _, repeated = lost_and_repeated(api, begun.seen)
    assert repeated
    figure("R4n", f"shared windows, forgotten parts: {len(repeated)} maxima twice")


@pytest.mark.flaky(reruns=1)
@pytest.mark.parametrize("share", ["host", "off"])
def test_four_processes_make_one_report_an_epoch_with_the_union(
    api, start, children, environment, figure, share
):
    """The control is `off`: four reports of one class each."""
    environment.setenv("PEAKHOLD_SHARE", share)
    begun = children()
    numbers = range(GAPS + 2, GAPS + 2 + PROCESSES)  # none of which forks
    for number in numbers:
        begun.fork(number)
    begun.listen(6.5)
    # Of the first epoch not everybody has a part.
    whole = [observers(each) for each in reports(api)[1:]]
    begun.kill_all()
    assert len(whole) > 3
    if share == "off":
        assert all(len(each) == 1 for each in whole)
        assert len(whole) > 10
        return
    assert all(each == observers(begun.seen) for each in whole)
    assert len(whole) <= 8
    figure("R4", f"shared windows: {len(whole)} epochs, a report each with the union")
