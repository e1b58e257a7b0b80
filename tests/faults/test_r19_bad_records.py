"""R19: one bad detection never costs the window; it is dropped, counted by reason."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import supervision as sv
from stepping import Stepped, conserved

from peakhold import PeakAggregator
from peakhold.records import seal_report

GOOD = {"before": 0.25, "after": 0.75}
# Class name, confidence, and the reason under which it has to be counted.
BAD = {
    "NaN": ("x", float("nan"), "confidence_nan"),
    "infinity": ("x", float("inf"), "confidence_infinite"),
    "1e400": ("x", json.loads("1e400"), "confidence_infinite"),
    "no confidence": ("x", None, "confidence_not_a_number"),
    "text for a confidence": ("x", "much", "confidence_not_a_number"),
    "no class name": (None, 0.5, "class_name_not_text"),
    "number for a class name": (7, 0.5, "class_name_not_text"),
    "bytes that are no text": (b"\xff\xfe", 0.5, "class_name_not_text"),
    "lone surrogate": ("\ud800", 0.5, "class_name_lone_surrogate"),
    "name of a megabyte": ("x" * 2**20, 0.5, "class_name_too_long"),
}
A_PLAIN_REDUCER_TAKES = {"name of a megabyte"}
CASES = [pytest.param(*case, id=name) for name, case in BAD.items()]


@pytest.fixture(autouse=True)
def quiet(caplog):
    """The first of each kind is told by a warning, which is not what this is about."""
    caplog.set_level(logging.ERROR)


def classification(rows):
    return {
        "inference_id": "id",
        "prediction_type": "classification",
        "predictions": [{"class": name, "confidence": value} for name, value in rows],
    }


def detections(rows):
    names, values = zip(*rows, strict=True)
    frame = sv.Detections(xyxy=np.zeros((len(rows), 4), dtype=np.float32))
    frame.confidence = np.array(values, dtype=object)
    frame.data = {
        "class_name": np.array(names, dtype=object),
        "inference_id": np.array(["id"] * len(rows)),
        "prediction_type": np.array(["object-detection"] * len(rows)),
    }
    return frame


def rows_with(bad):
    good = list(GOOD.items())
    return [good[0], bad, good[1]]


@pytest.mark.parametrize("make", [classification, detections])
@pytest.mark.parametrize(("name", "confidence", "reason"), CASES)
def test_the_rest_of_the_window_is_delivered(
    api, tmp_path, make, name, confidence, reason
):
    aggregator = PeakAggregator()
    aggregator.observe(make(rows_with((name, confidence))), "m/1")
    assert aggregator.rejected == {reason: 1}
    stepped = Stepped(api, tmp_path)
    record = seal_report(stepped.sender.destination, "w", aggregator.snapshot())
    stepped.dispatcher.deliver(record, stepped.sender)
    stepped.run(0.0)
    delivered = {r["class_name"]: r["confidence"] for r in api.results()}
    assert delivered == GOOD
    assert conserved(stepped.counts())
    stepped.dispatcher.close(0)


def test_a_window_of_all_of_them_keeps_what_is_good(figure):
    aggregator = PeakAggregator()
    for name, confidence, _ in BAD.values():
        for make in (classification, detections):
            aggregator.observe(make(rows_with((name, confidence))), "m/1")
    results = aggregator.snapshot().report()
    assert {r["class_name"]: r["confidence"] for r in results} == GOOD
    assert sum(aggregator.rejected.values()) == 2 * len(BAD)
    figure("R19", f"{2 * len(BAD)} bad detections of {len(BAD)} kinds, 0 windows lost")


def plain_report(rows):
    """Report as a few lines of Python would: the best of each class, in JSON."""
    best = {}
    for name, confidence in rows:
        best[name.strip()] = max(confidence, best.get(name.strip(), 0.0))
    return json.dumps(best, allow_nan=False, ensure_ascii=False).encode()


@pytest.mark.parametrize("kind", sorted(BAD.keys() - A_PLAIN_REDUCER_TAKES))
def test_the_control_a_plain_reducer_loses_the_window(kind, figure):
    name, confidence, _ = BAD[kind]
    with pytest.raises((ValueError, TypeError, AttributeError)):
        plain_report(rows_with((name, confidence)))
    figure("R19n", f"{kind}: window lost")
