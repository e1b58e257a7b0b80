"""The contenders that keep the best detection of each class, without any network.

Each has `observe(predictions, model_id)` and `drain()`, which returns one line per
class in the order of the report and empties the window.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from reference import installed, module

import peakhold


class Line(NamedTuple):
    """One line of a report."""

    model_id: str
    class_name: str
    confidence: float
    inference_id: str
    model_type: str


class Window(Protocol):
    """What all of them can do."""

    def observe(self, predictions: Any, model_id: str) -> object:
        """Take a frame in."""

    def drain(self) -> list[Line]:
        """Return the report and start anew."""


class Peakhold:
    """The project's own."""

    def __init__(self) -> None:
        self._window = peakhold.PeakAggregator()
        self.observe = self._window.observe

    def drain(self) -> list[Line]:
        """Return the report and start anew."""
        return [
            Line(*(peak[field] for field in Line._fields))
            for peak in self._window.drain()
        ]


class Reference:
    """What the reference block collects with; it consolidates when it is drained."""

    def __init__(self) -> None:
        package = module("model_monitoring_inference_aggregator")
        self._window = package.PredictionsAggregator()
        self.observe = self._window.collect

    def drain(self) -> list[Line]:
        """Return the report and start anew."""
        return [
            Line(*(getattr(prediction, field) for field in Line._fields))
            for prediction in self._window.get_and_flush()
        ]


class Plain:
    """The rule in plain Python, which is also the oracle of the others.

    As fast as such a loop gets: columns become lists at once, and the id and type of
    a row are looked up for a new peak only. One model; confidences that are no
    numbers are skipped.
    """

    def __init__(self) -> None:
        self._peaks: dict[str, Line] = {}

    def observe(self, predictions: Any, model_id: str) -> None:
        """Take a frame in."""
        if isinstance(predictions, dict):
            self._observe_classification(predictions, model_id)
            return
        data = predictions.data
        ids, types = data["inference_id"], data["prediction_type"]
        peaks = self._peaks
        rows = zip(
            data["class_name"].tolist(), predictions.confidence.tolist(), strict=True
        )
        for row, (name, confidence) in enumerate(rows):
            held = peaks.get(name)
            if confidence == confidence and (  # noqa: PLR0124 - false for NaN alone
                held is None or confidence > held.confidence
            ):
                peaks[name] = Line(
                    model_id, name, confidence, str(ids[row]), str(types[row])
                )

    def _observe_classification(self, predictions: Any, model_id: str) -> None:
        listed = predictions["predictions"]
        if isinstance(listed, dict):
            rows = [(name, score["confidence"]) for name, score in listed.items()]
        else:
            rows = [(score["class"], score["confidence"]) for score in listed]
        peaks = self._peaks
        for name, confidence in rows:
            held = peaks.get(name)
            if held is None or confidence > held.confidence:
                peaks[name] = Line(
                    model_id,
                    name,
                    confidence,
                    predictions["inference_id"],
                    predictions["prediction_type"],
                )

    def drain(self) -> list[Line]:
        """Return the report and start anew."""
        report = list(self._peaks.values())
        self._peaks = {}
        return report


class Vectorised:
    """The rule in NumPy: one sort of the names, then Python for the winners alone."""

    def __init__(self) -> None:
        self._peaks: dict[str, Line] = {}

    def observe(self, predictions: Any, model_id: str) -> None:
        """Take a frame in."""
        data, confidence = predictions.data, predictions.confidence
        usable = np.flatnonzero(np.isfinite(confidence))
        confidence = confidence[usable]
        names, first, which = np.unique(
            data["class_name"][usable], return_index=True, return_inverse=True
        )
        best = np.full(len(names), -np.inf, dtype=confidence.dtype)
        np.maximum.at(best, which, confidence)
        # Of equal confidences the first row counts, so it is written last.
        rows = np.flatnonzero(confidence == best[which])[::-1]
        winners = np.empty(len(names), dtype=np.intp)
        winners[which[rows]] = usable[rows]
        ids, types = data["inference_id"], data["prediction_type"]
        peaks = self._peaks
        for at in np.argsort(first).tolist():
            row, name, score = winners[at], str(names[at]), float(best[at])
            held = peaks.get(name)
            if held is None or score > held.confidence:
                peaks[name] = Line(
                    model_id, name, score, str(ids[row]), str(types[row])
                )

    def drain(self) -> list[Line]:
        """Return the report and start anew."""
        report = list(self._peaks.values())
        self._peaks = {}
        return report


WINDOWS: dict[str, Any] = {
    "peakhold": Peakhold,
    **({"reference": Reference} if installed() else {}),
    "NumPy": Vectorised,
    "plain Python": Plain,
}


def unique_by_loop(frame: Any) -> list[str]:
    """Return the ids of a frame, each once, in plain Python."""
    return list(dict.fromkeys(frame.data["inference_id"].tolist()))


def unique_by_sort(frame: Any) -> list[str]:
    """Return the ids of a frame, each once, with NumPy."""
    ids, first = np.unique(frame.data["inference_id"], return_index=True)
    return ids[np.argsort(first)].tolist()


def unique_as_reference(frame: Any) -> list[str]:
    """Return the ids of a frame by the reference's expression; its order is chance."""
    return list(set(frame.data["inference_id"]))


UNIQUE = {
    "peakhold": peakhold.unique_inference_ids,
    "reference": unique_as_reference,
    "NumPy": unique_by_sort,
    "plain Python": unique_by_loop,
}
