"""Falling behind is said once, with cause and remedy, and so is its end."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing

import pytest
from stand_ins import StatusError, metadata, sent, window_of

from peakhold.delivery import Dispatcher
from peakhold.delivery.exporter import DELIVERED, Exporter
from peakhold.delivery.health import health
from peakhold.delivery.settings import DeliverySettings
from peakhold.records import DestinationKey, Span, seal_report


@pytest.fixture(params=["disk", "memory"])
def outbox_in(request, state):
    return state if request.param == "disk" else None


@pytest.fixture
def dispatcher(outbox_in, clock):
    return make(outbox_in, clock)


def make(state, clock, **settings):
    return Dispatcher(
        state,
        DeliverySettings(**settings),
        clock=clock,
        jitter=lambda low, high: high,
        worker=False,
    )


def report(sender, period=1):
    span = Span("key", None, ended=0, frequency=period)
    return seal_report(sender.destination, "w", window_of({"a": 0.5}), span=span)


class Slow(Exporter):
    """An endpoint that takes its time for every report."""

    destination = DestinationKey("slow:", "none", "Slow")

    def __init__(self, clock, seconds):
        self.clock = clock
        self.seconds = seconds
        self.offline = False

    def export(self, records):
        self.clock.now += self.seconds
        return [DELIVERED] * len(records)


def run(dispatcher, clock, exporter, seconds, *, every=1.0, period=1):
    """Let windows close, and do what is due; a request may take over a second."""
    start, closings = clock.now, 0
    while clock.now < start + seconds:
        while every and clock.now >= start + closings * every:
            closings += 1
            dispatcher.deliver(report(exporter, period), exporter)
        pause = dispatcher.step()
        clock.now += min(0.05, pause) if pause is not None else 0.05


def said(caplog, level):
    lines = [each for each in caplog.records if each.levelno == level]
    return [each.getMessage() for each in lines if "Reports to" in each.getMessage()]


def behind(dispatcher):
    found = [row["behind"] for row in health(dispatcher)["destinations"]]
    return found[0] if found else None


def pass_unused(state, seconds):
    """Have so much time pass while no process uses the outbox."""
    with closing(sqlite3.connect(state.outbox)) as database, database:
        database.execute(
            "UPDATE totals SET value = value - ? WHERE name = 'wall'", (seconds,)
        )


@pytest.fixture(autouse=True)
def every_line(caplog):
    caplog.set_level(logging.INFO)


def test_an_endpoint_that_is_too_slow_is_said_once_and_so_is_the_end(
    dispatcher, clock, caplog
):
    exporter = Slow(clock, 2.0)
    run(dispatcher, clock, exporter, 400)
    (warning,) = said(caplog, logging.WARNING)
    assert "slow:" in warning
    assert "faster than the endpoint takes reports: 1.0 a second against 0.5" in warning
    assert "`frequency`" in warning
    found = behind(dispatcher)
    assert found["cause"] == "slow"
    assert (found["text"], found["remedy"]) != ("", "")
    assert said(caplog, logging.INFO) == []
    exporter.seconds = 0.01
    run(dispatcher, clock, exporter, 30)
    (over,) = said(caplog, logging.INFO)
    assert "caught up" in over
    assert behind(dispatcher) is None
    assert len(said(caplog, logging.WARNING)) == 1


def test_the_control_an_endpoint_that_keeps_up_is_not_said_to_be_slow(
    dispatcher, clock, caplog
):
    run(dispatcher, clock, Slow(clock, 0.9), 400)
    assert said(caplog, logging.WARNING) == []
    assert behind(dispatcher) is None


def test_a_second_time_is_said_again(dispatcher, clock, caplog):
    exporter = Slow(clock, 2.0)
    for _ in range(2):
        exporter.seconds = 2.0
        run(dispatcher, clock, exporter, 300)
        exporter.seconds = 0.01
        run(dispatcher, clock, exporter, 100)
    assert len(said(caplog, logging.WARNING)) == 2
    assert len(said(caplog, logging.INFO)) == 2


def test_an_endpoint_that_fails_is_behind_with_its_error(
    dispatcher, sender, client, clock, caplog
):
    client.failures = [StatusError(503)] * 5
    run(dispatcher, clock, sender, 120, every=5.0)
    (warning,) = said(caplog, logging.WARNING)
    assert "requests to it fail, the last with StatusError: no luck" in warning
    assert "`peakhold doctor`" in warning
    assert behind(dispatcher)["cause"] == "failing"
    # Its end is told when the backlog is gone, too.
    run(dispatcher, clock, sender, 60, every=5.0)
    assert len(said(caplog, logging.WARNING)) == len(said(caplog, logging.INFO)) == 1
    assert behind(dispatcher) is None


def test_the_rate_after_an_outage_is_named_where_it_is_the_cause(
    outbox_in, sender, client, clock, caplog
):
    dispatcher = make(outbox_in, clock, rate=2.0)
    client.failures = [StatusError(503, retry_after=30)]
    dispatcher.deliver(report(sender), sender)
    dispatcher.step()
    for _ in range(300):
        dispatcher.deliver(report(sender), sender)
    run(dispatcher, clock, sender, 120, every=None)
    (warning,) = said(caplog, logging.WARNING)
    assert "after an outage at most 2 requests a second" in warning
    assert "PEAKHOLD_REQUESTS_PER_SECOND" in warning
    assert behind(dispatcher)["cause"] == "bounded"
    run(dispatcher, clock, sender, 120, every=None)
    assert len(said(caplog, logging.INFO)) == 1
    assert behind(dispatcher) is None


@pytest.mark.parametrize(
    ("period", "allowed"), [(1, 60), (20, 60), (21, 63), (600, 1800), (None, 60)]
)
def test_a_report_may_wait_for_three_times_its_frequency_or_a_minute(
    dispatcher, sender, client, clock, period, allowed
):
    client.failures = [StatusError(503, retry_after=3600)]
    dispatcher.deliver(report(sender, period), sender)
    dispatcher.step()
    clock.now += allowed - 1
    assert behind(dispatcher) is None
    clock.now += 2
    assert behind(dispatcher)["cause"] == "failing"


def test_what_is_parked_is_not_said_to_be_behind_as_well(
    dispatcher, sender, client, clock, caplog
):
    client.failures = [StatusError(402)] * 10
    run(dispatcher, clock, sender, 2000, every=5.0)
    assert len(client.failures) == 7  # it was tried every 15 minutes
    assert behind(dispatcher) is None
    assert said(caplog, logging.WARNING) == []


def test_metadata_that_waits_is_not_a_report(dispatcher, sender, client, clock):
    client.failures = [StatusError(503, retry_after=3600)]
    dispatcher.deliver(metadata(sender, "v"), sender)
    dispatcher.step()
    clock.now += 1000
    (row,) = health(dispatcher)["destinations"]
    assert (row["oldest_report"], row["behind"]) == (None, None)


def test_who_is_to_be_offline_is_not_behind(dispatcher, clock, caplog):
    exporter = Slow(clock, 0.01)
    exporter.offline = True
    run(dispatcher, clock, exporter, 400)
    assert dispatcher.counts().pending == 400
    assert behind(dispatcher) is None
    online = Slow(clock, 0.01)
    run(dispatcher, clock, online, 60)
    assert dispatcher.counts().pending == 0
    assert said(caplog, logging.WARNING) == []


def test_what_a_dead_process_left_counts_from_the_start_of_the_next(
    state, sender, client, clock, caplog
):
    first = make(state, clock)
    for _ in range(50):
        first.deliver(report(sender), sender)
    first.committer.commit()
    state.release()
    pass_unused(state, 1000)
    next_one = make(state, clock)
    next_one.register(sender)
    (row,) = next_one.outbox.overview()
    assert row["oldest_report"]["age"] >= 1000
    run(next_one, clock, sender, 5)
    assert sent(client) == 55
    assert said(caplog, logging.WARNING) == []


def test_reports_of_a_process_that_has_ended_are_idle_in_the_eyes_of_another(
    state, sender, clock
):
    first = make(state, clock)
    first.deliver(report(sender), sender)
    first.committer.commit()
    state.release()
    pass_unused(state, 1000)
    found = behind(make(state, clock))  # without a sender for them
    assert found["cause"] == "idle"
    assert "peakhold flush" in found["remedy"]
