"""Print how many blocks of memory CPython allocates while a frame is observed.

Usage: allocations.py LIBRARY, the compiled `counting_allocator.rs`.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from peakhold._peakhold import PeakAggregator, unique_inference_ids

CLASSES = ["bicycle", "car", "lorry", "pedestrian", "scooter"]
DOMAINS = (1, 2)  # PYMEM_DOMAIN_MEM, PYMEM_DOMAIN_OBJ


class Allocator(ctypes.Structure):
    """`PyMemAllocatorEx`."""

    _fields_ = [  # noqa: RUF012 - the form that ctypes asks for
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


def naive(predictions: Any, best: dict[str, float]) -> None:
    """Reduce a frame the way a Python loop does: the control."""
    names, confidences = predictions.data["class_name"], predictions.confidence
    for name, confidence in zip(names, confidences, strict=True):
        best[str(name)] = max(best.get(str(name), 0.0), float(confidence))


def reversed_view(column: Any) -> Any:
    """Lay a column out backwards."""
    return column[::-1].copy()[::-1]


def main() -> None:
    """Count for frames of 100 and of 1,000 detections."""
    library = ctypes.PyDLL(sys.argv[1])
    library.count.restype = ctypes.c_size_t
    alive = install(library)

    def counted(act: Callable[[], object]) -> int:
        before = int(library.count())
        act()
        return int(library.count()) - before

    found: dict[str, dict[str, int]] = {}
    layouts = {"contiguous": np.ascontiguousarray, "strided": reversed_view}
    for order in "<>":
        for layout, lay_out in layouts.items():
            for count in (100, 1000):
                predictions = frame(count, order, lay_out)
                PeakAggregator().observe(predictions, "m")  # imports, interned text
                window, best = PeakAggregator(), dict[str, float]()
                acts: dict[str, Callable[[], object]] = {
                    "observe": lambda: window.observe(predictions, "m"),  # noqa: B023
                    "observe again": lambda: window.observe(predictions, "m"),  # noqa: B023
                    "control": lambda: naive(predictions, best),  # noqa: B023
                }
                same = SimpleNamespace(data={"inference_id": predictions.data["prediction_type"]})
                acts["ids of a usual frame"] = lambda: unique_inference_ids(same)  # noqa: B023
                unique_inference_ids(same)
                for name, act in acts.items():
                    key = f"{name}, {layout} {order}"
                    found.setdefault(key, {})[str(count)] = counted(act)
    print(json.dumps(found))  # noqa: T201
    del alive


main()
