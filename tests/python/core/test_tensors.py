"""Tensor-native predictions: columns as tensors or arrays, texts in the metadata.

The stand-ins have the fields of the dataclasses that hosts hand over. Real tensors
take their turn where there is a host; here a stand-in tells what is done with it.
"""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from core_frames import rejected
from hypothesis import given
from hypothesis import strategies as st

from peakhold import PeakAggregator, unique_inference_ids

NAMES = {0: "car", 1: "person", 3: "van", 7: "car"}


@dataclass
class Detections:
    xyxy: Any
    class_id: Any
    confidence: Any
    image_metadata: Any = None
    bboxes_metadata: Any = None

    def __len__(self) -> int:
        return int(self.xyxy.shape[0])


@dataclass
class InstanceDetections(Detections):
    mask: Any = None


@dataclass
class KeyPoints:
    xy: Any
    class_id: Any
    confidence: Any
    image_metadata: Any = None
    key_points_metadata: Any = None

    def __len__(self) -> int:
        return int(self.xy.shape[0])


@dataclass
class ClassificationPrediction:
    class_id: Any
    confidence: Any
    images_metadata: Any = None


@dataclass
class MultiLabelClassificationPrediction:
    class_ids: Any
    confidence: Any
    image_metadata: Any = None


@dataclass
class Tensor:
    """What is used of a tensor; `done` tells what was, in order."""

    values: Any
    device: str = "cpu"
    known_to_numpy: bool = True
    requires_grad: bool = False
    done: list[str] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape)

    def _with(self, **changes: Any) -> Tensor:
        values = {**vars(self), **changes}
        return Tensor(**values)

    def detach(self) -> Tensor:
        return self._with(requires_grad=False)

    def cpu(self) -> Tensor:
        if self.device != "cpu":
            self.done.append("copy")
        return self._with(device="cpu")

    def float(self) -> Tensor:
        self.done.append("float")
        return self._with(known_to_numpy=True)

    def numpy(self) -> Any:
        if self.device != "cpu" or not self.known_to_numpy:
            raise TypeError(self.device)
        if self.requires_grad:
            raise RuntimeError
        self.done.append("numpy")
        return self.values

    def __getattr__(self, name: str) -> Any:
        self.done.append(name)
        raise AttributeError(name)


