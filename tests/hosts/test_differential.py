"""What the monitor stored is what the reference blocks of this host send.

Both sides see the same frames: ours in a workflow that the real engine runs, into a
real monitor; the reference blocks of the same host with a client that records.
"""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import numpy as np
import pytest
from frames import random_frames, recorded_frames, shared_data
from host import AGGREGATOR, METADATA
from reference import reference_sinks

from peakhold.blocks.windows import REGISTRY
from peakhold.delivery import current

LONG, SHORT = "3600", "1"
INTERVAL = 1.1

DEFINITION = {
    "version": "1.4.0",
    "inputs": [
        *(
            {"type": "WorkflowBatchInput", "name": name, "kind": ["*"]}
            for name in ("predictions", "model_id", "field_value")
        ),
        *(
            {"type": "WorkflowParameter", "name": name}
            for name in ("frequency", "fire_and_forget")
        ),
    ],
    "steps": [
        {
            "type": AGGREGATOR,
            "name": "monitoring",
            "predictions": "$inputs.predictions",
            "model_id": "$inputs.model_id",
            "frequency": "$inputs.frequency",
            "unique_aggregator_key": "",
            "fire_and_forget": "$inputs.fire_and_forget",
        },
        {
            "type": METADATA,
            "name": "metadata",
            "predictions": "$inputs.predictions",
            "field_name": "lot",
            "field_value": "$inputs.field_value",
            "fire_and_forget": "$inputs.fire_and_forget",
        },
    ],
    "outputs": [
        {"type": "JsonField", "name": name, "selector": f"$steps.{name}.*"}
        for name in ("monitoring", "metadata")
    ],
}


def definition(key):
    """Return the workflow; the aggregator's key is a literal in every workflow."""
    monitoring, metadata = DEFINITION["steps"]
    return {
        **DEFINITION,
        "steps": [{**monitoring, "unique_aggregator_key": key}, metadata],
    }


class Sides:
    """Ours and the reference, fed alike."""

    def __init__(self, host, reference, monitor, pool):
        self.reference = reference
        self.key = f"differential-{uuid.uuid4()}"
        self.pool = pool
        self.monitor = monitor
        self.stored = {
            kind: len(monitor.store.requests(kind)) for kind in ("report", "metadata")
        }
        self.engine = host.compile(definition(self.key), thread_pool_executor=pool)

    def feed_ours(self, batch, frequency, fire_and_forget):
        answers = self.engine.run(
            runtime_parameters={
                "predictions": [frame.predictions for frame in batch],
                "model_id": [frame.model_id for frame in batch],
                "field_value": [lot_of(frame) for frame in batch],
                "frequency": frequency,
                "fire_and_forget": fire_and_forget,
            }
        )
        return [(row["monitoring"], row["metadata"]) for row in answers]

    def feed_reference(self, batch, frequency, fire_and_forget):
        return [
            (
                self.reference.aggregator.run(
                    fire_and_forget=fire_and_forget,
                    predictions=frame.predictions,
                    frequency=frequency,
                    unique_aggregator_key=self.key,
                    model_id=frame.model_id,
                ),
                self.reference.metadata.run(
                    fire_and_forget=fire_and_forget,
                    predictions=frame.predictions,
                    field_name="lot",
                    field_value=lot_of(frame),
                ),
            )
            for frame in batch
        ]

    def new_bodies(self, kind):
        requests = self.monitor.store.requests(kind)[self.stored[kind] :]
        return [json.loads(request.body) for request in requests]

    def settle(self):
        self.pool.shutdown(wait=True)
        assert current().flush(30)


def lot_of(frame):
    """Return a field value that several frames share, but not all."""
    return f"lot-{len(frame.model_id) % 3}"


def batches(frames, size):
    return [frames[start : start + size] for start in range(0, len(frames), size)]


def without_time(body):
    return body | {"timestamp": None}


def entries(bodies):
    return [entry for body in bodies for entry in body["data"]]


def pairs(bodies):
    """Return each entry with its ids as a set: the reference's order is a set's."""
    return Counter(
        (frozenset(entry["inference_ids"]), entry["field_name"], entry["field_value"])
        for entry in entries(bodies)
    )


