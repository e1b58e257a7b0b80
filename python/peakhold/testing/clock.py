"""Time that passes when told."""

from __future__ import annotations

_START = 1_000.0
_WALL_START = 1_767_225_600.0  # 2026-01-01 00:00 UTC


class Clock:
    """A monotonic clock and a wall clock that only move by hand.

    Calling it gives the monotonic time, so that it stands wherever ``time.monotonic``
    is asked for.

    Attributes:
        now: Monotonic time in seconds.
        wall: Seconds since the epoch.
    """

    def __init__(self, now: float = _START, wall: float = _WALL_START) -> None:
        """Stop both clocks at a time."""
        self.now = now
        self.wall = wall

    def __call__(self) -> float:
        """Return the monotonic time."""
        return self.now

    def time(self) -> float:
        """Return the wall time; it stands wherever ``time.time`` is asked for."""
        return self.wall

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        self.now += seconds
        self.wall += seconds

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward or back; the monotonic one knows nothing of it."""
        self.wall += seconds
