"""A frame of one class, and both sinks called with it."""

from __future__ import annotations

import time

from peakhold import (
    ModelMonitoringInferenceAggregatorBlockV1,
    RoboflowCustomMetadataBlockV1,
)

KEY = "canary-key"


def frame(name):
    """Make a frame of one class, of the same name."""
    return {
        "inference_id": f"id-{name}",
        "prediction_type": "classification",
        "predictions": [{"class": name, "confidence": 0.5}],
    }


def aggregate(name):
    """Observe a frame; its window stays open for a minute."""
    answer = ModelMonitoringInferenceAggregatorBlockV1(api_key=KEY).run(
        fire_and_forget=True,
        predictions=frame(name),
        frequency=60,
        unique_aggregator_key=name,
        model_id="m/1",
    )
    assert answer["error_status"] is False, answer


def attach(name):
    """Register metadata in the background."""
    answer = RoboflowCustomMetadataBlockV1(api_key=KEY).run(
        fire_and_forget=True,
        field_name="field",
        field_value=name,
        predictions=frame(name),
    )
    assert answer["error_status"] is False, answer


def attach_twice(name):
    """Register metadata, and more of it while the first is being sent."""
    attach(f"{name}-first")
    time.sleep(0.3)
    attach(name)
