"""A dispatcher that a test steps by hand, on a clock of its own, over real HTTP."""

from __future__ import annotations

import uuid

from peakhold import PeakAggregator
from peakhold.delivery import Dispatcher, Sender
from peakhold.delivery.settings import DeliverySettings
from peakhold.outbox import StateDirectory, admin
from peakhold.records import seal_report
from peakhold.roboflow import RoboflowClient, Settings
from peakhold.testing import Clock

FIRST_PAUSE = 3.0
"""Seconds of the first pause after a failure, the longest that jitter may draw."""


class Cache(dict):
    """A host's cache."""

    def set(self, key, value, expire=None):
        self[key] = value


class Stepped:
    """A dispatcher, its outbox on disk, and one destination.

    Attributes:
        clock: What it takes for the time.
        dispatcher: It.
        sender: Its destination.
    """

    def __init__(self, api, directory, clock=None, *, offline=False, **settings):
        """Start with what the directory holds."""
        self.clock = clock or Clock()
        self.dispatcher = Dispatcher(
            StateDirectory(directory),
            DeliverySettings(state_dir=directory, **settings),
            clock=self.clock,
            jitter=lambda low, high: high,
            worker=False,
        )
        self.sender = make_sender(api, offline=offline)

    def seal(self, *, window="w", **best):
        """Seal a window of these classes and confidences, to be committed next."""
        record = seal_report(self.sender.destination, window, window_of(best))
        self.dispatcher.deliver(record, self.sender)

    def run(self, seconds):
        """Do everything that is due in so many seconds, as a worker would."""
        end = self.clock() + seconds
        while True:
            pause = self.dispatcher.step()
            if pause is None or self.clock() + pause > end:
                self.clock.now = end
                return
            self.clock.advance(pause)

    def counts(self):
        return self.dispatcher.counts()

    def records(self):
        """Return how many records wait, however many seals they stand for."""
        return len(admin.listed(self.dispatcher.state))


def make_sender(api, key=None, *, offline=False):
    """Make a sender to an API, by default with a key of its own."""
    client = RoboflowClient(
        Settings(api_base_url=api.url, system_info=False, offline=offline)
    )
    return Sender(client, key or uuid.uuid4().hex, Cache(), injected=False)


def window_of(best):
    """Return the snapshot of a window of these classes and confidences."""
    aggregator = PeakAggregator()
    predictions = [{"class": name, "confidence": best[name]} for name in best]
    aggregator.observe(
        {
            "inference_id": "id",
            "prediction_type": "classification",
            "predictions": predictions,
        },
        "m/1",
    )
    return aggregator.snapshot()


def conserved(counts):
    """Whether every seal is accounted for (R21)."""
    dropped = sum(counts.dropped.values())
    settled = counts.delivered + counts.pending + counts.parked + counts.dead + dropped
    return counts.sealed == settled
