"""Tensor-native predictions: what the reference makes of them, field for field."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from host import is_standalone

from peakhold import PeakAggregator, unique_inference_ids

torch = pytest.importorskip("torch")
models = pytest.importorskip("inference_models")

KINDS = ("boxes", "instances", "key points", "single-label", "multi-label")
MODELS = ("gate/1", "gate/2", "belt/7")
NAMES = ("car", "person", "bicycle", "Straße", "信号", "traffic light", "")
CLASS_TYPES = (torch.int64, torch.int32, torch.float32)
CONFIDENCE_TYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


@pytest.fixture(scope="session")
def reference(host):
    """The conversions of the tensor-native reference blocks of this host."""
    sinks = "core_steps.sinks.roboflow"
    try:
        aggregator = host.module(f"{sinks}.model_monitoring_inference_aggregator")
        importlib.import_module(f"{aggregator.__name__}.v1_tensor")
    except ModuleNotFoundError as error:
        if not (error.name or "").endswith("v1_tensor"):
            raise
        pytest.skip("this host has no tensor-native representation")
    return (
        host.module(f"{sinks}.model_monitoring_inference_aggregator.v1_tensor"),
        host.module(f"{sinks}.custom_metadata.v1_tensor"),
    )


def report_of(reference, frames) -> list[dict[str, Any]]:
    window = reference[0].PredictionsAggregator()
    for prediction, model_id in frames:
        if prediction:
            window.collect(prediction, model_id)
    return [dict(line) for line in window.get_and_flush()]


def peaks_of(frames) -> list[dict[str, Any]]:
    window = PeakAggregator()
    for prediction, model_id in frames:
        window.observe(prediction, model_id)
    report = [dict(line) for line in window.drain()]
    assert not set(window.rejected) - {
        "class_name_missing",
        "inference_id_invalid",
        "prediction_type_invalid",
    }
    return report


@pytest.mark.parametrize("kind", [*KINDS, None])
def test_reports_and_ids_equal_those_of_the_reference(reference, kind):
    rng = np.random.default_rng(20260131)
    differing = 0
    for _ in range(60):
        frames = [
            (_random_prediction(kind or rng.choice(KINDS), rng), rng.choice(MODELS))
            for _ in range(int(rng.integers(1, 12)))
        ]
        frames = [(prediction, str(model_id)) for prediction, model_id in frames]
        wanted = report_of(reference, frames)
        assert peaks_of(frames) == wanted
        for prediction, _model_id in frames:
            ids = reference[1]._extract_inference_ids(prediction)
            assert unique_inference_ids(prediction) == ids
        # A report of other frames is another one: the comparison can fail.
        differing += peaks_of(frames[1:]) != wanted
    assert differing > 30


@pytest.mark.parametrize("kind", ["single-label", "multi-label"])
def test_a_large_map_of_classes_equals_the_reference(reference, kind):
    rng = np.random.default_rng(1000)
    scores = torch.softmax(torch.from_numpy(rng.normal(0, 3, (1, 1000))), 1).float()
    names = {index: f"class {index}" for index in range(1000)}
    metadata = _metadata(names, rng)
    metadata.pop("classification_confidence_threshold", None)
    frames = [(_distribution(kind, scores, [metadata]), "m/1")]
    assert peaks_of(frames) == report_of(reference, frames)
    assert len(peaks_of(frames)) == 1000


ENGINE = """
import json, sys, time
import host as hosting

host = hosting.Host()
common = {"predictions": "$inputs.predictions", "fire_and_forget": False}
steps = [
    {**common, "type": hosting.AGGREGATOR, "name": "report", "model_id": "m/1",
     "frequency": 1, "unique_aggregator_key": sys.argv[1]},
    {**common, "type": hosting.METADATA, "name": "mark", "field_name": "lot",
     "field_value": sys.argv[1]},
]
kinds = ["object_detection_prediction"]
inputs = [{"type": "WorkflowBatchInput", "name": "predictions", "kind": kinds}]
outputs = [
    {"type": "JsonField", "name": name, "selector": f"$steps.{name}.message"}
    for name in ("report", "mark")
]
workflow = {"version": "1.3.0", "inputs": inputs, "steps": steps, "outputs": outputs}
engine = host.compile(workflow)
import torch, inference_models
metadata = {"class_names": {3: "car"}, "inference_id": sys.argv[1],
            "prediction_type": "object-detection"}
