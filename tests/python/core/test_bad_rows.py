"""A bad row costs itself only: it is counted, and the rest of its frame is taken."""

from __future__ import annotations

import warnings
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from core_columns import foreign, objects, text_column_of_code_points
from core_frames import observe_complete, rejected
from core_model import LONGEST_TEXT

from peakhold._peakhold import PeakAggregator

GOOD = ["good 1", "good 2"]


def array_of_itself() -> Any:
    array = np.empty((), dtype=object)
    array[()] = array
    return array


class RaisesOnFloat:
    def __float__(self) -> float:
        message = "no float"
        raise RuntimeError(message)

    __index__ = __float__


class Convertible:
    """A number of a library that is not NumPy, as a tensor is one."""

    dtype = "bfloat16"

    def __float__(self) -> float:
        return 0.75


class Int(int):
    """An integer of another type."""


class Text(str):
    """A string of another type."""

    __slots__ = ()


def assert_only_the_middle_row_is_rejected(frame: Any) -> None:
    window = PeakAggregator()
    assert observe_complete(window, frame) == 2
    assert rejected(window) == 1
    report = window.drain()
    assert [row["class_name"] for row in report] == GOOD
    assert [row["confidence"] for row in report] == [0.5, 0.75]
    assert {row["inference_id"] for row in report} == {"id"}


BAD_CONFIDENCES = {
    "None": None,
    "nan": float("nan"),
    "inf": float("inf"),
    "-inf": float("-inf"),
    "numpy nan": np.float32("nan"),
    "a string that is no number": "many",
    "object": object(),
    "complex": 0.5 + 0j,
    "numpy complex": np.complex64(0.5),
    "array of a complex": np.array([0.5 + 0j]),
    "array of a time in nanoseconds": np.array([1], dtype="m8[ns]"),
    "array of objects with a complex": objects([np.complex64(0.5)]),
    "array of two": np.array([0.5, 0.5]),
    "array of none": np.array([]),
    "array of itself": array_of_itself(),
    "datetime64": np.datetime64("2020-01-01"),
    "datetime64 in nanoseconds": np.datetime64(1, "ns"),
    "timedelta64": np.timedelta64(1, "s"),
    "timedelta64 in nanoseconds": np.timedelta64(1, "ns"),
    "list": [0.5],
    "dict": {},
    "an integer beyond float": 10**400,
    "Decimal nan": Decimal("nan"),
    "raises on float()": RaisesOnFloat(),
}


@pytest.mark.parametrize("container", ["object array", "list"])
@pytest.mark.parametrize("bad", BAD_CONFIDENCES.values(), ids=BAD_CONFIDENCES)
def test_a_bad_confidence_costs_its_row_only(make_detections, container, bad):
    values = [0.5, bad, 0.75]
    frame = make_detections([GOOD[0], "bad", GOOD[1]])
    frame.confidence = objects(values) if container == "object array" else values
    with warnings.catch_warnings():
        # float() of a NumPy complex only warns, except where warnings are errors.
        warnings.simplefilter("ignore")
        assert_only_the_middle_row_is_rejected(frame)


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("order", ["native", "foreign"])
def test_a_confidence_that_is_not_finite_costs_its_row_only(
    make_detections, bad, dtype, order
):
    column = np.array([0.5, float(bad), 0.75], dtype=dtype)
    column = foreign(column) if order == "foreign" else column
    assert_only_the_middle_row_is_rejected(
        make_detections([GOOD[0], "bad", GOOD[1]], column)
    )


NUMBERS = {
    "int of another type": (Int(1), 1.0),
    "bool": (True, 1.0),
    "numpy bool": (np.True_, 1.0),
    "float16": (np.float16(0.5), 0.5),
    "float32": (np.float32(0.9), 0.8999999761581421),
    "longdouble": (np.longdouble(0.5), 0.5),
    "uint8": (np.uint8(1), 1.0),
    "int64": (np.int64(1), 1.0),
    "text": ("0.75", 0.75),
    "text with a sign": ("+7.5e-1", 0.75),
    "bytes": (b"0.75", 0.75),
    "Decimal": (Decimal("0.75"), 0.75),
    "Fraction": (Fraction(3, 4), 0.75),
    "has __float__": (Convertible(), 0.75),
    "array of one": (np.array([0.75], dtype=np.float32), 0.75),
    "array of one row and column": (np.array([[0.75]], dtype=np.float16), 0.75),
    "array without dimensions": (np.array(0.75), 0.75),
    "array of one text": (np.array(["0.75"]), 0.75),
    "array of one object": (objects([Convertible()]), 0.75),
}


