"""Seal windows on command, and let the disk be full on command.

Lines of standard input: ``full`` and ``heal``, or a number of windows to seal.
"""

from __future__ import annotations

import resource
import sys

from common import say
from mutant import MUTANT
from sealing import prepare, seal

from peakhold.outbox.store import Store

if MUTANT == "nothing_waits_in_memory":
    _add = Store.add
    Store.add = lambda store, *args, **options: (
        _add(store, *args, **options) if store._state else set()
    )

_, HARD = resource.getrlimit(resource.RLIMIT_FSIZE)
dispatcher, sender = prepare()
sealed = 0
say("up")
for line in sys.stdin:
    order = line.strip()
    if order in {"full", "heal"}:
        limit = 0 if order == "full" else HARD
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, HARD))
    else:
        for _ in range(int(order)):
            dispatcher.deliver(seal(sender, f"w{sealed}"), sender)
            sealed += 1
    say("did", order)
