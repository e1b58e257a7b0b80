"""How fast a destination is sent to after an outage, whose end is to see no flood."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peakhold.records import Kind

_KINDS: tuple[Kind, ...] = ("report", "metadata")


class Pace:
    """At most so many requests in any stretch of so many seconds."""

    def __init__(self, count: int, seconds: float) -> None:
        """Allow ``count`` requests in ``seconds``."""
        self._count = count
        self._sent: deque[float] = deque(maxlen=count)
        self._seconds = seconds

    def next_at(self) -> float:
        """Return the monotonic time of the next request; it may be in the past."""
        if len(self._sent) < self._count:
            return float("-inf")
        return self._sent[0] + self._seconds

    def left(self, now: float) -> int:
        """Return how many requests may be sent now."""
        recent = sum(at + self._seconds > now for at in self._sent)
        return self._count - recent

    def sent(self, now: float) -> None:
        """Count a request."""
        self._sent.append(now)


class Backlog:
    """What waits since before the end of an outage, reports apart from metadata.

    An outage begins with a request that is put off, and ends with one that is not. The
    lock of the dispatcher covers what changes it.
    """

    def __init__(self) -> None:
        """Start without one."""
        self._sealed_before: dict[Kind, float] = {}

    def begin(self, *, known: bool = True) -> None:
        """Note that a request was put off.

        Args:
            known: Whether it was just now; else it may be one that was noted already.
        """
        if known or not self._sealed_before:
            self._sealed_before = dict.fromkeys(_KINDS, float("inf"))

    @property
    def outage(self) -> bool:
        """Whether no request was answered since one was put off."""
        return float("inf") in list(self._sealed_before.values())

    def end(self, now: float) -> None:
        """Note that the endpoint answers: what is sealed from now on is not of it."""
        for kind, before in self._sealed_before.items():
            self._sealed_before[kind] = min(before, now)

    def holds(self, kind: Kind) -> bool:
        """Whether records of a kind may wait since before the end of an outage."""
        return kind in self._sealed_before

    def drain(self, kind: Kind, oldest: float) -> None:
        """Forget a kind if the oldest record of it was sealed after the outage.

        Args:
            kind: Which.
            oldest: Monotonic time of that; infinity if none waits.
        """
        before = self._sealed_before.get(kind, float("inf"))
        if before < oldest:
            del self._sealed_before[kind]
