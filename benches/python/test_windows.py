"""Frames into windows without blocks or network: contenders by scenario.

A round is 64 different frames; its time is divided by 64. Not every scenario with
every other: sizes at 20 classes, classes at 1,000 detections, and the kinds of
prediction at 100 detections and 20 classes.
"""

from __future__ import annotations

from functools import cache

import frames as make
import pytest
from windows import UNIQUE, WINDOWS, unique_by_loop

SCENARIOS = {
    "1 detection": (make.detections, 1),
    "10 detections": (make.detections, 10),
    "100 detections": (make.detections, 100),
    "1,000 detections": (make.detections, 1000),
    "1,000 detections, 1 class": (make.detections, 1000, 1),
    "1,000 detections, 80 classes": (make.detections, 1000, 80),
    "1,000 detections, 1,000 classes": (make.detections, 1000, 1000),
    "100 detections with masks": (make.with_masks, 100),
    "100 detections with keypoints": (make.with_keypoints, 100),
    "100 detections, one NaN": (make.with_a_nan, 100),
    "20 classes, single-label": (make.single_label, 20),
    "20 classes, multi-label": (make.multi_label, 20),
}
UNIQUE_SCENARIOS = {
    "100 detections, 1 id": (make.detections, 100),
    "1,000 detections, 1 id": (make.detections, 1000),
    "1,000 detections, 8 ids": (make.with_eight_ids, 1000),
}
NO_ARRAYS = (make.single_label, make.multi_label)


def contend(scenarios, contenders):
    return [
        pytest.param(scenario, contender, id=f"{scenario}-{contender}")
        for scenario, (maker, *_) in scenarios.items()
        for contender in contenders
        # There is nothing to vectorise in a dict.
        if not (contender == "NumPy" and maker in NO_ARRAYS)
    ]


@cache
def frames_of(scenario):
    return make.several(*SCENARIOS[scenario])


@cache
def report_of(contender, scenario):
    window = WINDOWS[contender]()
    for frame in frames_of(scenario):
        window.observe(frame, make.MODEL_ID)
    return window.drain()


def is_right(contender, scenario):
    """Compare with the reference's report, or the oracle's where that has a NaN."""
    oracle = "reference"
    if oracle not in WINDOWS or "NaN" in scenario:
        oracle = "plain Python"
    return report_of(contender, scenario) == report_of(oracle, scenario)


@pytest.mark.parametrize(("scenario", "contender"), contend(SCENARIOS, WINDOWS))
def test_observe(scenario, contender, benchmark, record):
    frames = frames_of(scenario)
    right = is_right(contender, scenario)
    record("observe", scenario, contender, correct=right, frames=len(frames))
    window = WINDOWS[contender]()
    observe, model_id = window.observe, make.MODEL_ID

    def sweep():
        for frame in frames:
            observe(frame, model_id)

    benchmark(sweep)


@pytest.mark.parametrize(("scenario", "contender"), contend(UNIQUE_SCENARIOS, UNIQUE))
def test_unique_ids(scenario, contender, benchmark, record):
    frames = make.several(*UNIQUE_SCENARIOS[scenario])
    unique = UNIQUE[contender]
    # The reference leaves the order to chance.
    right = all(
        sorted(unique(frame)) == sorted(unique_by_loop(frame)) for frame in frames
    )
    record("unique ids", scenario, contender, correct=right, frames=len(frames))

    def sweep():
        for frame in frames:
            unique(frame)

    benchmark(sweep)


@pytest.mark.parametrize("contender", WINDOWS)
def test_drain(contender, benchmark, record, rounds):
    """The report of a window of 15,000 detections, on whoever asks for it."""
    stream = (frames_of("100 detections") * 3)[:150]
    window = WINDOWS[contender]()
    right = is_right(contender, "100 detections")
    record("drain", "15,000 detections", contender, correct=right, frames=1)

    def fill():
        for frame in stream:
            window.observe(frame, make.MODEL_ID)

    benchmark.pedantic(window.drain, setup=fill, rounds=rounds(10))
