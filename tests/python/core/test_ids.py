"""Unique inference ids of a prediction, in first-seen order."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from core_columns import LAYOUTS, foreign, lay_out
from hypothesis import given, settings
from hypothesis import strategies as st

from peakhold._peakhold import unique_inference_ids

UUID = "0b9a3c1e-6b1d-4a9e-8f0a-1c2d3e4f5a6b"
FORMS = ["U", "swapped U", "S", "object", "list"]


def column_of(ids: list[str], form: str) -> Any:
    if form == "list":
        return list(ids)
    if form == "object":
        return np.array(ids, dtype=object)
    if form == "S":
        return np.array([value.encode() for value in ids], dtype="S40")
    column = np.array(ids, dtype="U40")
    return foreign(column) if form == "swapped U" else column


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("count", [1, 2, 100])
def test_the_usual_frame_has_one_id(make_detections, form, count):
    frame = make_detections(data={"inference_id": column_of([UUID] * count, form)})
    assert unique_inference_ids(frame) == [UUID]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("place", [0, 1, 50, 98, 99])
def test_one_row_that_differs_is_not_overlooked(make_detections, form, place):
    ids = [UUID] * 100
    ids[place] = UUID[:-1] + "7"
    frame = make_detections(data={"inference_id": column_of(ids, form)})
    assert unique_inference_ids(frame) == list(dict.fromkeys(ids))


@pytest.mark.parametrize("form", FORMS)
def test_many_ids_come_in_first_seen_order(make_detections, form):
    ids = [f"id-{place * 7919 % 1000}" for place in range(3000)]
    frame = make_detections(data={"inference_id": column_of(ids, form)})
    assert unique_inference_ids(frame) == list(dict.fromkeys(ids))


@pytest.mark.parametrize("form", FORMS)
def test_ids_are_plain_strings(make_detections, form):
    frame = make_detections(data={"inference_id": column_of(["a", "b"], form)})
    assert [type(value) for value in unique_inference_ids(frame)] == [str, str]


def test_a_string_of_another_type_becomes_plain(make_detections):
    ids = np.array([np.str_("a"), np.bytes_(b"a"), "a"], dtype=object)
    (found,) = unique_inference_ids(make_detections(data={"inference_id": ids}))
    assert (found, type(found)) == ("a", str)
    (found,) = unique_inference_ids({"inference_id": np.str_("a")})
    assert (found, type(found)) == ("a", str)


@pytest.mark.parametrize("form", ["object", "list"])
def test_none_and_empty_text_are_not_ids(make_detections, form):
    ids: Any = [None, "b", "", "a", None, "b"]
    ids = ids if form == "list" else np.array(ids, dtype=object)
    frame = make_detections(data={"inference_id": ids})
    assert unique_inference_ids(frame) == ["b", "a"]


@pytest.mark.parametrize("form", FORMS)
def test_empty_text_is_not_an_id_in_any_column(make_detections, form):
    for ids, expected in ((["", "a", ""], ["a"]), (["", ""], [])):
        frame = make_detections(data={"inference_id": column_of(ids, form)})
        assert unique_inference_ids(frame) == expected


@pytest.mark.parametrize("bad", [7, "\ud800", b"\xff", object, ["a"]], ids=repr)
def test_what_is_no_text_is_not_an_id(make_detections, bad):
    ids = np.empty(3, dtype=object)
    ids[:] = "a", None, "b"
    ids[1] = bad
    frame = make_detections(data={"inference_id": ids})
    assert unique_inference_ids(frame) == ["a", "b"]


def test_the_id_of_a_response_is_its_only_one():
    assert unique_inference_ids({"inference_id": "id-1", "predictions": []}) == ["id-1"]


@pytest.mark.parametrize(
    "other",
    [
        None,
        {},
        {"inference_id": None},
        {"inference_id": ""},
        {"inference_id": 5},
        {"predictions": [{"inference_id": "inner"}]},
        [],
        ["id"],
        "id",
        5,
        object,
    ],
    ids=repr,
)
def test_anything_else_has_none(other):
    assert unique_inference_ids(other) == []


def test_detections_without_rows_or_ids_have_none(make_detections):
    assert unique_inference_ids(make_detections([], [], [])) == []
    assert unique_inference_ids(make_detections(["a"], [0.5])) == []


@pytest.mark.parametrize(
    "column",
    [
        np.array("id"),
        np.array([["i"], ["j"]]),
        np.zeros(2),
        np.zeros(2, dtype="M8[s]"),
        np.zeros(2, dtype="V8"),
        np.array([0x110000, 0x110000], dtype="u4").view("U1"),
        5,
        {"a": 1},
    ],
    ids=["0-d", "2-d", "numbers", "times", "void", "code points", "number", "dict"],
)
def test_an_unfit_column_has_none(make_detections, column):
    frame = make_detections(count=2, data={"inference_id": column})
    assert unique_inference_ids(frame) == []


@pytest.mark.parametrize("data", [None, 5, []], ids=repr)
def test_data_that_is_no_dict_has_none(data):
    frame = SimpleNamespace(xyxy=np.zeros((1, 4)), confidence=None, data=data)
    assert unique_inference_ids(frame) == []


@given(
    ids=st.lists(
        st.one_of(
            st.sampled_from(["a", "b", "", UUID, "ключ", "🦊"]),
            st.text(max_size=4).map(lambda value: value.rstrip("\0")),
        )
    ),
    form=st.sampled_from(FORMS),
    layout=st.sampled_from(LAYOUTS),
)
@settings(settings.get_profile("core"), max_examples=200)
def test_ids_are_those_of_a_dict_of_the_rows(make_detections, ids, form, layout):
    column = column_of(ids, form)
    if isinstance(column, np.ndarray):
        column = lay_out(column, layout)
    frame = make_detections(count=len(ids), data={"inference_id": column})
    assert unique_inference_ids(frame) == [key for key in dict.fromkeys(ids) if key]
