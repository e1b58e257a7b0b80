"""Statistics of open windows after a kill: those of at most a second before."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from peakhold import PeakAggregator
from peakhold._peakhold import Journal, recover_journal
from peakhold.blocks.adoption import Adoption
from peakhold.blocks.windows import ClosedWindow, Window
from peakhold.delivery import Dispatcher, Sender, process
from peakhold.outbox import StateDirectory
from peakhold.roboflow import RoboflowClient, Settings

PERIOD = 0.02
KILLED = """
import json, os, signal, sys, time
import peakhold
block = peakhold.ModelMonitoringInferenceAggregatorBlockV1(api_key="kept")
until, frames, since = time.monotonic() + float(sys.argv[1]), 0, []
while time.monotonic() < until:
    confidence = 0.25 if frames else 0.875
    item = {"class": "a", "confidence": confidence}
    block.run(True, {"predictions": [item], "inference_id": "i"}, 3600, "gate", "m/1")
    frames += 1
    since.append(time.monotonic())
    time.sleep(0.02)
# Frames of the last second and a half, for machines that are busy.
late = sum(at > until - 1.5 for at in since)
sys.stdout.write(json.dumps([frames, late]))
sys.stdout.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def monitor(api):
    api.is_monitor = True
    return api


def killed(state, monitor, seconds):
    """Run a process that is killed; returns its frames, and how many were late."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(seconds)],
        env={
            "PEAKHOLD_STATE_DIR": str(state),
            "API_BASE_URL": monitor.url,
            "PATH": "",
        },
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    return json.loads(done.stdout)


def delivered(state, monitor):
    """Adopt and send what a dead process left; returns its window."""
    client = RoboflowClient(Settings(api_base_url=monitor.url, system_info=False))
    sender = Sender(client, "kept", {}, injected=False)
    directory = StateDirectory(state)
    dispatcher = Dispatcher(directory, worker=False)
    dispatcher.monitors.learn(monitor.url, is_monitor=True)
    adoption = Adoption(dispatcher)
    adoption.lend(sender)
    adoption.adopt(0.0)
    for _ in range(5):
        dispatcher.step()
    dispatcher.close(0)
    directory.release()
    client.close()
    (post,) = monitor.posts()
    ((window),) = post.json()["windows"]
    return window["window"]


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_killed_window_has_its_peaks_and_the_statistics_of_a_second_before(
    tmp_path, monitor
):
    frames, late = killed(tmp_path / "state", monitor, 3.2)
    window = delivered(tmp_path / "state", monitor)
    (peak,) = window["peaks"]
    assert peak["confidence"] == 0.875
    (part,) = window["parts"]
    assert part["is_partial"] is True
    assert frames - late <= part["frames"] <= frames
    counts = part["models"]["m/1"]["a"]
    assert counts["frames"] == counts["detections"] == part["frames"]
    assert counts["sum"] == (7 << 29) + ((part["frames"] - 1) << 30)
    assert (window["aggregator"], window["began"]) == ("gate", None)
    assert not list((tmp_path / "state" / "journals").iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.parametrize("damage", ["missing", "cut", "flipped"])
def test_the_control_without_what_was_written_only_the_peaks_are_there(
    tmp_path, monitor, damage
):
    killed(tmp_path / "state", monitor, 1.6)
    (kept,) = (tmp_path / "state" / "journals").glob("*/statistics")
    content = kept.read_bytes()
    if damage == "missing":
        kept.unlink()
    else:
        half = len(content) // 2
        flipped = content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
        kept.write_bytes(content[:half] if damage == "cut" else flipped)
    window = delivered(tmp_path / "state", monitor)
    assert [peak["confidence"] for peak in window["peaks"]] == [0.875]
    assert window["parts"] == []


def observe(aggregator, name="a"):
    item = {"class": name, "confidence": 0.5}
    aggregator.observe({"predictions": [item], "inference_id": "i"}, "m/1")


def test_the_file_is_bounded_and_goes_with_the_last_window(tmp_path):
    journal = Journal(tmp_path / "owner")
    windows = [PeakAggregator(journal=journal, statistics=True) for _ in range(3)]
    journal.keep_statistics(windows)
    assert not (tmp_path / "owner").exists()
    for window in windows:
        observe(window)
    journal.keep_statistics(windows)
    kept = tmp_path / "owner" / "statistics"
    assert kept.stat().st_mode & 0o077 == 0 or sys.platform == "win32"
    size = kept.stat().st_size
    before = kept.stat().st_mtime_ns
    journal.keep_statistics(windows)
    assert kept.stat().st_mtime_ns == before  # nothing changed
    for _ in range(100):
        for window in windows:
            observe(window)
        journal.keep_statistics(windows)
    assert kept.stat().st_size < 2 * size
    assert {path.name for path in kept.parent.iterdir()} == {"0.journal", "statistics"}
    for window in windows:
        window.drain()
    assert not kept.parent.exists()


def test_what_is_kept_is_of_the_windows_that_are_recovered(tmp_path):
    journal = Journal(tmp_path / "owner")
    windows = [PeakAggregator(journal=journal, statistics=True) for _ in range(2)]
    for at, window in enumerate(windows):
        observe(window, f"c{at}")
    journal.keep_statistics(windows)
    windows[0].drain()
    segments = [path.read_bytes() for path in tmp_path.glob("owner/*.journal")]
    kept = (tmp_path / "owner" / "statistics").read_bytes()
    (found,), damaged, unknown = recover_journal(segments, kept)
    assert (damaged, unknown) == (0, 0)
    statistics = found[-1].statistics()
    assert statistics is not None
    assert list(statistics["models"]["m/1"]) == ["c1"]
    assert statistics["is_partial"]
    (without,), *_ = recover_journal(segments)
    assert without[-1].statistics() is None


def test_a_closed_window_keeps_what_was_written_until_it_is_committed(tmp_path):
    journal = Journal(tmp_path / "owner")
    window = PeakAggregator(journal=journal, statistics=True)
    for _ in range(10):
        observe(window)
    journal.keep_statistics([window])
    closed = window.snapshot()
    observe(window, "b")
    journal.keep_statistics([window])
    kept = (tmp_path / "owner" / "statistics").read_bytes()
    segments = [path.read_bytes() for path in tmp_path.glob("owner/*.journal")]
    found, *_ = recover_journal(segments, kept)
    assert sorted(each[-1].statistics()["frames"] for each in found) == [1, 10]
    closed.journal.remove()
    observe(window, "b")
    journal.keep_statistics([window])
    kept = (tmp_path / "owner" / "statistics").read_bytes()
    found, *_ = recover_journal(segments, kept)
    frames = [each[-1].statistics() for each in found]
    assert [each["frames"] for each in frames if each] == [2]


def test_windows_that_left_memory_and_came_back_have_all_their_statistics(
    state, monitor, aggregator, run, frame
):
    dispatcher = Dispatcher(state, worker=False)
    block = aggregator()
    run(block, frame("a"), fire_and_forget=True)
    (window,) = block._windows.values()
    key, sender = window.key, block._sender
    windows = [Window(key, sender, 5, dispatcher) for _ in range(2)]
    closed = []
    for number, each in enumerate(windows):
        for _ in range(3 + number):
            each.aggregator.observe(frame(f"c{number}"), "m/1")
        closed.append(ClosedWindow(each, sender, 5, 0))
        closed[-1].snapshots.append(each.aggregator.snapshot())
    first, second = closed
    assert first.absorb(second)
    journals = first.journals()
    assert len(journals) == 2
    first.unload()
    first.load(list(dispatcher.journals.read_back(list(journals)).values()))
    snapshot = first.record().content.snapshot
    assert snapshot.peaks == 2
    assert snapshot.statistics()["frames"] == 7
    dispatcher.close(0)


def test_a_monitor_is_told_of_frames_that_showed_nothing(
    monitor, dispatcher, aggregator, run
):
    dispatcher.monitors.learn(monitor.url, is_monitor=True)
    block = aggregator()
    empty = {"predictions": [], "inference_id": "i"}
    run(block, empty, fire_and_forget=True, frequency=3600)
    (window,) = block._windows.values()
    assert dispatcher.flush(5)
    before = len(monitor.posts())
    run(block, empty, fire_and_forget=True, frequency=3600)
    window.flush()
    assert dispatcher.flush(5)
    post = monitor.posts()[-1]
    (found,) = (each["window"] for each in post.json()["windows"])
    assert (found["peaks"], found["parts"][0]["frames"]) == ([], 2)
    window.flush()  # the control: there is nothing to tell
    assert dispatcher.flush(5)
    assert len(monitor.posts()) == before + 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_has_its_statistics_written_down_too(
    state, monkeypatch, monitor, aggregator, run, frame
):
    dispatcher = Dispatcher(state)
    monkeypatch.setattr(process, "_current", dispatcher)
    monkeypatch.setenv("PEAKHOLD_STATE_DIR", str(state.path))
    block = aggregator()
    run(block, frame("a"), fire_and_forget=True, frequency=3600)
    parent = state.owner_id
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        until = time.monotonic() + 10.0
        while time.monotonic() < until:
            run(block, frame("b"), fire_and_forget=True, frequency=3600)
            kept = state.journals.glob("*/statistics")
            if any(path.parent.name != parent for path in kept):
                os.write(write, b"kept")
                break
            time.sleep(0.05)
        os._exit(0)
    os.close(write)
    assert os.read(read, 10) == b"kept"
    os.close(read)
    os.waitpid(child, 0)
    dispatcher.close(0)
