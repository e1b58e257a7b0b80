"""Arrays that somebody else writes while they are observed.

The writer is a process with the arrays mapped, not a thread: so it shares no
interpreter lock with the reader, and the two meet in the middle of a frame.
"""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest

from peakhold._peakhold import PeakAggregator, unique_inference_ids

ROWS = 200_000  # reading them takes milliseconds
LETTERS = {"a", "b"}
SHARED = {
    "class_name": "<U4",
    "inference_id": "<U4",
    "confidence": "<f8",
    "writes": "<i8",
}

# Overwrites the columns from end to end, again and again, and counts the pieces.
WRITER = f"""
import sys
import numpy as np

*names, confidence, writes = [
    np.memmap(f"{{sys.argv[1]}}/{{name}}", dtype, "r+")
    for name, dtype in {SHARED}.items()
]
letter = "b"
while True:
    for start in range(0, {ROWS}, 1000):
        piece = slice(start, start + 1000)
        for column in names:
            column[piece] = letter * 4
        confidence[piece] = 0.25 if letter == "a" else 0.75
        writes[0] += 1
    letter = "a" if letter == "b" else "b"
"""


class Frame:
    """Detections whose columns lie in files."""

    def __init__(self, folder) -> None:
        def column(name: str, content: object) -> np.ndarray:
            mapped = np.memmap(folder / name, SHARED[name], "w+", shape=ROWS)
            mapped[:] = content
            return np.asarray(mapped)

        self.xyxy = np.zeros((ROWS, 4))
        self.confidence = column("confidence", 0.25)
        self.writes = column("writes", 0)
        self.data = {
            "class_name": column("class_name", "aaaa"),
            "inference_id": column("inference_id", "aaaa"),
            "prediction_type": np.full(ROWS, "test"),
        }

    def __len__(self) -> int:
        return ROWS


@pytest.fixture
def frame(tmp_path):
    return Frame(tmp_path)


@pytest.fixture
def writer(frame, tmp_path):
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)])
    yield process
    process.kill()
    process.wait()


def test_an_array_written_meanwhile_reads_as_old_and_new_rows_and_nothing_else(
    frame, writer
):
    window, torn, give_up = PeakAggregator(), 0, time.monotonic() + 60
    while torn < 20 and time.monotonic() < give_up:
        before = frame.writes[0]
        assert window.observe(frame, "m") == ROWS
        written_meanwhile = frame.writes[0] != before
        report = window.drain()
        for row in report:
            # Of the row that is just being written, some characters are new.
            assert len(row["class_name"]) == len(row["inference_id"]) == 4
            assert set(row["class_name"] + row["inference_id"]) <= LETTERS
            assert row["confidence"] in {0.25, 0.75}
        assert set("".join(unique_inference_ids(frame))) <= LETTERS
        torn += written_meanwhile and len(report) > 1
    assert writer.poll() is None
    assert torn == 20
    assert not window.rejected
