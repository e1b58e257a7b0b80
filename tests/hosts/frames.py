"""Predictions to feed to both sides: recorded ones and random ones."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
import supervision as sv

from peakhold.cli.predictions import parse_line

ROOT = Path(__file__).resolve().parents[2]
MODELS = ("gate/1", "gate/2", "belt/7")
NAMES = ("car", "person", "bicycle", "Straße", "信号", "traffic light", "")
KINDS = ("detections", "detections", "single-label", "multi-label", "none")


class Frame(NamedTuple):
    """What one model said about one image."""

    predictions: Any
    model_id: str


def shared_data() -> Path | None:
    """Return the directory of recorded predictions, if it is on this machine."""
    shared = os.environ.get("PEAKHOLD_SHARED") or ROOT.parent / "shared"
    data = Path(shared) / "data"
    return data if data.is_dir() else None


def recorded_frames(count: int, rng: np.random.Generator) -> list[Frame]:
    """Return `count` frames made of the files, every line at least once if they fit."""
    data = shared_data()
    assert data is not None
    lines = [
        json.loads(line)
        for name in ("roboflow_responses.jsonl", "voc_detections.jsonl")
        for line in (data / name).read_text(encoding="utf-8").splitlines()
    ]
    parsed = [parse_line(line, "voc/2007") for line in lines]
    chosen = [parsed[number % len(parsed)] for number in range(count)]
    frames = [Frame(item.make(_new_id(rng)), item.model_id) for item in chosen]
    for frame in frames:
        if isinstance(frame.predictions, sv.Detections):
            # No host leaves an id there, and only ours would read it.
            frame.predictions.metadata.clear()
    return frames


def random_frames(count: int, rng: np.random.Generator) -> list[Frame]:
    """Return `count` frames of every kind; some confidences tie."""
    return [
        Frame(_random_predictions(rng), str(rng.choice(MODELS))) for _ in range(count)
    ]


def _random_predictions(rng: np.random.Generator) -> Any:
    kind = rng.choice(KINDS)
    if kind == "none":
        return sv.Detections.empty()
    rows = int(rng.integers(1, 12))
    if kind == "detections":
        return _random_detections(rows, rng)
    names = rng.choice(NAMES, min(rows, len(NAMES)), replace=False)
    scores = {str(name): _confidence(rng) for name in names}
    common = {"inference_id": _new_id(rng), "prediction_type": "classification"}
    if kind == "multi-label":
        details = {name: {"confidence": score} for name, score in scores.items()}
        return {**common, "predictions": details, "predicted_classes": list(details)}
    listed = [{"class": name, "confidence": score} for name, score in scores.items()]
    return {**common, "predictions": listed}


def _random_detections(rows: int, rng: np.random.Generator) -> Any:
    confidence = np.array([_confidence(rng) for _ in range(rows)])
    ids = [_new_id(rng) for _ in range(int(rng.integers(1, 3)))]
    data = {
        "class_name": np.array(rng.choice(NAMES, rows)),
        "inference_id": np.array(rng.choice(ids, rows)),
        "prediction_type": np.full(rows, rng.choice(["object-detection", "motion"])),
    }
    if rng.random() < 0.2:
        del data["prediction_type"]
    if rng.random() < 0.2:
        data["class_name"] = data["class_name"].astype(object)
    kind = rng.choice([np.float16, np.float32, np.float64])
    return sv.Detections(
        xyxy=np.zeros((rows, 4), dtype=np.float32),
        confidence=None if rng.random() < 0.1 else confidence.astype(kind),
        data=data,
    )


def _confidence(rng: np.random.Generator) -> float:
    return float(rng.integers(0, 21)) / 20


def _new_id(rng: np.random.Generator) -> str:
    return str(UUID(bytes=rng.bytes(16)))
