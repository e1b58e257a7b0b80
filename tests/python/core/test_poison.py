"""Bad input is turned away row by row, counted, logged once, and never raises."""

from __future__ import annotations

import warnings
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from core_columns import foreign, text_column_of_code_points

from peakhold._peakhold import PeakAggregator

GOOD = ["good 1", "good 2"]
LONGEST_NAME = 1024  # characters


class RaisesOnFloat:
    def __float__(self) -> float:
        message = "no float"
        raise RuntimeError(message)

    __index__ = __float__


class Int(int):
    """An integer of another type."""


class Text(str):
    """A string of another type."""

    __slots__ = ()


def objects(values: list[Any]) -> Any:
    column = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):
        column[place] = value
    return column


def rejected(window: PeakAggregator) -> int:
    return sum(window.rejected.values())


def observe_with_id(window: PeakAggregator, frame: Any) -> int:
    """Observe a frame whose ids are in order, so that only bad rows are counted."""
    count = len(frame)
    frame.data.setdefault("inference_id", np.array(["id"] * count))
    frame.data.setdefault("prediction_type", np.array(["type"] * count))
    return window.observe(frame, "m")


def assert_only_the_middle_row_is_rejected(frame: Any) -> None:
    window = PeakAggregator()
    assert observe_with_id(window, frame) == 2
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


@pytest.mark.parametrize(
    ("bad", "reads_as"),
    [
        (Int(1), 1.0),
        (True, 1.0),
        (np.True_, 1.0),
        (np.float16(0.5), 0.5),
        (np.float32(0.9), 0.8999999761581421),
        (np.uint8(1), 1.0),
        (np.int64(-1), -1.0),
    ],
    ids=repr,
)
@pytest.mark.parametrize("container", ["object array", "list"])
def test_any_real_scalar_is_a_confidence(make_detections, container, bad, reads_as):
    frame = make_detections(["a"])
    frame.confidence = objects([bad]) if container == "object array" else [bad]
    window = PeakAggregator()
    assert observe_with_id(window, frame) == 1
    assert window.drain()[0]["confidence"] == reads_as
    assert window.rejected == {}


@pytest.mark.parametrize(
    "doubtful", [Decimal("0.5"), Fraction(1, 2), "0.5", b"0.5", np.longdouble(0.5)], ids=repr
)
@pytest.mark.parametrize("container", ["object array", "list"])
def test_a_number_of_another_kind_is_read_or_counted(
    make_detections, container, doubtful
):
    values = [0.5, doubtful, 0.75]
    frame = make_detections([GOOD[0], "other", GOOD[1]])
    frame.confidence = objects(values) if container == "object array" else values
    window = PeakAggregator()
    taken = observe_with_id(window, frame)
    found = {row["class_name"]: row["confidence"] for row in window.drain()}
    assert taken + rejected(window) == 3
    assert found.pop("other", 0.5) == 0.5
    assert found == dict(zip(GOOD, [0.5, 0.75], strict=True))


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
    "one character too many": "x" * (LONGEST_NAME + 1),
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
    "bad", ["\ud800", "car\udfff", "x" * (LONGEST_NAME + 1), "x" * 2**20],
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
    names = names.byteswap().view(names.dtype.newbyteorder("S")) if order == "foreign" else names
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
    for length, taken in ((LONGEST_NAME, 1), (LONGEST_NAME + 1, 0)):
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


# An id or type that is none reads as "", and the row is kept.


@pytest.mark.parametrize("bad", [None, 7, "\udc80", b"\xff", object()], ids=repr)
@pytest.mark.parametrize("column", ["inference_id", "prediction_type"])
@pytest.mark.parametrize("container", ["object array", "list"])
def test_a_bad_id_or_type_reads_as_empty_and_is_counted(
    make_detections, bad, column, container
):
    values = objects([bad]) if container == "object array" else [bad]
    window = PeakAggregator()
    frame = make_detections(["a"], [0.5], data={column: values})
    assert observe_with_id(window, frame) == 1
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
    good = [{"class": GOOD[0], "confidence": 0.5}, {"class": GOOD[1], "confidence": 0.75}]
    outer = {"inference_id": "id", "prediction_type": "type"}
    items = [good[0], bad, good[1]]
    if form == "multi":
        named = isinstance(bad, dict)
        found: Any = {item["class"] if item is not bad or named else "bad": item for item in items}
    else:
        found = items
    window = PeakAggregator()
    assert window.observe({"predictions": found, **outer}, "m") == 2
    assert rejected(window) == 1
    report = window.drain()
    assert [row["class_name"] for row in report] == GOOD
    assert {row["inference_id"] for row in report} == {"id"}


