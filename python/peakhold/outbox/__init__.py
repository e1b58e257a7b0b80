"""The outbox: where sealed records wait, on disk or in memory, until they are settled.

An ``Outbox`` gives them on lease and takes back what became of them. Nothing here knows
who delivers, nor over which network. The state directory is here, too: the journals of
open windows lie in it beside the outbox's file.
"""

from __future__ import annotations

from peakhold.outbox.ledger import Counts
from peakhold.outbox.outbox import Outbox
from peakhold.outbox.room import Limits
from peakhold.outbox.state import StateDirectory

__all__ = [
    "Counts",
    "Limits",
    "Outbox",
    "StateDirectory",
]
