"""R6: an outage of a day loses nothing, and its end does not flood the API."""

from __future__ import annotations

from collections import Counter

import pytest
from stepping import Stepped, conserved

from peakhold.testing import Answer

DAY = 24 * 3600
PERIOD = 5
WINDOWS = DAY // PERIOD
CLASSES = 20
MOST_BYTES = 25_000_000
MOST_A_SECOND = 10


def size_of(directory):
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def outage(api, directory, windows, **settings):
    """Let windows close while the API is down; returns the dispatcher of then."""
    stepped = Stepped(api, directory, **settings)
    api.always = Answer(503)
    for number in range(windows):
        stepped.seal(
            **{f"class-{c}": (number * 7 + c) % 997 / 997 for c in range(CLASSES - 1)},
            **{f"w{number}": 0.5},
        )
        stepped.run(PERIOD)
    return stepped


def recover(api, stepped, seconds):
    """End the outage; returns the requests of each second after it."""
    api.always = None
    many = Counter()
    for second in range(seconds):
        before = len(api.requests)
        stepped.run(1.0)
        many[second] = len(api.requests) - before
        if not stepped.dispatcher.outbox.counts().pending:
            break
    return many


def windows_of(api):
    names = {result["class_name"] for result in api.results()}
    return {name for name in names if name.startswith("w")}


def test_a_day_s_windows_are_all_delivered_at_a_bounded_rate(api, tmp_path, figure):
    stepped = outage(api, tmp_path, WINDOWS)
    size = size_of(tmp_path)
    assert size <= MOST_BYTES
    many = recover(api, stepped, DAY)
    assert max(many.values()) <= MOST_A_SECOND
    assert windows_of(api) == {f"w{number}" for number in range(WINDOWS)}
    counts = stepped.counts()
    assert conserved(counts)
    assert counts.delivered == counts.sealed == WINDOWS
    stepped.dispatcher.close(0)
    figure(
        "R6",
        f"{WINDOWS} windows of {CLASSES} classes, 100 % delivered, outbox "
        f"{size / 1e6:.1f} MB, {max(many.values())} requests a second",
    )


@pytest.mark.parametrize("settings", [{"ttl": 3600.0}, {"outbox_mib": 0.25}])
def test_the_control_a_short_memory_loses_windows(api, tmp_path, settings, figure):
    stepped = outage(api, tmp_path, 2000, **settings)
    recover(api, stepped, DAY)
    counts = stepped.counts()
    assert conserved(counts)
    assert counts.delivered < counts.sealed or len(api.accepted()) < counts.sealed
    stepped.dispatcher.close(0)
    (setting,) = settings
    figure("R6n", f"small {setting}: {len(api.accepted())} of {counts.sealed} arrive")


def test_the_control_without_a_pace_the_api_is_flooded(api, tmp_path, figure):
    stepped = outage(api, tmp_path, 100, rate=1000.0)
    most = max(recover(api, stepped, 600).values())
    assert most > MOST_A_SECOND
    stepped.dispatcher.close(0)
    figure("R6n", f"without a pace: {most} requests a second")
