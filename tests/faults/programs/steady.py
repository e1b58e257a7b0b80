"""Observe a hundred times a second; tell each report, until standard input ends."""

from __future__ import annotations

import sys
import threading
import time

from common import observe, say, sink
from mutant import MUTANT

if MUTANT == "wall_clock":
    from peakhold.blocks import interval, model_monitoring, windows

    for module in (interval, model_monitoring, windows):
        module.monotonic = time.time

ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()

aggregator = sink()
number = 0
say("up")
while not ended.wait(0.01):
    answer = observe(aggregator, f"c{number}", frequency=1)
    if (
        answer["message"] == "Reporting happens in the background task"
        or (answer["error_status"])
    ):
        say("report", time.monotonic(), answer["error_status"])
        number += 1
say("reports", number)
