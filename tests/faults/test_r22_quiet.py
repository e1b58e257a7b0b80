"""R22: an outage of an hour is told once a minute and cause, its end once.

That reports fall behind by it is a cause of its own, told once, and so is its end.
"""

from __future__ import annotations

import logging
import random

from stepping import Stepped, conserved

from peakhold import notices
from peakhold.testing import Answer, Reset

HOUR = 3600
PERIOD = 5


def outage(api, directory):
    """Let an hour of failures pass, with a window every few seconds, then recover."""
    stepped = Stepped(api, directory)
    # What workers would draw: pauses between a second and a minute.
    draw = random.Random(22)  # as good as any
    stepped.dispatcher.jitter = draw.uniform
    faults = [Answer(503), Answer(429), Reset()]
    api.faults = lambda request: faults[len(api.posts()) % len(faults)]
    for number in range(HOUR // PERIOD):
        stepped.seal(**{f"c{number}": 0.5})
        stepped.run(PERIOD)
    attempts = len(api.posts())
    api.faults = None
    stepped.run(HOUR)
    counts = stepped.counts()
    assert conserved(counts)
    assert counts.delivered == counts.sealed == HOUR // PERIOD
    stepped.dispatcher.close(0)
    return attempts


def told(caplog, level):
    """Return what was said of the endpoint, and of the reports that fell behind."""
    lines = [each.getMessage() for each in caplog.records if each.levelno == level]
    behind = [line for line in lines if line.startswith("Reports to ")]
    return [line for line in lines if line not in behind], behind


def test_an_outage_is_told_once_a_minute_and_its_end_once(
    api, tmp_path, caplog, figure
):
    caplog.set_level(logging.INFO)
    attempts = outage(api, tmp_path)
    warnings, (behind,) = told(caplog, logging.WARNING)
    (recovery,), (caught_up,) = told(caplog, logging.INFO)
    assert "works again" in recovery
    assert len(warnings) <= HOUR / 60
    assert "fall behind" in behind
    assert "caught up" in caught_up
    figure(
        "R22",
        f"an hour: {attempts} failed attempts, {len(warnings)} warnings, 1 recovery",
    )


def test_the_control_a_warning_for_each_failure_is_too_many(
    api, tmp_path, caplog, monkeypatch, figure
):
    monkeypatch.setattr(notices, "INTERVAL", 0.0)
    attempts = outage(api, tmp_path)
    warnings, _ = told(caplog, logging.WARNING)
    assert len(warnings) == attempts > HOUR / 60
    figure("R22n", f"each failure told: {attempts} warnings")
