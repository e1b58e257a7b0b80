"""Time every frame of sinks whose destinations fail in different ways, interleaved.

The disk is full in every other stretch of the time. The sinks take each frame in an
order drawn anew, for the first after a sleep finds cold caches and takes the longest.
"""

from __future__ import annotations

import json
import random
import resource
import sys
import time

from common import frame, say
from mutant import MUTANT

from peakhold import ModelMonitoringInferenceAggregatorBlockV1
from peakhold.delivery import current
from peakhold.roboflow import RoboflowClient, Settings

RATE = 500
"""Frames a second; of so many, fewer than one in a hundred closes a window."""


class DeadCache:
    """A host's cache whose Redis is gone."""

    def get(self, key):
        """Fail as a client of Redis does."""
        raise ConnectionError(f"no Redis for {key}")

    def set(self, key, value, expire=None):
        """Fail as a client of Redis does."""
        raise ConnectionError(
            f"no Redis to write {len(key)} bytes to: {value} {expire}"
        )


def sink(url, cache=None):
    """Make a sink that reports to an address."""
    client = RoboflowClient(Settings(api_base_url=url, system_info=False))
    return ModelMonitoringInferenceAggregatorBlockV1(
        cache=cache, api_key="canary-key", platform_client=client
    )


healthy, black_hole, failing, stretches, seconds = sys.argv[1:]
sinks = {
    "healthy": sink(healthy),
    "black hole": sink(black_hole),
    "always 500": sink(failing),
    "no Redis": sink(healthy, DeadCache()),
}
names = list(sinks)
times = {disk: {name: [] for name in sinks} for disk in ("fine", "full")}
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
draw = random.Random(7)
wrong, due = 0, time.monotonic()
for disk in ("fine", "full") * int(stretches):
    resource.setrlimit(resource.RLIMIT_FSIZE, (0 if disk == "full" else hard, hard))
    for _ in range(int(seconds) * RATE):
        taken = frame("car", draw.random())  # a record high at times, to be written
        draw.shuffle(names)
        for name in names:
            start = time.perf_counter_ns()
            answer = sinks[name].run(
                fire_and_forget=True,
                predictions=taken,
                frequency=1,
                unique_aggregator_key=name,
                model_id="m/1",
            )
            if MUTANT == "disk_on_the_frame" and (name, disk) != ("healthy", "fine"):
                current().outbox.counts()
            times[disk][name].append(time.perf_counter_ns() - start)
            wrong += answer["error_status"]
        due += 1 / RATE
        time.sleep(max(0.0, due - time.monotonic()))
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
deadline = time.monotonic() + 10
while (counts := current().counts()).unaccounted and time.monotonic() < deadline:
    time.sleep(0.1)  # what moves just now may be seen twice
sys.stdout.write(f"times {json.dumps(times)}\n")
sys.stdout.flush()
say("wrong", wrong)
say("sealed", counts.sealed, counts.unaccounted)
