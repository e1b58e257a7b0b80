"""A process that delivers what the dead have left, and what it says about it."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple


class Drained(NamedTuple):
    """What a process that delivered all it could says of its outbox.

    Attributes:
        sealed: Seals in all.
        delivered: Those that were delivered.
        left: Records, parts and journals that wait even so.
        unexplained: Seals that nothing became of.
        unsure: Parts of which this process does not know whether two reports have them.
    """

    sealed: int
    delivered: int
    left: int
    unexplained: int
    unsure: int


def drain(start, **options):
    """Deliver what is left; returns how many seals there were in all.

    Checks conservation over all processes that used the outbox (R21): what was sealed
    is delivered, pending or dropped with a reason, and nothing is pending any more.
    """
    return drain_all(start, [options])


def drain_all(start, hosts):
    """Deliver what is left in several state directories at once, see ``drain``."""
    every = drained_all(start, hosts)
    for each in every:
        assert each.left == 0, every
        assert each.unexplained == 0, every
        assert each.delivered == each.sealed, every
    return sum(each.sealed for each in every)


def drained(start, **options):
    """Deliver what is left; returns the figures of the outbox."""
    return drained_all(start, [options])[0]


def drained_all(start, hosts):
    """Deliver what is left in several state directories at once, see ``drained``."""
    every = []
    for process in [start("drain", **options) for options in hosts]:
        figures = process.hear_until("drained", timeout=180)
        assert process.ended() == 0, process.errors()
        every.append(Drained(*map(int, figures.split())))
    return every


def arrived(api):
    """Return the class names of all reports that took effect, but for the drain's."""
    return {result["class_name"] for result in api.results()} - {"drained"}


def keys_and_bodies(api):
    """Return the reports that took effect as pairs of idempotency key and body."""
    return {
        (request.headers["Idempotency-Key"], request.body)
        for request in api.accepted(kind="report")
    }


def altered(api):
    """Return the idempotency keys that came with different bodies."""
    keys = Counter(key for key, _ in keys_and_bodies(api))
    return {key for key, bodies in keys.items() if bodies > 1}
