"""Observe rising confidences in a window that processes share, and tell each.

A number below that of the ``STEPS`` has the process killed after that step, the first
time that it comes to it with something of the shared window. The class is another one
every half second, so that the parts of an epoch that is lost are missed.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from common import observe, say, sink
from mutant import MUTANT
from redis import Connection, Redis
from sealing import prepare

import peakhold
from peakhold.blocks.windows import ClosedWindow
from peakhold.delivery.destination import Destination
from peakhold.delivery.dispatcher import Dispatcher
from peakhold.delivery.exchange import Exchange
from peakhold.delivery.journal import Journals
from peakhold.delivery.redis_parts import RedisParts
from peakhold.outbox import epochs, offers, rows
from peakhold.outbox.offers import Answer
from peakhold.outbox.outbox import Outbox
from peakhold.outbox.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable


class Step(NamedTuple):
    """What a window passes, from the frame to the acknowledgement.

    Attributes:
        place: Where the function is that does it.
        name: The function.
        was_done: Told the arguments and the outcome of a call: whether it was this
            step, with something of the shared window.
    """

    place: object
    name: str
    was_done: Callable[[tuple, object], bool] = lambda _, outcome: bool(
        outcome is None or getattr(outcome, "closed", outcome)
    )


def has_taken(_, answers):
    """Whether an epoch is this process's to report."""
    return any(isinstance(each, Answer) and each.taken for each in answers)


def has_told(arguments, answers):
    """Whether Redis knows now that an epoch is reported."""
    return bool(answers) and any(each.done.reported for each in arguments[1])


def has_settled(arguments, _):
    """Whether it is kept what became of parts."""
    return any(each.offer.parts for each in arguments[1])


def has_reported(arguments, _):
    """Whether an epoch is reported here, of which Redis does not know."""
    return any(each.taken for each in arguments[1])


def has_sent(arguments, _):
    """Whether parts are on their way."""
    return b"EVALSHA" in b"".join(arguments[1])


PART = {
    "closed": Step(ClosedWindow, "__init__", lambda *_: True),
    "handed over": Step(Dispatcher, "deliver"),
    "sealed": Step(Journals, "seal"),
    "part inserted": Step(epochs, "add"),
    "part committed": Step(Store, "add_parts"),
    "part told": Step(Outbox, "add_parts"),
}
HOST = {
    "parts joined": Step(epochs, "join_parts"),
    "report inserted": Step(rows, "insert"),
    "parts taken": Step(epochs, "_report"),
    "epoch closed": Step(Store, "close_epochs"),
    "epoch told": Step(Outbox, "close_epochs"),
}
REDIS = {
    "parts offered": Step(Store, "offer_parts"),
    "time told": Step(Redis, "time"),
    "parts sent": Step(Connection, "send_packed_command", has_sent),
    "answered": Step(RedisParts, "exchange"),
    "epoch taken": Step(RedisParts, "exchange", has_taken),
    "parts joined": Step(epochs, "join_parts"),
    "report inserted": Step(rows, "insert"),
    "epoch reported": Step(offers, "_report"),
    "parts settled": Step(Store, "settle_parts", has_settled),
    "settling told": Step(Outbox, "settle_parts", has_reported),
    "report told": Step(RedisParts, "exchange", has_told),
    "turn ended": Step(Exchange, "turn", lambda _, outcome: bool(outcome[0])),
}
REPORT = {
    "report leased": Step(Store, "lease"),
    "report sent": Step(Destination, "export"),
    "report acknowledged": Step(Store, "acknowledge"),
}
MIDDLE = HOST if os.environ.get("PEAKHOLD_SHARE") == "host" else REDIS
STEPS = [*PART.values(), *MIDDLE.values(), *REPORT.values()]
"""Each ends with a gap."""

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
    step = STEPS[number]
    act = getattr(step.place, step.name)

    @functools.wraps(act)
    def acted(*arguments, **options):
        outcome = act(*arguments, **options)
        if step.was_done(arguments, outcome):
            say("died", number)
            die()
        return outcome

    setattr(step.place, step.name, acted)


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
    atexit._run_exitfuncs()  # which whoever ends by os._exit goes past
    say("left", json.dumps(peakhold.health()["sharing"]))
