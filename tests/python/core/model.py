"""The consolidation of a window in plain Python, written from its specification.

Slow and obvious on purpose: it keeps every row of the window and walks them all. The
Rust core, which keeps one peak per class and model, has to agree with it on every
stream. Nothing here is derived from the Rust code.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Row = dict[str, Any]

LONGEST_TEXT = 1024  # characters


def text(value: Any) -> str | None:
    """Return a cell as text, None if it is none: bytes are UTF-8, `str` must encode."""
    try:
        if isinstance(value, str):
            value = value.encode("utf-8")
        decoded = value.decode("utf-8") if isinstance(value, bytes) else None
    except UnicodeError:
        return None
    return None if decoded is None or len(decoded) > LONGEST_TEXT else decoded


def number(value: Any) -> float | None:
    """Return a cell as a finite float, None if it is none."""
    if not isinstance(value, (bool, int, float, np.bool_, np.integer, np.floating)):
        return None
    try:
        widened = float(value)
    except OverflowError:
        return None
    return widened if math.isfinite(widened) else None


def number_or_numeric_string(value: Any) -> float | None:
    """Return a confidence of a classification dict, where strings count as well."""
    if not isinstance(value, str):
        return number(value)
    try:
        return number(float(value))
    except ValueError:
        return None


def cells(column: Any, count: int, missing: Any) -> list[Any]:
    """Return a column as `count` Python values; an absent one is all `missing`."""
    if column is None:
        return [missing] * count
    return list(column) if isinstance(column, list) else list(column.tolist())


class ModelWindow:
    """What `PeakAggregator` promises, over rows that are all kept.

    Attributes:
        dropped: Rows and frames turned away so far.
        flawed: Rows so far with a name, inference id or type that is missing, an id or
            type that is bad, or a confidence outside of [0, 1]; they are kept.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self.flawed = 0
        self._models: dict[str, list[Row]] = {}

    def observe(self, predictions: Any, model_id: str) -> int:
        """Take the usable rows of a frame; returns how many those were."""
        if not predictions:
            return 0
        rows = self._models.setdefault(model_id, [])
        before = len(rows)
        if isinstance(predictions, dict):
            self._classification(predictions, model_id)
        elif hasattr(predictions, "xyxy"):
            self._detections(predictions, model_id)
        else:
            self.dropped += 1
        return len(rows) - before

    def drain(self) -> list[Row]:
        """Walk the models as first seen, their rows as they came; empty the window."""
        winners: dict[str, Row] = {}
        for rows in self._models.values():
            for row in rows:
                best = winners.get(row["class_name"])
                if best is None or row["confidence"] > best["confidence"]:
                    winners[row["class_name"]] = row  # a key keeps its first place
        self._models = {}
        return list(winners.values())

    def _detections(self, detections: Any, model_id: str) -> None:
        count = len(detections)
        data = detections.data
        columns = [
            cells(detections.confidence, count, 0.0),
            cells(data.get("class_name"), count, ""),
            cells(data.get("inference_id"), count, None),
            cells(data.get("prediction_type"), count, None),
        ]
        if any(len(column) != count for column in columns):
            self.dropped += 1
            return
        self.flawed += count * (data.get("class_name") is None)
        for confidence, name, inference_id, kind in zip(*columns, strict=True):
            self._row(model_id, text(name), number(confidence), inference_id, kind)

    def _classification(self, response: dict[str, Any], model_id: str) -> None:
        found = response.get("predictions")
        if isinstance(found, list):
            pairs = [(item.get("class", ""), item) for item in found]
            self.flawed += sum("class" not in item for item in found)
        elif isinstance(found, dict):
            pairs = list(found.items())
        else:
            self.dropped += 1
            return
        for name, details in pairs:
            confidence = number_or_numeric_string(details.get("confidence", 0.0))
            inference_id = response.get("inference_id")
            kind = response.get("prediction_type")
            self._row(model_id, text(name), confidence, inference_id, kind)

    def _row(
        self,
        model_id: str,
        class_name: str | None,
        confidence: float | None,
        inference_id: Any,
        model_type: Any,
    ) -> None:
        if class_name is None or confidence is None:
            self.dropped += 1
            return
        self.flawed += text(inference_id) is None or text(model_type) is None
        self.flawed += not 0.0 <= confidence <= 1.0
        row = {
            "model_id": model_id,
            "class_name": class_name,
            "confidence": confidence,
            "inference_id": text(inference_id) or "",
            "model_type": text(model_type) or "",
        }
        self._models[model_id].append(row)
