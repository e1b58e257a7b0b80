"""Sharing the interpreter with frame loops."""

from __future__ import annotations

import time

_PAUSE = 0.0001


def give_way() -> None:
    """Let other threads run, on a thread that nobody waits for.

    A thread that computes keeps the interpreter for five milliseconds
    (``sys.getswitchinterval``) before others get it. A request takes about two, and
    whoever makes it comes here between its steps. A pause of no length would not do:
    who lets the interpreter go for none has it back before anybody else wakes up.
    """
    time.sleep(_PAUSE)
