"""Steps that the tests of bad input share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from peakhold._peakhold import PeakAggregator


def observe_complete(window: PeakAggregator, frame: Any) -> int:
    """Observe a frame with ids and types in order, so that only bad rows are counted.

    Columns that the frame has already stay as they are.
    """
    count = len(frame)
    frame.data.setdefault("inference_id", np.array(["id"] * count))
    frame.data.setdefault("prediction_type", np.array(["type"] * count))
    return window.observe(frame, "m")


def rejected(window: PeakAggregator) -> int:
    """Return how much was rejected so far, whatever the reasons."""
    return sum(window.rejected.values())
