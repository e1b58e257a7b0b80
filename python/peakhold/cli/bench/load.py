"""What the contenders have to take."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    """How many frames of which kind, how fast and how long.

    Attributes:
        detections: Of a frame.
        classes: They are of.
        threads: That observe at once.
        fps: Frames per second of each thread.
        frequency: Seconds from one report to the next.
        seconds: How long.
    """

    detections: int
    classes: int
    threads: int
    fps: float
    frequency: int
    seconds: float

    @property
    def frames_per_thread(self) -> int:
        """Frames of one thread, if it keeps up."""
        return math.ceil(self.fps * self.seconds)

    @property
    def frames(self) -> int:
        """Frames of all threads."""
        return self.threads * self.frames_per_thread
