"""A disk that takes long holds up the frame that writes, and no other thread."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None,
    reason="a slow disk is preloaded, as only Linux does, and compiled",
)

SLOW = 0.4
FRAMES = 3

PROGRAM = """
import ctypes, json, sys, threading, time
from peakhold._peakhold import Journal, PeakAggregator

journal = Journal(sys.argv[1] + "/own", sync=sys.argv[2] == "power")
aggregator = PeakAggregator(journal=journal)
ticks, stop = [], threading.Event()

def tick():
    while not stop.wait(0.005):
        ticks.append(time.monotonic())

def longest_wait(act):
    begun = time.monotonic()
    act()
    ended = time.monotonic()
    marks = [begun, *(tick for tick in list(ticks) if begun < tick < ended), ended]
    return max(later - earlier for earlier, later in zip(marks, marks[1:]))

def frame(number):
    entry = {"class": "dog", "confidence": 0.1 * number}
    taken = {"inference_id": "", "prediction_type": "", "predictions": [entry]}
    return lambda: aggregator.observe(taken, "m/1")

ticker = threading.Thread(target=tick)
ticker.start()
time.sleep(0.05)
holding = lambda: ctypes.PyDLL(None).usleep(int(sys.argv[3]))
waits = [longest_wait(holding)]
waits += [longest_wait(frame(number)) for number in range(1, 1 + int(sys.argv[4]))]
stop.set()
ticker.join()
print(json.dumps([waits, aggregator.snapshot().journal.slow_writes]))
"""


@pytest.fixture(scope="module")
def slow_disk(tmp_path_factory):
    library = tmp_path_factory.mktemp("preloaded") / "slow_disk.so"
    source = Path(__file__).with_name("slow_disk.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    return library


@pytest.fixture
def waits(slow_disk, tmp_path):
    """Returns how long another thread waited: first while it had to, then per frame."""

    def measure(durability, call):
        environment = {
            **os.environ,
            "LD_PRELOAD": str(slow_disk),
            "SLOW_CALL": call,
            "SLOW_MS": str(round(SLOW * 1e3)),
        }
        arguments = [str(tmp_path), durability, str(round(SLOW * 1e6)), str(FRAMES)]
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            check=True,
            timeout=60,
        )
        (control, *frames), slow_writes = json.loads(done.stdout)
        # Without a lock of the interpreter nobody ever waits.
        if getattr(sys, "_is_gil_enabled", lambda: True)():
            assert control >= SLOW * 0.9
        return frames, slow_writes

    return measure


def test_other_threads_go_on_while_a_frame_waits_for_the_disk(waits):
    frames, _ = waits("power", "fdatasync")
    assert max(frames) < SLOW / 2


def test_a_slow_write_is_counted_and_the_next_ones_hold_up_nobody(waits):
    (_, *frames), slow_writes = waits("process", "write")
    assert max(frames) < SLOW / 2
    assert slow_writes == FRAMES


def test_quick_writes_are_not_counted(waits):
    assert waits("process", "none") == (pytest.approx([0, 0, 0], abs=SLOW / 2), 0)
