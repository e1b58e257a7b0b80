"""Frames as a model block makes them: random, and the same in every run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from peakhold.cli.predictions import OBJECT_DETECTION, supervision

if TYPE_CHECKING:
    from collections.abc import Iterator

    import supervision as sv

MODEL_ID = "bench/1"

_POOL = 1_024
"""Frames with confidences of their own, more than a usual window has."""

_POOL_ROWS = 2_000_000
"""Detections in all of them at most, or large frames would take a gigabyte."""

_MASK_SIDE = 64
_ID = "frame-{:010d}"


class FrameSource:
    """Makes each frame anew from its number, as a model would.

    Labels and confidences repeat after some frames; the inference id does not.

    Args:
        detections: Rows of a frame.
        classes: Classes they are of.
        masks: Whether each row has a mask, of 64 x 64 pixels.
    """

    def __init__(self, detections: int, classes: int, *, masks: bool = False) -> None:
        random = np.random.default_rng(7)
        self._pool = min(_POOL, max(1, _POOL_ROWS // detections))
        shape = (self._pool, detections)
        self._names = np.array([f"class-{label:03d}" for label in range(classes)])
        self._labels = random.integers(0, classes, shape)
        self._confidence = random.random(shape, dtype=np.float32)
        self._xyxy = random.random((detections, 4), dtype=np.float32)
        self._xyxy[:, 2:] += 1
        area = (detections, _MASK_SIDE, _MASK_SIDE)
        self._mask = random.integers(0, 2, area, bool) if masks else None
        self._detections = supervision().Detections

    def make(self, number: int) -> sv.Detections:
        """Return a frame whose arrays are its own."""
        place = number % self._pool
        labels = self._labels[place]
        rows = len(labels)
        made: sv.Detections = self._detections(
            xyxy=self._xyxy.copy(),
            mask=None if self._mask is None else self._mask.copy(),
            confidence=self._confidence[place].copy(),
            class_id=labels.copy(),
            data={
                "class_name": self._names[labels],
                "inference_id": np.full(rows, _ID.format(number)),
                "prediction_type": np.full(rows, OBJECT_DETECTION),
            },
        )
        return made

    def of_id(self, inference_id: str) -> sv.Detections:
        """Return the frame of an inference id.

        Raises:
            ValueError: If it is not an id of this source.
        """
        return self.make(int(inference_id.rpartition("-")[2]))

    def enough(self, numbers: range) -> Iterator[sv.Detections]:
        """Return the frames that have the peaks of many in them: the first of each.

        A later one with the same labels and confidences is no frame's better.
        """
        return map(self.make, numbers[: self._pool])

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays of one frame."""
        frame = self.make(0)
        columns = (frame.xyxy, frame.mask, frame.confidence, frame.class_id)
        return sum(
            np.asarray(column).nbytes
            for column in (*columns, *frame.data.values())
            if column is not None
        )
