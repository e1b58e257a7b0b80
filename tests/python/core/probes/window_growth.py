"""Print how far a window makes the process grow over 10 million detections."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import resident

from peakhold._peakhold import PeakAggregator

FRAMES = 10_000
ROWS = 1_000
CLASSES = 80


class Boxes(SimpleNamespace):
    """Detections as far as the core looks at them."""

    def __len__(self) -> int:
        """Return the number of boxes."""
        return ROWS


def frames(order: str) -> list[Boxes]:
    """Build one frame, and confidences for it in the order named."""
    rng = np.random.default_rng(7)
    names = np.array([f"class {row}" for row in range(CLASSES)])
    data = {
        "class_name": names[rng.integers(0, CLASSES, ROWS)],
        "inference_id": np.zeros(ROWS, dtype="U36"),
        "prediction_type": np.full(ROWS, "object-detection"),
    }
    xyxy = np.zeros((ROWS, 4), dtype=np.float32)
    if order == "rising":
        columns = [np.linspace(0, 1e-6, ROWS)]
    else:
        columns = [rng.random(ROWS) for _ in range(50)]
    return [Boxes(xyxy=xyxy, confidence=column, data=data) for column in columns]


def growth(order: str, frame_count: int = FRAMES) -> dict[str, int]:
    """Observe all frames with one window; returns bytes grown and peaks."""
    window, pool = PeakAggregator(), frames(order)
    detections = 0
    before = after_all = 0
    kept: list[np.ndarray] = []
    for number in range(frame_count):
        frame = pool[number % len(pool)]
        frame.data["inference_id"][:] = f"0b9a3c1e-6b1d-4a9e-8f0a-{number:012}"
        if order == "rising":
            frame.confidence += 1e-6  # every detection beats all before it
        if order == "hoard":
            kept.append(frame.data["inference_id"].copy())
        detections += window.observe(frame, "project/3")
        if number == frame_count // 50:
            before = resident.now()
    after_all = resident.now()
    report = window.drain()
    return {
        "grown": after_all - before,
        "detections": detections,
        "classes": len(report),
        "reported": len({row["inference_id"] for row in report}),
        "kept": len(kept),
    }


def main() -> None:
    """Measure both orders, then the control, which keeps what it sees."""
    found = {order: growth(order) for order in ("random", "rising")}
    found["hoard"] = growth("hoard", FRAMES // 10)
    print(json.dumps(found))  # noqa: T201


main()
