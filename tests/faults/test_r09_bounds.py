"""R9: memory and disk are bounded, and what does not fit is counted."""

from __future__ import annotations

import random
import sys

import pytest
from stepping import Stepped, conserved
from test_r06_outage import size_of

from peakhold.delivery.settings import DeliverySettings
from peakhold.testing import Answer

MIB = 2**20
MOST_MEMORY = 64 * MIB
BOUND_MIB = 1.0
WEEK = 7 * 24 * 3600
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
def test_the_control_keeping_the_frames_takes_more(api, start):
    process = start("wide", 10, 10_000, 4, mutant="keep_frames")
    _, opened, _ = map(int, process.hear_until("memory").split())
    process.kill()
    assert opened > MOST_MEMORY


def week(api, directory, window):
    """Stay offline for a week with a window of 200 classes every half hour.

    Returns:
        The dispatcher, and the bytes that the outbox took at most.
    """
    stepped = Stepped(
        api, directory, offline=True, outbox_mib=BOUND_MIB, ttl=2.0 * WEEK
    )
    draw = random.Random(9)
    names = [f"{draw.getrandbits(64):x}" for _ in range(200)]
    most = 0
    for number in range(WEEK // 1800):
        best = {name: draw.random() for name in names}
        stepped.seal(window=window(number), **best)
        stepped.run(1800)
        most = max(most, size_of(directory))
    return stepped, most


def test_a_week_offline_merges_windows_and_keeps_the_bound(api, tmp_path, figure):
    stepped, most = week(api, tmp_path, window=lambda _number: "w")
    counts = stepped.counts()
    assert most <= BOUND_MIB * MIB
    assert conserved(counts)
    assert counts.sealed == WEEK // 1800
    records = stepped.records()
    assert records < counts.pending  # a merged record stands for several seals
    stepped.dispatcher.close(0)
    figure(
        "R9",
        f"a week offline: {most / MIB:.2f} of {BOUND_MIB:.0f} MiB, {counts.sealed} "
        f"windows in {records} records, {sum(counts.dropped.values())} dropped",
    )


def test_what_cannot_be_merged_is_dropped_the_oldest_first_and_counted(api, tmp_path):
    stepped, most = week(api, tmp_path, window=lambda number: f"w{number}")
    counts = stepped.counts()
    assert most <= BOUND_MIB * MIB
    assert conserved(counts)
    assert counts.dropped["overflow"] > 0
    assert counts.pending + counts.dropped["overflow"] == WEEK // 1800
    stepped.dispatcher.close(0)


def test_the_control_without_a_bound_it_takes_more(api, tmp_path, monkeypatch):
    monkeypatch.setattr("test_r09_bounds.BOUND_MIB", 256.0)
    stepped, most = week(api, tmp_path, window=lambda number: f"w{number}")
    stepped.dispatcher.close(0)
    assert most > MIB


def test_the_outbox_of_a_user_is_bounded_by_256_mib():
    assert DeliverySettings.from_environment({}).outbox_mib == 256
