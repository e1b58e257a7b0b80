"""Deliver what earlier processes left, until nothing of theirs is pending."""

from __future__ import annotations

import time

from common import say
from sealing import prepare, seal

dispatcher, sender = prepare()
dispatcher.deliver(seal(sender, "drained"), sender)
deadline = time.monotonic() + 40
while dispatcher.counts().pending and time.monotonic() < deadline:
    time.sleep(0.02)
counts = dispatcher.counts()
settled = counts.delivered + counts.pending + counts.parked + counts.dead
unexplained = counts.sealed - settled - sum(counts.dropped.values())
say("drained", counts.sealed, counts.delivered, counts.pending, unexplained)
