"""Journals of this format, and with many windows, are read by every later version."""

from __future__ import annotations

import subprocess
import sys
from collections import deque
from pathlib import Path

import pytest

from peakhold._peakhold import (
    Journal,
    MetadataJournal,
    PeakAggregator,
    recover_journal,
)

KEPT = Path(__file__).with_name("journals") / "version-2.journal"


def lines(snapshot):
    return [
        (line["class_name"], line["confidence"], line["inference_id"])
        for line in snapshot.report()
    ]


def test_the_journal_of_a_dead_process_is_read():
    """Two aggregators took turns, a window was committed, and the last record is torn.

    Numbers of aggregators count from 0 in each process.
    """
    windows, damaged, unknown = recover_journal([KEPT.read_bytes()])
    assert [(*rest, lines(snapshot)) for *rest, snapshot in windows] == [
        (0, 1, b"first", None, [], [("car", 0.5, "f1"), ("dog", 0.5, "f3")]),
        (1, 0, b"second", 1_700_000_000_500_000, [], [("bus", 0.5, "f0")]),
        (1, 1, b"second", None, [], [("人", 0.875, "f4")]),
    ]
    assert (damaged, unknown) == (1, 0)


def test_the_metadata_of_a_dead_process_is_read():
    """Two destinations took turns, and the first batch was committed."""
    kept = KEPT.with_name("version-2-metadata.journal")
    windows, damaged, unknown = recover_journal([kept.read_bytes()])
    assert [(*rest, snapshot.peaks) for *rest, snapshot in windows] == [
        (
            *(0, 1, b"first", None),
            [(["i3"], "camera", "名\ud800"), (["i4"], "shift", "")],
            0,
        ),
        (0, 2, b"first", None, [(["i5"], "shift", "night")], 0),
        (1, 0, b"second", None, [(["i1", "i2"], "camera", "gate")], 0),
    ]
    assert (damaged, unknown) == (0, 0)


def test_a_journal_of_a_later_version_is_refused():
    with pytest.raises(ValueError, match="upgrade"):
        recover_journal([KEPT.read_bytes(), b"peakhold\x7f"])


FAILING = """
import resource, sys
from peakhold._peakhold import Journal, PeakAggregator
aggregator = PeakAggregator(journal=Journal(sys.argv[1]))
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
for number in range(100):
    entry = {"class": str(number), "confidence": 0.5}
    frame = {"inference_id": "", "prediction_type": "", "predictions": [entry]}
    assert aggregator.observe(frame, "m/1") == 1
print(aggregator.snapshot().journal.error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sizes are limited by POSIX")
def test_a_failed_write_begins_a_new_segment(tmp_path):
    """No file may be longer than 1,000 bytes: the record that reaches that is torn."""
    ran = subprocess.run(
        [sys.executable, "-c", FAILING, tmp_path / "own"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert ran.stdout == "None\n"
    segments = [path.read_bytes() for path in (tmp_path / "own").iterdir()]
    assert [len(each) for each in segments].count(1_000) == len(segments) - 1 > 1
    ((*_, snapshot),), damaged, unknown = recover_journal(segments)
    assert sorted(int(name) for name, _, _ in lines(snapshot)) == list(range(100))
    assert (damaged, unknown) == (len(segments) - 1, 0)


def test_windows_that_are_not_committed_are_read_back(tmp_path):
    journal = Journal(tmp_path / "own")
    aggregator = PeakAggregator(journal=journal)
    written = []
    for name in ("committed", "closed", "late"):
        entry = {"class": name, "confidence": 0.5}
        frame = {"inference_id": "i", "prediction_type": "", "predictions": [entry]}
        aggregator.observe(frame, "m/1")
        written.append(aggregator.snapshot().journal)
    metadata, frames = MetadataJournal(journal, about=b""), deque()
    metadata.append(frames, ["i"], "field", "value")
    batch = frames[0][3].journal
    assert batch.name not in {each.name for each in written}
    written[0].remove()
    empty = aggregator.snapshot().journal
    read, damaged = journal.read([*written, batch, empty])
    assert damaged == 0
    found = [held and (held[0], lines(held[1])) for held in read]
    assert found == [
        None,
        ([], [("closed", 0.5, "i")]),
        ([], [("late", 0.5, "i")]),
        ([(["i"], "field", "value")], []),
        None,
    ]
    (segment,) = (tmp_path / "own").iterdir()
    segment.write_bytes(segment.read_bytes().replace(b"closed", b"cl0sed"))
    (kept, damaged_one), damaged = journal.read([written[2], written[1]])
    assert (lines(kept[1]), damaged_one[1].peaks, damaged) == (
        [("late", 0.5, "i")],
        0,
        1,
    )
