"""Epochs: the time of windows that several processes share.

A shared window ends at the multiples of its frequency on the wall clock, so that
processes which know nothing of each other close the same one. Epoch ``n`` of a
frequency ends ``n * frequency`` seconds after 1970 began.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

_LEAST_GRACE = 1.0
_LONGEST_GRACE = 10.0


def grace(frequency: int) -> float:
    """Return the seconds for which parts are waited for after an epoch's end."""
    return min(max(frequency / 4, _LEAST_GRACE), _LONGEST_GRACE)


def epoch_at(time: float, frequency: int) -> int:
    """Return the epoch that runs at a time, in seconds since 1970."""
    return math.floor(time / frequency) + 1


def closes_at(epoch: int, frequency: int) -> float:
    """Return from when on an epoch may be closed, in seconds since 1970."""
    return epoch * frequency + grace(frequency)


@dataclass(frozen=True)
class Share:
    """The shared window that a record is a part of; its destination belongs to it, too.

    Attributes:
        aggregator_key: The ``unique_aggregator_key`` of the window.
        partition: Its feed; None for all of them.
        frequency: Seconds between reports. Two frequencies are two windows.
        epoch: Number of the epoch.
    """

    aggregator_key: str
    partition: str | None
    frequency: int
    epoch: int

    @classmethod
    def of(cls, window: Sequence[object], closed_at: datetime) -> Share | None:
        """Return what a closed window is a part of; None if it is not shared.

        Args:
            window: Names of the window, see ``WindowKey.names``.
            closed_at: When it was closed, at most the end of its epoch; local.
        """
        _, _, *rest = window
        if len(rest) == 2:  # noqa: PLR2004 - without a frequency
            return None
        aggregator_key, partition, frequency = rest
        epoch = math.ceil(closed_at.timestamp() / frequency)  # type: ignore[operator]
        return cls(aggregator_key, partition, frequency, epoch)  # type: ignore[arg-type]

    @property
    def name(self) -> str:
        """Aggregator key and feed as JSON: a database takes any text in it."""
        return json.dumps([self.aggregator_key, self.partition])
