"""Frames that cannot be read cost themselves only: counted, logged once, no raise."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from core_columns import objects
from core_frames import observe_complete, rejected

from peakhold._peakhold import PeakAggregator


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
    assert (names[0], names[-1]) == ("before", "after")


@pytest.mark.parametrize(
    "name",
    ["raises on bool", "raises on len", "raises on confidence", "raises on data"],
)
def test_a_frame_whose_reading_raises_is_counted(name):
    window = PeakAggregator()
    assert window.observe(UNREADABLE[name](), "m") == 0
    assert rejected(window) == 1


class WithIds:
    """Detections whose class ids are looked at, and are what ``make`` returns."""

    def __init__(self, detections: Any, make: Any) -> None:
        self._detections = detections
        self._make = make
        self.reads = 0

    def __len__(self) -> int:
        return len(self._detections)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._detections, name)

    @property
    def class_id(self) -> Any:
        self.reads += 1
        return self._make()


def raising(error: type[BaseException]) -> Any:
    def make() -> Any:
        raise error("no class ids")

    return make


CLASS_IDS = {
    "raises": raising(RuntimeError),
    "raises AttributeError": raising(AttributeError),
    "raises MemoryError": raising(MemoryError),
    "none": lambda: None,
    "too short": lambda: np.zeros(3, dtype=np.int64),
    "too long": lambda: np.zeros(65, dtype=np.int64),
    "2-d": lambda: np.zeros((64, 2), dtype=np.int64),
    "text": lambda: np.array(["a"] * 64),
    "floats": lambda: np.full(64, np.nan),
    "objects": lambda: objects([RaisesOnBool()] * 64),
    "out of any range": lambda: np.full(64, -(2**63)),
    "all the same": lambda: np.zeros(64, dtype=np.int64),
}


@pytest.mark.parametrize("make", CLASS_IDS.values(), ids=CLASS_IDS)
def test_no_frame_is_lost_for_want_of_its_class_ids(make_detections, make):
    names = [f"class {row % 5}" for row in range(64)]
    confidences = [row / 64 for row in range(64)]
    frame = make_detections(names, confidences, "id", "type")
    plain, window = PeakAggregator(), PeakAggregator()
    hostile = WithIds(frame, make)
    for _ in range(3):  # what is remembered of one frame serves the next
        assert window.observe(hostile, "m") == plain.observe(frame, "m") == 64
    assert hostile.reads == 3  # the control: they are looked at
    assert window.rejected == {}
    assert window.drain() == plain.drain()


def test_a_confidence_that_raises_beside_class_ids_is_counted(make_detections):
    """The control: what is no hint costs the frame."""
    frame = make_detections(["a"] * 64, [0.5] * 64, "id", "type")

    class NoConfidence(WithIds):
        confidence = property(lambda self: raising(RuntimeError)())

    window = PeakAggregator()
    assert window.observe(NoConfidence(frame, lambda: None), "m") == 0
    assert window.rejected == {"prediction_unreadable": 1}


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_who_ends_the_program_from_a_column_is_not_held_up(make_detections, end):
    frame = make_detections(["a"] * 64, [0.5] * 64, "id", "type")
    window = PeakAggregator()
    with pytest.raises(end):
        window.observe(WithIds(frame, raising(end)), "m")
    assert window.observe(frame, "m") == 64


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
    assert observe_complete(window, frame) == 0
    assert rejected(window) > 0
    assert observe_complete(window, make_detections(["good"], [0.5])) == 1
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
    taken = observe_complete(window, make_detections(names, [0.5, 0.5]))
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
    for reason, logged in seen["after first"].items():
        assert [level for level, _, _ in logged] == ["WARNING"], reason
        assert all(name.split(".")[0] == "peakhold" for _, name, _ in logged)
    assert seen["after second"] == []


class Meddling(list):
    """A list of ids whose items, when read, take the class names' memory away."""

    def __init__(self, ids, names):
        super().__init__(ids)
        self.names = names
        self.reads = 0

    def __getitem__(self, row):
        self.reads += 1
        empty = np.empty(0, dtype="<U1")
        self.names.__setstate__((1, (0,), empty.dtype, False, b""))
        return super().__getitem__(row)


def test_no_code_of_a_column_runs_while_another_is_viewed(make_detections):
    names = np.array([f"class {row}" for row in range(5_000)])
    ids = Meddling(["id"] * len(names), names)
    expected = [str(name) for name in names]
    window = PeakAggregator()
    frame = make_detections(count=len(names), confidence=[0.5] * len(names))
    frame.data = {"class_name": names, "inference_id": ids}
    assert window.observe(frame, "m") == len(expected)
    assert [line["class_name"] for line in window.drain()] == expected
    assert ids.reads == 0
    ids[0]  # the control: the memory does go when an item is read
    assert len(names) == 0


def test_a_dict_that_changes_while_it_is_read_is_no_panic():
    class Changing:
        def __float__(self):
            predictions["predictions"][str(len(predictions["predictions"]))] = {}
            return 0.5

    predictions = {"predictions": {"a": {"confidence": Changing()}, "b": {}}}
    window = PeakAggregator()
    assert window.observe(predictions, "m") == 2
    assert "2" in predictions["predictions"]


@pytest.mark.parametrize(
    "predictions", ["hello", [1], 5, {"foo": 1}, {"predictions": None}, object()]
)
def test_what_is_no_prediction_is_counted_and_gives_its_model_its_place(predictions):
    window = PeakAggregator()
    assert window.observe(predictions, "first") == 0
    assert window.rejected == {"prediction_unsupported": 1}
    row = {"predictions": [{"class": "a", "confidence": 0.5}]}
    window.observe(row, "second")
    window.observe(row, "first")
    assert [line["model_id"] for line in window.drain()] == ["first"]


@pytest.mark.parametrize("predictions", [None, {}, [], 0, ""])
def test_what_is_falsy_is_no_prediction_and_no_mistake(predictions):
    window = PeakAggregator()
    assert window.observe(predictions, "m") == 0
    assert window.rejected == {}


def test_a_model_id_that_is_no_str_is_told_with_the_remedy():
    with pytest.raises(TypeError, match='model_id must be a str such as "project/3"'):
        PeakAggregator().observe({}, 3)
