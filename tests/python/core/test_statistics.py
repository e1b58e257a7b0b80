"""The statistics of a window, against NumPy over random frames, and under threads."""

from __future__ import annotations

import logging
import os
import select
import signal
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from core_columns import LAYOUTS, foreign, lay_out
from hypothesis import given, settings
from hypothesis import strategies as st

from peakhold import PeakAggregator
from peakhold._peakhold import Journal, WindowSnapshot

if TYPE_CHECKING:
    from pathlib import Path

UNITS = 2.0**32
DTYPES = ["f2", "f4", "f8", "i1", "u1", "i8", "?"]
CLASSES = ["car", "person", "", "długa nazwa klasy 🚗"]


class Frame:
    """Detections as far as the core looks at them."""

    def __init__(self, names: Any, confidences: Any) -> None:
        self.xyxy = np.zeros((len(names), 4))
        self.confidence = confidences
        self.data = {
            "class_name": names,
            "inference_id": np.array(["id"] * len(names)),
            "prediction_type": np.array(["type"] * len(names)),
        }

    def __len__(self) -> int:
        return len(self.data["class_name"])


def bins_of(confidences: Any) -> Any:
    """Return the bin of each confidence, by the rule, which is not NumPy's."""
    inside = np.clip(confidences, 0.0, 1.0)
    return np.minimum(19, np.floor(inside * 20.0).astype(int))


def expected(frames: list[tuple[list[str], Any]]) -> dict[str, dict[str, Any]]:
    """Return the statistics of each class, added up row by row by NumPy.

    Args:
        frames: Class names and confidences (shape `(n,)`) of each.
    """
    seen: dict[str, list[Any]] = defaultdict(list)
    frames_with: Counter[str] = Counter()
    for names, confidences in frames:
        wide = np.asarray(confidences).astype(np.float64)
        usable = np.isfinite(wide)
        for name in set(np.asarray(names)[usable].tolist()):
            frames_with[name] += 1
            seen[name].append(wide[usable & (np.asarray(names) == name)])
    result = {}
    for name, parts in seen.items():
        rows = np.concatenate(parts)
        inside = rows[(rows >= 0) & (rows <= 1)]
        units = sum(int(np.floor(each * UNITS + 0.5)) for each in inside)
        result[name] = {
            "frames": frames_with[name],
            "detections": len(rows),
            "out_of_range": len(rows) - len(inside),
            "confidence_sum": units / UNITS,
            "confidence_min": inside.min() if len(inside) else None,
            "histogram": np.bincount(bins_of(rows), minlength=20).tolist(),
        }
    return result


def by_class(statistics: Any, model_id: str = "m") -> Any:
    return statistics["models"].get(model_id, {})


confidence = st.one_of(
    st.floats(0, 1),
    st.sampled_from([0.0, -0.0, 1.0, 0.05, 0.15, 0.7, np.nextafter(1, 2), 5e-324]),
    st.sampled_from([np.nan, np.inf, -np.inf, -0.5, 1.5, 1e300]),
)


@st.composite
def frame(draw: Any) -> tuple[list[str], Any]:
    count = draw(st.integers(0, 12))
    names = draw(st.lists(st.sampled_from(CLASSES), min_size=count, max_size=count))
    values = draw(st.lists(confidence, min_size=count, max_size=count))
    dtype = draw(st.sampled_from(DTYPES))
    wide = np.array(values, dtype=np.float64)
    if dtype[0] != "f":
        wide = np.nan_to_num(np.clip(wide, -1 if dtype[0] == "i" else 0, 2))
    with np.errstate(over="ignore"):
        column = lay_out(wide.astype(dtype), draw(st.sampled_from(LAYOUTS)))
    return names, foreign(column) if draw(st.booleans()) else column


