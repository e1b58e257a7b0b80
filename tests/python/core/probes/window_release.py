"""Print the memory after each window of 100,000 class names, in bytes.

Usage: window_release.py WINDOWS drop|hoard; "hoard" is the control, which keeps what
the windows held.
"""

from __future__ import annotations

import ctypes
import json
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import resident

from peakhold._peakhold import PeakAggregator

NAMES = 100_000
ROWS = 1_000


class Boxes(SimpleNamespace):
    """Detections as far as the core looks at them."""

    def __len__(self) -> int:
        """Return the number of boxes."""
        return ROWS


def fill(window: PeakAggregator, number: int, names: int) -> None:
    """Observe class names that no other window has seen."""
    digits = np.arange(ROWS).astype("U6")
    ids = np.full(ROWS, "0b9a3c1e-6b1d-4a9e-8f0a-1c2d3e4f5a6b")
    confidence = np.linspace(0, 1, ROWS, dtype=np.float32)
    xyxy = np.zeros((ROWS, 4), dtype=np.float32)
    for block in range(names // ROWS):
        plates = np.char.add(f"plate {number}-{block}-", digits)
        data = {"class_name": plates, "inference_id": ids, "prediction_type": ids}
        window.observe(Boxes(xyxy=xyxy, confidence=confidence, data=data), "m")


def main() -> None:
    """Fill and close the windows, by drain and by snapshot."""
    windows, hoard = int(sys.argv[1]), sys.argv[2] == "hoard"
    trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)
    window, kept = PeakAggregator(), list[Any]()
    fill(window, 0, ROWS)
    del window.drain()[:]
    began = resident.now()
    after: list[int] = []
    trimmed: list[int] = []
    held: list[int] = []
    for number in range(1, windows + 1):
        fill(window, number, NAMES)
        held.append(window.peaks)
        closed: Any = window.drain() if number % 4 == 1 else window.snapshot()
        if hoard:
            kept.append(closed)
        del closed
        after.append(resident.now() - began)
        trim(0)
        trimmed.append(resident.now() - began)
    found = {"held": held, "after": after, "trimmed": trimmed}
    print(json.dumps({**found, "rejected": window.rejected}))  # noqa: T201


main()
