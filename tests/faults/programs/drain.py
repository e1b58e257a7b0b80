"""Deliver what earlier processes left, until nothing is pending."""

from __future__ import annotations

from common import say, sink

from peakhold.delivery import current

aggregator = sink()
current().flush(30.0)
say("drained", current().counts())