@pytest.mark.parametrize(
    ("confidence", "reads_as"), NUMBERS.values(), ids=NUMBERS.keys()
)
@pytest.mark.parametrize(
    "container", ["object array", "list", "single-label", "multi-label"]
)
def test_whatever_converts_to_float_is_a_confidence(
    make_detections, container, confidence, reads_as
):
    frame: Any
    if container == "single-label":
        frame = {"predictions": [{"class": "a", "confidence": confidence}]}
    elif container == "multi-label":
        frame = {"predictions": {"a": {"confidence": confidence}}}
    else:
        frame = make_detections(["a"])
        values = [confidence]
        frame.confidence = objects(values) if container == "object array" else values
    window = PeakAggregator()
    assert window.observe(frame, "m") == 1
    assert window.drain()[0]["confidence"] == reads_as
    assert not {reason for reason in window.rejected if "confidence" in reason}


@pytest.mark.filterwarnings("ignore:Warning. converting a masked element to nan")
@pytest.mark.parametrize(
    "masked", [np.ma.masked, np.ma.array([0.5], mask=[True])], ids=["constant", "array"]
)
def test_a_masked_confidence_is_not_what_is_behind_the_mask(masked):
    window = PeakAggregator()
    frame = {"predictions": [{"class": "a", "confidence": masked}]}
    assert window.observe(frame, "m") == 0
    assert window.rejected == {"confidence_nan": 1}


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
@pytest.mark.parametrize("grad", [False, True])
def test_a_torch_scalar_is_a_confidence(kind, shape, grad):
    torch = pytest.importorskip("torch", reason="torch is too large to be required")
    scalar = torch.full(shape, 0.75, dtype=getattr(torch, kind), requires_grad=grad)
    window = PeakAggregator()
    found = [{"class": "cat", "confidence": scalar}]
    with warnings.catch_warnings():
        # float() of a tensor with a gradient warns, except where that is an error.
        warnings.simplefilter("ignore")
        assert window.observe({"predictions": found}, "m") == 1
        labels = {"dog": {"confidence": scalar}}
        assert window.observe({"predictions": labels}, "m") == 1
    assert [row["confidence"] for row in window.drain()] == [0.75, 0.75]


BAD_NAMES = {
    "None": None,
    "int": 7,
    "float": 0.5,
    "object": object(),
    "list": ["car"],
    "tuple": ("car",),
    "a lone surrogate": "\ud800",
    "a lone surrogate inside": "car\udfffs",
    "bytes that are not UTF-8": b"\xff",
    "UTF-8 that was cut off": "é".encode()[:1],
    "UTF-8 of a surrogate": b"\xed\xa0\x80",
    "a megabyte": "x" * 2**20,
    "a megabyte of bytes": b"x" * 2**20,
    "one character too many": "x" * (LONGEST_TEXT + 1),
}


@pytest.mark.parametrize("container", ["object array", "list"])
@pytest.mark.parametrize("bad", BAD_NAMES.values(), ids=BAD_NAMES)
def test_a_bad_class_name_costs_its_row_only(make_detections, container, bad):
    names: Any = [GOOD[0], bad, GOOD[1]]
    names = objects(names) if container == "object array" else names
    frame = make_detections(confidence=[0.5, 0.9, 0.75], data={"class_name": names})
    assert_only_the_middle_row_is_rejected(frame)


@pytest.mark.parametrize("order", ["native", "foreign"])
@pytest.mark.parametrize(
    "bad",
    ["\ud800", "car\udfff", "x" * (LONGEST_TEXT + 1), "x" * 2**20],
    ids=["surrogate", "surrogate inside", "too long", "a megabyte"],
)
def test_a_bad_name_in_a_fixed_width_column_costs_its_row_only(
    make_detections, bad, order
):
    names = np.array([GOOD[0], bad, GOOD[1]])
    names = foreign(names) if order == "foreign" else names
    assert_only_the_middle_row_is_rejected(make_detections(names, [0.5, 0.9, 0.75]))


@pytest.mark.parametrize("order", ["native", "foreign"])
@pytest.mark.parametrize("code_point", [0x110000, 0x7FFFFFFF, 0xFFFFFFFF, 0xD800])
def test_an_invalid_code_point_costs_its_row_only(make_detections, code_point, order):
    rows = [[ord(c) for c in GOOD[0]], [97, code_point], [ord(c) for c in GOOD[1]]]
    names = text_column_of_code_points(rows)
    if order == "foreign":
        names = names.byteswap().view(names.dtype.newbyteorder("S"))
    assert_only_the_middle_row_is_rejected(make_detections(names, [0.5, 0.9, 0.75]))


