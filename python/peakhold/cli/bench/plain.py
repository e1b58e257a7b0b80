"""The aggregator one writes in plain Python: keep the frames, walk them at the end."""

from __future__ import annotations

import threading
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np

from peakhold.blocks.model_monitoring import NOT_IN_RANGE, SENT

if TYPE_CHECKING:
    from collections.abc import Iterable

    import supervision as sv

Report = list[dict[str, Any]]
"""The lines of a report, one per class."""


class PlainAggregator:
    """Appends frames, and at the end of a window walks them on the caller's thread.

    Attributes:
        reports: The reports so far.
    """

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self._frames: list[tuple[str, sv.Detections]] = []
        self._last_report: float | None = None
        self._lock = threading.Lock()

    def run(
        self,
        fire_and_forget: bool,  # noqa: ARG002 - called as the sink is
        predictions: sv.Detections,
        frequency: int,
        unique_aggregator_key: str,  # noqa: ARG002 - the same
        model_id: str,
    ) -> dict[str, object]:
        """Take a frame, and report if the interval is over."""
        now = monotonic()
        with self._lock:
            self._frames.append((model_id, predictions))
            if self._last_report is None:
                self._last_report = now
            if now - self._last_report < frequency:
                return {"error_status": False, "message": NOT_IN_RANGE}
            self._last_report = now
            frames, self._frames = self._frames, []
        self.reports.append(most_confident(frames))
        return {"error_status": False, "message": SENT}

    def flush(self) -> None:
        """Report what the open window holds."""
        if self._frames:
            self.reports.append(most_confident(self._frames))
            self._frames = []


def most_confident(frames: Iterable[tuple[str, sv.Detections]]) -> Report:
    """Walk every detection, and keep the first most confident one of each class.

    The frames are of one model, so that the classes stand in the order in which they
    were first seen.

    Args:
        frames: Each with its model.
    """
    peaks: dict[str, dict[str, Any]] = {}
    for model_id, frame in frames:
        data = frame.data
        columns = (
            data["class_name"],
            frame.confidence,
            data["inference_id"],
            data["prediction_type"],
        )
        # Python's own texts and floats: NumPy's would make the walk twice as long.
        rows = zip(*(np.asarray(column).tolist() for column in columns), strict=True)
        for class_name, confidence, inference_id, model_type in rows:
            peak = peaks.get(class_name)
            if peak is None or confidence > peak["confidence"]:
                peaks[class_name] = {
                    "model_id": model_id,
                    "class_name": class_name,
                    "confidence": confidence,
                    "inference_id": inference_id,
                    "model_type": model_type,
                }
    return list(peaks.values())
