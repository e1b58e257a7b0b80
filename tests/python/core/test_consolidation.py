"""The consolidation, row by row of its specification.

Each test runs against the Rust core and against the plain-Python model that the
property tests compare it with, so that the model is tied to the same text.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from core_columns import foreign
from core_model import ModelWindow

from peakhold._peakhold import PeakAggregator, unique_inference_ids


@pytest.fixture(params=[PeakAggregator, ModelWindow], ids=["rust", "model"])
def window(request: pytest.FixtureRequest) -> Any:
    return request.param()


def walk(report: list[dict[str, Any]]) -> list[tuple[str, str, float, str]]:
    return [
        (row["model_id"], row["class_name"], row["confidence"], row["inference_id"])
        for row in report
    ]


def classes(report: list[dict[str, Any]]) -> list[str]:
    return [row["class_name"] for row in report]


def only(report: list[dict[str, Any]]) -> dict[str, Any]:
    assert len(report) == 1
    return report[0]


# Each detection becomes {model_id, class_name, confidence, inference_id, model_type}.


def test_each_detection_becomes_a_row_of_five_fields(window, make_detections):
    frame = make_detections(["car"], [0.5], "id-1", "object-detection")
    assert window.observe(frame, "project/3") == 1
    row = only(window.drain())
    assert row == {
        "model_id": "project/3",
        "class_name": "car",
        "confidence": 0.5,
        "inference_id": "id-1",
        "model_type": "object-detection",
    }
    keys = ["model_id", "class_name", "confidence", "inference_id", "model_type"]
    assert list(row) == keys
    assert {type(row[key]) for key in keys if key != "confidence"} == {str}
    assert type(row["confidence"]) is float


# sv.Detections


def test_class_name_inference_id_and_prediction_type_come_from_data(
    window, make_detections
):
    frame = make_detections(["a", "b"], [0.1, 0.2], ["i", "j"], ["s", "t"])
    window.observe(frame, "m")
    found = [
        (r["class_name"], r["inference_id"], r["model_type"]) for r in window.drain()
    ]
    assert found == [("a", "i", "s"), ("b", "j", "t")]


def test_a_missing_key_reads_as_empty_text(window, make_detections):
    assert window.observe(make_detections(confidence=[0.5, 0.75]), "m") == 2
    expected = {"model_id": "m", "class_name": "", "confidence": 0.75}
    assert only(window.drain()) == expected | {"inference_id": "", "model_type": ""}


def test_a_missing_confidence_reads_as_zero(window, make_detections):
    assert window.observe(make_detections(["a", "b"]), "m") == 2
    assert [row["confidence"] for row in window.drain()] == [0.0, 0.0]


def test_boxes_alone_are_rows_of_the_empty_class(window, make_detections):
    assert window.observe(make_detections(count=3), "m") == 3
    assert walk(window.drain()) == [("m", "", 0.0, "")]


@pytest.mark.parametrize("order", ["native", "foreign"])
def test_a_float32_is_widened_exactly(window, make_detections, order):
    column = np.array([0.9], dtype=np.float32)
    column = foreign(column) if order == "foreign" else column
    window.observe(make_detections(["a"], column), "m")
    assert only(window.drain())["confidence"] == 0.8999999761581421


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        ("f2", 0.9, 0.89990234375),
        ("f2", 6.0e-08, 5.960464477539063e-08),  # the smallest subnormal half
        ("f2", 65504.0, 65504.0),
        ("f4", 1e-45, 1.401298464324817e-45),  # the smallest subnormal single
        ("f8", 0.1, 0.1),
        ("f8", 5e-324, 5e-324),
        ("i1", -128, -128.0),
        ("u1", 255, 255.0),
        ("i2", -32768, -32768.0),
        ("u2", 65535, 65535.0),
        ("i4", -(2**31), -2147483648.0),
        ("u4", 2**32 - 1, 4294967295.0),
        ("i8", 2**53 + 1, 9007199254740992.0),  # as float(int) rounds
        ("u8", 2**64 - 1, 18446744073709551616.0),
        ("?", True, 1.0),
    ],
)
@pytest.mark.parametrize("order", ["native", "foreign"])
def test_float16_integer_and_bool_arrays_are_widened_likewise(
    window, make_detections, dtype, value, expected, order
):
    column = np.array([value], dtype=dtype)
    column = foreign(column) if order == "foreign" else column
    assert window.observe(make_detections(["a"], column), "m") == 1
    assert only(window.drain())["confidence"] == expected


def test_every_finite_half_is_widened_exactly(window, make_detections):
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = halves[np.isfinite(halves)]
    names = np.array([f"c{place}" for place in range(len(finite))])
    assert window.observe(make_detections(names, finite), "m") == len(finite)
    found = [row["confidence"] for row in window.drain()]
    assert found == finite.astype(np.float64).tolist()


def test_bytes_arrays_decode_as_utf8(window, make_detections):
    names = np.array(["Käfer".encode(), "犬".encode(), b"car"])
    window.observe(make_detections(names, [0.1, 0.2, 0.3]), "m")
    assert classes(window.drain()) == ["Käfer", "犬", "car"]


def test_bytes_and_text_of_one_name_are_one_class(window, make_detections):
    window.observe(make_detections(np.array(["Käfer".encode()]), [0.1]), "m")
    window.observe(make_detections(["Käfer"], [0.2]), "m")
    window.observe(make_detections(np.array(["Käfer"], dtype=object), [0.3]), "m")
    window.observe({"predictions": [{"class": "Käfer", "confidence": 0.4}]}, "m")
    assert only(window.drain())["confidence"] == 0.4


def test_object_arrays_of_str_work(window, make_detections):
    names = np.array(["a", "b", "a"], dtype=object)
    ids = np.array(["i", "j", "k"], dtype=object)
    assert window.observe(make_detections(names, [0.1, 0.2, 0.3], ids), "m") == 3
    found = [(r["class_name"], r["inference_id"]) for r in window.drain()]
    assert found == [("a", "k"), ("b", "j")]


def test_lists_in_data_work(window, make_detections):
    data = {"class_name": ["a", "b"], "inference_id": ["i", "j"]}
    frame = make_detections(confidence=[0.1, 0.2], data=data)
    assert window.observe(frame, "m") == 2
    assert walk(window.drain())[1][1::2] == ("b", "j")


@pytest.mark.parametrize("dtype", [">U", "<U"])
def test_the_width_of_a_row_does_not_change_a_class(window, make_detections, dtype):
    for confidence, width in ((0.1, 6), (0.3, 13), (0.2, 3)):
        names = np.array(["car"], dtype=f"{dtype}{width}")
        window.observe(make_detections(names, [confidence]), "m")
    row = only(window.drain())
    assert (row["class_name"], row["confidence"]) == ("car", np.float32(0.3))


def test_trailing_nuls_are_padding_and_inner_ones_are_not(window, make_detections):
    for names in (np.array(["a\0b", "a"], dtype="U9"), np.array([b"a\0b", b"a"], "S7")):
        window.observe(make_detections(names, [0.1, 0.2]), "m")
    assert classes(window.drain()) == ["a\0b", "a"]


def test_a_name_that_begins_like_another_is_another_class(window, make_detections):
    names = ["car", "ca", "cart", "c", "Car", ""]
    window.observe(make_detections(names, [0.5] * 6), "m")
    assert classes(window.drain()) == names


# dict with "predictions" a list (single-label classification)


def single(**outer: Any) -> dict[str, Any]:
    items = [{"class": "cat", "confidence": 0.7}, {"class": "dog", "confidence": 0.2}]
    return {"predictions": items, **outer}


def test_a_single_label_response_has_one_row_per_item(window):
    response = single(inference_id="id-1", prediction_type="classification")
    assert window.observe(response, "m") == 2
    report = window.drain()
    assert walk(report) == [("m", "cat", 0.7, "id-1"), ("m", "dog", 0.2, "id-1")]
    assert {row["model_type"] for row in report} == {"classification"}


def test_a_single_label_response_without_id_or_type_reads_as_empty_text(window):
    window.observe(single(), "m")
    assert {(r["inference_id"], r["model_type"]) for r in window.drain()} == {("", "")}


def test_an_item_without_a_class_has_the_empty_name(window):
    # As the kind of classification predictions documents its items.
    item = {"class_name": "PLAYING", "class_id": 2, "confidence": 0.75}
    assert window.observe({"predictions": [item, {"class": "cat"}]}, "m") == 2
    assert walk(window.drain()) == [("m", "", 0.75, ""), ("m", "cat", 0.0, "")]


def test_a_classification_without_confidence_has_zero(window):
    assert window.observe({"predictions": [{"class": "cat"}]}, "m") == 1
    assert window.observe({"predictions": {"dog": {}}}, "m") == 1
    assert [row["confidence"] for row in window.drain()] == [0.0, 0.0]


@pytest.mark.parametrize("value", ["0.25", "2.5e-1", ".25", "+0.25"])
def test_a_numeric_string_is_a_confidence(window, value):
    response = {"predictions": [{"class": "cat", "confidence": value}]}
    assert window.observe(response, "m") == 1
    assert window.observe({"predictions": {"dog": {"confidence": value}}}, "m") == 1
    assert [row["confidence"] for row in window.drain()] == [0.25, 0.25]


@pytest.mark.parametrize(("value", "expected"), [(True, 1.0), (False, 0.0), (1, 1.0)])
def test_booleans_and_integers_become_floats(window, value, expected):
    window.observe({"predictions": {"cat": {"confidence": value}}}, "m")
    confidence = only(window.drain())["confidence"]
    assert (confidence, type(confidence)) == (expected, float)


# dict with "predictions" a dict (multi-label)


def test_a_multi_label_response_has_one_row_per_key(window):
    found = {"cat": {"confidence": 0.7, "class_id": 0}, "dog": {"confidence": 0.2}}
    response = {"predictions": found, "inference_id": "i", "prediction_type": "t"}
    assert window.observe(response, "m") == 2
    assert walk(window.drain()) == [("m", "cat", 0.7, "i"), ("m", "dog", 0.2, "i")]


# Anything else contributes nothing; but any truthy prediction gives its model a place.

ROWLESS = [5, "abc", [1], (1, 2), {"predictions": None}, {"predictions": 3}, {"x": 1}]


@pytest.mark.parametrize("other", [*ROWLESS, None, {}, [], 0], ids=repr)
def test_anything_else_contributes_nothing(window, other):
    assert window.observe(other, "m") == 0
    assert window.drain() == []


@pytest.mark.parametrize(
    "other", [*ROWLESS, {"predictions": []}, {"predictions": {}}], ids=repr
)
def test_a_truthy_prediction_without_rows_gives_its_model_its_place(
    window, make_detections, other
):
    window.observe(other, "late")
    window.observe(make_detections(["a", "b"], [0.5, 0.5], "first"), "early")
    window.observe(make_detections(["b"], [0.5], "second"), "late")
    assert walk(window.drain()) == [
        ("late", "b", 0.5, "second"),
        ("early", "a", 0.5, "first"),
    ]


@pytest.mark.parametrize("other", [None, {}, [], 0, "", "empty detections"], ids=repr)
def test_a_falsy_prediction_gives_its_model_no_place(window, make_detections, other):
    falsy = make_detections([], []) if other == "empty detections" else other
    window.observe(falsy, "late")
    window.observe(make_detections(["a", "b"], [0.5, 0.5], "first"), "early")
    window.observe(make_detections(["b"], [0.5], "second"), "late")
    assert walk(window.drain()) == [
        ("early", "a", 0.5, "first"),
        ("early", "b", 0.5, "first"),
    ]


# Selection, order and ties


def test_the_maximum_of_a_class_is_taken_across_all_models(window, make_detections):
    for model, confidence in (("m1", 0.5), ("m2", 0.9), ("m3", 0.7)):
        window.observe(make_detections(["a"], [confidence], model), model)
    assert only(window.drain())["model_id"] == "m2"


def test_models_are_walked_in_the_order_first_seen(window, make_detections):
    window.observe(make_detections(["a"], [0.5]), "m2")
    window.observe(make_detections(["b"], [0.5]), "m1")
    window.observe(make_detections(["c"], [0.5]), "m2")
    assert classes(window.drain()) == ["a", "c", "b"]


def test_detections_of_a_model_are_walked_in_arrival_order(window, make_detections):
    window.observe(make_detections(["z", "a", "m"], [0.1, 0.9, 0.5]), "m")
    window.observe(make_detections(["b", "a"], [0.99, 0.95]), "m")
    assert classes(window.drain()) == ["z", "a", "m", "b"]


def test_a_class_stands_at_its_first_appearance_whoever_wins_it(
    window, make_detections
):
    window.observe(make_detections(["a", "b"], [0.1, 0.5], "one"), "m1")
    window.observe(make_detections(["a"], [0.9], "two"), "m2")
    assert walk(window.drain()) == [
        ("m2", "a", pytest.approx(0.9), "two"),
        ("m1", "b", 0.5, "one"),
    ]


def test_among_equal_confidences_the_first_of_the_walk_wins(window, make_detections):
    window.observe(make_detections(["x"], [0.1], "place"), "m1")
    window.observe(make_detections(["a"], [0.5], "m2-first"), "m2")
    window.observe(make_detections(["a", "a"], [0.5, 0.5], ["m1-1", "m1-2"]), "m1")
    window.observe(make_detections(["a"], [0.5], "m1-late"), "m1")
    report = window.drain()
    assert classes(report) == ["x", "a"]
    assert (report[1]["model_id"], report[1]["inference_id"]) == ("m1", "m1-1")


@pytest.mark.parametrize("signs", [(0.0, -0.0), (-0.0, 0.0)])
@pytest.mark.parametrize("together", [True, False], ids=["one frame", "two frames"])
def test_zero_and_minus_zero_are_a_tie(window, make_detections, signs, together):
    if together:
        frames = [make_detections(["a", "a"], list(signs), ["first", "second"])]
    else:
        pairs = zip(signs, ("first", "second"), strict=True)
        frames = [make_detections(["a"], [sign], name) for sign, name in pairs]
    for frame in frames:
        window.observe(frame, "m")
    row = only(window.drain())
    assert row["inference_id"] == "first"
    assert math.copysign(1, row["confidence"]) == math.copysign(1, signs[0])


def test_neighbouring_doubles_are_no_tie(window, make_detections):
    above = math.nextafter(0.5, 1)
    for confidence, name in ((0.5, "low"), (above, "high"), (0.5, "low again")):
        column = np.array([confidence], dtype=np.float64)
        window.observe(make_detections(["a"], column, name), "m")
    row = only(window.drain())
    assert (row["confidence"], row["inference_id"]) == (above, "high")


def test_the_seen_example_byte_for_byte(window, make_detections):
    def frame(*rows: tuple[str, float, str]) -> Any:
        names, confidences, ids = zip(*rows, strict=True)
        column = np.array(confidences, dtype=np.float64)
        return make_detections(list(names), column, list(ids))

    window.observe(frame(("a", 0.5, "id1"), ("b", 0.9, "id2")), "m1")
    window.observe(frame(("b", 0.5, "id3"), ("a", 0.9, "id4")), "m2")
    window.observe(frame(("a", 0.9, "id5"), ("c", 0.9, "id6")), "m1")
    assert walk(window.drain()) == [
        ("m1", "a", 0.9, "id5"),
        ("m1", "b", 0.9, "id2"),
        ("m1", "c", 0.9, "id6"),
    ]


def test_a_drained_window_is_empty_and_starts_afresh(window, make_detections):
    window.observe(make_detections(["a"], [0.9]), "m1")
    assert len(window.drain()) == 1
    assert window.drain() == []
    window.observe(make_detections(["b", "a"], [0.5, 0.25]), "m2")
    assert walk(window.drain()) == [("m2", "b", 0.5, ""), ("m2", "a", 0.25, "")]


def test_the_columns_of_a_frame_may_be_read_only(window, make_detections):
    names, confidence = np.array(["a"]), np.array([0.5], dtype=np.float32)
    names.flags.writeable = confidence.flags.writeable = False
    assert window.observe(make_detections(names, confidence), "m") == 1


def test_a_window_does_not_see_a_frame_changed_after_it_was_observed(
    window, make_detections
):
    if isinstance(window, ModelWindow):
        pytest.skip("the property is the core's: it reads columns in place")
    frame = make_detections(["car"], [0.5], "id-1")
    window.observe(frame, "m")
    frame.confidence[:] = 0.75
    frame.data["class_name"][:] = "van"
    frame.data["inference_id"][:] = "id-2"
    assert walk(window.drain()) == [("m", "car", 0.5, "id-1")]


def test_arguments_may_be_named(make_detections):
    frame = make_detections(["a"], [0.5], "id", "type")
    window = PeakAggregator()
    assert window.observe(predictions=frame, model_id="m") == 1
    assert unique_inference_ids(predictions=frame) == ["id"]
