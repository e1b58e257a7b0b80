"""What is due when."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Hashable
from itertools import count
from typing import Generic, TypeVar

_T = TypeVar("_T", bound=Hashable)


class Schedule(Generic[_T]):
    """Tasks and the times at which they are due, each once, at its earliest time.

    A task that was taken is not due again before it is ``done``.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.Lock()
        self._at: dict[_T, float] = {}
        self._taken: set[_T] = set()
        self._heap: list[tuple[float, int, _T]] = []
        self._numbers = count()

    def add(self, task: _T, at: float) -> bool:
        """Have a task due at monotonic time ``at``, unless it is due before.

        Infinity is never.

        Returns:
            Whether it is now the next one due.
        """
        with self._lock:
            if at >= self._at.get(task, float("inf")):
                return False
            if task in self._taken:
                self._at[task] = at
                return False
            # First: a task that is known and not in the heap would never be due.
            heapq.heappush(self._heap, (at, next(self._numbers), task))
            self._at[task] = at
            return self._heap[0][2] == task

    def at(self, task: _T) -> float:
        """Return when a task is due; infinity if it is not here."""
        return self._at.get(task, float("inf"))

    def next_at(self) -> float:
        """Return when the next task is due; infinity if there is none."""
        with self._lock:
            self._discard_outdated()
            return self._heap[0][0] if self._heap else float("inf")

    def take_due(self, now: float) -> list[_T]:
        """Return the tasks that are due, the earliest first; they count as taken."""
        due: list[_T] = []
        with self._lock:
            self._discard_outdated()
            while self._heap and self._heap[0][0] <= now:
                task = heapq.heappop(self._heap)[2]
                self._taken.add(task)
                del self._at[task]
                due.append(task)
                self._discard_outdated()
        return due

    def done(self, task: _T) -> bool:
        """Have a task that was taken be due again, if it was added meanwhile.

        Returns:
            Whether it was.
        """
        with self._lock:
            self._taken.discard(task)
            if task not in self._at:
                return False
            entry = (self._at[task], next(self._numbers), task)
            heapq.heappush(self._heap, entry)
            return True

    @property
    def busy(self) -> bool:
        """Whether a task is taken and not done."""
        return bool(self._taken)

    def _discard_outdated(self) -> None:
        """Remove what is in front and is taken, or due at another time."""
        while self._heap and (
            self._heap[0][2] in self._taken
            or self._at.get(self._heap[0][2]) != self._heap[0][0]
        ):
            heapq.heappop(self._heap)
