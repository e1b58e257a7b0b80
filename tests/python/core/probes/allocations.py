"""Print how many blocks of memory CPython allocates while a frame is observed.

Usage: allocations.py LIBRARY, the compiled `counting_allocator.rs`.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from peakhold._peakhold import PeakAggregator, unique_inference_ids

if TYPE_CHECKING:
    from collections.abc import Callable

CLASSES = ["bicycle", "car", "lorry", "pedestrian", "scooter"]
DOMAINS = (1, 2)  # PYMEM_DOMAIN_MEM, PYMEM_DOMAIN_OBJ


class Allocator(ctypes.Structure):
    """`PyMemAllocatorEx`."""

    _fields_ = [
        (name, ctypes.c_void_p)
        for name in ("context", "malloc", "calloc", "realloc", "free")
    ]


def install(library: ctypes.PyDLL) -> list[Allocator]:
    """Put the counting allocators in front; returns what must stay alive."""
    alive = []
    for domain in DOMAINS:
        original, counting = Allocator(), Allocator()
        ctypes.pythonapi.PyMem_GetAllocator(domain, ctypes.byref(original))
        library.wrap(ctypes.byref(original), ctypes.byref(counting))
        ctypes.pythonapi.PyMem_SetAllocator(domain, ctypes.byref(counting))
        alive += [original, counting]
    return alive


class Boxes(SimpleNamespace):
    """Detections as far as the core looks at them."""

    def __len__(self) -> int:
        """Return the number of boxes."""
        return len(self.xyxy)


def frame(count: int, swapped: str, layout: Callable[[Any], Any]) -> Boxes:
    """Build detections of five classes, the best of each among the first five."""
    names = np.array([CLASSES[row % 5] for row in range(count)], dtype=f"{swapped}U16")
    confidence = np.linspace(0.9, 0.1, count).astype(f"{swapped}f4")
    ids = np.array([f"inference-{row}" for row in range(count)], dtype=f"{swapped}U36")
    kinds = np.full(count, "object-detection", dtype=f"{swapped}U16")
    data = {"class_name": names, "inference_id": ids, "prediction_type": kinds}
    data = {key: layout(column) for key, column in data.items()}
    return Boxes(xyxy=np.zeros((count, 4)), confidence=layout(confidence), data=data)


def loop(predictions: Any) -> dict[str, float]:
    """Reduce a frame the way a Python loop does: the control."""
    best: dict[str, float] = {}
    rows = zip(predictions.data["class_name"], predictions.confidence, strict=True)
    for name, confidence in rows:
        best[str(name)] = max(best.get(str(name), 0.0), float(confidence))
    return best


def reversed_view(column: Any) -> Any:
    """Lay a column out backwards."""
    return column[::-1].copy()[::-1]


def main() -> None:
    """Count for frames of 100 and of 1,000 detections."""
    library = ctypes.PyDLL(sys.argv[1])
    library.count.restype = ctypes.c_size_t
    alive = install(library)

    def counted(act: Callable[..., object], *arguments: object) -> int:
        before = int(library.count())
        act(*arguments)
        return int(library.count()) - before

    found: dict[str, dict[str, int]] = {}
    layouts = {"contiguous": np.ascontiguousarray, "strided": reversed_view}
    for order, layout, count in itertools.product("<>", layouts, (100, 1000)):
        predictions = frame(count, order, layouts[layout])
        kinds = predictions.data["prediction_type"]
        usual = SimpleNamespace(data={"inference_id": kinds})  # one id in all rows
        PeakAggregator().observe(predictions, "m")  # what only a first call allocates
        unique_inference_ids(usual)
        window = PeakAggregator()
        blocks = {
            "first observe": counted(window.observe, predictions, "m"),
            "next observe": counted(window.observe, predictions, "m"),
            "unique ids": counted(unique_inference_ids, usual),
            "control": counted(loop, predictions),
        }
        for act_name, number in blocks.items():
            key = f"{act_name}, {layout} {order}"
            found.setdefault(key, {})[str(count)] = number
    print(json.dumps(found))  # noqa: T201
    del alive


main()
