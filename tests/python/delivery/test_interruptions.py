"""Exceptions of signal handlers, which come between any two instructions of a call."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from stand_ins import PlainWindow, eventually, metadata, report, sent

from peakhold.blocks.custom_metadata import SENT as ATTACHED
from peakhold.blocks.model_monitoring import SENT
from peakhold.delivery import destination
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


def raising(function, call):
    """A function that raises, as of a signal handler, in place of one of its calls."""
    calls = []

    def called(*arguments):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return function(*arguments)

    return called


def drain(dispatcher, sender, clock):
    dispatcher.register(sender, try_now=True)
    while (wait := dispatcher.step()) is not None:
        clock.now += wait


@pytest.mark.parametrize(
    ("part", "name", "call"),
    [
        pytest.param("outbox", "lease", 2, id="while leasing"),
        pytest.param("outbox", "replace", 1, id="while taking one entry"),
        pytest.param("destination", "give_way", 1, id="before the request"),
    ],
)
def test_what_is_leased_is_sent_though_its_turn_was_interrupted(
    stepped, sender, client, clock, monkeypatch, part, name, call
):
    sender.offline = True  # so that all of it waits in the outbox
    monkeypatch.setattr(sender, "most", 2, raising=False)
    records = [metadata(sender, "a", "b"), metadata(sender, "c")]
    for record in records:
        stepped.deliver(record, sender)
    stepped.step()
    sender.offline = False
    where = stepped.outbox if part == "outbox" else destination
    monkeypatch.setattr(where, name, raising(getattr(where, name), call))
    with pytest.raises(KeyboardInterrupt):
        drain(stepped, sender, clock)
    assert client.entries() == []
    drain(stepped, sender, clock)
    assert sorted(each["field_value"] for each in client.entries()) == ["a", "b", "c"]
    assert stepped.counts().pending == 0


def test_what_a_caller_was_to_send_is_sent_though_its_first_request_was_interrupted(
    stepped, sender, client, clock
):
    """One request for each entry, and all are on lease until the last one is made."""
    client.failures = [KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        stepped.deliver_now(metadata(sender, "a", "b", "c"), sender)
    assert [each["field_value"] for each in client.entries()] == ["a"]
    assert stepped.counts().pending == 3
    drain(stepped, sender, clock)
    assert [each["field_value"] for each in client.entries()] == ["a", "a", "b", "c"]
    assert stepped.counts().delivered == 3


def test_a_lock_that_is_held_is_waited_for_as_long_as_is_allowed():
    lock = threading.Lock()
    assert is_free(lock)
    with lock:
        assert not is_free(lock, 0.01)
        threading.Timer(0.05, lock.release).start()
        assert is_free(lock, 30)
        lock.acquire()
