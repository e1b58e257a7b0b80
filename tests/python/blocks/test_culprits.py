"""Which of forty cameras sends what cannot be used: in the log, and in `health()`."""

from __future__ import annotations

import logging
import math

import pytest

import peakhold
from peakhold.blocks.windows import REGISTRY


@pytest.fixture(autouse=True)
def no_windows_of_other_tests(monkeypatch):
    monkeypatch.setattr(REGISTRY, "_windows", {})


def test_the_camera_and_the_model_with_bad_rows_can_be_found(
    aggregator, run, frame, caplog
):
    block = aggregator()
    with caplog.at_level(logging.WARNING, "peakhold"):
        for camera in range(40):
            bad = camera in (17, 23)
            for _ in range(1 + camera % 3):
                run(
                    block,
                    frame(confidence=math.nan if bad else 0.5),
                    unique_aggregator_key="gate",
                    model_id=f"project/{camera % 2}",
                    feed=f"camera {camera}",
                )
    logged = [record.getMessage() for record in caplog.records]
    named = [text for text in logged if "confidence_nan" in text]
    assert len(named) == 2
    assert "model 'project/1', window 'gate, feed camera 17'" in named[0]
    assert "model 'project/1', window 'gate, feed camera 23'" in named[1]
    found = peakhold.health()["rejected"]["confidence_nan"]
    assert found == {
        "count": 6,
        "by": [
            {
                "window": f"gate, feed camera {camera}",
                "model_id": "project/1",
                "count": 3,
            }
            for camera in (17, 23)
        ],
    }


def test_what_is_named_is_bounded_and_the_count_is_not(aggregator, run, frame):
    block = aggregator()
    for number in range(50):
        run(block, frame(confidence=2.0), model_id=f"project/{number}")
    found = peakhold.health()["rejected"]["confidence_out_of_range"]
    assert found["count"] == 50
    assert len(found["by"]) == 10
    assert found["by"][0]["model_id"] is None  # those beyond the first sixteen
    assert found["by"][0]["count"] == 34
