"""Closed windows of one key that become one record before they are committed."""

from __future__ import annotations

from dataclasses import astuple

import pytest

from peakhold.blocks.windows import ClosedWindow, Window, WindowKey
from peakhold.delivery import Dispatcher, committer
from peakhold.outbox import StateDirectory

KEY = WindowKey("http://recording.invalid", "0123456789abcdef", "key")


@pytest.fixture
def processes(tmp_path):
    """Two, each with a journal of its own, of which the first one delivers."""
    states = [StateDirectory(tmp_path / name) for name in ("first", "later")]
    made = [Dispatcher(state, worker=False) for state in states]
    yield made
    for dispatcher in made:
        dispatcher.close(0)


@pytest.fixture
def close(processes, sender, frame):
    """Closes a window in which a class was seen; with an aggregator of its own."""
    window = Window(KEY, sender, 5, processes[0])

    def close_window(class_name, dispatcher=processes[0]):
        aggregator = dispatcher.journals.aggregator(sender.destination, astuple(KEY))
        aggregator.observe(frame(class_name), "m/1")
        closed = ClosedWindow(window, sender, 5, 0)
        closed.snapshots.append(aggregator.snapshot())
        return closed

    close_window.window = window
    return close_window


def classes(client):
    return [[x["class_name"] for x in r["inference_results"]] for r in client.reports()]


def segments(dispatcher):
    return sorted(dispatcher.state.journals.glob("*/*.journal"))


@pytest.mark.parametrize("failing", [0, 1])
def test_a_journal_that_cannot_be_written_leaves_no_other_of_a_merged_window_open(
    processes, close, sender, client, failing
):
    """Whether it is that of the first or of the later one, which were in two."""
    windows = [close(f"c{at}", process) for at, process in enumerate(processes)]
    assert windows[0].absorb(windows[1])
    (segment,) = segments(processes[failing])
    segment.rename(segment.with_suffix(".away"))
    segment.mkdir()  # cannot be deleted as a file
    processes[0].deliver(windows[0], sender)
    processes[0].step()
    assert classes(client) == [["c0", "c1"]]
    assert processes[0].notices.counts["callback"] == 1
    assert segments(processes[failing]) == [segment]
    assert segments(processes[1 - failing]) == []


def test_a_window_that_was_interrupted_before_its_peaks_were_taken_is_not_merged(
    processes, close, sender, client, frame
):
    interrupted = ClosedWindow(close.window, sender, 5, 0)
    close.window.aggregator.observe(frame("still open"), "m/1")
    closed = close("closed")
    assert not interrupted.absorb(closed)
    assert not closed.absorb(interrupted)
    assert closed.absorb(close("later"))  # the control
    for each in (interrupted, closed):
        processes[0].deliver(each, sender)
    for _ in range(3):
        processes[0].step()
    assert sorted(classes(client)) == [["closed", "later"], ["still open"]]
    counts = processes[0].counts()
    assert (counts.sealed, counts.delivered) == (3, 3)
    assert segments(processes[0]) == []


def test_windows_behind_one_that_was_interrupted_are_merged_with_each_other(
    processes, close, sender, client, frame, monkeypatch
):
    monkeypatch.setattr(committer, "MAX_BYTES", 2_500)  # less than three windows
    interrupted = ClosedWindow(close.window, sender, 5, 0)
    close.window.aggregator.observe(frame("still open"), "m/1")
    for each in (interrupted, *map(close, ("c0", "c1", "c2"))):
        processes[0].deliver(each, sender)
    for _ in range(2):
        processes[0].step()
    assert sorted(classes(client)) == [["c0", "c1", "c2"], ["still open"]]
    counts = processes[0].counts()
    assert (counts.sealed, counts.delivered) == (4, 4)
