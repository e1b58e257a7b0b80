"""A forked child never waits for what a thread of its parent was just making."""

import sys

import pytest

with_interpreter_lock = pytest.mark.skipif(
    not getattr(sys, "_is_gil_enabled", lambda: True)(),
    reason="nobody has to let go of the interpreter",
)


@with_interpreter_lock
def test_the_first_frames_of_a_process_keep_the_interpreter(run_probe):
    seen = run_probe("first_frames.py")
    assert seen["found"] == []
    assert seen["control"], "a call that lets go of it was not noticed"
