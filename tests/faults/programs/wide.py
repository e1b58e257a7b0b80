"""Observe and seal a window of very many classes, and tell what memory that took."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import supervision as sv
from common import KEY, say
from mutant import MUTANT

from peakhold import PeakAggregator
from peakhold.blocks.cache import SHARED
from peakhold.delivery import Sender, current
from peakhold.records import seal_report
from peakhold.roboflow import RoboflowClient

MODELS, CLASSES, FRAMES = map(int, sys.argv[1:])
kept = []


def resident():
    """Return the bytes of memory that this process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def frame(first):
    """Make a frame of a thousand classes, as a detector does."""
    many = 1000
    detections = sv.Detections(
        xyxy=np.zeros((many, 4), dtype=np.float32),
        confidence=np.full(many, 0.5, dtype=np.float32),
    )
    detections.data = {
        "class_name": np.array([f"class-{first + n}" for n in range(many)]),
        "inference_id": np.array(["id"] * many),
        "prediction_type": np.array(["object-detection"] * many),
    }
    return detections


dispatcher = current()
sender = Sender(RoboflowClient(), KEY, SHARED, injected=False)
window = PeakAggregator()
window.observe(frame(0), "warm")
window.drain()
before = resident()
for _ in range(FRAMES):
    for model in range(MODELS):
        for first in range(0, CLASSES, 1000):
            detections = frame(first)
            window.observe(detections, f"m/{model}")
            if MUTANT == "keep_frames":
                kept.append(detections)
peaks = window.peaks
open_bytes = resident() - before
if not MUTANT:
    dispatcher.deliver(seal_report(sender.destination, "w", window.snapshot()), sender)
    while dispatcher.outbox.counts().pending == 0:
        time.sleep(0.05)
say("memory", peaks, open_bytes, resident() - before)
