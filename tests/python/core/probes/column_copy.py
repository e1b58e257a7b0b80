"""Print how far peak memory rises when a 100 MB column is observed, and is copied."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import resident

from peakhold._peakhold import PeakAggregator, unique_inference_ids

ROWS = 400_000
WIDTH = 64  # code points of four bytes: 102 MB of class names


class Boxes(SimpleNamespace):
    """Detections as far as the core looks at them."""

    def __len__(self) -> int:
        """Return the number of boxes."""
        return ROWS


def main() -> None:
    """Measure observe, then unique ids, then the control."""
    # Rows of another machine's file: fields of a packed record, foreign byte order.
    fields = [("pad", "V3"), ("name", f">U{WIDTH}"), ("confidence", ">f8")]
    records = np.zeros(ROWS, dtype=fields)
    four = np.array(["a" * WIDTH, "b" * WIDTH, "car", "van"])
    records["name"] = four.repeat(ROWS // 4)
    records["confidence"] = np.linspace(0, 1, ROWS)
    names, confidence = records["name"], records["confidence"]
    data = {"class_name": names, "inference_id": names, "prediction_type": names}
    frame = Boxes(xyxy=np.zeros((ROWS, 4)), confidence=confidence, data=data)
    window = PeakAggregator()
    few = {key: column[:1] for key, column in data.items()}  # what a first call takes
    first = SimpleNamespace(xyxy=frame.xyxy[:1], confidence=confidence[:1], data=few)
    window.observe(first, "m")
    unique_inference_ids(first)

    grown = {"column": names.nbytes}
    resident.reset_peak()
    before = resident.peak()
    taken = window.observe(frame, "m")
    grown["observe"] = resident.peak() - before
    ids = unique_inference_ids(frame)
    grown["ids"] = resident.peak() - before
    copy = np.ascontiguousarray(names.astype(f"<U{WIDTH}"))
    grown["copy"] = resident.peak() - before
    answers = {"taken": taken, "ids": len(ids), "classes": len(window.drain())}
    print(json.dumps({**grown, **answers, "copied": len(copy)}))  # noqa: T201


main()
