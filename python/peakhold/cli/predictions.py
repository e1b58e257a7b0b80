"""Recorded predictions, and the objects that model blocks make of such predictions.

A detection-like response becomes an `sv.Detections` whose data has the columns
`class_name`, `inference_id` and `prediction_type`, as Roboflow's model blocks make it.
Masks and keypoints stay out: no sink reads them, and a rasterised mask would cost more
than everything else. A classification stays the dict that it is.

What a recording holds is checked for its shape only. A confidence that is no number or
a class without a name is handed on as it is, for the sinks to reject and to count.
"""

from __future__ import annotations

import math
import sys
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    import supervision as sv
    from typing_extensions import Self

CLASSIFICATION = "classification"
OBJECT_DETECTION = "object-detection"

_LONGEST_FIXED_WIDTH = 256
"""Characters. A longer class name would widen every row of a fixed-width column."""

_CORNERS = 4


@dataclass(frozen=True)
class Prediction(ABC):
    """What one model said about one frame.

    Attributes:
        model_id: The model.
        inference_id: The id it was recorded with, if any.
        rows: How many detections, or classes of a classification.
    """

    model_id: str
    inference_id: str | None
    rows: int

    def without_id(self) -> Self:
        """Return the same as of another inference, which gets an id of its own."""
        return replace(self, inference_id=None)

    @abstractmethod
    def make(self, inference_id: str) -> sv.Detections | dict[str, Any]:
        """Return what a model block would hand to a sink."""


@dataclass(frozen=True)
class DetectionPrediction(Prediction):
    """Boxes: object detection, instance segmentation or keypoints."""

    prediction_type: str
    xyxy: npt.NDArray[np.float64]
    confidence: npt.NDArray[Any]
    class_id: npt.NDArray[np.int64] | None
    class_name: npt.NDArray[Any]

    def make(self, inference_id: str) -> sv.Detections:
        """Return new detections with this id in every row.

        The metadata has the id too, which is all that a frame without rows has.
        """
        made: sv.Detections = supervision().Detections(
            xyxy=self.xyxy,
            confidence=self.confidence,
            class_id=self.class_id,
            data={
                "class_name": self.class_name,
                "inference_id": np.full(self.rows, inference_id),
                "prediction_type": np.full(self.rows, self.prediction_type),
            },
            metadata={"inference_id": inference_id},
        )
        return made


@dataclass(frozen=True)
class ClassificationPrediction(Prediction):
    """A classification: its response, single-label (a list) or multi-label (a dict)."""

    response: dict[str, Any]

    def make(self, inference_id: str) -> dict[str, Any]:
        """Return the response with this id."""
        return {
            **self.response,
            "inference_id": inference_id,
            "prediction_type": CLASSIFICATION,
        }


def supervision() -> Any:
    """Import supervision without its remark on a missing OpenCV.

    Detections need none, and the remark is not about anything the user typed.
    """
    module = sys.modules.get("supervision")
    if module is None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "OpenCV .* is not installed", UserWarning)
            import supervision as module
    return module


def parse_line(line: object, default_model: str) -> Prediction:
    """Read one line of a recording, already parsed as JSON.

    Three layouts are known: a response of an inference model or server, the same
    wrapped as `{"model", "prediction_type", "response"}`, and
    `{"image", "detections": [{"class", "confidence", "xyxy"}]}`.

    Args:
        line: What the line holds.
        default_model: Model id of a line that names none.

    Raises:
        ValueError: It is none of them; the text says what is wrong.
    """
    if not isinstance(line, dict):
        raise ValueError("a line must be a JSON object")  # noqa: TRY004 - its content
    model_id = _text(line, "model") or _text(line, "model_id") or default_model
    if "detections" in line:
        rows = _rows(line["detections"], "detections")
        return _detections(
            rows, model_id, _text(line, "inference_id"), OBJECT_DETECTION
        )
    response = line.get("response", line)
    if not isinstance(response, dict) or "predictions" not in response:
        raise ValueError('it has neither "predictions" nor "detections"')
    kind = _text(line, "prediction_type") or _text(response, "prediction_type")
    kind = kind or _guess_type(response)
    inference_id = _text(response, "inference_id")
    predictions = response["predictions"]
    if kind == CLASSIFICATION or isinstance(predictions, dict):
        return ClassificationPrediction(
            model_id, inference_id, _count_classes(predictions), response
        )
    return _detections(_rows(predictions, "predictions"), model_id, inference_id, kind)


def _guess_type(response: dict[str, Any]) -> str:
    """Tell the type of a response that does not say it, as a server's does not."""
    predictions = response["predictions"]
    if isinstance(predictions, dict) or "top" in response:
        return CLASSIFICATION
    first = predictions[0] if isinstance(predictions, list) and predictions else None
    if not isinstance(first, dict):
        return OBJECT_DETECTION
    if "keypoints" in first:
        return "keypoint-detection"
    if "points" in first or "rle" in first or "rle_mask" in first:
        return "instance-segmentation"
    return OBJECT_DETECTION if "x" in first else CLASSIFICATION


def _count_classes(predictions: object) -> int:
    if isinstance(predictions, dict):
        if not all(isinstance(details, dict) for details in predictions.values()):
            raise ValueError('each class of "predictions" must be a JSON object')
        return len(predictions)
    return len(_rows(predictions, "predictions"))


def _detections(
    rows: list[dict[str, Any]], model_id: str, inference_id: str | None, kind: str
) -> DetectionPrediction:
    class_ids = [row.get("class_id") for row in rows]
    return DetectionPrediction(
        model_id=model_id,
        inference_id=inference_id,
        rows=len(rows),
        prediction_type=kind,
        xyxy=np.array([_box(row) for row in rows], np.float64).reshape(-1, _CORNERS),
        confidence=_confidences([row.get("confidence") for row in rows]),
        class_id=np.array(class_ids, np.int64)
        if all(type(number) is int and abs(number) < 1 << 63 for number in class_ids)
        else None,
        class_name=_names([row.get("class") for row in rows]),
    )


def _rows(value: object, name: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise ValueError(f'"{name}" must be a list of JSON objects')
    return value


def _text(holder: dict[str, Any], name: str) -> str | None:
    value = holder.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f'"{name}" must be a string')
    return value or None


def _box(row: dict[str, Any]) -> list[float]:
    """Return a row's corners: its `xyxy`, or those of its centre and size."""
    if "xyxy" in row:
        corners = row["xyxy"]
        if not isinstance(corners, list) or len(corners) != _CORNERS:
            raise ValueError('"xyxy" must be a list of four numbers')
        return [_number(corner, "xyxy") for corner in corners]
    x, y, width, height = (
        _number(row.get(name), name) for name in ("x", "y", "width", "height")
    )
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def _number(value: object, name: str) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise ValueError(f'"{name}" of a detection must be a number')


def _confidences(values: list[Any]) -> npt.NDArray[Any]:
    if all(type(value) is float for value in values):
        return np.array(values, np.float64)
    return _objects(values)


def _names(values: list[Any]) -> npt.NDArray[Any]:
    if all(isinstance(v, str) and len(v) <= _LONGEST_FIXED_WIDTH for v in values):
        return np.array(values, np.str_)
    return _objects(values)


def _objects(values: list[Any]) -> npt.NDArray[Any]:
    column = np.empty(len(values), object)
    column[:] = values
    return column
