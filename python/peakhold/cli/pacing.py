"""Frames on time: an absolute schedule, so that sleeping late does not add up."""

from __future__ import annotations

import time


class Schedule:
    """Holds a loop to a number of frames per second.

    Frame `n` is due `n / fps` seconds after the first. A frame that is late goes at
    once, and those behind it follow without a pause until the schedule is met again.

    Args:
        fps: Frames per second; 0 for as fast as possible.
    """

    def __init__(self, fps: float) -> None:
        self._period = 1 / fps if fps else 0.0
        self._due = 0
        self._start = 0.0

    def wait(self) -> None:
        """Return when the next frame is due."""
        if not self._period:
            return
        if not self._due:
            self._start = time.perf_counter()
        ahead = self._start + self._due * self._period - time.perf_counter()
        self._due += 1
        if ahead > 0:
            time.sleep(ahead)