def ids_by_field(bodies):
    merged = defaultdict(Counter)
    for entry in entries(bodies):
        field = entry["field_name"], entry["field_value"]
        merged[field].update(entry["inference_ids"])
    return dict(merged)


@pytest.fixture
def sides(host, monitor):
    with (
        ThreadPoolExecutor(2) as pool,
        ThreadPoolExecutor(2) as other,
        reference_sinks(host, other) as reference,
    ):
        made = Sides(host, reference, monitor, pool)
        made.other_pool = other
        yield made
        # What the closing frames left behind would arrive during another test.
        REGISTRY.flush_all()
        assert current().flush(30)


SOURCES = {
    "recorded": pytest.param(
        recorded_frames,
        marks=pytest.mark.skipif(
            shared_data() is None, reason="the recorded predictions are not here"
        ),
    ),
    "random": random_frames,
}


@pytest.mark.parametrize("fire_and_forget", [False, True], ids=["waits", "background"])
@pytest.mark.parametrize("size", [1, 8, 64])
@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_what_arrives_is_what_the_reference_sends(sides, source, size, fire_and_forget):
    count = max(2 * size, 96)
    *frames, last = source(count + 1, np.random.default_rng([size, fire_and_forget]))
    ours, theirs = [], []
    for batch in batches(frames, size):
        ours += sides.feed_ours(batch, LONG, fire_and_forget)
        theirs += sides.feed_reference(batch, LONG, fire_and_forget)
    time.sleep(INTERVAL)
    ours += sides.feed_ours([last], SHORT, fire_and_forget)
    theirs += sides.feed_reference([last], SHORT, fire_and_forget)
    sides.other_pool.shutdown(wait=True)
    sides.settle()
    assert ours == theirs

    (report,) = sides.new_bodies("report")
    (expected,) = sides.reference.recording.reports
    assert report["inference_results"] == expected["inference_results"]
    assert without_time(report) == without_time(expected)
    # Local and without offset, as the reference writes it.
    now = datetime.now()  # noqa: DTZ005
    age = now - datetime.fromisoformat(report["timestamp"])
    assert timedelta(0) <= age < timedelta(minutes=1)

    metadata = sides.new_bodies("metadata")
    recorded = sides.reference.recording.metadata
    assert recorded
    assert ids_by_field(metadata) == ids_by_field(recorded)
    if fire_and_forget:
        assert len(metadata) < len(recorded)
    else:
        assert pairs(metadata) == pairs(recorded)


def test_a_difference_of_one_frame_is_noticed(sides):
    frames = random_frames(40, np.random.default_rng(7))
    # Better than everything, and in one of the two inputs only.
    loud = next(frame for frame in frames if isinstance(frame.predictions, dict))
    altered = loud._replace(
        predictions={
            "inference_id": "loud",
            "prediction_type": "classification",
            "predictions": {"car": {"confidence": 1.5}},
        }
    )
    sides.feed_ours([altered, *frames], LONG, False)
    sides.feed_reference([loud, *frames], LONG, False)
    time.sleep(INTERVAL)
    sides.feed_ours(frames[:1], SHORT, False)
    sides.feed_reference(frames[:1], SHORT, False)
    (report,) = sides.new_bodies("report")
    (expected,) = sides.reference.recording.reports
    assert without_time(report) != without_time(expected)
    metadata, recorded = (
        sides.new_bodies("metadata"),
        sides.reference.recording.metadata,
    )
    assert ids_by_field(metadata) != ids_by_field(recorded)
    assert pairs(metadata) != pairs(recorded)


def test_the_windows_that_follow_are_equal_too(sides):
    rng = np.random.default_rng(11)
    for _ in range(3):
        frames = random_frames(24, rng)
        # One frame opens the interval of the reference's window and of ours.
        sides.feed_ours(frames, LONG, False)
        sides.feed_reference(frames, LONG, False)
        time.sleep(INTERVAL)
        closing = random_frames(8, rng)
        assert sides.feed_ours(closing, SHORT, False) == sides.feed_reference(
            closing, SHORT, False
        )
    reports = sides.new_bodies("report")
    expected = sides.reference.recording.reports
    assert len(reports) == 3
    assert list(map(without_time, reports)) == list(map(without_time, expected))
