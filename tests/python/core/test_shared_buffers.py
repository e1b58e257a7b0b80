"""Arrays that another thread writes while they are observed, without the GIL."""

from __future__ import annotations

import threading
import time

import numpy as np

from peakhold._peakhold import PeakAggregator, unique_inference_ids

ROWS = 200_000  # copying them takes a while, for which NumPy releases the GIL
LETTERS = {"a", "b"}


class Frame:
    """Detections whose columns a thread overwrites from end to end, again and again."""

    def __init__(self) -> None:
        self.xyxy = np.zeros((ROWS, 4))
        self.confidence = np.full(ROWS, 0.25)
        self.data = {
            "class_name": np.full(ROWS, "aaaa"),
            "inference_id": np.full(ROWS, "aaaa"),
            "prediction_type": np.full(ROWS, "test"),
        }

    def __len__(self) -> int:
        return ROWS

    def overwrite(self, done: threading.Event) -> None:
        letter, confidence = ord("b"), 0.75
        while not done.is_set():
            for column in ("class_name", "inference_id"):
                self.data[column].view(np.uint32)[:] = letter
            self.confidence[:] = confidence
            letter, confidence = ord("a") + ord("b") - letter, 1.0 - confidence


def test_an_array_written_meanwhile_reads_as_old_and_new_rows_and_nothing_else():
    frame, window, done = Frame(), PeakAggregator(), threading.Event()
    writer = threading.Thread(target=frame.overwrite, args=(done,))
    writer.start()
    names, give_up = set(), time.monotonic() + 60
    try:
        # Both in one frame: it was written while it was read.
        while len(names) < 2 and time.monotonic() < give_up:
            assert window.observe(frame, "m") == ROWS
            report = window.drain()
            names = {row["class_name"] for row in report}
            for row in report:
                # Of the row that is just being written, some characters are new.
                assert len(row["class_name"]) == len(row["inference_id"]) == 4
                assert set(row["class_name"] + row["inference_id"]) <= LETTERS
                assert row["confidence"] in {0.25, 0.75}
            assert set("".join(unique_inference_ids(frame))) <= LETTERS
    finally:
        done.set()
        writer.join()
    assert len(names) >= 2
    assert not window.rejected