@settings(max_examples=300, deadline=None)
@given(st.lists(frame(), max_size=8), st.integers(0, 8))
def test_statistics_are_those_of_numpy(
    frames: list[tuple[list[str], Any]], cut: int
) -> None:
    window = PeakAggregator(statistics=True)
    parts = []
    for chosen in (frames[:cut], frames[cut:]):
        for names, confidences in chosen:
            column = np.array(names, dtype="U24")
            window.observe(Frame(column, confidences), "m")
        open_window = window.statistics()
        assert open_window is not None
        assert by_class(open_window) == expected(chosen)
        assert (open_window["frames"], open_window["is_partial"]) == (len(chosen), True)
        parts.append(window.snapshot())
        statistics = parts[-1].statistics()
        assert statistics is not None
        assert by_class(statistics) == expected(chosen)
        assert statistics["is_partial"] is False
    for merged in (parts[0].merge(parts[1]), parts[1].merge(parts[0])):
        read = WindowSnapshot.decode(merged.encode())
        # A part that comes twice is added once.
        again = read.merge(parts[0]).statistics()
        assert again is not None
        assert by_class(again) == expected(frames)
        assert again["frames"] == len(frames)
        assert len(read.parts) == 2


def test_an_oracle_that_takes_numpys_edges_would_differ() -> None:
    # 0.15 * 20 is 3 in floating point, and the edge of NumPy's bin is above 0.15.
    edges = np.histogram([0.15], bins=20, range=(0, 1))[0]
    assert (edges.argmax(), bins_of(np.array([0.15]))[0]) == (2, 3)
    window = PeakAggregator(statistics=True)
    window.observe(Frame(np.array(["a"]), np.array([0.15])), "m")
    (line,) = window.drain()
    assert line["histogram"].index(1) == 3


def test_lists_dicts_and_tensors_count_alike() -> None:
    values = [0.25, 0.5, 0.5, 1.5]
    names = ["a", "b", "a", "a"]
    tensors = _tensors([0, 1, 2, 0], values, {0: "a", 1: "b", 2: "a"})
    alike = {
        "columns": Frame(np.array(names), np.array(values)),
        "lists": Frame(names, values),
        "objects": Frame(np.array(names, dtype=object), np.array(values, dtype=object)),
        "dict": {
            "predictions": [
                {"class": name, "confidence": value}
                for name, value in zip(names, values, strict=True)
            ],
            "inference_id": "id",
            "prediction_type": "type",
        },
        "tensors": tensors,
    }
    found = {}
    for kind, prediction in alike.items():
        window = PeakAggregator(statistics=True)
        assert window.observe(prediction, "m") == 4
        found[kind] = by_class(window.statistics())
        assert window.rejected == {"confidence_out_of_range": 1}
    wanted = expected([(names, np.array(values))])
    assert found == dict.fromkeys(alike, wanted)


def _tensors(ids: list[int], values: list[float], class_names: dict[int, str]) -> Any:
    texts = {"inference_id": "id", "prediction_type": "type"}
    return SimpleNamespace(
        xyxy=np.zeros((len(ids), 4)),
        class_id=np.array(ids),
        confidence=np.array(values),
        image_metadata={"class_names": class_names, **texts},
        bboxes_metadata=None,
    )


def test_a_report_has_the_statistics_only_when_asked_for() -> None:
    frame = Frame(np.array(["car", "car"]), np.array([0.5, 0.25]))
    plain, counting = PeakAggregator(), PeakAggregator(statistics=True)
    for window in (plain, counting):
        window.observe(frame, "m/1")
        window.observe(frame, "m/2")
    assert plain.has_statistics is False
    assert plain.statistics() is None
    keys = {"model_id", "class_name", "confidence", "inference_id", "model_type"}
    (line,) = plain.drain()
    assert set(line) == keys
    (line,) = counting.drain()
    extra = {key: value for key, value in line.items() if key not in keys}
    histogram = [0] * 20
    histogram[5] = histogram[10] = 2
    assert extra == {
        "frames": 2,
        "detections": 4,
        "out_of_range": 0,
        "confidence_sum": 1.5,
        "confidence_min": 0.25,
        "histogram": histogram,
    }
    plain.observe(frame, "m/1")
    assert plain.snapshot().statistics() is None


def test_every_frame_counts_and_rejections_are_the_windows_own() -> None:
    window = PeakAggregator(statistics=True)
    empty = Frame(np.array([], dtype="U3"), np.array([]))
    for prediction in (empty, {"predictions": []}, object(), None, "nonsense"):
        window.observe(prediction, "m")
    window.observe(Frame(np.array(["a"]), np.array([np.nan])), "m")
    first = window.snapshot().statistics()
    assert first is not None
    assert first["frames"] == 5  # None is no frame
    assert first["rejected"] == {"prediction_unsupported": 2, "confidence_nan": 1}
    assert first["models"] == {}
    window.observe(Frame(np.array(["a"]), np.array([np.nan])), "m")
    second = window.snapshot().statistics()
    assert second is not None
    assert (second["frames"], second["rejected"]) == (1, {"confidence_nan": 1})
    assert window.rejected == {"prediction_unsupported": 2, "confidence_nan": 2}


