"""Warnings that stay quiet: every occurrence counted, one a minute and cause shown."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_logger = logging.getLogger("peakhold.delivery")

INTERVAL = 60.0
"""Seconds between two warnings of one cause."""


class Notices:
    """Counts what went wrong by cause, and says so now and then.

    Attributes:
        counts: Occurrences of each cause.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with nothing counted; ``clock`` is monotonic, in seconds."""
        self.counts: Counter[str] = Counter()
        self._clock = clock
        self._lock = threading.Lock()
        self._shown: dict[str, tuple[float, int]] = {}

    def warn(self, cause: str, message: str, *args: object) -> None:
        """Count ``cause``, and log ``message % args`` unless that was done lately.

        The number of occurrences that were not shown is added to the next one shown.
        """
        now = self._clock()
        with self._lock:
            self.counts[cause] += 1
            shown_at, shown_count = self._shown.get(cause, (-INTERVAL, 0))
            if now - shown_at < INTERVAL and shown_count:
                return
            unseen = self.counts[cause] - shown_count - 1
            self._shown[cause] = (now, self.counts[cause])
        if unseen:
            message += " (and %d more since the last such warning)"
            args = (*args, unseen)
        _logger.warning(message, *args)

    def info(self, message: str, *args: object) -> None:
        """Log a recovery."""
        _logger.info(message, *args)
