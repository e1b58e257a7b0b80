"""R11: what a signal handler raises in the midst of a call leaves all of it working.

Ctrl-C, an alarm, the time limit of a job queue: the exception comes between any two
instructions. No lock, no transaction and no mark of work in progress may stay behind.
"""

from __future__ import annotations

import json
import os

import pytest
from draining import arrived

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals as POSIX has them")

TRACED, SIGNALLED = 3_000, 7_000
CONTROLLED = 2_000
TIMEOUT = 180.0
FAST = {
    "PEAKHOLD_REQUESTS_PER_SECOND": "100000",
    "PEAKHOLD_METADATA_REQUESTS_PER_SECOND": "100000",
}
WELL = {
    "answers": [
        "Data sent successfully",
        "Custom metadata upload was successful",
        None,
    ],
    "free": True,
    "flushed": True,
    "unaccounted": 0,
    "left": 0,
    "dropped": 0,
}


@pytest.fixture
def interrupt(start, seed):
    """Starts a process that interrupts so many of its calls."""

    def interrupt(how, count, client, **options):
        return start("interrupted", how, count, seed, client, **FAST, **options)

    return interrupt


def test_interrupted_anywhere_it_works_and_loses_nothing(
    interrupt, api, tmp_path, figure
):
    # At once, for they wait much: one sends to the server, the other to a stand-in.
    directory = tmp_path / "traced"
    traced = interrupt("trace", TRACED, "direct", PEAKHOLD_STATE_DIR=str(directory))
    signalled = interrupt("signal", SIGNALLED, "http")
    accepted = set(json.loads(signalled.hear_until("accepted", TIMEOUT)))
    by_signals = json.loads(signalled.hear_until("found", TIMEOUT))
    by_tracing = json.loads(traced.hear_until("found", TIMEOUT))
    assert by_tracing == {**by_tracing, **WELL, "lost": 0}
    assert by_signals == {**by_signals, **WELL}
    attached = {
        name
        for request in api.accepted(kind="metadata")
        for entry in json.loads(request.body)["data"]
        for name in entry["inference_ids"]
    }
    assert accepted <= arrived(api) | attached
    figure(
        "R11",
        f"{TRACED + SIGNALLED:,} calls interrupted: no lock or transaction left, "
        f"{by_tracing['accepted'] + len(accepted):,} frames accepted, 0 lost",
    )


@pytest.mark.unbalanced
@pytest.mark.parametrize(
    "mutant", ["begin_before_try", "acquire_before_try", "lock_in_python"]
)
def test_the_control_what_is_left_behind_is_seen(interrupt, mutant, figure):
    process = interrupt("trace", CONTROLLED, "direct", mutant=mutant)
    try:
        found = json.loads(process.hear_until("found", TIMEOUT))
    except AssertionError:  # it hangs, or `run` raises what it never should
        figure("R11n", f"{mutant}: the program ended")
    else:
        assert found != {**found, **WELL, "lost": 0}
        figure("R11n", f"{mutant}: seen")