def test_windows_that_begin_from_now_on_have_them_or_not() -> None:
    window = PeakAggregator()
    frame = Frame(np.array(["a"]), np.array([0.5]))
    window.has_statistics = True
    window.observe(frame, "m")
    assert window.snapshot().statistics() is None
    window.observe(frame, "m")
    window.has_statistics = False
    with_them = window.snapshot().statistics()
    assert with_them is not None
    assert by_class(with_them)["a"]["detections"] == 1
    window.observe(frame, "m")
    assert window.snapshot().statistics() is None


def test_a_window_counts_to_its_end_though_the_next_ones_do_not() -> None:
    window = PeakAggregator(statistics=True)
    frame = Frame(np.array(["a", "a"]), np.array([0.5, np.nan]))
    window.observe(frame, "m")
    window.has_statistics = False
    window.observe(frame, "m")
    window.has_statistics = True
    window.observe(frame, "m")
    statistics = window.snapshot().statistics()
    assert statistics is not None
    assert statistics["frames"] == by_class(statistics)["a"]["detections"] == 3
    assert statistics["rejected"] == {"confidence_nan": 3}


def test_a_window_has_the_rejections_of_its_own_time_only() -> None:
    window = PeakAggregator()
    bad = Frame(np.array(["a"]), np.array([np.nan]))
    window.observe(bad, "m")
    window.has_statistics = True
    window.drain()
    window.observe(bad, "m")
    window.observe(bad, "m")
    statistics = window.snapshot().statistics()
    assert statistics is not None
    assert statistics["rejected"] == {"confidence_nan": 2}


def test_each_image_of_a_prediction_is_a_frame() -> None:
    images = SimpleNamespace(
        class_id=np.array([0, 0, 0]),
        confidence=np.array([[0.5], [0.25], [0.75]]),
        images_metadata=[{"class_names": {0: "a"}, "inference_id": "i"}] * 3,
    )
    window = PeakAggregator(statistics=True)
    assert window.observe(images, "m") == 3
    statistics = window.snapshot().statistics()
    assert statistics is not None
    assert statistics["frames"] == by_class(statistics)["a"]["frames"] == 3


def test_copies_take_no_room_from_others() -> None:
    names = np.array([f"class {number}" for number in range(40_000)])
    window = PeakAggregator(statistics=True)
    window.observe(Frame(names, np.full(len(names), 0.5)), "m")
    copies = [window.statistics() for _ in range(3)]
    snapshot = window.snapshot()
    merged = [snapshot.merge(snapshot) for _ in range(3)]
    other = PeakAggregator(statistics=True)
    other.observe(Frame(names[:1_000], np.full(1_000, 0.5)), "m")
    assert other.rejected == {}
    assert len(copies) == len(merged)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_never_waits_for_the_number_of_a_process(tmp_path: Path) -> None:
    """It is asked for by threads that do not hold the interpreter."""
    journal = Journal(tmp_path / "owner")
    windows = [PeakAggregator(journal=journal, statistics=True) for _ in range(200)]
    frame = Frame(np.array(["a"]), np.array([0.5]))
    for window in windows:
        window.observe(frame, "m")
    until = time.monotonic() + 2.0
    stop = threading.Event()

    def keep() -> None:
        while not stop.is_set():
            windows[0].observe(frame, "m")
            journal.keep_statistics(windows)

    thread = threading.Thread(target=keep)
    thread.start()
    parts: set[str] = set()
    try:
        while time.monotonic() < until:
            read, write = os.pipe()
            if (child := os.fork()) == 0:
                own = PeakAggregator(statistics=True)
                own.observe(frame, "m")
                os.write(write, next(iter(own.snapshot().parts)).encode())
                os._exit(0)
            os.close(write)
            ready, _, _ = select.select([read], [], [], 20.0)
            if not ready:
                os.kill(child, signal.SIGKILL)
            assert ready
            parts.add(os.read(read, 100).decode()[:16])
            os.close(read)
            os.waitpid(child, 0)
            parts.add(next(iter(PeakAggregator(statistics=True).snapshot().parts))[:16])
    finally:
        stop.set()
        thread.join()
    assert len(parts) > 3  # each child has a number of its own


