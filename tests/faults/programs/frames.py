"""Time every frame of sinks whose destinations fail in different ways, interleaved."""

from __future__ import annotations

import json
import resource
import sys
import time

from common import frame
from mutant import MUTANT

from peakhold import ModelMonitoringInferenceAggregatorBlockV1
from peakhold.delivery import current
from peakhold.roboflow import RoboflowClient, Settings

SECONDS, RATE = 20, 150


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


healthy, black_hole, failing, disk_full = sys.argv[1:]
sinks = {
    "healthy": sink(healthy),
    "black hole": sink(black_hole),
    "always 500": sink(failing),
    "no Redis": sink(healthy, DeadCache()),
}
if disk_full == "full":
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))

times = {name: [] for name in sinks}
wrong = 0
taken = frame("car", 0.5)
begin = time.monotonic()
for number in range(SECONDS * RATE):
    for name, block in sinks.items():
        start = time.perf_counter_ns()
        answer = block.run(
            fire_and_forget=True,
            predictions=taken,
            frequency=1,
            unique_aggregator_key=name,
            model_id="m/1",
        )
        if MUTANT == "disk_on_the_frame" and name != "healthy":
            current().outbox.counts()
        times[name].append(time.perf_counter_ns() - start)
        wrong += answer["error_status"]
    time.sleep(max(0.0, begin + number / RATE - time.monotonic()))
sys.stdout.write(f"times {json.dumps(times)}\nwrong {wrong}\n")
sys.stdout.flush()
