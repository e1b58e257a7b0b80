"""R9: memory and disk are bounded, and what does not fit is counted."""

from __future__ import annotations

import json
import random
import sys
from dataclasses import dataclass, field

import pytest
from stepping import Stepped, conserved, make_sender
from test_r06_outage import size_of

from peakhold.delivery.settings import DeliverySettings
from peakhold.outbox.room import Room
from peakhold.testing import Answer

MIB = 2**20
MOST_MEMORY = 64 * MIB
BOUND_MIB = 0.5
WEEK = 7 * 24 * 3600
WINDOWS = 168
HOUR = 3600

needs_proc = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="memory is read from /proc"
)


@needs_proc
def test_a_window_of_a_hundred_thousand_classes_fits_in_memory(api, start, figure):
    api.always = Answer(503)
    process = start("wide", 10, 10_000, 1)
    peaks, opened, sealed = map(int, process.hear_until("memory").split())
    process.kill()
    assert peaks == 100_000
    assert max(opened, sealed) <= MOST_MEMORY
    figure("R9", f"{peaks} classes: {max(opened, sealed) / MIB:.0f} MiB at most")


@needs_proc
def test_the_control_keeping_the_frames_takes_more(api, start, figure):
    process = start("wide", 10, 10_000, 4, mutant="keep_frames")
    _, opened, _ = map(int, process.hear_until("memory").split())
    process.kill()
    assert opened > MOST_MEMORY
    figure("R9n", f"frames kept: {opened / MIB:.0f} MiB")


@dataclass
class Week:
    """A week offline, with a window of 200 classes every hour.

    Attributes:
        stepped: Its dispatcher.
        most: Bytes that the outbox took at most.
        best: The highest confidence of each class.
    """

    stepped: Stepped
    most: int = 0
    best: dict[str, float] = field(default_factory=dict)

    def arrived(self, api):
        """Go online; returns the highest confidence of each class that arrives."""
        key = self.stepped.sender._api_key
        self.stepped.dispatcher.register(make_sender(api, key))
        self.stepped.run(HOUR)
        found = {}
        for result in api.results():
            name, confidence = result["class_name"], result["confidence"]
            found[name] = max(confidence, found.get(name, 0.0))
        return found


@pytest.fixture
def week(api, tmp_path):
    """Stays offline for a week; a window's key is made of its number."""
    dispatchers = []

    def stay(window, bound_mib=BOUND_MIB):
        stepped = Stepped(
            api, tmp_path, offline=True, outbox_mib=bound_mib, ttl=2.0 * WEEK
        )
        dispatchers.append(stepped.dispatcher)
        week = Week(stepped)
        draw = random.Random(9)
        names = [f"{draw.getrandbits(64):x}" for _ in range(200)]
        for number in range(WINDOWS):
            best = {name: draw.random() for name in names}
            for name in names:
                week.best[name] = max(best[name], week.best.get(name, 0.0))
            stepped.seal(window=window(number), **best)
            stepped.run(WEEK / WINDOWS)
            week.most = max(week.most, size_of(tmp_path))
        assert conserved(stepped.counts())
        return week

    yield stay
    for dispatcher in dispatchers:
        dispatcher.close(0)


def one_window(_number):
    return "w"


def a_window_each(number):
    return f"w{number}"


def test_a_week_offline_merges_windows_keeps_the_bound_and_every_peak(
    week, api, figure
):
    offline = week(one_window)
    counts = offline.stepped.counts()
    assert offline.most <= BOUND_MIB * MIB
    assert counts.dropped == {}
    assert counts.sealed == counts.pending == WINDOWS
    records = offline.stepped.records()
    assert records < WINDOWS  # a merged record stands for several seals
    assert offline.arrived(api) == offline.best
    assert conserved(offline.stepped.counts())
    figure(
        "R9",
        f"a week offline: {offline.most / MIB:.2f} of {BOUND_MIB} MiB, {WINDOWS} "
        f"windows in {records} records, 0 dropped, each of {len(offline.best)} peaks "
        "arrives",
    )


def test_what_cannot_be_merged_is_dropped_the_oldest_first_and_counted(
    week, api, figure
):
    offline = week(a_window_each)
    counts = offline.stepped.counts()
    dropped = counts.dropped["overflow"]
    assert offline.most <= BOUND_MIB * MIB
    assert dropped > 0
    assert counts.pending + dropped == WINDOWS
    assert offline.arrived(api) != offline.best
    left = [json.loads(request.body)["timestamp"] for request in api.accepted()]
    assert left == sorted(left)
    assert len(left) == WINDOWS - dropped
    figure("R9", f"windows that cannot be merged: {dropped} of {WINDOWS} dropped")


def test_the_control_without_merging_windows_of_one_key_are_dropped(
    week, api, monkeypatch, figure
):
    monkeypatch.setattr(Room, "_merged", lambda *_: iter(()))
    offline = week(one_window)
    dropped = offline.stepped.counts().dropped["overflow"]
    assert dropped > 0
    assert offline.arrived(api) != offline.best
    figure("R9n", f"without merging: {dropped} of {WINDOWS} dropped")


def test_the_control_without_a_bound_it_takes_more(week, figure):
    most = week(a_window_each, bound_mib=256.0).most
    assert most > BOUND_MIB * MIB
    figure("R9n", f"without a bound: {most / MIB:.1f} MiB")


def test_the_outbox_of_a_user_is_bounded_by_256_mib():
    assert DeliverySettings.from_environment({}).outbox_mib == 256
