"""A process that delivers what the dead have left, and what it says about it."""

from __future__ import annotations


def drain(start, **options):
    """Deliver what is left; returns how many seals there were in all.

    Checks conservation over all processes that used the outbox (R21): what was sealed
    is delivered, pending or dropped with a reason, and nothing is pending any more.
    """
    process = start("drain", **options)
    sealed, delivered, left, unexplained = map(
        int, process.hear_until("drained").split()
    )
    assert process.ended() == 0, process.errors()
    assert left == 0, (left, sealed, delivered, process.errors())
    assert unexplained == 0
    assert delivered == sealed
    return sealed


def arrived(api):
    """Return the class names of all reports that took effect, but for the drain's."""
    return {result["class_name"] for result in api.results()} - {"drained"}
