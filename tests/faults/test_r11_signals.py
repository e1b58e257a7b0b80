"""R11: the library installs no signal handler, and loses nothing by it."""

from __future__ import annotations

import os
import signal

import pytest
from draining import arrived, drain

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals as POSIX has them")

TERMS = 20


def term(start, name, **options):
    """End a program by SIGTERM; returns its exit code, and whether a handler came."""
    process = start("wait", name, **options)
    said = dict([process.hear().split(maxsplit=1) for _ in range(2)])
    assert said["committed"] == f"sealed-{name}"
    before, after = said["caught"].split()
    process.send(signal.SIGTERM)
    return process.ended(), before != after


def test_sigterm_ends_the_process_as_if_the_library_were_not_there(api, start, figure):
    ends = [term(start, f"c{number}") for number in range(TERMS)]
    assert set(ends) == {(-signal.SIGTERM, False)}
    drain(start)
    names = [f"c{number}" for number in range(TERMS)]
    assert arrived(api) == {*names, *(f"sealed-{name}" for name in names)}
    figure(
        "R11",
        f"{TERMS} times SIGTERM: rc -15, no handler, {2 * TERMS} windows, 0 lost",
    )


def test_the_control_a_handler_is_seen(api, start, figure):
    assert term(start, "a", mutant="handler") == (0, True)
    figure("R11n", "a handler: rc 0, seen")


def test_the_control_what_is_not_written_down_is_lost(api, start, figure):
    term(start, "a", PEAKHOLD_DURABILITY="memory")
    drain(start)
    lost = {"a", "sealed-a"} - arrived(api)
    assert "a" in lost
    figure("R11n", f"without a journal: {len(lost)} of 2 windows lost")
