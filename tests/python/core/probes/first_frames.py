"""Print which first calls of a process let go of the interpreter half-way.

A thread that lets go while it makes something that is made once leaves it half-made to
a child that is forked meanwhile. Here another thread asks for the interpreter all the
time, and gets it whenever it is let go of. All steps of a measurement are one call into
C, so that the interpreter itself has no occasion to change threads.
"""

from __future__ import annotations

import itertools
import json
import operator
import sys
import threading
import time
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from peakhold._peakhold import PeakAggregator, unique_inference_ids

if TYPE_CHECKING:
    from collections.abc import Callable

turns = itertools.count()
over = threading.Event()


def take_turns() -> None:
    """Count how often this thread had the interpreter."""
    for _ in turns:
        if over.is_set():
            return


def lets_go(call: Callable[[], Any]) -> bool:
    """Return whether the other thread had a turn during a call."""
    # Some milliseconds, after which the other thread has asked for its turn.
    wait = partial(sum, range(200_000))
    steps = [wait, partial(repr, turns), call, partial(repr, turns)]
    _, before, _, after = map(operator.methodcaller("__call__"), steps)
    return before != after


def detections(rows: int, convert: Callable[[Any], Any] = np.array) -> SimpleNamespace:
    """Make what a detection model returns."""
    texts = ("class_name", "inference_id", "prediction_type")
    return SimpleNamespace(
        xyxy=np.zeros((rows, 4)),
        confidence=convert([0.5] * rows),
        class_id=np.zeros(rows, dtype=np.int64),
        data={text: convert(["text"] * rows) for text in texts},
    )


def classification(entries: Any) -> dict[str, Any]:
    """Make what a classification model returns."""
    return {
        "predictions": entries,
        "inference_id": "id",
        "prediction_type": "classification",
    }


METADATA = {
    "class_names": {0: "zero", 1: "one"},
    "inference_id": "id",
    "prediction_type": "type",
}
NUMBERS = np.array([0.5, 0.25], dtype=np.float32)
FRAMES = {
    "none": None,
    "dict": classification([{"class": "a", "confidence": 0.5}]),
    "multi-label": classification({"a": {"confidence": np.float32(0.5)}}),
    "numeric text": classification([{"class": "a", "confidence": "0.5"}]),
    "arrays": detections(4),
    "many rows": detections(64),
    "objects": detections(4, partial(np.array, dtype=object)),
    "lists": detections(4, list),
    "tensors": SimpleNamespace(
        xyxy=np.zeros((2, 4)),
        confidence=NUMBERS,
        class_id=np.array([0, 1]),
        image_metadata=METADATA,
    ),
    "single-label": SimpleNamespace(
        confidence=NUMBERS.reshape(1, 2),
        class_id=np.array([0]),
        images_metadata=[METADATA],
    ),
    "label distribution": SimpleNamespace(
        confidence=NUMBERS, class_ids=np.array([0]), image_metadata=METADATA
    ),
}
# Python code, which lets others in, logs a bad row if it is the first of its kind.
LOGGED = {
    "predictions": [{"class": "new"}, {}, {"class": "a", "confidence": None}],
    "inference_id": 0,
}
BAD_FRAMES = {
    "no columns": SimpleNamespace(confidence=NUMBERS, data={}, xyxy=np.zeros((2, 4))),
    "no number": classification(
        [{"class": "a", "confidence": SimpleNamespace(dtype=SimpleNamespace(kind=0))}]
    ),
}


def main() -> None:
    """Measure each kind of frame, what becomes of the window, and the control."""
    window = PeakAggregator()
    sys.setswitchinterval(1e-6)
    threading.Thread(target=take_turns).start()
    found = []
    for frames in (FRAMES, BAD_FRAMES):
        for kind, frame in frames.items():
            if lets_go(partial(unique_inference_ids, frame)):
                found.append(f"ids of {kind}")
            if lets_go(partial(window.observe, frame, "m/1")):
                found.append(kind)
        assert frames is BAD_FRAMES or window.rejected == {}
        window.observe(LOGGED, "m/1")
        unique_inference_ids(LOGGED)
    found += [name for name in ("snapshot", "drain") if lets_go(getattr(window, name))]
    # On a busy machine the other thread may not be there at once.
    control = any(lets_go(partial(time.sleep, 0)) for _ in range(100))
    over.set()
    print(json.dumps({"found": found, "control": control}))  # noqa: T201


main()
