"""A process that delivers what the dead have left, and what it says about it."""

from __future__ import annotations

from collections import Counter


def drain(start, **options):
    """Deliver what is left; returns how many seals there were in all.

    Checks conservation over all processes that used the outbox (R21): what was sealed
    is delivered, pending or dropped with a reason, and nothing is pending any more.
    """
    return drain_all(start, [options])


def drain_all(start, hosts):
    """Deliver what is left in several state directories at once, see ``drain``."""
    every = drained_all(start, hosts)
    for sealed, delivered, left, unexplained in every:
        assert left == 0, every
        assert unexplained == 0, every
        assert delivered == sealed, every
    return sum(sealed for sealed, *_ in every)


def drained(start, **options):
    """Deliver what is left; returns seals, those delivered, left and unexplained."""
    return drained_all(start, [options])[0]


def drained_all(start, hosts):
    """Deliver what is left in several state directories at once, see ``drained``."""
    every = []
    for process in [start("drain", **options) for options in hosts]:
        figures = process.hear_until("drained", timeout=180)
        assert process.ended() == 0, process.errors()
        every.append(tuple(map(int, figures.split())))
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
