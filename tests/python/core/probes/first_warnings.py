"""Feed each kind of bad input twice to a fresh process; print what was logged."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace
from typing import Any

import numpy as np

from peakhold._peakhold import PeakAggregator

records: list[tuple[str, str, str]] = []


class Collect(logging.Handler):
    """Keeps level, logger and text of every record."""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record."""
        records.append((record.levelname, record.name, record.getMessage()))


class Boxes(SimpleNamespace):
    """Detections as far as the core looks at them."""

    def __len__(self) -> int:
        """Return the number of boxes."""
        return len(self.xyxy)


def frame(names: Any, confidence: Any, ids: Any = None) -> Boxes:
    """Build detections of one row whose columns are in order, but for those given."""
    data = {"class_name": names, "inference_id": ids, "prediction_type": ["type"]}
    return Boxes(xyxy=np.zeros((1, 4)), confidence=np.array(confidence), data=data)


def main() -> None:
    """Observe, twice over, and report by the reason that was counted."""
    logging.getLogger().addHandler(Collect())
    bad = [
        frame(["a"], [np.nan], ["id"]),
        frame(["a"], [np.inf], ["id"]),
        frame(["a"], np.array([None], dtype=object), ["id"]),
        frame([None], [0.5], ["id"]),
        frame(["\ud800"], [0.5], ["id"]),
        frame(["x" * 2**20], [0.5], ["id"]),
        frame(["a", "b"], [0.5], ["id"]),
        frame(["a"], [0.5], [None]),
    ]
    window = PeakAggregator()
    after_first = {}
    for predictions in bad:
        before = set(window.rejected)
        records.clear()
        window.observe(predictions, "m")
        (reason,) = set(window.rejected) - before
        after_first[reason] = list(records)
    records.clear()
    for predictions in bad:
        window.observe(predictions, "m")
    seen = {"reasons": window.rejected, "after first": after_first}
    print(json.dumps({**seen, "after second": records}))  # noqa: T201


main()