# Frames that cannot be read at all


class RaisesOnBool:
    def __bool__(self) -> bool:
        message = "no truth"
        raise RuntimeError(message)


class RaisesOnLen:
    def __len__(self) -> int:
        message = "no length"
        raise RuntimeError(message)


class RaisesOnAttribute:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


class HostileDict(dict[str, Any]):
    def get(self, *_: object) -> Any:
        message = "no item"
        raise RuntimeError(message)

    __getitem__ = __contains__ = keys = items = __iter__ = get


class HostileDetections:
    """Has the columns of detections, and an exception behind one of them."""

    def __init__(self, hostile: str) -> None:
        self._hostile = hostile

    def __len__(self) -> int:
        return 2

    def __getattr__(self, name: str) -> Any:
        if name == self.__dict__["_hostile"]:
            raise RuntimeError(name)
        columns = {"xyxy": np.zeros((2, 4)), "confidence": np.ones(2), "data": {}}
        if name in columns:
            return columns[name]
        raise AttributeError(name)


UNREADABLE = {
    "raises on bool": RaisesOnBool,
    "raises on len": RaisesOnLen,
    "raises on attribute": RaisesOnAttribute,
    "raises on xyxy": lambda: HostileDetections("xyxy"),
    "raises on confidence": lambda: HostileDetections("confidence"),
    "raises on data": lambda: HostileDetections("data"),
    "hostile dict": lambda: HostileDict(predictions=[{"class": "a"}]),
    "hostile predictions": lambda: {"predictions": HostileDict(a={"confidence": 1})},
    "array of many": lambda: np.ones(3),
    "bytes": lambda: b"frame",
    "a type": lambda: dict,
}


