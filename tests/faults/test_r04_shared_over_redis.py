"""R4 and R21 for windows that hosts share over Redis: nothing lost, nothing in two."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections import Counter
from contextlib import ExitStack

import pytest
from children import (
    KILLS,
    PATIENCE,
    Children,
    kill_at_random,
    kill_in_gaps,
    lost_and_repeated,
    lost_and_repeated_of,
    observers,
    peaks_of,
    reports,
)
from draining import altered, drain_all, drained_all
from redis_server import PROGRAM, WITHOUT, Line, RedisServer, shared_by
from test_r13_clock import WallClock

from peakhold.monitor import MonitorServer

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here"),
    pytest.mark.skipif(PROGRAM is None, reason=WITHOUT),
]
needs_clock = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not shutil.which("cc"),
    reason="the wall clock is set by a preloaded library, which needs Linux and cc",
)

GAPS = 21
"""Steps of ``programs/sharing.py`` over Redis."""
REPORTED = 15
"""The step that has made a report, of which Redis does not know."""
HOSTS = 3
FIRST = GAPS
"""Number of the first process that is not killed in a gap; it and the next two do not
fork."""
GRACE = 1
"""Seconds after the end of an epoch of a second at which it is closed."""
LEASE = "2"
"""Seconds of a lease, in place of 30."""
A_PART = b", true]"
"""What a request holds that brings a part: its id, its epoch, and that it is there."""
ANSWER_WITHIN = 0.5
"""Seconds that Redis has for an answer, in place of 2."""


class Hosts:
    """State directories that share windows over a Redis, each by a line of its own.

    Attributes:
        redis: The server.
        lines: One per host.
        environments: Those of each host's processes.
    """

    def __init__(self, redis, lines, directory, start):
        """Have no processes yet."""
        self.redis = redis
        self.lines = lines
        self._start = start
        self._children = Children()
        self.environments = [
            {
                "PEAKHOLD_STATE_DIR": str(directory / f"host-{number}"),
                **shared_by(line.port, ANSWER_WITHIN),
            }
            for number, line in enumerate(lines)
        ]

    def begin(self, count=0, **options):
        """Fork so many processes, on one host after the other; returns them."""
        self._children = Children(
            *(
                self._start("nursery", "sharing", **{**each, **options})
                for each in self.environments
            )
        )
        for number in range(FIRST, FIRST + count):
            self._children.fork(number)
        return self._children

    def drain(self, **options):
        """Deliver what every host has left, see ``drain_all``."""
        return drain_all(
            self._start, [{**each, **options} for each in self.environments]
        )

    def drained(self, **options):
        """Deliver what every host has left, see ``drained_all``."""
        hosts = [{**each, **options} for each in self.environments]
        return drained_all(self._start, hosts)

    def end(self):
        """Kill what a failing test has left."""
        self._children.kill_all()


@pytest.fixture
def hosts(start, environment, tmp_path):
    environment.setenv("PEAKHOLD_REQUESTS_PER_SECOND", "2000")
    environment.setenv("PEAKHOLD_TEST_LEASE", LEASE)
    with RedisServer() as redis, ExitStack() as stack:
        lines = [stack.enter_context(Line(redis.port)) for _ in range(HOSTS)]
        running = Hosts(redis, lines, tmp_path, start)
        yield running
        running.end()


@pytest.fixture
def monitor(environment):
    with MonitorServer() as running:
        environment.setenv("API_BASE_URL", running.url)
        yield running


def test_a_kill_in_any_gap_loses_nothing_and_repeats_nothing(api, hosts, figure):
    begun = hosts.begin()
    kill_in_gaps(begun, GAPS)
    hosts.drain()
    assert begun.died == set(range(GAPS))
    assert lost_and_repeated(api, begun.seen) == (set(), set())
    assert altered(api) == set()
    figure("R4", f"over Redis: a kill in each of {GAPS} gaps, 0 lost, 0 twice")


def reported_again(api, hosts, **options):
    """Kill whoever makes a report before Redis knows of it; returns what is twice."""
    begun = hosts.begin(HOSTS, **options)
    begun.fork(REPORTED)
    deadline = time.monotonic() + PATIENCE
    while REPORTED not in begun.died and time.monotonic() < deadline:
        begun.listen(0.1)
    begun.kill_all()
    hosts.drained(**options)
    assert begun.died == {REPORTED}
    return lost_and_repeated(api, begun.seen)[1]


def test_the_control_reports_made_twice_with_ids_of_chance_have_maxima_twice(
    api, hosts, figure
):
    repeated = reported_again(api, hosts, mutant="report_ids_of_chance")
    assert repeated
    figure("R4n", f"over Redis, report ids of chance: {len(repeated)} maxima twice")


def test_kills_stops_and_forks_lose_nothing_and_repeat_nothing(
    api, hosts, seed, figure
):
    begun = hosts.begin()
    kill_at_random(begun, FIRST, seed, KILLS)
    hosts.drain()
    assert len(observers(begun.seen)) > KILLS
    assert lost_and_repeated(api, begun.seen) == (set(), set())
    assert altered(api) == set()
    figure(
        "R4",
        f"over Redis: {KILLS} kills, {len(observers(begun.seen))} processes, 0 lost",
    )


def cut_off_and_stand_still(hosts, **options):
    """Cut off one host after the other, and have Redis stand still; returns who saw."""
    begun = hosts.begin(2 * HOSTS, **options)
    begun.listen(1.2)
    unanswered, silent, refused = hosts.lines
    unanswered.cut(answers_to=A_PART)
    begun.listen(2.8)  # in which others report what it has sent
    unanswered.heal()
    silent.cut()
    refused.refuse()
    begun.listen(1.2)
    refused.heal()
    hosts.redis.ask("DEBUG", "SLEEP", 1.5)
    silent.heal()
    begun.listen(1.0)
    begun.leave()
    hosts.drained(**options)
    return begun


def windows_at(monitor):
    """Return what a monitor got of the window that is shared."""
    messages = [json.loads(each.body) for each in monitor.store.requests("windows")]
    windows = [each["window"] for message in messages for each in message["windows"]]
    return [each for each in windows if each["aggregator"] == "k"]


def counted(monitor):
    """Return the detections that a monitor has of the window that is shared."""
    rows = monitor.store.windows("local")
    return sum(each.detections for each in rows if each.aggregator == "k")


def test_hosts_cut_off_and_a_server_that_stands_still_change_no_figure(
    monitor, hosts, figure
):
    begun = cut_off_and_stand_still(hosts)
    found = [peaks_of(each) for each in windows_at(monitor)]
    assert lost_and_repeated_of(found, begun.seen) == (set(), set())
    assert counted(monitor) == begun.frames
    figure(
        "R4",
        f"over Redis, hosts cut off, a server that slept: {begun.frames} detections, "
        "all of them at the monitor, once",
    )


@pytest.mark.unbalanced
def test_the_control_a_redis_that_forgets_ids_has_maxima_twice(monitor, hosts, figure):
    begun = cut_off_and_stand_still(hosts, mutant="forget_ids")
    found = [peaks_of(each) for each in windows_at(monitor)]
    _, repeated = lost_and_repeated_of(found, begun.seen)
    assert repeated
    figure("R4n", f"over Redis, ids forgotten: {len(repeated)} maxima twice")


def emptied(hosts, **options):
    """Have Redis forget everything again and again; returns who saw, and the unsure."""
    begun = hosts.begin(HOSTS, **options)
    begun.listen(1.2)
    for _ in range(9):
        hosts.redis.ask("FLUSHALL")
        begun.listen(0.29)
    begun.leave()
    return begun


def test_a_redis_that_loses_everything_costs_no_maximum(monitor, hosts, figure):
    begun = emptied(hosts)
    every = hosts.drained()
    windows = windows_at(monitor)
    lost, _ = lost_and_repeated_of([peaks_of(each) for each in windows], begun.seen)
    assert lost == set()
    assert counted(monitor) == begun.frames
    parts = Counter(part["id"] for each in windows for part in each["parts"])
    twice = sum(times > 1 for times in parts.values())
    unsure = sum(each["unsure"] for each in begun.left)
    unsure += sum(each.unsure for each in every)
    assert twice <= unsure
    figure("R4", f"FLUSHALL: 0 lost, {twice} parts in two reports, {unsure} counted")


@pytest.mark.unbalanced
def test_the_control_parts_that_redis_alone_holds_are_lost(monitor, hosts, figure):
    begun = emptied(hosts, mutant="keep_no_part")
    hosts.drained(mutant="keep_no_part")
    found = [peaks_of(each) for each in windows_at(monitor)]
    lost, _ = lost_and_repeated_of(found, begun.seen)
    assert lost
    figure("R4n", f"FLUSHALL, parts given away: {len(lost)} maxima lost")


def clocks_apart(hosts, directory, ahead):
    """Have a host's clock run ahead and another one's behind; returns who saw, late."""
    for number, (environment, offset) in enumerate(
        zip(hosts.environments, (ahead, 0, -ahead), strict=True)
    ):
        own = directory / f"clock-{number}"
        own.mkdir()
        clock = WallClock(own)
        clock.set(offset)
        environment.update(clock.environment)
    begun = hosts.begin(HOSTS)
    begun.listen(4.5)
    begun.leave()
    return begun, sum(each["late"] for each in begun.left)


@needs_clock
def test_clocks_apart_by_the_grace_lose_nothing_and_repeat_nothing(
    api, hosts, tmp_path, figure
):
    begun, late = clocks_apart(hosts, tmp_path, GRACE)
    hosts.drain()
    assert lost_and_repeated(api, begun.seen) == (set(), set())
    assert altered(api) == set()
    assert late > 0
    figure("R4", f"over Redis: clocks {2 * GRACE} s apart, {late} parts late, 0 lost")


@pytest.mark.flaky(reruns=1)
@pytest.mark.parametrize("share", ["redis", "off"])
def test_three_hosts_make_one_report_an_epoch_with_the_union(api, hosts, figure, share):
    """The control is `off`: three reports of one host each."""
    off = {"PEAKHOLD_SHARE": "off"} if share == "off" else {}
    begun = hosts.begin(HOSTS, **off)
    begun.listen(4.8 if share == "redis" else 3.5)
    whole = [observers(each) for each in reports(api)[1:]]  # the first one is not
    begun.kill_all()
    assert len(whole) > 1
    if share == "off":
        assert all(len(each) == 1 for each in whole)
        assert len(whole) > HOSTS
        return
    assert all(each == observers(begun.seen) for each in whole)
    assert len(whole) <= 6
    figure("R4", f"over Redis: {len(whole)} epochs, a report each with the union")
