"""What arrives at the monitor: windows, and the feeds that they are of."""

from __future__ import annotations

import json
from collections import defaultdict

from peakhold.blocks.windows import REGISTRY
from peakhold.delivery import current


def deliver():
    """Close every window, and wait until all of it has arrived."""
    REGISTRY.flush_all()
    assert current().flush(30)


class Arrived:
    """What the monitor got since this was made."""

    def __init__(self, monitor):
        deliver()  # what other tests left
        self._monitor = monitor
        self._before = {kind: self._count(kind) for kind in ("report", "metadata")}

    def _count(self, kind):
        return len(self._monitor.store.requests(kind))

    def bodies(self, kind):
        requests = self._monitor.store.requests(kind)[self._before[kind] :]
        return [json.loads(request.body) for request in requests]

    def by_feed(self):
        """The inference ids of the reported peaks of each feed; None names none."""
        deliver()
        feeds = {
            inference_id: entry["field_value"]
            for body in self.bodies("metadata")
            for entry in body["data"]
            if entry["field_name"] == "feed"
            for inference_id in entry["inference_ids"]
        }
        found = defaultdict(set)
        for report in self.bodies("report"):
            ids = {line["inference_id"] for line in report["inference_results"]}
            for feed in {feeds.get(inference_id) for inference_id in ids}:
                found[feed] |= ids
        return dict(found)
