"""Deliver what earlier processes left, until nothing of theirs is pending."""

from __future__ import annotations

import os
import time
from pathlib import Path

from common import say
from sealing import prepare, seal

dispatcher, sender = prepare()
dispatcher.deliver(seal(sender, "drained"), sender)
deadline = time.monotonic() + 40
journals = Path(os.environ["PEAKHOLD_STATE_DIR"], "journals")
while time.monotonic() < deadline and (
    dispatcher.counts().pending or any(journals.glob("*.journal"))
):
    time.sleep(0.02)
counts = dispatcher.counts()
settled = counts.delivered + counts.pending + counts.parked + counts.dead
unexplained = counts.sealed - settled - sum(counts.dropped.values())
say("drained", counts.sealed, counts.delivered, counts.pending, unexplained)