found = inference_models.Detections(torch.zeros(3, 4), torch.tensor([3, 9, 3]),
                                    torch.tensor([0.5, 0.25, 0.75]), metadata)
parameters = {"predictions": [found]}
engine.run(runtime_parameters=parameters)
time.sleep(1.1)  # the interval
print(json.dumps(engine.run(runtime_parameters=parameters)))
"""


@pytest.mark.skipif(is_standalone(), reason="the variable is one of inference")
def test_tensors_go_through_a_workflow_of_the_host(reference, monitor, tmp_path):
    inference_id = str(UUID(bytes=os.urandom(16)))
    script = tmp_path / "engine.py"
    script.write_text(ENGINE, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script), inference_id],
        env={
            **os.environ,
            "ENABLE_TENSOR_DATA_REPRESENTATION": "True",
            "PYTHONPATH": str(Path(__file__).parent),
            "PEAKHOLD_IN_PLACE": "1",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [
        {
            "report": "Data sent successfully",
            "mark": "Custom metadata upload was successful",
        }
    ]
    common = {
        "model_id": "m/1",
        "inference_id": inference_id,
        "model_type": "object-detection",
    }
    assert [
        {"class_name": "car", "confidence": 0.75, **common},
        {"class_name": "", "confidence": 0.25, **common},
    ] in [
        json.loads(request.body)["inference_results"]
        for request in monitor.store.requests("report")
    ]
    entry = {
        "inference_ids": [inference_id],
        "field_name": "lot",
        "field_value": inference_id,
    }
    assert {"data": [entry]} in [
        json.loads(request.body) for request in monitor.store.requests("metadata")
    ]


def _random_prediction(kind: str, rng: np.random.Generator) -> Any:
    ids = rng.permutation(12)[: len(NAMES)]
    names = {int(index): str(rng.choice(NAMES)) for index in ids}
    if kind in {"single-label", "multi-label"}:
        images = int(rng.integers(1, 3)) if kind == "single-label" else 1
        scores = _confidences((images, 12), rng)
        return _distribution(kind, scores, [_metadata(names, rng)] * images)
    rows = int(rng.integers(0, 12))
    class_ids = torch.from_numpy(rng.integers(-1, 13, rows))
    class_ids = class_ids.to(CLASS_TYPES[rng.integers(len(CLASS_TYPES))])
    columns = (torch.zeros(rows, 4), class_ids, _confidences((rows,), rng))
    metadata = _metadata(names, rng) if rng.random() < 0.95 else {"inference_id": "x"}
    if kind == "instances":
        mask = torch.zeros(rows, 2, 2, dtype=torch.bool)
        return models.InstanceDetections(*columns, mask, metadata)
    detections = models.Detections(*columns, metadata)
    if kind == "boxes":
        return detections
    points = models.KeyPoints(
        torch.zeros(rows, 5, 2), class_ids, torch.zeros(rows, 5), metadata
    )
    return (points, detections)


def _distribution(kind: str, scores: Any, metadata: list[dict[str, Any]]) -> Any:
    if kind == "single-label":
        return models.ClassificationPrediction(scores.argmax(1), scores, metadata)
    above = (scores[0] > 0.5).nonzero()[:, 0]
    return models.MultiLabelClassificationPrediction(above, scores[0], metadata[0])


def _confidences(shape: tuple[int, ...], rng: np.random.Generator) -> Any:
    """Return numbers that tie now and then, now and then as a strided view."""
    if rng.random() < 0.5:
        numbers = rng.integers(0, 21, shape) / 20
    else:
        numbers = rng.random(shape) + rng.integers(0, 2, shape) * 1e-5
    kind = CONFIDENCE_TYPES[rng.integers(len(CONFIDENCE_TYPES))]
    tensor = torch.from_numpy(np.asarray(numbers)).to(kind)
    if rng.random() < 0.3:
        tensor = torch.stack([tensor, torch.zeros_like(tensor)], -1)[..., 0]
    return tensor.requires_grad_() if rng.random() < 0.3 else tensor


def _metadata(names: dict[int, str], rng: np.random.Generator) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "class_names": names,
        "inference_id": str(UUID(bytes=rng.bytes(16))),
    }
    if rng.random() < 0.8:
        metadata["prediction_type"] = str(rng.choice(["classification", "detection"]))
    if rng.random() < 0.5:
        metadata["classification_confidence_threshold"] = float(rng.integers(6)) / 10
    return metadata
