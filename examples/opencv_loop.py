# /// script
# requires-python = ">=3.10"
# dependencies = ["numpy", "opencv-python-headless", "peakhold", "supervision"]
#
# [tool.uv.sources]
# peakhold = { path = ".." }
# ///
"""A plain OpenCV loop: what moves is found, held at its peak, reported every second.

    uv run examples/opencv_loop.py [VIDEO]

Without a video, frames are drawn. Any model that gives `sv.Detections` can take the
place of `find_motion`.
"""

from __future__ import annotations

import os
import sys
import time
import uuid
from typing import TYPE_CHECKING

import cv2
import numpy as np
import supervision as sv

import peakhold

if TYPE_CHECKING:
    from collections.abc import Iterator

# A monitor on this machine: peakhold monitor --port 8100
os.environ.setdefault("API_BASE_URL", "http://127.0.0.1:8100")
os.environ.setdefault("ROBOFLOW_API_KEY", "any")

FRAMES_PER_SECOND = 50
SMALLEST_AREA = 200  # pixels


def drawn_frames(count: int = 150) -> Iterator[np.ndarray]:
    """Draw a square that moves across a still background."""
    background = np.random.default_rng(0).integers(90, 110, (240, 320, 3), np.uint8)
    for number in range(count):
        frame = background.copy()
        left = 5 * number % 260
        cv2.rectangle(frame, (left, 80), (left + 60, 140), (30, 200, 240), -1)
        yield frame


def frames_of(video: str) -> Iterator[np.ndarray]:
    """Read a video file."""
    capture = cv2.VideoCapture(video)
    if not capture.isOpened():
        sys.exit(f"{video} is no video that OpenCV can read")
    while True:
        found, frame = capture.read()
        if not found:
            return
        yield frame


def find_motion(
    subtractor: cv2.BackgroundSubtractor, frame: np.ndarray
) -> sv.Detections:
    """Return a box around everything that moved, more confident the larger it is."""
    mask = subtractor.apply(frame)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    boxes = [
        cv2.boundingRect(c) for c in contours if cv2.contourArea(c) > SMALLEST_AREA
    ]
    xyxy = np.array([(x, y, x + w, y + h) for x, y, w, h in boxes], np.float32)
    areas = np.array([w * h for _, _, w, h in boxes], np.float32)
    return sv.Detections(
        xyxy=xyxy.reshape(-1, 4),
        confidence=areas / (frame.shape[0] * frame.shape[1]),
        data={
            "class_name": np.full(len(boxes), "motion"),
            "inference_id": np.full(len(boxes), str(uuid.uuid4())),
            "prediction_type": np.full(len(boxes), "object-detection"),
        },
    )


def main() -> None:
    """Feed every frame to both sinks."""
    monitoring = peakhold.ModelMonitoringInferenceAggregatorBlockV1()
    metadata = peakhold.RoboflowCustomMetadataBlockV1()
    subtractor = cv2.createBackgroundSubtractorMOG2(detectShadows=False)
    frames = frames_of(sys.argv[1]) if len(sys.argv) > 1 else drawn_frames()
    count = 0
    for count, frame in enumerate(frames, 1):  # noqa: B007 - told at the end
        detections = find_motion(subtractor, frame)
        monitoring.run(
            predictions=detections,
            model_id="motion/1",
            unique_aggregator_key="opencv-loop",
            frequency=1,
            fire_and_forget=True,
        )
        if len(detections):
            metadata.run(
                predictions=detections,
                field_name="camera",
                field_value="gate 3",
                fire_and_forget=True,
            )
        time.sleep(1 / FRAMES_PER_SECOND)
    print(f"{count} frames; the last window leaves now, at exit")
    print(f"what arrived: {os.environ['API_BASE_URL']}/dashboard")


if __name__ == "__main__":
    main()
