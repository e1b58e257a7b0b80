"""Stand-ins for what delivery and the blocks talk to."""

from __future__ import annotations

import json
import time

from peakhold import PeakAggregator
from peakhold.records import MetadataEntry, seal_metadata, seal_report


class StatusError(Exception):
    """A failure with the attributes of peakhold's own errors."""

    def __init__(self, status=None, retry_after=None, text="no luck"):
        super().__init__(text)
        self.status = status
        self.retry_after = retry_after


def window_of(best):
    """A closed window with the best confidence of each class, in this order."""
    aggregator = PeakAggregator()
    for name, confidence in best.items():
        prediction = {
            "predictions": [{"class": name, "confidence": confidence}],
            "inference_id": f"id-{name}",
            "prediction_type": "object-detection",
        }
        aggregator.observe(prediction, "m/1")
    return aggregator.snapshot()


class PlainWindow:
    """A closed window whose record is made by a function of the test's."""

    def __init__(self, make, key="w"):
        self.key = key
        self.size = 100
        self.committed = False
        self.said = []
        self._make = make
        self._record = None

    def record(self):
        self._record = self._record or self._make()
        return self._record

    def journals(self):
        return ()

    def absorb(self, later):
        self.said.append(later)

    def publish(self, *, inline=False):
        self.said.append("published")

    def reported(self):
        self.said.append("reported")


class DictCache:
    """A host's cache: counts what is asked of it."""

    def __init__(self):
        self.values = {}
        self.expiries = {}
        self.reads = []
        self.writes = []

    def get(self, key):
        self.reads.append(key)
        return self.values.get(key)

    def set(self, key, value, expire=None):
        self.writes.append((key, value))
        self.values[key] = value
        self.expiries[key] = expire


class RaisingCache:
    """A cache whose server is gone."""

    def get(self, key):
        raise ConnectionError("cache is gone")

    def set(self, key, value, expire=None):
        raise ConnectionError("cache is gone")


def eventually(condition, timeout=5.0):
    """Wait until a condition holds; returns whether it does."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.005)
    return bool(condition())


def conserved(counts):
    """Whether every seal is accounted for."""
    kept = counts.pending + counts.parked + counts.dead
    dropped = sum(counts.dropped.values())
    return counts.sealed == counts.delivered + kept + dropped


def results_of(request):
    return json.loads(request.body)["inference_results"]


def report(sender, window="w", **best):
    """The record of a window with these classes and confidences."""
    snapshot = window_of(best or {"a": 0.5})
    return seal_report(sender.destination, window, snapshot)


def metadata(sender, *values):
    """The record of one id with several values of a field."""
    entries = tuple(MetadataEntry(("id",), "f", value) for value in values)
    return seal_metadata(sender.destination, entries)


def sent(client):
    """How many reports a `RecordingClient` was given."""
    return len(client.reports())