@pytest.mark.parametrize("bad", [b"\xff", b"caf\xc3", b"\xed\xa0\x80", b"x" * 2**20])
def test_bytes_that_are_no_name_cost_their_row_only(make_detections, bad):
    names = np.array([GOOD[0].encode(), bad, GOOD[1].encode()])
    assert_only_the_middle_row_is_rejected(make_detections(names, [0.5, 0.9, 0.75]))


@pytest.mark.parametrize("character", ["x", "é", "🦊"])
@pytest.mark.parametrize("form", ["U", "S", "object", "response"])
def test_the_longest_name_is_taken_and_one_more_character_is_not(
    make_detections, character, form
):
    for length, taken in ((LONGEST_TEXT, 1), (LONGEST_TEXT + 1, 0)):
        name = character * length
        window = PeakAggregator()
        if form == "response":
            found = {"predictions": [{"class": name}]}
            assert window.observe(found, "m") == taken
        else:
            value = name.encode() if form == "S" else name
            column = np.array([value], dtype=object if form == "object" else form)
            assert window.observe(make_detections(column), "m") == taken
        assert [row["class_name"] for row in window.drain()] == [name][:taken]


def test_a_string_of_another_type_is_a_name(make_detections):
    window = PeakAggregator()
    names = objects([Text("car"), np.str_("van"), np.bytes_(b"bus")])
    assert window.observe(make_detections(names), "m") == 3
    report = window.drain()
    assert [row["class_name"] for row in report] == ["car", "van", "bus"]
    assert {type(row["class_name"]) for row in report} == {str}


@pytest.mark.parametrize("values", [[0.3, float("nan"), 0.4], [float("nan"), 0.3]])
def test_nan_spoils_no_maximum_whatever_its_place(make_detections, values):
    window = PeakAggregator()
    window.observe(make_detections(["a"] * len(values), values), "m")
    finite = [value for value in values if value == value]  # noqa: PLR0124 - NaN
    assert window.drain()[0]["confidence"] == np.float32(max(finite))


# A name, id or type that is missing reads as "", and the row is kept.


@pytest.mark.parametrize("form", ["detections", "boxes alone", "single-label"])
def test_a_missing_class_name_reads_as_empty_and_is_counted(make_detections, form):
    if form == "single-label":
        items = [{"confidence": 0.5}, {"confidence": 0.75}, {"confidence": None}]
        frame = {"predictions": items, "inference_id": "id", "prediction_type": "type"}
    else:
        data = {"inference_id": ["id"] * 3, "prediction_type": ["type"] * 3}
        confidence = [0.5, 0.75, np.nan] if form == "detections" else None
        frame = make_detections(count=3, confidence=confidence, data=data)
    window = PeakAggregator()
    taken = window.observe(frame, "m")
    assert window.rejected.pop("class_name_missing") == taken >= 2
    assert rejected(window) == 3
    (row,) = window.drain()
    assert (row["class_name"], row["inference_id"]) == ("", "id")


def test_missing_class_names_are_logged_once(caplog):
    window = PeakAggregator()
    for _ in range(3):
        window.observe({"predictions": [{}, {}], "inference_id": "id"}, "m")
    found = [text for text in caplog.messages if "class_name_missing" in text]
    assert len(found) == 1
    assert 'set data["class_name"]' in found[0]
    assert window.rejected["class_name_missing"] == 6


# An id or type that is none reads as "" as well.


@pytest.mark.parametrize("bad", [None, 7, "\udc80", b"\xff", object], ids=repr)
@pytest.mark.parametrize("column", ["inference_id", "prediction_type"])
@pytest.mark.parametrize("container", ["object array", "list"])
def test_a_bad_id_or_type_reads_as_empty_and_is_counted(
    make_detections, bad, column, container
):
    values = objects([bad]) if container == "object array" else [bad]
    window = PeakAggregator()
    frame = make_detections(["a"], [0.5], data={column: values})
    assert observe_complete(window, frame) == 1
    row = window.drain()[0]
    key, other = "inference_id", "model_type"
    key, other = (key, other) if column == "inference_id" else (other, key)
    assert (row["class_name"], row["confidence"]) == ("a", 0.5)
    assert row[key] == ""
    assert row[other] in ("id", "type")
    assert rejected(window) == 1


def test_a_none_inference_id_of_a_response_spoils_nothing():
    window = PeakAggregator()
    found = [{"class": "cat", "confidence": 0.5}]
    assert window.observe({"predictions": found, "inference_id": None}, "m") == 1
    assert window.drain()[0]["inference_id"] == ""
    assert rejected(window) > 0


