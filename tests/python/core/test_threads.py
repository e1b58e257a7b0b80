"""Eight threads observe while one drains: nothing is lost, nothing counted twice."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from peakhold._peakhold import PeakAggregator, WindowSnapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

THREADS = 8
FRAMES = 400
PACE = 10  # frames of a thread from one drain to the next


@pytest.fixture(autouse=True)
def _switch_threads_all_the_time() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Frame:
    """Detections as far as the core looks at them, cheap enough to make in a race."""

    def __init__(self, names: list[str], confidences: list[float], tag: str) -> None:
        count = len(names)
        self.xyxy = np.zeros((count, 4))
        self.confidence = np.array(confidences)
        self.data = {
            "class_name": np.array(names),
            "inference_id": np.array([tag] * count),
            "prediction_type": np.array(["object-detection"] * count),
        }

    def __len__(self) -> int:
        return len(self.confidence)


def height(thread: int, frame: int) -> float:
    """Confidence of the shared class; no two are equal, and the order is no one's."""
    return (thread + THREADS * (frame * 7919 % FRAMES) + 1) / (THREADS * FRAMES + 1)


def race(window: Any, close: Any) -> tuple[list[list[dict[str, Any]]], int]:
    """Let `THREADS` threads observe while one closes windows; returns all reports."""
    start = threading.Barrier(THREADS + 1)
    running = threading.Event()
    running.set()
    reports: list[list[dict[str, Any]]] = []

    def await_drain() -> None:
        # One observe is shorter than any interval: unpaced, one window would hold all.
        before, deadline = len(reports), time.monotonic() + 30
        while len(reports) == before and time.monotonic() < deadline:
            time.sleep(0)

    def observe(thread: int) -> int:
        frames = [
            Frame(
                ["shared", f"only {thread}-{frame}", f"of {thread}"],
                [height(thread, frame), 0.5, frame / FRAMES],
                f"{thread}-{frame}",
            )
            for frame in range(FRAMES)
        ]
        start.wait()
        taken = 0
        for number, frame in enumerate(frames):
            taken += window.observe(frame, f"model {thread % 3}")
            if number % PACE == 0:
                await_drain()
        return taken

    def drain() -> None:
        start.wait()
        while running.is_set():
            reports.append(close(window))

    with ThreadPoolExecutor(THREADS + 1) as pool:
        drainer = pool.submit(drain)
        try:
            taken = sum(pool.map(observe, range(THREADS)))
        finally:
            running.clear()
        drainer.result()
    reports.append(close(window))
    assert close(window) == []
    return reports, taken


def unique_classes(reports: list[list[dict[str, Any]]]) -> Counter[str]:
    return Counter(
        row["class_name"]
        for report in reports
        for row in report
        if row["class_name"].startswith("only")
    )


EVERY_CLASS_ONCE = Counter(
    f"only {thread}-{frame}" for thread in range(THREADS) for frame in range(FRAMES)
)


def by_drain(window: PeakAggregator) -> list[dict[str, Any]]:
    return window.drain()


def by_snapshot(window: PeakAggregator) -> list[dict[str, Any]]:
    return window.snapshot().report()


@pytest.mark.parametrize("close", [by_drain, by_snapshot])
def test_totals_are_conserved(close):
    window = PeakAggregator()
    reports, taken = race(window, close)
    assert taken == THREADS * FRAMES * 3
    assert window.rejected == {}
    assert unique_classes(reports) == EVERY_CLASS_ONCE
    # A thread's frames are out after two drains at most, so that these fall among them.
    assert sum(map(bool, reports)) >= FRAMES / PACE / 2

    rows = [row for report in reports for row in report]
    shared = [row for row in rows if row["class_name"] == "shared"]
    highest = max(shared, key=lambda row: row["confidence"])
    assert highest["confidence"] == max(
        height(thread, frame) for thread in range(THREADS) for frame in range(FRAMES)
    )
    for thread in range(THREADS):
        own = [row for row in rows if row["class_name"] == f"of {thread}"]
        assert max(row["confidence"] for row in own) == (FRAMES - 1) / FRAMES
        # One thread's frames rise, so that its windows do, too.
        assert [row["confidence"] for row in own] == sorted(
            {row["confidence"] for row in own}
        )


@pytest.mark.parametrize("close", [by_drain, by_snapshot])
def test_a_report_never_mixes_two_detections(close):
    reports, _ = race(PeakAggregator(), close)
    for report in reports:
        names = [row["class_name"] for row in report]
        assert len(set(names)) == len(names)
        for row in report:
            thread, frame = map(int, row["inference_id"].split("-"))
            assert row["model_id"] == f"model {thread % 3}"
            assert row["model_type"] == "object-detection"
            confidences = {
                "shared": height(thread, frame),
                f"only {thread}-{frame}": 0.5,
                f"of {thread}": frame / FRAMES,
            }
            assert row["confidence"] == confidences[row["class_name"]]


def test_windows_closed_in_a_race_merge_to_the_whole():
    snapshots: list[WindowSnapshot] = []

    def close(window: PeakAggregator) -> list[dict[str, Any]]:
        snapshots.append(window.snapshot())
        return snapshots[-1].report()

    race(PeakAggregator(), close)
    while len(snapshots) > 1:  # in pairs: one by one would copy the whole each time
        odd = snapshots[len(snapshots) // 2 * 2 :]
        pairs = zip(snapshots[::2], snapshots[1::2], strict=False)
        snapshots = [one.merge(two) for one, two in pairs] + odd
    (whole,) = snapshots
    found = {row["class_name"]: row["confidence"] for row in whole.report()}
    assert len(found) == THREADS * FRAMES + THREADS + 1
    assert found["shared"] == THREADS * FRAMES / (THREADS * FRAMES + 1)


class Leaky:
    """The control: a window that is read, then cleared, and yields in between."""

    def __init__(self) -> None:
        self._best: dict[str, dict[str, Any]] = {}

    def observe(self, frame: Frame, model_id: str) -> int:
        columns = (*frame.data.values(), frame.confidence)
        for name, inference_id, _, confidence in zip(*columns, strict=True):
            self._best[str(name)] = {
                "class_name": str(name),
                "confidence": float(confidence),
                "inference_id": str(inference_id),
                "model_id": model_id,
            }
        return len(frame)

    def drain(self) -> list[dict[str, Any]]:
        report = [*self._best.copy().values()]
        time.sleep(0)
        self._best.clear()
        return report


def test_a_window_that_is_read_then_cleared_loses_detections():
    reports, taken = race(Leaky(), lambda window: window.drain())
    assert taken == THREADS * FRAMES * 3
    assert unique_classes(reports) != EVERY_CLASS_ONCE


def test_rejections_of_all_threads_are_counted():
    window = PeakAggregator()
    frame = Frame(["a", "b"], [float("nan"), 0.5], "tag")

    def observe(_: int) -> int:
        return sum(window.observe(frame, "m") for _ in range(FRAMES))

    with ThreadPoolExecutor(THREADS) as pool:
        assert sum(pool.map(observe, range(THREADS))) == THREADS * FRAMES
    assert list(window.rejected.values()) == [THREADS * FRAMES]


def test_unrelated_windows_do_not_meet():
    windows = [PeakAggregator() for _ in range(THREADS)]

    def observe(thread: int) -> None:
        for frame in range(FRAMES):
            windows[thread].observe(Frame([f"{thread}"], [0.5], f"{frame}"), "m")

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(observe, range(THREADS)))
    for thread, window in enumerate(windows):
        (row,) = window.drain()
        assert (row["class_name"], row["inference_id"]) == (f"{thread}", "0")
