"""Windows that processes share: each closes its part at the end of the same epoch."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from datetime import datetime
from itertools import starmap
from time import monotonic
from typing import TYPE_CHECKING

from peakhold.blocks.interval import time_kept
from peakhold.blocks.windows import (
    CLOCK_GRACE,
    LONGEST_SLEEP,
    ClosedWindow,
    Window,
)
from peakhold.delivery import current
from peakhold.records.share import Share, epoch_at, grace

if TYPE_CHECKING:
    from peakhold._peakhold import WindowJournal, WindowSnapshot
    from peakhold.blocks.windows import WindowKey
    from peakhold.delivery import Dispatcher, Sender
    from peakhold.records import Record

_SLACK = 0.1
"""Seconds before its end at which an epoch is not begun any more."""


class SharedWindow(Window):
    """Peaks of this process since the last epoch ended.

    When an epoch ends is told by the wall clock when it begins here, and then waited
    for on the monotonic one: a clock that jumps gives a part the wrong epoch, and the
    outbox puts it into the right one.

    ``interval.last_report`` is when the epoch began, as monotonic time.
    """

    def __init__(
        self, key: WindowKey, sender: Sender, period: int, dispatcher: Dispatcher
    ) -> None:
        """Open a window; its first epoch begins with the first ``run``."""
        super().__init__(key, sender, period, dispatcher)
        self._epoch = 0

    def close_if_due(
        self, sender: Sender, period: int, closed: list[ClosedWindow]
    ) -> None:
        """Close the window if its epoch is over; nothing here may hang.

        Args:
            sender: The caller's; it reports the window from now on.
            period: That of the window.
            closed: Gets what was closed, see ``Window``.
        """
        if self.lock.locked():
            return
        with self.lock:
            dispatcher = current()
            if self._watcher is not dispatcher:
                self._watch(dispatcher)
            self._sender = sender
            if self.interval.last_report == -math.inf:
                self._begin()
            elif monotonic() - self.interval.last_report >= period:
                self._close(closed)

    def check(self, now: float) -> float | None:
        """Close the window if its stream stopped, release it if that was long ago.

        Args:
            now: Monotonic time.

        Returns:
            When to check again, None after the release.
        """
        if self.lock.locked():
            return now + CLOCK_GRACE
        with self.lock:
            if now - self.last_used > time_kept(self.period):
                self._release()
                return None
            if now >= self._deadline():
                if not self.aggregator.peaks:
                    # What comes next is of the epoch that runs then.
                    self._epoch = max(self._epoch, epoch_at(time.time(), self.period))
                    return now + min(self.period, LONGEST_SLEEP)
                closed: list[ClosedWindow] = []
                self._close(closed)
                self._deliver(closed[0])
            return min(self._deadline(), now + LONGEST_SLEEP)

    def seal(
        self,
        closed: ClosedWindow,
        snapshot: WindowSnapshot,
        journal: WindowJournal | None,
    ) -> Record:
        """Return the record of what was closed, which is a part."""
        record = super().seal(closed, snapshot, journal)
        return replace(record, share=Share.of(self.key.names, closed.at))

    def _begin(self) -> None:
        now = time.time()
        self._epoch = epoch_at(now + _SLACK, self.period)
        begun = (self._epoch - 1) * self.period
        self.interval.last_report = monotonic() - (now - begun)

    def _close(self, closed: list[ClosedWindow]) -> None:
        ended = self._epoch * self.period
        self._begin()
        window = ClosedWindow(self, self._sender, self.period, 0)
        # Local and without offset, as other windows have it.
        ended_at = datetime.fromtimestamp(ended)  # noqa: DTZ006
        window.at = min(window.at, ended_at, key=datetime.timestamp)
        closed.append(window)
        # Taken and kept in one call of C, in which no signal handler raises.
        window.snapshots.extend(starmap(self.aggregator.snapshot, [()]))

    def _deadline(self) -> float:
        # Before others stop waiting for the part.
        after = min(CLOCK_GRACE, grace(self.period) / 2)
        return self.interval.last_report + self.period + after
