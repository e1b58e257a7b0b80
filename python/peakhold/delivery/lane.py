"""The state of one destination: who sends to it, how fast, and how it is doing."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from peakhold.delivery.metadata import MetadataBatch
from peakhold.delivery.policy import Backoff
from peakhold.delivery.workspace import Workspace

if TYPE_CHECKING:
    import weakref
    from collections.abc import Callable

    from peakhold.delivery.notices import Notices
    from peakhold.delivery.outbox import Outbox
    from peakhold.delivery.record import Kind
    from peakhold.delivery.sender import Sender

REPORTS_PER_SECOND = 10


class Pace:
    """At most so many requests in any stretch of so many seconds."""

    def __init__(self, count: int, seconds: float) -> None:
        """Allow ``count`` requests in ``seconds``."""
        self._sent: deque[float] = deque(maxlen=count)
        self._seconds = seconds

    def next_at(self) -> float:
        """Return the monotonic time of the next request; it may be in the past."""
        if len(self._sent) < (self._sent.maxlen or 0):
            return float("-inf")
        return self._sent[0] + self._seconds

    def sent(self, now: float) -> None:
        """Count a request."""
        self._sent.append(now)


class Lane:
    """One destination; its fields are covered by the dispatcher's lock.

    Attributes:
        sender: The one lent last.
        workspace: The destination's workspace.
        batch: Metadata that is not sealed yet.
        backoff: When the destination may be tried again.
        busy: Whether a deliverer is at work on it.
        host_task: The host's task for it, until that ran or was thrown away.
        host_until: Monotonic time until which the worker leaves it to the host's task.
        used: Monotonic time of the last use.
    """

    def __init__(
        self,
        sender: Sender,
        notices: Notices,
        jitter: Callable[[float, float], float],
        metadata_rate: float,
    ) -> None:
        """Open a lane for the destination of ``sender``."""
        self.sender = sender
        self.workspace = Workspace(notices)
        self.batch = MetadataBatch()
        self.backoff = Backoff(jitter)
        self.busy = False
        self.host_task: weakref.ref[object] | None = None
        self.host_until = float("-inf")
        self.used = float("-inf")
        # Reports come in bursts when windows close together; metadata never stops, and
        # even gaps coalesce it best.
        self.paces: dict[Kind, Pace] = {
            "report": Pace(REPORTS_PER_SECOND, 1.0),
            "metadata": Pace(1, 1.0 / metadata_rate),
        }

    def has_work(self, outbox: Outbox, kind: Kind) -> bool:
        """Whether anything of a kind waits to be sent."""
        if kind == "metadata" and self.batch:
            return True
        return outbox.waiting(self.sender.destination, kind) > 0

    def next_kind(self, outbox: Outbox) -> tuple[float, Kind] | None:
        """Return what may be sent next and when; None if there is nothing to do now.

        The host's task is not considered.
        """
        if self.busy or self.sender.offline:
            return None
        times = [
            (max(pace.next_at(), self.backoff.not_before), kind)
            for kind, pace in self.paces.items()
            if self.has_work(outbox, kind)
        ]
        return min(times, key=lambda time: time[0], default=None)
