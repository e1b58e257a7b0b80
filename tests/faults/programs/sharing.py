"""Observe rising confidences in a window that processes share, and tell each.

A number below that of the ``STEPS`` has the process killed after that step, the first
time that it comes to it with something of the shared window. The class is another one
every half second, so that the parts of an epoch that is lost are missed.
"""

from __future__ import annotations

import functools
import os
import signal
import time
from pathlib import Path

from common import observe, say, sink
from mutant import MUTANT
from sealing import prepare

from peakhold.blocks.windows import ClosedWindow
from peakhold.delivery.destination import Destination
from peakhold.delivery.dispatcher import Dispatcher
from peakhold.delivery.journal import Journals
from peakhold.outbox import epochs, rows
from peakhold.outbox.outbox import Outbox
from peakhold.outbox.store import Store

STEPS = {
    "closed": (ClosedWindow, "__init__"),
    "handed over": (Dispatcher, "deliver"),
    "sealed": (Journals, "seal"),
    "part inserted": (epochs, "add"),
    "part committed": (Store, "add_parts"),
    "part told": (Outbox, "add_parts"),
    "parts joined": (epochs, "join_parts"),
    "report inserted": (rows, "insert"),
    "parts taken": (epochs, "_close_epoch"),
    "epoch closed": (Store, "close_epochs"),
    "epoch told": (Outbox, "close_epochs"),
    "report leased": (Store, "lease"),
    "report sent": (Destination, "export"),
    "report acknowledged": (Store, "acknowledge"),
}
"""What a window passes, from the frame to the acknowledgement; each ends with a gap."""

FREQUENCY = 1
PAUSE = 0.01
NAMED_ALIKE = 50
"""Frames of one class."""
FORKS_ONE_IN = 5


def die():
    """End as kill -9 does."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_after(number):
    """Have this process killed after a step."""
    name = list(STEPS)[number]
    place, attribute = STEPS[name]
    act = getattr(place, attribute)

    @functools.wraps(act)
    def acted(*arguments, **options):
        outcome = act(*arguments, **options)
        something = getattr(outcome, "closed", outcome)
        if attribute == "__init__" or something or outcome is None:
            say("died", number)
            die()
        return outcome

    setattr(place, attribute, acted)


if MUTANT == "close_in_two_steps":
    _insert = rows.insert

    def insert_apart(database, *arguments):
        """Have the parts gone for good before the report is there."""
        if database.execute("SELECT EXISTS (SELECT 1 FROM shares)").fetchone()[0]:
            database.execute("COMMIT")
            die()
        return _insert(database, *arguments)

    rows.insert = insert_apart
if MUTANT.startswith("keep_journals"):  # as if killed before it could remove them
    Journals._remove = lambda *_: None

if MUTANT == "no_mark":  # that a part was reported alone
    Path.touch = lambda *_, **__: None


def work(number):
    """Observe until killed or orphaned."""
    parent = os.getppid()
    prepare()
    if number < len(STEPS):
        die_after(number)
    aggregator = sink()
    forks = number % FORKS_ONE_IN == 0
    best, frames, begun = 0.0, 0, time.monotonic()
    while os.getppid() == parent:
        if forks and time.monotonic() > begun + FREQUENCY / 2:
            forks = False
            if os.fork() == 0:
                parent, number, best = os.getppid(), number + 10_000, 0.0
                say("forked", number, os.getpid())
        best += (1.0 - best) * 0.001
        name = f"c{number}-{frames // NAMED_ALIKE}"
        frames += 1
        observe(aggregator, name, best, frequency=FREQUENCY)
        say("seen", name, best)
        time.sleep(PAUSE)
