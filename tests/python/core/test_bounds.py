"""PEAKHOLD_MAX_CLASSES bounds a window; the excess is counted, never silent."""

from __future__ import annotations

from typing import Any

import pytest

from peakhold._peakhold import Journal, PeakAggregator

VARIABLE = "PEAKHOLD_MAX_CLASSES"


def bounded(monkeypatch: pytest.MonkeyPatch, limit: int) -> PeakAggregator:
    monkeypatch.setenv(VARIABLE, str(limit))
    return PeakAggregator()


def complete(make_detections: Any, names: list[str], confidence: float) -> Any:
    return make_detections(names, [confidence] * len(names), "id", "type")


def test_the_excess_is_counted_and_the_rest_of_the_frame_is_taken(
    make_detections, monkeypatch
):
    window = bounded(monkeypatch, 3)
    frame = complete(make_detections, ["a", "b", "c", "d", "e", "a"], 0.5)
    assert window.observe(frame, "m") == 4
    assert list(window.rejected.values()) == [2]
    assert [row["class_name"] for row in window.drain()] == ["a", "b", "c"]


def test_classes_that_have_a_place_go_on_being_updated(make_detections, monkeypatch):
    window = bounded(monkeypatch, 2)
    window.observe(complete(make_detections, ["a", "b", "c"], 0.5), "m")
    assert window.observe(complete(make_detections, ["c", "b"], 0.75), "m") == 1
    found = {row["class_name"]: row["confidence"] for row in window.drain()}
    assert found == {"a": 0.5, "b": 0.75}
    assert list(window.rejected.values()) == [2]


def test_a_closed_window_leaves_its_places_to_the_next(make_detections, monkeypatch):
    window = bounded(monkeypatch, 2)
    for names in (["a", "b"], ["c", "d"], ["e", "a"]):
        assert window.observe(complete(make_detections, names, 0.5), "m") == 2
        assert [row["class_name"] for row in window.drain()] == names
    assert window.rejected == {}


def test_a_window_of_hostile_names_stays_bounded(make_detections, monkeypatch):
    window = bounded(monkeypatch, 100)
    for block in range(50):
        names = [f"plate {block}-{row}" for row in range(100)]
        window.observe(complete(make_detections, names, 0.5), "m")
    assert window.peaks == 100
    assert sum(window.rejected.values()) == 4900
    assert len(window.drain()) == 100


def test_the_bound_is_read_when_a_window_is_made(make_detections, monkeypatch):
    small = bounded(monkeypatch, 1)
    large = bounded(monkeypatch, 2)
    monkeypatch.delenv(VARIABLE)
    usual = PeakAggregator()
    taken = [
        window.observe(complete(make_detections, ["a", "b", "c"], 0.5), "m")
        for window in (small, large, usual)
    ]
    assert taken == [1, 2, 3]


def test_without_the_variable_a_window_holds_100_000_classes(
    make_detections, monkeypatch
):
    monkeypatch.delenv(VARIABLE, raising=False)
    window = PeakAggregator()
    names = [f"plate {row}" for row in range(100_010)]
    for block in range(0, len(names), 10_001):
        window.observe(
            complete(make_detections, names[block : block + 10_001], 0.5), "m"
        )
    assert window.peaks == 100_000
    assert list(window.rejected.values()) == [10]
    assert [row["class_name"] for row in window.drain()] == names[:100_000]


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5", ""])
def test_a_bound_that_is_no_bound_is_an_error_that_names_the_variable(
    monkeypatch, value
):
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(ValueError, match=VARIABLE):
        PeakAggregator()


def classification(names: list[str], inference_id: str, confidence: float) -> Any:
    return {
        "inference_id": inference_id,
        "prediction_type": "t",
        "predictions": [{"class": name, "confidence": confidence} for name in names],
    }


def long_names(block: int) -> list[str]:
    return [f"{block:4}{row:4}".ljust(1_000, "x") for row in range(1_000)]


def test_the_bytes_of_names_are_bounded(tmp_path):
    window = PeakAggregator(journal=Journal(tmp_path / "own"))
    taken = [
        window.observe(classification(long_names(block), "id", 0.5), "m")
        for block in range(20)
    ]
    most = 64 * 2**20 // 4_000  # four bytes for a character
    assert most * 0.95 < window.peaks <= most
    assert window.rejected == {"too_much_text": 20_000 - window.peaks}
    assert sum(taken) == window.peaks
    assert sum(path.stat().st_size for path in tmp_path.rglob("*")) < 64 * 2**20
    assert window.observe(classification(long_names(0), "id", 0.75), "m") == 1_000
    assert max(row["confidence"] for row in window.drain()) == 0.75
    assert window.observe(classification(long_names(19), "id", 0.5), "m") == 1_000


def test_the_bytes_of_inference_ids_are_bounded():
    window = PeakAggregator()
    for confidence, inference_id in [(0.5, "i"), (0.75, "i" * 1_024)]:
        for block in range(70):
            names = [f"{block} {row}" for row in range(1_000)]
            frame = classification(names, inference_id, confidence)
            assert window.observe(frame, "m") == 1_000
    lines = window.drain()
    ids = [line["inference_id"] for line in lines]
    assert ids.count("") == window.rejected["too_much_text"] > 0
    assert ids.count("i" * 1_024) > 50_000
    assert len(ids) * len("69 999") + sum(map(len, ids)) < 64 * 2**20
    assert {line["confidence"] for line in lines} == {0.75}