class Untouchable:
    """A column that is none of our business; its rows may be counted."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)


def metadata(**more: Any) -> dict[str, Any]:
    texts = {"inference_id": "id", "prediction_type": "type"}
    return {"class_names": NAMES, **texts, **more}


def boxes(
    class_id: Any, confidence: Any, *, kind: Any = Detections, **more: Any
) -> Any:
    return kind(
        Untouchable(len(class_id), 4),
        np.asarray(class_id),
        np.asarray(confidence),
        metadata(**more),
    )


def rows(window: PeakAggregator) -> list[tuple[str, float]]:
    return [(row["class_name"], row["confidence"]) for row in window.drain()]


def observed(prediction: Any) -> list[tuple[str, float]]:
    window = PeakAggregator()
    taken = window.observe(prediction, "m")
    found = rows(window)
    assert window.rejected == {}
    assert bool(taken) == bool(found)
    return found


@pytest.mark.parametrize("kind", [Detections, InstanceDetections])
def test_a_detection_has_the_name_of_its_class_id(kind):
    ids, confidences = [3, 0, 3, 0], [0.25, 0.5, 0.75, 0.125]
    window = PeakAggregator()
    assert window.observe(boxes(ids, confidences, kind=kind), "m/1") == 4
    common = {"model_id": "m/1", "inference_id": "id", "model_type": "type"}
    assert window.drain() == [
        {**common, "class_name": "van", "confidence": 0.75},
        {**common, "class_name": "car", "confidence": 0.5},
    ]
    assert window.rejected == {}


def test_key_points_are_observed_by_their_detections():
    detections = boxes([1, 0], [0.5, 0.25])
    points = KeyPoints(Untouchable(2, 5, 2), Untouchable(2), Untouchable(2, 5))
    assert observed((points, detections)) == [("person", 0.5), ("car", 0.25)]
    assert unique_inference_ids((points, detections)) == ["id"]


def test_an_unknown_class_id_has_no_name_and_its_rows_are_counted():
    window = PeakAggregator()
    detections = boxes([2, -1, 0, 2, 2], [0.5, 0.75, 0.25, 0.5, np.nan])
    assert window.observe(detections, "m") == 4
    assert rows(window) == [("", 0.75), ("car", 0.25)]
    assert window.rejected == {"class_name_missing": 3, "confidence_nan": 1}


def test_class_ids_that_share_a_name_are_one_class():
    assert observed(boxes([7, 1, 0], [0.25, 0.5, 0.75])) == [
        ("car", 0.75),
        ("person", 0.5),
    ]


@pytest.mark.parametrize("names", [None, {}])
def test_without_a_map_no_class_has_a_name(names):
    window = PeakAggregator()
    assert window.observe(boxes([0, 1], [0.25, 0.5], class_names=names), "m") == 2
    assert rows(window) == [("", 0.5)]
    assert window.rejected == {"class_name_missing": 2}


def test_texts_that_are_missing_are_counted_and_the_rows_kept():
    detections = boxes([0], [0.5])
    detections.image_metadata = None
    window = PeakAggregator()
    assert window.observe(detections, "m") == 1
    (row,) = window.drain()
    assert (row["class_name"], row["inference_id"], row["model_type"]) == ("",) * 3
    assert set(window.rejected) == {
        "class_name_missing",
        "inference_id_invalid",
        "prediction_type_invalid",
    }


@pytest.mark.parametrize("text", [5, "\ud800", "x" * 2000])
def test_shared_texts_that_are_none_are_counted_and_the_rows_kept(text):
    window = PeakAggregator()
    texts = {"inference_id": text, "prediction_type": text}
    assert window.observe(boxes([0, 1], [0.5, 0.25], **texts), "m") == 2
    found = [(row["inference_id"], row["model_type"]) for row in window.drain()]
    assert found == [("", "")] * 2
    assert set(window.rejected.values()) == {2}


@pytest.mark.parametrize(
    "kind",
    [
        "i1",
        "u1",
        "i2",
        "u2",
        "i4",
        "u4",
        "i8",
        "u8",
        ">i4",
        ">i8",
        ">u8",
        "f2",
        "f4",
        "f8",
        ">f4",
        "?",
    ],
)
def test_class_ids_of_every_type_are_read(kind):
    assert observed(boxes(np.array([1, 0, 1], dtype=kind), [0.5, 0.25, 0.75])) == [
        ("person", 0.75),
        ("car", 0.25),
    ]


def test_class_ids_are_exact_to_the_last_bit():
    ids = np.array([2**53, 2**53 + 1])
    names = {2**53: "even", 2**53 + 1: "odd"}
    assert observed(boxes(ids, [0.5, 0.25], class_names=names)) == [
        ("even", 0.5),
        ("odd", 0.25),
    ]


def test_fractions_of_class_ids_are_cut_off():
    assert observed(boxes(np.array([1.9, 0.5, -0.5]), [0.5, 0.25, 0.125])) == [
        ("person", 0.5),
        ("car", 0.25),
    ]


def test_columns_may_be_strided_and_reversed():
    table = np.arange(24, dtype=np.float32).reshape(4, 6) / 32
    ids = np.array([[0, 9], [1, 9], [3, 9], [0, 9]])[::-1, 0]
    assert observed(boxes(ids, table[:, 2])) == [
        ("car", float(table[3, 2])),
        ("van", float(table[1, 2])),
        ("person", float(table[2, 2])),
    ]


def tensors(**how: Any) -> tuple[Tensor, Tensor, Detections]:
    ids = Tensor(np.array([0, 1]), **how)
    confidences = Tensor(np.array([0.5, 0.25], dtype=np.float32), **how)
    return ids, confidences, Detections(Untouchable(2, 4), ids, confidences, metadata())


def test_tensors_on_the_cpu_are_neither_copied_nor_converted():
    ids, confidences, detections = tensors(requires_grad=True)
    assert observed(detections) == [("car", 0.5), ("person", 0.25)]
    assert ids.done == confidences.done == ["numpy"]


def test_of_a_gpu_confidences_and_class_ids_are_copied_once():
    ids, confidences, detections = tensors(device="cuda:0")
    assert observed(detections) == [("car", 0.5), ("person", 0.25)]
    assert ids.done == confidences.done == ["copy", "numpy"]
    assert unique_inference_ids(detections) == ["id"]
    assert ids.done == confidences.done == ["copy", "numpy"]


def test_floats_unknown_to_numpy_are_widened():
    ids, confidences, detections = tensors()
    confidences.known_to_numpy = False
    assert observed(detections) == [("car", 0.5), ("person", 0.25)]
    assert confidences.done == ["float", "numpy"]
    assert ids.done == ["numpy"]


def test_a_frame_costs_no_memory_per_row():
    rows = 1_000_000
    ids, confidences = np.zeros(rows, dtype=np.int64), np.full(rows, np.float32(0.5))
    detections = Detections(
        Untouchable(rows, 4), Tensor(ids), Tensor(confidences), metadata()
    )
    window = PeakAggregator()

    def peak(observe: Any) -> int:
        tracemalloc.start()
        try:
            assert observe() == rows
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(lambda: window.observe(detections, "m")) < 100_000

    def observe_copy() -> int:
        copied = Detections(detections.xyxy, ids.copy(), confidences, metadata())
        return window.observe(copied, "m")

    assert peak(observe_copy) > 8 * rows


def test_torch_is_not_imported():
    code = (
        "import sys, peakhold; from types import SimpleNamespace as N; import numpy;"
        "peakhold.PeakAggregator().observe(N(class_id=numpy.zeros(1), "
        "confidence=numpy.zeros(1), image_metadata={}), 'm'); "
        "print([name for name in sys.modules if 'torch' in name])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def single(confidence: Any, *images: Any) -> ClassificationPrediction:
    confidence = np.asarray(confidence)
    return ClassificationPrediction(
        np.zeros(len(confidence), dtype=np.int64), confidence, list(images)
    )


def labels(confidence: Any, **more: Any) -> MultiLabelClassificationPrediction:
    confidence = np.asarray(confidence)
    return MultiLabelClassificationPrediction(
        Untouchable(1), confidence, metadata(**more)
    )


UNORDERED = {2: "c", 0: "a", 1: "b"}


def test_single_label_takes_every_class_rounded_and_sorted():
    prediction = single([[0.12346, 0.5, 0.99999]], metadata(class_names=UNORDERED))
    assert observed(prediction) == [("c", 1.0), ("b", 0.5), ("a", 0.1235)]
    assert unique_inference_ids(prediction) == ["id"]


def test_equal_confidences_of_single_label_stay_in_the_order_of_their_ids():
    scores = [[0.25001, 0.5, 0.24999]]
    assert observed(single(scores, metadata(class_names=UNORDERED))) == [
        ("b", 0.5),
        ("a", 0.25),
        ("c", 0.25),
    ]


def test_multi_label_is_neither_rounded_nor_sorted():
    prediction = labels([0.123456, 0.5, 0.75], class_names=UNORDERED)
    assert observed(prediction) == [("a", 0.123456), ("b", 0.5), ("c", 0.75)]
    assert unique_inference_ids(prediction) == ["id"]


@pytest.mark.parametrize(
    ("threshold", "kept"),
    [(None, "abc"), (0, "abc"), (0.5, "bc"), (0.50001, "c"), (1, "")],
)
def test_what_is_below_the_threshold_is_dropped(threshold, kept):
    more = {
        "class_names": UNORDERED,
        "classification_confidence_threshold": threshold,
    }
    scores = np.array([0.25, 0.5, 0.75])
    names = [name for name, _ in observed(labels(scores, **more))]
    assert names == list(kept)
    names = [name for name, _ in observed(single([scores], metadata(**more)))]
    assert names == list(reversed(kept))


def test_the_threshold_is_compared_before_rounding():
    more = metadata(class_names={0: "a"}, classification_confidence_threshold=0.50001)
    assert observed(single([[0.500009]], more)) == []
    assert observed(single([[0.500011]], more)) == [("a", 0.5)]


def test_each_image_of_a_single_label_prediction_has_its_own_metadata():
    images = (
        metadata(class_names={0: "a"}, inference_id="first"),
        metadata(class_names={0: "b", 1: "a"}, inference_id="second"),
    )
    prediction = single([[0.5, 0.25], [0.125, 0.75]], *images)
    window = PeakAggregator()
    assert window.observe(prediction, "m") == 3
    found = [(row["class_name"], row["inference_id"]) for row in window.drain()]
    assert found == [("a", "second"), ("b", "second")]
    # As the reference has it, metadata goes to the first image.
    assert unique_inference_ids(prediction) == ["first"]


def test_images_beyond_the_metadata_have_no_classes():
    assert observed(single([[0.5], [0.75]], metadata(class_names={0: "a"}))) == [
        ("a", 0.5)
    ]
    assert observed(single([[0.5]])) == []


@given(
    scores=st.lists(
        st.floats(0, 1, width=32)
        | st.integers(0, 32).map(lambda n: n / 32)
        # Exact ties between two numbers of four places exist only among these.
        | st.integers(0, 10_000).map(lambda n: n / 10_000 + 0.000_05)
        | st.integers(0, 1 << 16).map(lambda n: n / (1 << 16)),
        min_size=1,
        max_size=30,
    ),
    threshold=st.none() | st.floats(0, 1),
    kind=st.sampled_from([np.float16, np.float32, np.float64]),
)
def test_distributions_are_read_as_python_would(scores, threshold, kind):
    confidence = np.array(scores, dtype=kind)
    names = {index: f"class {index}" for index in range(len(scores))}
    widened = [
        (names[index], float(confidence[index]))
        for index in names
        if threshold is None or not float(confidence[index]) < threshold
    ]
    more = {
        "class_names": dict(reversed(names.items())),
        "classification_confidence_threshold": threshold,
    }
    assert observed(labels(confidence, **more)) == widened
    rounded = [(name, round(score, 4)) for name, score in widened]
    rounded.sort(key=lambda row: row[1], reverse=True)
    assert observed(single([confidence], metadata(**more))) == rounded


@given(
    found=st.lists(
        st.tuples(st.integers(-2, 8), st.integers(0, 8).map(lambda n: n / 8)),
        min_size=1,
        max_size=60,
    )
)
def test_detections_are_consolidated_as_their_names_would_be(make_detections, found):
    ids, confidences = zip(*found, strict=True)
    names = [NAMES.get(class_id, "") for class_id in ids]
    by_name, by_id = PeakAggregator(), PeakAggregator()
    by_name.observe(make_detections(names, list(confidences), "id", "type"), "m")
    by_id.observe(boxes(ids, confidences), "m")
    assert by_id.drain() == by_name.drain()


def test_an_empty_frame_places_its_model_only_if_it_is_true():
    none: Any = boxes(np.zeros(0, dtype=int), np.zeros(0))
    points = KeyPoints(Untouchable(0, 5, 2), Untouchable(0), Untouchable(0, 5))
    for empty, first in ((none, "second"), ((points, none), "first")):
        window = PeakAggregator()
        assert window.observe(empty, "first") == 0
        window.observe(boxes([1], [0.5]), "second")
        window.observe(boxes([1], [0.5]), "first")
        (row,) = window.drain()
        assert row["model_id"] == first
        assert window.rejected == {}
    assert unique_inference_ids(none) == ["id"]


FLAT = np.array([0.5, 0.25])


def _changing_map() -> dict[Any, str]:
    class Key:
        def __index__(self) -> int:
            names["more"] = "b"
            return 9

    names: dict[Any, str] = {Key(): "a"}
    return names


BAD = {
    "confidences too short": lambda: boxes([0, 1], [0.5]),
    "confidences too long": lambda: boxes([0, 1], [0.5, 0.5, 0.5]),
    "2-d confidences": lambda: boxes([0, 1], [[0.5, 0.5]]),
    "0-d confidences": lambda: boxes([0, 1], 0.5),
    "complex confidences": lambda: boxes([0, 1], FLAT.astype(complex)),
    "2-d class ids": lambda: boxes([[0, 1], [0, 1]], [0.5, 0.5]),
    "class ids that are no array": lambda: Detections(
        Untouchable(2, 4), "01", FLAT, metadata()
    ),
    "class ids that are text": lambda: boxes(["0", "1"], [0.5, 0.5]),
    "class ids that are no numbers": lambda: boxes([np.nan, np.inf], [0.5, 0.5]),
    "class ids beyond 64 bits": lambda: boxes([2.0**64, -(2.0**64)], [0.5, 0.5]),
    "more boxes than rows": lambda: Detections(
        Untouchable(3, 4), np.array([0, 1]), FLAT, metadata()
    ),
    "a map that is none": lambda: boxes([0, 1], FLAT, class_names=["car", "van"]),
    "names that are no text": lambda: boxes([0, 1], FLAT, class_names={0: 5, 1: None}),
    "key points alone": lambda: KeyPoints(
        Untouchable(1, 5, 2), np.array([0]), np.zeros((1, 5)), metadata()
    ),
    "one confidence per image": lambda: single([0.5], metadata()),
    "more images than distributions": lambda: ClassificationPrediction(
        np.zeros(2), FLAT[None], [metadata(), metadata()]
    ),
    "classes beyond the distribution": lambda: labels(
        np.zeros(0), class_names={0: "a", -1: "b"}
    ),
    "class ids of a map that are no numbers": lambda: labels(
        FLAT, class_names={"0": "a", None: "b", 0.5: "c"}
    ),
    "a threshold that is no number": lambda: labels(
        FLAT, class_names=UNORDERED, classification_confidence_threshold=[]
    ),
    "a distribution of two dimensions": lambda: labels([FLAT, FLAT]),
    "no distribution": lambda: MultiLabelClassificationPrediction(
        None, None, metadata()
    ),
    "NaN": lambda: labels([np.nan], class_names={0: "a"}),
    "infinity": lambda: single([[np.inf]], metadata(class_names={0: "a"})),
    "a map that is changed by its keys": lambda: labels(
        FLAT, class_names=_changing_map()
    ),
    "a column whose reading raises": lambda: Detections(
        Untouchable(2, 4), Tensor(FLAT), Untouchable(2), metadata()
    ),
}


@pytest.mark.parametrize("make", BAD.values(), ids=BAD)
def test_a_bad_prediction_is_counted_and_never_raises(make):
    window = PeakAggregator()
    assert window.observe(make(), "bad") == 0
    assert rejected(window) > 0
    assert isinstance(unique_inference_ids(make()), list)
    assert window.observe(boxes([0], [0.5]), "good") == 1
    assert rows(window) == [("car", 0.5)]


def test_bad_rows_cost_only_themselves():
    window = PeakAggregator()
    names = {0: "a", 1: None, 2: "c", 9: "d"}
    scores = np.array([0.5, 0.5, np.nan])
    assert window.observe(labels(scores, class_names=names), "m") == 1
    assert rows(window) == [("a", 0.5)]
    assert window.rejected == {
        "class_id_invalid": 1,
        "class_name_not_text": 1,
        "confidence_nan": 1,
    }
    found = boxes([0, np.nan, 1, 1], [0.5, 0.5, 0.5, 0.5], class_names=names)
    assert window.observe(found, "m") == 1
    assert window.rejected == {
        "class_id_invalid": 2,
        "class_name_not_text": 3,
        "confidence_nan": 1,
    }


POINTS = KeyPoints(Untouchable(1, 5, 2), Untouchable(1), Untouchable(1, 5))


@pytest.mark.parametrize(
    "pair", [(1, 2), (None, boxes([0], [0.5]), 3), ((), None), (POINTS, None)]
)
def test_a_tuple_of_something_else_only_places_its_model(pair):
    window = PeakAggregator()
    assert window.observe(pair, "first") == 0
    window.observe(boxes([1], [0.5]), "second")
    window.observe(boxes([1], [0.5]), "first")
    assert [row["model_id"] for row in window.drain()] == ["first"]
    assert window.rejected == {"prediction_unsupported": 1}
    assert unique_inference_ids(pair) == []
