"""Delivery of sealed records: lanes, retry policy and the workers.

A block seals what it collected into a ``Record`` and hands it to the process-wide
``Dispatcher`` (see ``current``). What happens to the record after that, however often
and by whichever thread, is decided here and nowhere else.
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
