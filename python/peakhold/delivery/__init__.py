"""Delivery: from closed windows and metadata to acknowledged requests.

A block hands a closed window to the process-wide ``Dispatcher`` (see ``current``). Its
``Committer`` writes what was handed over to the outbox and passes it on to a
``Destination``, which sends it through an ``Exporter``, now or later. A ``Scheduler``
has threads do both.
"""

from __future__ import annotations

from peakhold.delivery.dispatcher import Dispatcher
from peakhold.delivery.process import current
from peakhold.delivery.sender import Sender

__all__ = [
    "Dispatcher",
    "Sender",
    "current",
]
