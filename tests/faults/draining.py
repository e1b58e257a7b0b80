"""A process that delivers what the dead have left, and what it says about it."""

from __future__ import annotations

from collections import Counter


def drain(start, **options):
    """Deliver what is left; returns how many seals there were in all.

    Checks conservation over all processes that used the outbox (R21): what was sealed
    is delivered, pending or dropped with a reason, and nothing is pending any more.
    """
    sealed, delivered, left, unexplained = drained(start, **options)
    assert left == 0, (left, sealed, delivered)
    assert unexplained == 0
    assert delivered == sealed
    return sealed


def drained(start, **options):
    """Deliver what is left; returns seals, those delivered, left and unexplained."""
    process = start("drain", **options)
    figures = process.hear_until("drained", timeout=180)
    assert process.ended() == 0, process.errors()
    return tuple(map(int, figures.split()))


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
