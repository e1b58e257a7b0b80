"""R4 and R21 for windows that processes share: nothing lost, nothing in two reports."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from contextlib import closing, suppress

import pytest
from draining import altered, drain, drained

from peakhold.outbox import StateDirectory, admin

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

GAPS = 14
"""Steps of ``programs/sharing.py``."""
KILLS = int(os.environ.get("PEAKHOLD_TEST_KILLS", "8"))
"""More of them, for a long run: PEAKHOLD_TEST_KILLS=200."""
PROCESSES = 4
PATIENCE = 40.0


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


class Children:
    """Processes that observe into one window."""

    def __init__(self, nursery):
        self.nursery = nursery
        self.living = {}
        self.seen = {}
        self.died = set()

    def fork(self, number):
        self.nursery.tell(number)
        while number not in self.living and number not in self.died:
            self.hear()

    def hear(self):
        self.take(self.nursery.hear().split())

    def take(self, words):
        what, *told = words
        if what in {"born", "forked"}:
            self.living[int(told[0])] = int(told[1])
        elif what == "died":
            self.died.add(int(told[0]))
            self.living.pop(int(told[0]), None)
        elif what == "seen":
            name, confidence = told
            self.seen[name] = max(float(confidence), self.seen.get(name, 0.0))

    def listen(self, seconds):
        """Take in what they tell for some seconds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.nursery.lines.empty():
                time.sleep(0.01)
            else:
                self.hear()

    def signal(self, number, what):
        with suppress(ProcessLookupError):
            os.kill(self.living[number], what)

    def kill(self, number):
        self.signal(number, signal.SIGKILL)
        del self.living[number]

    def kill_all(self):
        """Kill all, and take in the rest of what they told."""
        for number in list(self.living):
            self.kill(number)
        process = self.nursery.process
        if process.stdin.closed:
            return
        process.stdin.close()
        self.nursery.ended()
        for line in self.nursery.rest():
            if line.startswith("seen"):
                self.take(line.split())


def reports(api):
    """Each report once, as class and confidence."""
    bodies = {
        request.headers["Idempotency-Key"]: request.body
        for request in api.accepted(kind="report")
    }
    found = []
    for body in bodies.values():
        results = json.loads(body)["inference_results"]
        found.append({each["class_name"]: each["confidence"] for each in results})
    return [each for each in found if "drained" not in each]


def lost_and_repeated(api, seen):
    """Return the maxima that are in no report, and those that are in two."""
    found = Counter(pair for each in reports(api) for pair in each.items())
    best = {}
    for name, confidence in found:
        best[name] = max(confidence, best.get(name, 0.0))
    lost = {name for name, confidence in seen.items() if best.get(name, 0) < confidence}
    return lost, {pair for pair, times in found.items() if times > 1}


def killed_in_gaps(api, start, children, **options):
    """Kill a process after each step; returns who died, what is lost, and repeated."""
    begun = children(**options)
    for number in range(GAPS):
        begun.fork(number)
    deadline = time.monotonic() + PATIENCE
    while len(begun.died) < GAPS and begun.living and time.monotonic() < deadline:
        begun.listen(0.1)
    begun.kill_all()
    drain(start, **options)
    return (begun, *lost_and_repeated(api, begun.seen))


def killed_at_random(api, start, children, seed, kills, **options):
    """Kill, stop and fork; returns what is lost, and what is in two reports."""
    begun, draw = children(**options), random.Random(seed)
    for number in range(GAPS, GAPS + PROCESSES):
        begun.fork(number)
    begun.listen(1.0)
    begun.signal(GAPS, signal.SIGSTOP)  # for longer than others wait
    begun.listen(3.0)
    begun.signal(GAPS, signal.SIGCONT)
    for number in range(GAPS + PROCESSES, GAPS + PROCESSES + kills):
        begun.fork(number)
        late = draw.choice(list(begun.living))
        begun.signal(late, signal.SIGSTOP)
        begun.listen(draw.uniform(0.1, 1.0))
        if draw.random() < 0.7:
            begun.listen(draw.uniform(0.0, 1.0))
            begun.signal(late, signal.SIGCONT)
        begun.kill(draw.choice(list(begun.living)))
    begun.kill_all()
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
    assert len(begun.seen) > KILLS
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
        f"shared windows: {KILLS} kills, {len(begun.seen)} processes, {late} late "
        "parts, 0 lost, 0 twice",
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
    *_, unexplained = drained(start)
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
    names = {f"c{number}" for number in numbers}
    begun.listen(6.5)
    whole = reports(api)[1:]  # of the first epoch not everybody has a part
    begun.kill_all()
    assert len(whole) > 3
    if share == "off":
        assert all(len(each) == 1 for each in whole)
        assert len(whole) > 10
        return
    assert all(each.keys() == names for each in whole)
    assert len(whole) <= 8
    figure("R4", f"shared windows: {len(whole)} epochs, a report each with the union")
