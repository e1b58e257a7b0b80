"""The cache of blocks that no host gives one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_SWEEP_SIZE = 1_000


class MemoryCache:
    """Values with an expiry, in this process's memory.

    There is no lock that a fork could leave held: every step is one operation of a
    dict, and losing a race costs a value that was about to be replaced.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start empty; ``clock`` is monotonic, in seconds."""
        self._clock = clock
        self._values: dict[str, tuple[Any, float]] = {}

    def get(self, key: str) -> Any:
        """Return the value of ``key``, or None if there is none or it expired."""
        value, until = self._values.get(key, (None, 0.0))
        return value if self._clock() < until else None

    def set(self, key: str, value: Any, expire: int | None = None) -> None:
        """Store ``value``, for ``expire`` seconds or for good."""
        now = self._clock()
        if len(self._values) >= _SWEEP_SIZE:
            for old, (_, until) in list(self._values.items()):
                if until <= now:
                    self._values.pop(old, None)
        until = float("inf") if expire is None else now + expire
        self._values[key] = (value, until)


SHARED = MemoryCache()
"""One for all blocks of the process: they share windows, so also the last report."""
