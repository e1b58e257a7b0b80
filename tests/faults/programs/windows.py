"""Keep so many windows open for so many seconds; tell how many reports waited at most.

The arguments are the number of windows, their frequency in seconds, and the seconds.
Each window has frames at times of its own, ten in a frequency, as cameras have: else a
machine that stands still for a moment would have all of them close together ever after.
"""

from __future__ import annotations

import sys
import time

from common import observe, say, sink
from mutant import MUTANT

import peakhold

if MUTANT == "always_after_an_outage":
    from peakhold.delivery.pace import Backlog

    Backlog.holds = lambda self, kind: True

LOOK = 0.02

many, frequency, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
block = sink()
most = pause = 0
begin = now = time.monotonic()
between = frequency / 10
frame_at = [begin + (frequency + between) * each / many for each in range(many)]
while now < begin + seconds:
    for number in range(many):
        if frame_at[number] <= now:
            late = (now - frame_at[number]) // between
            frame_at[number] += (late + 1) * between
            name = f"w{number}"
            observe(block, name, frequency=frequency, unique_aggregator_key=name)
    most = max(most, peakhold.health()["counts"]["pending"])
    time.sleep(max(0.0, LOOK - (time.monotonic() - now)))
    pause, now = max(pause, time.monotonic() - now), time.monotonic()
health = peakhold.health()
say("most", most, health["counts"]["sealed"])
# For whoever asks why: a machine that stood still, or requests that failed.
say("because", f"it did nothing for {pause:.2f} s", health["warnings"])
