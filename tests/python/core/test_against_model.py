"""The Rust core against the plain-Python model, over random streams of frames."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
import pytest
from core_model import ModelWindow, number, text
from core_streams import streams
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

from peakhold._peakhold import PeakAggregator

# More of them, for a long run: PEAKHOLD_TEST_EXAMPLES=20000.
EXAMPLES = int(os.environ.get("PEAKHOLD_TEST_EXAMPLES", "300"))


@pytest.fixture(scope="session")
def any_stream(make_detections: Any) -> Any:
    return streams(make_detections)


def exactly(report: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Return a report so that `==` also tells 0.0 from -0.0, and key order."""
    return [
        (list(row), tuple(row.values()), math.copysign(1, row["confidence"]))
        for row in report
    ]


def replay(stream: list[Any], window: Any) -> tuple[list[Any], int]:
    """Push a stream through a window; returns all it answered, and rows rejected."""
    answers: list[Any] = []
    for step in [*stream, None]:
        if step is None:
            answers.append(exactly(window.drain()))
        else:
            answers.append(window.observe(*step))
    turned_away = getattr(window, "rejected", {})
    return answers, sum(turned_away.values())


@given(data=st.data())
@settings(
    settings.get_profile("core"),
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_the_core_answers_as_the_model_on_every_stream(
    any_stream: Any, data: st.DataObject
) -> None:
    stream = data.draw(any_stream)
    model = ModelWindow()
    expected, _ = replay(stream, model)
    found, rejected = replay(stream, PeakAggregator())
    assert found == expected
    assert rejected >= model.dropped
    if not model.dropped and not model.flawed:
        assert rejected == 0


@pytest.mark.parametrize("seed", range(8))
def test_the_core_answers_as_the_model_on_frames_of_many_classes(
    make_detections: Any, seed: int
) -> None:
    """Random streams keep frames small; these outgrow every table of the core."""
    rng = np.random.default_rng(seed)
    classes = np.array([f"class {number:x}" for number in range(1500)])
    stream: list[Any] = []
    for turn in range(12):
        rows = int(rng.integers(1, 3000))
        names = classes[rng.integers(0, rng.integers(1, len(classes)), rows)]
        steps = rng.integers(2, 1000)  # few steps make many ties
        confidence = (rng.integers(0, steps, rows) / steps).astype(np.float32)
        confidence[rng.random(rows) < 0.05] = np.nan
        ids = np.array([f"{turn}-{row}" for row in range(rows)])
        frame = make_detections(names, confidence, ids, "object-detection")
        stream += [(frame, f"m/{rng.integers(0, 4)}")] + [None] * (turn % 5 == 4)
    model = ModelWindow()
    expected, _ = replay(stream, model)
    found, rejected = replay(stream, PeakAggregator())
    assert found == expected
    assert rejected == model.dropped > 0


@pytest.mark.parametrize("models", [2, 8, 20])
def test_the_core_answers_as_the_model_on_many_models_in_turn(
    make_detections: Any, models: int
) -> None:
    """A thread keeps memory for eight models; their frames hold the same classes."""
    rng = np.random.default_rng(models)
    stream: list[Any] = []
    for turn in range(200):
        names = [f"class {number}" for number in rng.integers(0, 9, 5)]
        scores = rng.integers(0, 20, 5) / 20
        form = turn // models % 4
        if form == 0:
            pairs = zip(names, scores.tolist(), strict=True)
            found = [{"class": name, "confidence": score} for name, score in pairs]
            frame: Any = {"predictions": found, "inference_id": f"{turn}"}
        elif form == 1:
            pairs = zip(names, scores.tolist(), strict=True)
            labels = {name: {"confidence": score} for name, score in pairs}
            frame = {"predictions": labels, "inference_id": f"{turn}"}
        else:
            kind = "U12" if form == 2 else "S12"
            column = np.array(names, dtype=kind)
            frame = make_detections(column, scores, [f"{turn}"] * 5)
        stream += [(frame, f"m/{turn % models}")] + [None] * (turn % 50 == 49)
    expected, _ = replay(stream, ModelWindow())
    found, _ = replay(stream, PeakAggregator())
    assert found == expected


class _LastTieWins(ModelWindow):
    def drain(self) -> list[dict[str, Any]]:
        winners: dict[str, dict[str, Any]] = {}
        for rows in self._models.values():
            for row in rows:
                best = winners.get(row["class_name"], row)
                if row["confidence"] >= best["confidence"]:
                    winners[row["class_name"]] = row
        self._models = {}
        return list(winners.values())


class _ModelsInOrderOfTheirFirstRow(ModelWindow):
    def observe(self, predictions: Any, model_id: str) -> int:
        taken = super().observe(predictions, model_id)
        if not self._models.get(model_id):
            self._models.pop(model_id, None)
        return taken


class _KeepsTheOldOrderOfModels(ModelWindow):
    def drain(self) -> list[dict[str, Any]]:
        kept = self._models
        report = super().drain()
        self._models = {model: [] for model in kept}
        return report


class _ReadsNanAsZero(ModelWindow):
    def _row(self, model_id: str, name: Any, confidence: Any, *rest: Any) -> None:
        super()._row(model_id, name, 0.0 if confidence is None else confidence, *rest)


class _DropsTheFrameOfABadRow(ModelWindow):
    def _detections(self, detections: Any, model_id: str) -> None:
        names = detections.data.get("class_name")
        if names is None or all(text(name) is not None for name in names):
            super()._detections(detections, model_id)


class _RoundsToSixPlaces(ModelWindow):
    def _row(self, model_id: str, name: Any, confidence: Any, *rest: Any) -> None:
        if confidence is not None and abs(confidence) < 1:
            confidence = round(confidence, 6)
        super()._row(model_id, name, number(confidence), *rest)


MUTANTS = [
    _LastTieWins,
    _ModelsInOrderOfTheirFirstRow,
    _KeepsTheOldOrderOfModels,
    _ReadsNanAsZero,
    _DropsTheFrameOfABadRow,
    _RoundsToSixPlaces,
]


def test_the_streams_tell_wrong_windows_from_the_right_one(any_stream: Any) -> None:
    """The control: every mutant of the model is found out by some stream."""
    unsuspected = set(MUTANTS)

    def all_found_out(stream: list[Any]) -> bool:
        right, _ = replay(stream, ModelWindow())
        unsuspected.difference_update(
            [mutant for mutant in unsuspected if replay(stream, mutant())[0] != right]
        )
        return not unsuspected

    generous = settings(
        settings.get_profile("core"),
        max_examples=2000,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
    )
    find(any_stream, all_found_out, settings=generous)
