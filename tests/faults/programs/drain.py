"""Deliver what earlier processes left, until nothing of theirs is pending."""

from __future__ import annotations

import os
import time
from pathlib import Path

from common import say, sink
from sealing import prepare, seal

from peakhold.outbox import StateDirectory, admin

dispatcher, sender = prepare()
# As any process that begins to use its sink.
sink().run(
    fire_and_forget=True,
    predictions={},
    frequency=60,
    unique_aggregator_key="drain",
    model_id="m/1",
)
dispatcher.deliver(seal(sender, "drained"), sender)
deadline = time.monotonic() + 150
state = StateDirectory(Path(os.environ["PEAKHOLD_STATE_DIR"]))


def left():
    """Return how many records and journals wait."""
    return dispatcher.counts().pending + admin.windows(state)["left"]


while left() and time.monotonic() < deadline:
    time.sleep(0.02)
counts = dispatcher.counts()
settled = counts.delivered + counts.pending + counts.parked + counts.dead
unexplained = counts.sealed - settled - sum(counts.dropped.values())
unsure = dispatcher.sharing()["unsure"]
say("drained", counts.sealed, counts.delivered, left(), unexplained, unsure)
