"""Time every frame of a sink for so many seconds; tell them, and parts that it sealed.

Windows are shared as the environment says. That is for all of a process: which code a
frame finds fast, and in the caches, depends on what the others do.
"""

from __future__ import annotations

import json
import random
import sys
import time

from common import observe, say, sink
from mutant import MUTANT

from peakhold.delivery import current

RATE = 500
"""Frames a second; of so many, fewer than one in a hundred closes a window."""

seconds = int(sys.argv[1])
block = sink()
observe(block, "car", 0.0, frequency=1)
draw, times = random.Random(7), []
say("up")
sys.stdin.readline()
due = time.monotonic()
for number in range(seconds * RATE):
    confidence = draw.random()  # a record high at times, to be written
    start = time.perf_counter_ns()
    observe(block, "car", confidence, frequency=1)
    if MUTANT == "redis_on_the_frame" and number % 50 == 0:
        current()._destinations._exchange_parts(leaving=False)
    times.append(time.perf_counter_ns() - start)
    due += 1 / RATE
    time.sleep(max(0.0, due - time.monotonic()))
say("times", json.dumps(times))
say("parts", current().sharing()["parts"])