def test_only_the_ids_of_winners_are_read(make_detections):
    window = PeakAggregator()
    ids = objects(["id", None, 7])
    frame = make_detections(["a", "a", "a"], [0.5, 0.25, 0.25], ids, "type")
    assert window.observe(frame, "m") == 3
    assert window.drain()[0]["inference_id"] == "id"
    assert window.rejected == {}


# Rows of classification responses

BAD_ITEMS = [
    None,
    5,
    "cat",
    [],
    {"class": None, "confidence": 0.9},
    {"class": 7, "confidence": 0.9},
    {"class": "\ud800", "confidence": 0.9},
    {"class": "x" * 2**20, "confidence": 0.9},
    {"class": "bad", "confidence": None},
    {"class": "bad", "confidence": "many"},
    {"class": "bad", "confidence": ""},
    {"class": "bad", "confidence": "nan"},
    {"class": "bad", "confidence": "1e400"},
    {"class": "bad", "confidence": float("nan")},
    {"class": "bad", "confidence": float("inf")},
    {"class": "bad", "confidence": 10**400},
    {"class": "bad", "confidence": 1j},
    {"class": "bad", "confidence": RaisesOnFloat()},
]


@pytest.mark.parametrize("bad", BAD_ITEMS, ids=lambda item: repr(item)[:50])
@pytest.mark.parametrize("form", ["single", "multi"])
def test_a_bad_item_of_a_response_costs_its_row_only(bad, form):
    good = [
        {"class": GOOD[0], "confidence": 0.5},
        {"class": GOOD[1], "confidence": 0.75},
    ]
    outer = {"inference_id": "id", "prediction_type": "type"}
    items = [good[0], bad, good[1]]
    if form == "multi":
        names = [item["class"] if isinstance(item, dict) else "bad" for item in items]
        found: Any = dict(zip(names, items, strict=True))
    else:
        found = items
    window = PeakAggregator()
    assert window.observe({"predictions": found, **outer}, "m") == 2
    assert rejected(window) == 1
    report = window.drain()
    assert [row["class_name"] for row in report] == GOOD
    assert {row["inference_id"] for row in report} == {"id"}


class Observing:
    """A confidence whose conversion observes a frame, and then changes its own."""

    def __init__(self, window: PeakAggregator, entries: Any) -> None:
        self._window = window
        self._entries = entries

    def __float__(self) -> float:
        inner = {"predictions": {"inner": {"confidence": 0.125}}}
        self._window.observe(inner, "m")
        self._entries.clear()
        return 0.5


@pytest.mark.parametrize("form", ["single", "multi"])
def test_a_conversion_may_observe_and_change_what_is_observed(form):
    window = PeakAggregator()
    entries: Any = [] if form == "single" else {}
    confidence = Observing(window, entries)
    if form == "single":
        entries.append({"class": "outer", "confidence": confidence})
        entries.append({"class": "later", "confidence": 0.25})
    else:
        entries["outer"] = {"confidence": confidence}
        entries["later"] = {"confidence": 0.25}
    window.observe({"predictions": entries}, "m")
    found = {row["class_name"]: row["confidence"] for row in window.drain()}
    assert found.pop("later", 0.25) == 0.25
    assert found == {"inner": 0.125, "outer": 0.5}


def test_an_interrupted_conversion_takes_nothing_of_its_frame():
    class Interrupting:
        def __float__(self) -> float:
            raise KeyboardInterrupt

    window = PeakAggregator()
    found = [
        {"class": "before", "confidence": 0.5},
        {"class": "bad", "confidence": Interrupting()},
    ]
    with pytest.raises(KeyboardInterrupt):
        window.observe({"predictions": found}, "m")
    assert window.observe({"predictions": found[:1]}, "m") == 1
    assert [row["class_name"] for row in window.drain()] == ["before"]


@pytest.mark.parametrize("names", [("a", "a\0"), ("a\0", "a"), (b"a", "a")])
def test_names_of_a_response_that_differ_in_padding_alone_are_one_class(names):
    first, second = names
    scores = [(first, 0.25), (second, 0.75), (first, 0.75), ("b", 0.5)]
    found = [{"class": name, "confidence": score} for name, score in scores]
    window = PeakAggregator()
    assert window.observe({"predictions": found}, "m") == 4
    report = window.drain()
    assert [row["class_name"] for row in report] == ["a", "b"]
    assert [row["confidence"] for row in report] == [0.75, 0.5]
