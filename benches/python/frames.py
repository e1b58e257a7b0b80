"""Frames as model blocks make them: 64 different ones of a scenario."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
import supervision as sv

FRAMES = 64
MODEL_ID = "bench/1"
FIELD = ("gate", "north")

_MASK_SIDE = 64
_KEYPOINTS = 17


def detections(rng: np.random.Generator, rows: int, classes: int = 20) -> sv.Detections:
    """Make one frame of boxes, as `../shared/bench/run.py` makes it.

    Its names are `<U8` (`class_07`) up to 100 classes, and one wider beyond.
    """
    names = np.array([f"class_{number:02d}" for number in range(max(80, classes))])
    names = names.astype("<U8") if classes <= 100 else names  # noqa: PLR2004
    class_id = rng.integers(0, classes, rows)
    return sv.Detections(
        xyxy=rng.random((rows, 4)).astype(np.float32),
        confidence=rng.random(rows).astype(np.float32),
        class_id=class_id,
        data={
            "class_name": names[class_id],
            "inference_id": np.array([str(uuid.uuid4())] * rows),
            "prediction_type": np.array(["object-detection"] * rows),
        },
    )


def with_masks(rng: np.random.Generator, rows: int) -> sv.Detections:
    """Make one frame of instance segmentation."""
    frame = detections(rng, rows)
    frame.mask = rng.random((rows, _MASK_SIDE, _MASK_SIDE)) > 0.5  # noqa: PLR2004
    frame.data["prediction_type"] = np.array(["instance-segmentation"] * rows)
    return frame


def with_keypoints(rng: np.random.Generator, rows: int) -> sv.Detections:
    """Make one frame of poses; keypoints are object arrays, as the hosts have them."""
    frame = detections(rng, rows)
    frame.data["keypoints_xy"] = np.empty(rows, dtype=object)
    frame.data["keypoints_xy"][:] = list(rng.random((rows, _KEYPOINTS, 2)))
    frame.data["prediction_type"] = np.array(["keypoint-detection"] * rows)
    return frame


def with_a_nan(rng: np.random.Generator, rows: int) -> sv.Detections:
    """Make one frame in which one confidence is not a number."""
    frame = detections(rng, rows)
    frame.confidence[rng.integers(0, rows)] = np.nan
    return frame


def with_eight_ids(rng: np.random.Generator, rows: int) -> sv.Detections:
    """Make one frame of eight inferences, as crops of one image are."""
    frame = detections(rng, rows)
    ids = np.array([str(uuid.uuid4()) for _ in range(8)])
    frame.data["inference_id"] = ids[np.arange(rows) % 8]
    return frame


def single_label(rng: np.random.Generator, rows: int) -> dict[str, Any]:
    """Make one single-label classification that lists `rows` classes."""
    return {
        "inference_id": str(uuid.uuid4()),
        "prediction_type": "classification",
        "predictions": [
            {"class": f"class_{number:02d}", "confidence": float(rng.random())}
            for number in range(rows)
        ],
    }


def multi_label(rng: np.random.Generator, rows: int) -> dict[str, Any]:
    """Make one multi-label classification of `rows` classes."""
    scores = {f"class_{number:02d}": float(rng.random()) for number in range(rows)}
    return {
        "inference_id": str(uuid.uuid4()),
        "prediction_type": "classification",
        "predictions": {name: {"confidence": score} for name, score in scores.items()},
        "predicted_classes": list(scores),
    }


def several(make: Any, *arguments: Any, **options: Any) -> list[Any]:
    """Make 64 different frames, the same in every run but for their inference ids."""
    rng = np.random.default_rng(0)
    return [make(rng, *arguments, **options) for _ in range(FRAMES)]


def renew_ids(frames: list[sv.Detections]) -> None:
    """Give each frame the id of a new inference."""
    for frame in frames:
        frame.data["inference_id"][:] = str(uuid.uuid4())
