"""R11: the library installs no signal handler, and loses nothing by it."""

from __future__ import annotations

import os
import signal

import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals as POSIX has them")

TERMS = 20


def term(start, name, **options):
    """End a program by SIGTERM; returns its exit code, and whether a handler came."""
    process = start("wait", name, **options)
    before, after = process.hear_until("caught").split()
    process.send(signal.SIGTERM)
    return process.ended(), before != after


def test_sigterm_ends_the_process_as_if_the_library_were_not_there(api, start, figure):
    ends = [term(start, f"c{number}") for number in range(TERMS)]
    assert set(ends) == {(-signal.SIGTERM, False)}
    process = start("drain")
    process.hear_until("drained")
    assert process.ended() == 0, process.errors()
    arrived = {result["class_name"] for result in api.results()}
    assert arrived == {f"c{number}" for number in range(TERMS)}
    figure("R11", f"{TERMS} times SIGTERM: exit code -15, no handler, 0 windows lost")


def test_the_control_a_handler_is_seen(api, start):
    assert term(start, "a", mutant="handler") == (0, True)