@pytest.mark.parametrize("make", UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_never_raises_nor_harms_the_next_frame(
    make_detections, make
):
    window = PeakAggregator()
    window.observe(make_detections(["before"], [0.5], "id", "type"), "m")
    assert isinstance(window.observe(make(), "m"), int)
    window.observe(make_detections(["after"], [0.5], "id", "type"), "m")
    names = [row["class_name"] for row in window.drain()]
    assert [name for name in names if name in ("before", "after")] == ["before", "after"]


@pytest.mark.parametrize(
    "name", ["raises on bool", "raises on len", "raises on confidence", "raises on data"]
)
def test_a_frame_whose_reading_raises_is_counted(name):
    window = PeakAggregator()
    assert window.observe(UNREADABLE[name](), "m") == 0
    assert rejected(window) == 1


UNFIT_CONFIDENCES = {
    "0-d": np.float32(0.5).reshape(()),
    "2-d": np.ones((2, 1), dtype=np.float32),
    "2-d of the right size": np.ones((1, 2), dtype=np.float32),
    "too short": np.ones(1, dtype=np.float32),
    "too long": np.ones(3, dtype=np.float32),
    "empty": np.ones(0, dtype=np.float32),
    "a short list": [0.5],
    "a long list": [0.5] * 3,
    "a long object array": objects([0.5] * 3),
    "complex": np.ones(2, dtype=np.complex64),
    "text": np.array(["many", "few"]),
    "bytes": np.array([b"many", b"few"]),
    "datetime64": np.zeros(2, dtype="M8[s]"),
    "datetime64 in nanoseconds": np.zeros(2, dtype="M8[ns]"),
    "timedelta64": np.zeros(2, dtype="m8[s]"),
    "timedelta64 in nanoseconds": np.zeros(2, dtype="m8[ns]"),
    "void": np.zeros(2, dtype="V4"),
    "structured": np.zeros(2, dtype=[("a", "f4"), ("b", "f4")]),
    "a number": 0.5,
    "a string": "0.5",
    "a dict": {0: 0.5},
    "a generator": (c for c in (0.5, 0.5)),
}

UNFIT_NAMES = {
    "0-d": np.array("a"),
    "2-d": np.array([["a"], ["b"]]),
    "2-d of the right size": np.array([["a", "b"]]),
    "too short": np.array(["a"]),
    "too long": np.array(["a", "b", "c"]),
    "empty": np.array([], dtype="U3"),
    "a short list": ["a"],
    "a long list": ["a", "b", "c"],
    "a long object array": objects(["a", "b", "c"]),
    "a long bytes array": np.array([b"a", b"b", b"c"]),
    "numbers": np.zeros(2),
    "bool": np.zeros(2, dtype=bool),
    "datetime64": np.zeros(2, dtype="M8[s]"),
    "structured": np.zeros(2, dtype=[("a", "U4")]),
    "a number": 5,
    "a dict": {"a": 1, "b": 2},
}


def assert_no_row_is_taken_and_it_is_counted(make_detections, frame: Any) -> None:
    window = PeakAggregator()
    assert observe_with_id(window, frame) == 0
    assert rejected(window) > 0
    assert observe_with_id(window, make_detections(["good"], [0.5])) == 1
    assert [row["class_name"] for row in window.drain()] == ["good"]


@pytest.mark.parametrize("column", UNFIT_CONFIDENCES.values(), ids=UNFIT_CONFIDENCES)
def test_an_unfit_confidence_column_is_counted(make_detections, column):
    frame = make_detections(["a", "b"])
    frame.confidence = column
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_no_row_is_taken_and_it_is_counted(make_detections, frame)


@pytest.mark.parametrize("boxes", [1, 3])
def test_columns_that_differ_from_the_boxes_in_length_reject_the_frame(
    make_detections, boxes
):
    frame = make_detections(["a", "b"], [0.5, 0.5], count=boxes)
    assert_no_row_is_taken_and_it_is_counted(make_detections, frame)


def test_columns_beside_no_boxes_are_an_empty_frame(make_detections):
    frame = make_detections(["a", "b"], [0.5, 0.5], count=0)
    assert not frame
    window = PeakAggregator()
    assert window.observe(frame, "m") == 0
    assert window.drain() == []


@pytest.mark.parametrize("column", UNFIT_NAMES.values(), ids=UNFIT_NAMES)
def test_an_unfit_class_name_column_is_counted(make_detections, column):
    frame = make_detections(confidence=[0.5, 0.5], data={"class_name": column})
    assert_no_row_is_taken_and_it_is_counted(make_detections, frame)


@pytest.mark.parametrize(
    "column",
    [np.array("id"), np.array([["i", "j"]]), np.array(["i"]), [], 5, np.zeros(2)],
    ids=["0-d", "2-d", "short", "empty list", "a number", "numbers"],
)
def test_an_unfit_inference_id_column_is_counted(make_detections, column):
    window = PeakAggregator()
    data = {"inference_id": column, "prediction_type": ["type", "type"]}
    frame = make_detections(["a", "b"], [0.5, 0.5], data=data)
    assert window.observe(frame, "m") in (0, 2)
    assert {row["inference_id"] for row in window.drain()} <= {""}
    assert rejected(window) > 0


@pytest.mark.parametrize("data", [5, "data", [], ["class_name"]], ids=repr)
def test_data_that_is_no_dict_never_raises_and_is_counted(make_detections, data):
    window = PeakAggregator()
    window.observe(make_detections(confidence=[0.5, 0.5], count=2, data=data), "m")
    assert rejected(window) > 0
    assert window.observe(make_detections(["good"], [0.5]), "m") == 1


@pytest.mark.skipif(
    not hasattr(np.dtypes, "StringDType"), reason="NumPy 1 has no variable-width text"
)
def test_variable_width_text_is_read_or_counted(make_detections):
    names = np.array(["car", "van"], dtype=np.dtypes.StringDType())
    window = PeakAggregator()
    taken = observe_with_id(window, make_detections(names, [0.5, 0.5]))
    assert taken in (0, 2)
    assert taken or rejected(window) > 0
    assert [row["class_name"] for row in window.drain()] in ([], ["car", "van"])


@pytest.mark.parametrize("model_id", ["", "m" * 2**20, "\ud800", "проект/3"])
def test_any_model_id_is_taken_or_counted(make_detections, model_id):
    window = PeakAggregator()
    taken = window.observe(make_detections(["a"], [0.5], "id", "type"), model_id)
    assert taken or rejected(window) > 0
    assert len(window.drain()) == taken


def test_rejections_are_cumulative_over_drains(make_detections):
    window = PeakAggregator()
    frame = make_detections(["a", "b"], [float("nan"), float("inf")], "id", "type")
    for times in (1, 2, 3):
        window.observe(frame, "m")
        window.drain()
        assert set(window.rejected.values()) == {times}
    assert all(isinstance(reason, str) for reason in window.rejected)


def test_the_first_of_each_reason_is_logged_once(run_probe):
    seen = run_probe("first_warnings.py")
    assert set(seen["reasons"]) == set(seen["after first"])
    assert len(seen["reasons"]) > 3
    for reason, warnings in seen["after first"].items():
        assert [level for level, _, _ in warnings] == ["WARNING"], reason
        assert all(name.split(".")[0] == "peakhold" for _, name, _ in warnings)
    assert seen["after second"] == []
