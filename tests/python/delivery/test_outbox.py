"""The outbox: order, leases, bounds, and the conservation of seals."""

from __future__ import annotations

import random

import pytest
from stand_ins import PlainSnapshot, conserved

from peakhold.delivery.encode import encode, split
from peakhold.delivery.outbox import MemoryOutbox
from peakhold.delivery.record import (
    Destination,
    MetadataEntry,
    merge_reports,
    seal_metadata,
    seal_report,
)

HERE = Destination("http://here", "0123456789abcdef")
THERE = Destination("http://there", "0123456789abcdef")


def report(window="w", destination=HERE, **best):
    return seal_report(destination, window, PlainSnapshot(best or {"a": 0.5}))


def metadata(value="v", destination=HERE):
    return seal_metadata(destination, (MetadataEntry(("id",), "f", value),))


def drained(outbox, destination=HERE, kind="report"):
    found = []
    while record := outbox.lease(destination, kind):
        found.append(record)
    return found


def test_records_are_leased_in_the_order_of_their_sealing():
    outbox = MemoryOutbox()
    records = [report(f"w{index}") for index in range(3)]
    for record in records:
        outbox.append(record)
    assert drained(outbox) == records


def test_a_leased_record_is_leased_to_nobody_else_until_released():
    outbox = MemoryOutbox()
    first, second = report("w1"), report("w2")
    outbox.append(first)
    outbox.append(second)
    assert outbox.lease(HERE, "report") == first
    assert outbox.lease(HERE, "report") == second
    assert outbox.lease(HERE, "report") is None
    outbox.release(first)
    assert outbox.lease(HERE, "report") == first


def test_destinations_and_kinds_are_kept_apart():
    outbox = MemoryOutbox()
    outbox.append(report())
    outbox.append(metadata())
    outbox.append(report(destination=THERE))
    assert outbox.waiting(HERE, "report") == 1
    assert outbox.waiting(HERE, "metadata") == 1
    assert [record.kind for record in drained(outbox, kind="metadata")] == ["metadata"]
    assert outbox.waiting(HERE, "metadata") == 0
    assert outbox.waiting(THERE, "report") == 1


def test_a_record_appended_as_leased_is_not_waiting():
    outbox = MemoryOutbox()
    outbox.append(report(), leased=True)
    assert outbox.waiting(HERE, "report") == 0
    assert outbox.lease(HERE, "report") is None
    assert outbox.counts().pending == 1


def test_past_the_bound_reports_of_one_window_merge_before_any_is_dropped():
    outbox = MemoryOutbox(max_records=3)
    outbox.append(report("w", a=0.2, b=0.9))
    outbox.append(report("other"))
    outbox.append(report("w", a=0.7))
    assert outbox.append(report("w", c=0.1)) == 0
    merged, other, last = drained(outbox)
    assert merged.content.snapshot.best == {"a": 0.7, "b": 0.9}
    assert other.content.window == "other"
    assert last.content.snapshot.best == {"c": 0.1}
    assert outbox.counts().pending == outbox.counts().sealed == 4
    assert outbox.counts().dropped == {}


def test_the_oldest_is_dropped_and_counted_when_nothing_can_merge():
    outbox = MemoryOutbox(max_records=2)
    for index in range(4):
        outbox.append(report(f"w{index}"))
    windows = [record.content.window for record in drained(outbox)]
    assert windows == ["w2", "w3"]
    assert outbox.counts().dropped == {"overflow": 2}
    assert conserved(outbox.counts())


def test_a_report_that_was_attempted_does_not_merge():
    outbox = MemoryOutbox(max_records=2)
    outbox.append(report("w", a=0.1))
    attempted = outbox.lease(HERE, "report")
    (frozen,) = encode(attempted, {})
    outbox.replace(attempted, [frozen], leased=1)
    outbox.release(frozen)
    outbox.append(report("w", a=0.2))
    outbox.append(report("w", a=0.3))
    first, merged = drained(outbox)
    assert first.body == frozen.body
    assert merged.content.snapshot.best == {"a": 0.3}


def test_a_merged_record_that_is_dropped_counts_for_all_its_seals():
    outbox = MemoryOutbox(max_records=2)
    for window in ("w", "w", "w", "x", "y"):
        outbox.append(report(window))
    assert outbox.counts().dropped == {"overflow": 3}
    assert conserved(outbox.counts())


def test_the_bound_in_bytes_drops_as_well():
    outbox = MemoryOutbox(max_bytes=3_000)
    for index in range(5):
        outbox.append(report(f"w{index}"))
    assert len(drained(outbox)) == 3
    assert outbox.counts().dropped == {"overflow": 2}


def test_one_record_larger_than_the_bound_is_kept():
    outbox = MemoryOutbox(max_bytes=100)
    outbox.append(report("small"))
    outbox.append(report("large"))
    assert [record.content.window for record in drained(outbox)] == ["large"]


def test_leased_records_are_never_dropped():
    outbox = MemoryOutbox(max_records=1)
    outbox.append(report("w1"))
    leased = outbox.lease(HERE, "report")
    outbox.append(report("w2"))
    outbox.append(report("w3"))
    outbox.acknowledge(leased)
    assert outbox.counts().delivered == 1
    assert outbox.counts().dropped == {"overflow": 1}


def test_parts_stand_where_the_whole_stood_and_count_as_sealed():
    outbox = MemoryOutbox()
    outbox.append(report("w", a=0.1, b=0.2))
    outbox.append(report("later"))
    whole = outbox.lease(HERE, "report")
    (frozen,) = encode(whole, {})
    outbox.replace(whole, [frozen], leased=1)
    halves = split(frozen)
    outbox.replace(frozen, halves, leased=0)
    assert drained(outbox)[:2] == halves
    assert outbox.counts().sealed == outbox.counts().pending == 3


def test_only_reports_without_a_body_can_be_merged():
    (frozen,) = encode(report(), {})
    with pytest.raises(TypeError, match="body is not made"):
        merge_reports(frozen, report())


def test_conservation_holds_whatever_happens():  # noqa: C901 - a random walk
    rng = random.Random(7)
    outbox = MemoryOutbox(max_records=12, max_bytes=12_000)
    leased = []
    for _ in range(3_000):
        step = rng.randrange(7)
        if step <= 1:
            outbox.append(report(f"w{rng.randrange(4)}", a=0.1, b=0.2))
        elif step == 2:
            outbox.append(metadata(str(rng.random())))
        elif step == 3:
            record = outbox.lease(HERE, rng.choice(["report", "metadata"]))
            if record:
                leased.append(record)
        elif leased:
            record = leased.pop(rng.randrange(len(leased)))
            if step == 4:
                outbox.acknowledge(record)
            elif step == 5:
                outbox.release(record)
            elif record.body is None:
                (frozen,) = encode(record, {})
                outbox.replace(record, [frozen], leased=1)
                leased.append(frozen)
            elif halves := split(record):
                outbox.replace(record, halves, leased=0)
            else:
                outbox.drop(record, "split")
        assert conserved(outbox.counts())
    counts = outbox.counts()
    # The control: everything that can happen to a record did.
    assert min(counts.delivered, counts.pending, *counts.dropped.values()) > 0
    assert set(counts.dropped) == {"overflow", "split"}
