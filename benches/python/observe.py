"""Time of `PeakAggregator.observe` per frame, over frames of several sizes.

    python benches/python/observe.py

Prints the machine and versions first, then for each size the best and the median of
the rounds, and the spread between the rounds, which is the noise that a comparison
has to exceed. Every round checks the report that it produced.
"""

from __future__ import annotations

import platform
import subprocess
import time
from datetime import datetime, timezone
from pathlib import Path
from statistics import median

import numpy as np
import supervision as sv

import peakhold

CLASSES = 20
FRAMES = 200
ROUNDS = 25


def make_frame(detections: int) -> sv.Detections:
    """Make one frame of random boxes of 20 classes, columns as models return them."""
    random = np.random.default_rng(7)
    labels = random.integers(0, CLASSES, detections)
    return sv.Detections(
        xyxy=random.random((detections, 4), dtype=np.float32),
        confidence=random.random(detections, dtype=np.float32),
        class_id=labels,
        data={
            "class_name": np.array([f"class-{label}" for label in labels]),
            "inference_id": np.full(detections, "0b8cf2ee-2c4c-4a5c-9f3a-6a3c0e5f7c11"),
            "prediction_type": np.full(detections, "object-detection"),
        },
    )


def time_frames(frame: sv.Detections) -> float:
    """Return the seconds per frame of one round, after checking its report."""
    window = peakhold.PeakAggregator()
    start = time.perf_counter()
    for _ in range(FRAMES):
        window.observe(frame, "bench/1")
    seconds = (time.perf_counter() - start) / FRAMES
    report = {peak["class_name"]: peak["confidence"] for peak in window.drain()}
    names, confidences = frame.data["class_name"], frame.confidence
    assert report == {name: confidences[names == name].max() for name in set(names)}
    return seconds


def print_run_info() -> None:
    """Print what the numbers depend on."""
    root = Path(__file__).resolve().parents[2]
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [
            line.partition(":")[2].strip()
            for line in cpuinfo.read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ]
        cpu = f"{models[0]}, {len(models)} threads" if models else cpu
    print(f"date      {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC")
    print(f"commit    {commit.stdout.strip() or 'none'}")
    print(f"machine   {cpu}; {platform.platform()}")
    print(
        f"versions  peakhold {peakhold.__version__}, Python "
        f"{platform.python_version()}, NumPy {np.__version__}, "
        f"supervision {sv.__version__}"
    )
    print(f"method    {ROUNDS} rounds of {FRAMES} frames, {CLASSES} classes\n")


def main() -> None:
    """Time every size and print a table."""
    print_run_info()
    print("detections   best us/frame   median us/frame   spread")
    for detections in (1, 10, 100, 1000):
        frame = make_frame(detections)
        rounds = [time_frames(frame) * 1e6 for _ in range(ROUNDS)]
        best, middle = min(rounds), median(rounds)
        spread = (max(rounds) - best) / middle
        print(f"{detections:10} {best:15.2f} {middle:17.2f} {spread:8.0%}")


if __name__ == "__main__":
    main()
