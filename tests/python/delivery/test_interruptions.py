"""Exceptions of signal handlers, which come between any two instructions of a call."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from stand_ins import PlainWindow, eventually, report, sent

from peakhold.blocks.custom_metadata import SENT as ATTACHED
from peakhold.blocks.model_monitoring import SENT
from peakhold.locks import is_free

PROGRAM = Path(__file__, "../../../faults/programs/interrupted.py").resolve()
TRACED, SIGNALLED, CONTROLLED = 500, 300, 200
FAST = {
    "PEAKHOLD_SYSTEM_INFO": "off",
    "PEAKHOLD_REQUESTS_PER_SECOND": "100000",
    "PEAKHOLD_METADATA_REQUESTS_PER_SECOND": "100000",
}


def interrupted(how, count, mutant=""):
    """Interrupt so many calls in another process; returns its end and what it found."""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", PROGRAM, how, str(count), "1", "direct"],
        env={**os.environ, **FAST, "PEAKHOLD_TEST_MUTANT": mutant},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    words = [line.partition(" ") for line in ended.stdout.splitlines()]
    found = [json.loads(rest) for word, _, rest in words if word == "found"]
    return ended, found[0] if found else None


def is_well(found):
    """Whether everything works, and nothing was lost."""
    works = found["answers"] == [SENT, ATTACHED, None]
    amiss = ("unaccounted", "left", "dropped", "lost")
    return (
        works
        and found["free"]
        and found["flushed"]
        and not any(found[name] for name in amiss)
    )


def test_a_call_interrupted_at_any_instruction_leaves_everything_working():
    """Of 10,000 `tests/faults/test_r11_interruptions.py` says the same."""
    ended, found = interrupted("trace", TRACED)
    assert found, ended.stderr
    assert is_well(found), found
    assert found["accepted"] > TRACED


def test_the_control_a_transaction_that_is_left_open_is_seen():
    _, found = interrupted("trace", CONTROLLED, "begin_before_try")
    assert found is None or not is_well(found)


@pytest.mark.skipif(os.name == "nt", reason="signals as POSIX has them")
def test_a_call_interrupted_by_signals_leaves_everything_working():
    ended, found = interrupted("signal", SIGNALLED)
    assert found, ended.stderr
    assert is_well(found), found


def test_a_report_whose_making_was_interrupted_is_made_again(working, sender, client):
    made = []

    def seal():
        made.append(1)
        if len(made) == 1:
            raise KeyboardInterrupt
        return report(sender)

    working.watch(lambda now: None, 0.0)
    working.deliver(PlainWindow(seal), sender)
    assert eventually(lambda: sent(client) == 1)
    assert working.flush(5)


def test_a_window_that_is_handed_over_again_is_sent_once(working, sender, client):
    """As after an interruption; whether it waits or was sent."""
    window = PlainWindow(lambda: report(sender))
    working.deliver(window, sender)
    working.deliver(window, sender)
    assert eventually(lambda: sent(client) == 1)
    working.deliver(window, sender)
    assert working.flush(5)
    assert sent(client) == 1

    working.deliver(report(sender), sender)  # the control: another record
    assert working.flush(5)
    assert sent(client) == 2


def test_a_lock_that_is_held_is_waited_for_as_long_as_is_allowed():
    lock = threading.Lock()
    assert is_free(lock)
    with lock:
        assert not is_free(lock, 0.01)
        threading.Timer(0.05, lock.release).start()
        assert is_free(lock, 30)
        lock.acquire()
