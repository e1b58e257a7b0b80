"""Predictions whose attributes raise: counted and skipped by both sinks."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

DETECTIONS = {
    "xyxy": np.zeros((1, 4), np.float32),
    "confidence": [0.5],
    "data": {},
    "metadata": {"inference_id": "of the frame"},
}
TENSORS = {
    "boxes": {
        "xyxy": np.zeros((1, 4), np.float32),
        "confidence": np.array([0.5]),
        "class_id": np.array([0]),
        "image_metadata": {"class_names": {0: "car"}},
    },
    "single label": {
        "confidence": np.array([[0.5]]),
        "class_id": np.array([0]),
        "images_metadata": [{"class_names": {0: "car"}}],
    },
    "labels": {
        "confidence": np.array([0.5]),
        "class_ids": np.array([0]),
        "image_metadata": {"class_names": {0: "car"}},
    },
}
FRAMES = {"detections": DETECTIONS, **TENSORS}
NO_ID = "Custom metadata upload failed because no inference_ids were received."


def predictions_of(columns, hostile):
    """Return predictions with these attributes, of which one raises."""

    def fail(_self):
        raise RuntimeError("no such column")

    members = {**columns, hostile: property(fail)}
    return type("Predictions", (), members)()


@pytest.mark.parametrize(
    ("kind", "hostile"),
    [
        (kind, hostile)
        for kind, columns in FRAMES.items()
        for hostile in [*columns, "__class__", "anything"]
    ],
)
def test_an_attribute_that_raises_leaves_no_run(
    aggregator, metadata_block, run, client, kind, hostile
):
    block = aggregator(platform_client=client)
    run(block, predictions_of(FRAMES[kind], hostile))
    read = {*FRAMES[kind]} - {"metadata"}
    assert ("prediction_unreadable" in block.rejected) is (hostile in read)
    answer = metadata_block(platform_client=client).run(
        fire_and_forget=True,
        field_name="f",
        field_value="v",
        predictions=predictions_of(FRAMES[kind], hostile),
    )
    found = kind == "detections" and hostile not in {"data", "metadata"}
    assert answer["message"].startswith(NO_ID) is not found


COUNTED = """
import logging, sys
logging.basicConfig(stream=sys.stdout, format="%(message)s")
import peakhold
class Predictions:
    data = {}
    metadata = property(lambda self: 1 / 0)
block = peakhold.RoboflowCustomMetadataBlockV1(api_key="k")
block.run(
    fire_and_forget=True, field_name="f", field_value="v", predictions=Predictions()
)
"""


def test_metadata_that_raises_is_counted_as_unreadable():
    ended = subprocess.run(
        [sys.executable, "-c", COUNTED], check=True, capture_output=True, timeout=60
    )
    assert b"counted as 'prediction_unreadable'" in ended.stdout
