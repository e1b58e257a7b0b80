"""What is to be done at a time, again and again: closing idle windows, tending."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peakhold.notices import Notices

Timer = Callable[[float], float | None]
"""Called with the monotonic time; returns when to be called again, or None."""

_AFTER_FAILURE = 60.0


class Timers:
    """Timers and their times; one thread at a time calls those that are due."""

    def __init__(self, notices: Notices, clock: Callable[[], float]) -> None:
        """Start with none.

        Args:
            notices: Told about those that fail.
            clock: Monotonic time in seconds.
        """
        self._notices = notices
        self._clock = clock
        self._lock = threading.Lock()
        self._calling = threading.Lock()
        self._times: dict[Timer, float] = {}

    @property
    def running(self) -> bool:
        """Whether a thread is at it."""
        return self._calling.locked()

    def set(self, timer: Timer, at: float) -> None:
        """Have ``timer`` called at monotonic time ``at``."""
        with self._lock:
            self._times[timer] = at

    def at(self, timer: Timer) -> float:
        """Return when ``timer`` is called next; infinity if never."""
        return self._times.get(timer, float("inf"))

    def next_at(self) -> float:
        """Return when there is more to do; infinity while a thread is at it."""
        with self._lock:
            times = () if self.running else self._times.values()
            return min(times, default=float("inf"))

    def run(self) -> None:
        """Call those that are due, unless another thread is at it."""
        if self.running:
            return
        with self._calling:
            now = self._clock()
            due: list[Timer] = []
            try:
                with self._lock:
                    due += [timer for timer, at in self._times.items() if at <= now]
                    for timer in due:  # it may be set anew while it is called
                        del self._times[timer]
                while due:
                    self._call(due.pop())
            finally:
                with self._lock:
                    for timer in due:  # after what is no ``Exception``
                        self._times[timer] = min(now, self.at(timer))

    def _call(self, timer: Timer) -> None:
        now = self._clock()
        again: float | None = now + _AFTER_FAILURE
        try:
            again = timer(now)
        except Exception as error:  # noqa: BLE001 - one timer must not stop the others
            self._notices.warn("timer", "A timer failed: %s", type(error).__name__)
        finally:
            if again is not None:
                with self._lock:
                    self._times[timer] = min(again, self.at(timer))
