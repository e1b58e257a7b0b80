# /// script
# requires-python = ">=3.10,<3.13"
# dependencies = [
#     "inference-core",
#     "numpy",
#     "onnxruntime",
#     "opencv-python-headless",
#     "peakhold",
# ]
#
# [tool.uv.sources]
# peakhold = { path = ".." }
# ///
"""A workflow through an `InferencePipeline`: motion in a video, a report a second.

    uv run examples/inference_pipeline.py [VIDEO]

Without a video, one is drawn. The call of `configure` stands for the two variables of
the README, which do the same from outside.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

# A monitor on this machine: peakhold monitor --port 8100
os.environ.setdefault("API_BASE_URL", "http://127.0.0.1:8100")
os.environ.setdefault("ROBOFLOW_API_KEY", "any")

import peakhold.workflows

peakhold.workflows.configure()

# After `configure`, because inference reads its variables when it is imported.
from inference import InferencePipeline  # noqa: E402

SIZE = 320, 240
WORKFLOW = {
    "version": "1.4.0",
    "inputs": [
        {"type": "WorkflowImage", "name": "image"},
        {"type": "WorkflowParameter", "name": "model", "default_value": "motion/1"},
    ],
    "steps": [
        {
            "type": "roboflow_core/motion_detection@v1",
            "name": "motion",
            "image": "$inputs.image",
            "history": 10,
        },
        {
            "type": "roboflow_core/model_monitoring_inference_aggregator@v1",
            "name": "monitoring",
            "predictions": "$steps.motion.detections",
            "model_id": "$inputs.model",
            "frequency": 1,
            "unique_aggregator_key": "inference-pipeline",
        },
    ],
    "outputs": [
        {
            "type": "JsonField",
            "name": "monitoring",
            "selector": "$steps.monitoring.message",
        }
    ],
}


def draw_video(path: Path, frames: int = 300) -> None:
    """Write a video in which a square moves across a still background."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 30, SIZE)
    background = np.random.default_rng(0).integers(90, 110, (240, 320, 3), np.uint8)
    for number in range(frames):
        frame = background.copy()
        left = 5 * number % 260
        cv2.rectangle(frame, (left, 80), (left + 60, 140), (30, 200, 240), -1)
        writer.write(frame)
    writer.release()


def run(video: str) -> None:
    """Run the workflow over a video and say what the sink answered."""
    messages: Counter[str] = Counter()
    pipeline = InferencePipeline.init_with_workflow(
        video_reference=video,
        workflow_specification=WORKFLOW,
        on_prediction=lambda answer, _frame: messages.update([answer["monitoring"]]),
        max_fps=100,
    )
    pipeline.start()
    pipeline.join()
    for message, count in messages.items():
        print(f"{count:4} x {message}")
    print(f"what arrived: {os.environ['API_BASE_URL']}/dashboard")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as directory:
            drawn = Path(directory) / "moving.mp4"
            draw_video(drawn)
            run(str(drawn))
