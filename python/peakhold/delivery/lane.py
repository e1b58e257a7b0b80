"""The state of one destination: who sends to it, how fast, and how it is doing."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from peakhold.delivery.policy import Backoff
from peakhold.delivery.workspace import Workspace
from peakhold.records.metadata import MetadataBatch

if TYPE_CHECKING:
    import weakref
    from collections.abc import Callable

    from peakhold.delivery.lanes import Lanes
    from peakhold.delivery.sender import Sender
    from peakhold.notices import Notices
    from peakhold.records import Kind, Record

BATCH_AGE = 5.0
"""Seconds for which metadata that cannot be sent is collected in memory."""


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
        lanes: Those it is one of.
        open: Whether it is still one of them.
        sender: The one lent last.
        workspace: The destination's workspace.
        batch: Metadata that is not sealed yet.
        batch_since: Monotonic time of its first id; infinity while nobody told.
        crowded: Whether a worker is to coalesce what frames offered.
        backoff: When the destination may be tried again.
        wanted: Whether somebody at the command line wants the next attempt made now.
        busy: Whether a deliverer is at work on it.
        host_task: The host's task for it, until that ran or was thrown away.
        ready: What may wait for it in the outbox.
        first_successes: What to call when the newest report of a window arrives at
            its first attempt, by window.
        host_at: Monotonic time from which on a frame with metadata looks whether the
            host is to have a task.
        host_until: Monotonic time until which the worker leaves it to the host's task.
        used: Monotonic time of the last use.
    """

    def __init__(
        self,
        lanes: Lanes,
        sender: Sender,
        notices: Notices,
        jitter: Callable[[float, float], float],
        rate: float,
        metadata_rate: float,
    ) -> None:
        """Open a lane for the destination of ``sender``."""
        self.lanes = lanes
        self.open = True
        self.sender = sender
        self.workspace = Workspace(notices)
        self.batch = MetadataBatch()
        self.batch_since = float("inf")
        self.crowded = False
        self.backoff = Backoff(jitter)
        self.wanted = False
        self.busy = False
        self.ready: set[Kind] = set()
        self.first_successes: dict[str, tuple[str, Callable[[], None]]] = {}
        self.host_task: weakref.ref[object] | None = None
        self.host_at = float("-inf")
        self.host_until = float("-inf")
        self.used = float("-inf")
        # Reports come in bursts when windows close together; metadata never stops, and
        # even gaps coalesce it best.
        self._pace = Pace(max(1, round(rate)), max(1.0, 1.0 / rate))
        self._metadata_pace = Pace(1, 1.0 / metadata_rate)

    def lend(self, sender: Sender, now: float) -> None:
        """Have another sender from now on; one with new settings is tried at once."""
        if sender.settings != self.sender.settings:
            self.backoff.not_before = 0.0
        self.sender = sender
        self.used = now

    def committed(self, record: Record) -> None:
        """Note a record that is in the outbox now."""
        self.ready.add(record.kind)
        if record.merge_key and record.on_first_success:
            self.first_successes[record.merge_key] = (
                record.id,
                record.on_first_success,
            )

    def take_first_success(self, record: Record) -> Callable[[], None]:
        """Return what to call if the first attempt at a record succeeds."""
        key = record.merge_key or ""
        record_id, call = self.first_successes.get(key, ("", _nothing))
        if record_id != record.id:
            return _nothing
        del self.first_successes[key]
        return call

    @property
    def has_metadata(self) -> bool:
        """Whether there is metadata that is not sealed, or just being sealed."""
        return bool(self.batch) or self.batch.sealing.locked()

    def seal_at(self) -> float:
        """Return when the open batch has to go to the outbox, sent or not."""
        return self.batch_since + BATCH_AGE if self.batch else float("inf")

    def sent(self, kind: Kind, now: float) -> None:
        """Count a request."""
        self._pace.sent(now)
        if kind == "metadata":
            self._metadata_pace.sent(now)

    def next_kind(self) -> tuple[float, Kind] | None:
        """Return what may be sent next and when; None if there is nothing to do now.

        The host's task is not considered.
        """
        if self.busy or self.sender.offline:
            return None
        earliest = self._pace.next_at()
        if not self.wanted:
            earliest = max(earliest, self.backoff.not_before)
        times: list[tuple[float, Kind]] = []
        if "report" in self.ready:
            times.append((earliest, "report"))
        if "metadata" in self.ready or self.batch:
            times.append((max(earliest, self._metadata_pace.next_at()), "metadata"))
        return min(times, default=None)


def _nothing() -> None:
    """Stand for a call that nobody wants."""
