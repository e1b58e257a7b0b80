"""Observe a window, seal another one, then wait to be ended."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

from mutant import MUTANT


def caught():
    """Return the mask of signals that have a handler, as the kernel has it.

    Without 32 and 33, which glibc keeps to itself and catches with the first thread.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    lines = status.read_text().splitlines()
    mask = next(line.split()[1] for line in lines if line.startswith("SigCgt"))
    return int(mask, 16) & ~(0b11 << 31)


before = caught()
from common import observe, say, sink  # noqa: E402 - the mask comes first
from sealing import prepare, seal  # noqa: E402 - the same

aggregator = sink()
observe(aggregator, sys.argv[1])
dispatcher, sender = prepare()
dispatcher.deliver(seal(sender, f"sealed-{sys.argv[1]}"), sender)
if MUTANT == "handler":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
say("caught", before, caught())
time.sleep(60)