def test_nothing_is_lost_or_counted_twice_under_threads() -> None:
    threads, frames, rows = 8, 400, 5
    window = PeakAggregator(statistics=True)
    names = np.array(["a", "b", "a", "c", "a"])
    rng = np.random.default_rng(1)
    values = rng.random((threads, frames, rows)).astype("f4")
    start = threading.Barrier(threads)
    snapshots: list[WindowSnapshot] = []

    def observe(thread: int) -> None:
        start.wait()
        for number in range(frames):
            window.observe(Frame(names, values[thread, number]), "m")
            if number % 50 == thread:
                snapshots.append(window.snapshot())

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(observe, range(threads)))
    snapshots.append(window.snapshot())
    whole = snapshots[0]
    for snapshot in snapshots[1:]:
        whole = whole.merge(snapshot)
    statistics = whole.statistics()
    assert statistics is not None
    flat = values.reshape(-1, rows)
    assert by_class(statistics) == expected([(names.tolist(), row) for row in flat])
    assert statistics["frames"] == threads * frames
    assert len(whole.parts) == len(snapshots)
    # The control: the frames are in many windows, and without one of these some miss.
    parts = [part["frames"] for part in whole.parts.values()]
    assert max(parts) < threads * frames


def test_the_statistics_of_all_windows_have_a_bound() -> None:
    names = np.array([f"class {number}" for number in range(60_000)])
    values = np.full(len(names), 0.5)
    windows = [PeakAggregator(statistics=True) for _ in range(3)]
    for window in windows:
        assert window.observe(Frame(names, values), "m") == len(names)
    first, *_, last = (window.snapshot().statistics() for window in windows)
    assert first is not None
    assert last is not None
    assert (len(by_class(first)), first["without"]) == (60_000, 0)
    assert last["without"] == 60_000
    assert windows[-1].rejected == {"statistics_too_large": 60_000}
    assert by_class(last) == {}
    # What is closed and forgotten makes room.
    del windows, window, first, last
    window = PeakAggregator(statistics=True)
    window.observe(Frame(names[:10], values[:10]), "m")
    statistics = window.snapshot().statistics()
    assert statistics is not None
    assert len(by_class(statistics)) == 10


def test_the_first_row_that_is_rejected_names_model_and_window(
    caplog: pytest.LogCaptureFixture,
) -> None:
    window = PeakAggregator(name="gate 3")
    with caplog.at_level(logging.WARNING, "peakhold"):
        window.observe(Frame(np.array(["a"]), np.array([np.nan])), "project/3")
        window.observe(Frame(np.array(["a"]), np.array([2.0])), "project/4")
        window.observe(Frame(np.array(["a"]), np.array([2.0])), "project/4")
    nan, outside = (record.getMessage() for record in caplog.records)
    assert "model 'project/3', window 'gate 3'" in nan
    assert "model 'project/4', window 'gate 3'" in outside
    assert "reported as it is" in outside
    assert window.rejected_by_model == {
        "project/3": {"confidence_nan": 1},
        "project/4": {"confidence_out_of_range": 2},
    }
    (line,) = window.drain()
    assert line["confidence"] == 2.0
    for number in range(100):
        window.observe(Frame(np.array(["a"]), np.array([np.nan])), f"m/{number}")
    assert len(window.rejected_by_model) == 16
    assert window.rejected["confidence_nan"] == 101


def test_snapshots_without_statistics_are_what_they_were() -> None:
    window = PeakAggregator()
    window.observe(Frame(np.array(["a"]), np.array([0.5])), "m")
    encoded = window.snapshot().encode()
    assert encoded[0] == 1
    counting = PeakAggregator(statistics=True)
    counting.observe(Frame(np.array(["a"]), np.array([0.5])), "m")
    snapshot = counting.snapshot()
    assert snapshot.encode()[0] == 2
    assert WindowSnapshot.decode(encoded).merge(snapshot).statistics() == (
        snapshot.statistics()
    )
    for cut in range(1, len(snapshot.encode())):
        with pytest.raises(ValueError, match=r"damaged|layout"):
            WindowSnapshot.decode(snapshot.encode()[:cut])
