"""A flush says that nothing is left only when nothing is."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing

import pytest
from stand_ins import StatusError, eventually, report, sent

from peakhold.delivery import Dispatcher
from peakhold.delivery.committer import Committer
from peakhold.delivery.destination import Destination
from peakhold.delivery.scheduler import Scheduler
from peakhold.outbox import Outbox


def delayed(monkeypatch, owner, name, seconds=0.05):
    """Have a method take so long before and after what it does."""
    original = getattr(owner, name)

    def slow(self, *args, **options):
        time.sleep(seconds)
        try:
            return original(self, *args, **options)
        finally:
            time.sleep(seconds)

    monkeypatch.setattr(owner, name, slow)


STEPS = [
    (Committer, "_begin"),
    (Committer, "_insert"),
    (Destination, "take"),
    (Destination, "note_stored"),
    (Destination, "turn"),
    (Destination, "_next"),
    (Destination, "export"),
    (Outbox, "add"),
    (Outbox, "lease"),
    (Outbox, "acknowledge"),
    (Outbox, "release"),
]


@pytest.mark.parametrize(("owner", "name"), STEPS)
@pytest.mark.parametrize("waits", [True, False])
def test_a_flush_waits_for_whatever_is_under_way(
    monkeypatch, sender, client, owner, name, waits
):
    """Each step takes long; a report is in it when the flush looks."""
    dispatcher = Dispatcher()
    dispatcher.deliver(report(sender, "first"), sender)
    assert dispatcher.flush(10)
    delayed(monkeypatch, owner, name)
    if waits:  # in the outbox, from which it is leased
        monkeypatch.setattr(Destination, "admits", lambda *_: False)
    dispatcher.deliver(report(sender, "second"), sender)
    assert dispatcher.flush(20)
    assert sent(client) == 2
    counts = dispatcher.counts()
    assert (counts.pending, counts.delivered) == (0, 2)
    dispatcher.close(0)


def test_the_control_a_flush_that_overlooks_a_turn_is_seen(monkeypatch, sender, client):
    dispatcher = Dispatcher()
    dispatcher.deliver(report(sender, "first"), sender)
    assert dispatcher.flush(10)
    delayed(monkeypatch, Destination, "export", 0.5)
    overlooking = property(lambda self: not (self._leased or self._stored))
    monkeypatch.setattr(Destination, "is_idle", overlooking)
    monkeypatch.setattr(Scheduler, "busy", False)
    dispatcher.deliver(report(sender, "second"), sender)
    assert dispatcher.flush(20)
    assert sent(client) == 1
    dispatcher.close(5)


def test_the_figures_are_of_one_moment(monkeypatch, sender):
    """Nothing counts twice, or not at all, on its way from memory to the outbox."""
    dispatcher = Dispatcher(worker=False)
    delayed(monkeypatch, Outbox, "add", 0.02)
    sender.offline = True
    found, done = [], threading.Event()

    def look():
        while not done.is_set():
            counts = dispatcher.counts()
            found.append((counts.sealed, counts.pending))

    looking = threading.Thread(target=look)
    looking.start()
    for number in range(5):
        dispatcher.deliver(report(sender, f"w{number}"), sender)
        assert eventually(lambda: dispatcher.counts().sealed)
        dispatcher.step()
    done.set()
    looking.join()
    steps = [after[0] - before[0] for before, after in zip(found, found[1:])]  # noqa: B905, RUF007 - of Python 3.10
    assert min(steps) == 0
    assert all(sealed == pending for sealed, pending in found)
    assert found[-1] == (5, 5) or dispatcher.counts().sealed == 5


def test_what_could_not_be_leased_is_not_taken_for_delivered(
    state, sender, client, clock
):
    """Another process has the file for longer than is waited for it."""
    dispatcher = Dispatcher(state, clock=clock, worker=False)
    client.failures = [StatusError(503)]
    dispatcher.deliver(report(sender), sender)
    dispatcher.step()
    dispatcher.step()
    clock.advance(4.0)  # not yet is the outbox looked through again
    with closing(sqlite3.connect(state.outbox, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        dispatcher.step()
        assert dispatcher.outbox.disk_error is not None
    assert dispatcher.counts().pending == 1
    assert not dispatcher.flush(0)
    for _ in range(3):
        clock.advance(20.0)
        dispatcher.step()
    assert sent(client) == 2
    assert dispatcher.flush(0)  # the control: now it is
