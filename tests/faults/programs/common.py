"""What the programs have in common: a sink, its frames, and a way to speak."""

from __future__ import annotations

import os

from peakhold import ModelMonitoringInferenceAggregatorBlockV1

KEY = "canary-key"


def say(*words):
    """Write a line in one piece: it is told whole, or not at all."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def sink(**arguments):
    """Make the block of Model Monitoring."""
    return ModelMonitoringInferenceAggregatorBlockV1(**{"api_key": KEY, **arguments})


def frame(class_name, confidence=0.5):
    """Make a frame of one class."""
    return {
        "inference_id": f"id-{class_name}",
        "prediction_type": "classification",
        "predictions": [{"class": class_name, "confidence": confidence}],
    }


def observe(block, class_name, confidence=0.5, **arguments):
    """Run a block on a frame of one class."""
    arguments = {
        "fire_and_forget": True,
        "frequency": 60,
        "unique_aggregator_key": "k",
        "model_id": "m/1",
        **arguments,
    }
    return block.run(predictions=frame(class_name, confidence), **arguments)
