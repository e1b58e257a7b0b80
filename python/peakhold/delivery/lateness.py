"""Noticing that the reports to a destination wait for too long, and that it is over."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from peakhold.delivery.behind import Behind, bounded, failing, slow
from peakhold.outbox.waits import allowed, is_overdue
from peakhold.records import DestinationKey

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from peakhold.delivery.pace import Backlog
    from peakhold.notices import Notices
    from peakhold.outbox import Outbox

_MINUTE = 60.0


class Lateness:
    """How long the reports of a destination wait.

    The oldest one is looked at whenever one is about to be sent. Those of before this
    process could send them count from then on.

    Attributes:
        is_parked: Whether they wait for a person, which is said elsewhere.
    """

    def __init__(
        self,
        key: DestinationKey,
        backlog: Backlog,
        rate: float,
        outbox: Outbox,
        notices: Notices,
        clock: Callable[[], float],
    ) -> None:
        """Start without a report.

        Args:
            key: Which destination it is.
            backlog: What waits there since an outage.
            rate: Requests a second that drain it.
            outbox: Where the reports wait.
            notices: Where trouble is counted.
            clock: Monotonic time in seconds.
        """
        self.is_parked = False
        self._key = key
        self._backlog = backlog
        self._rate = rate
        self._outbox = outbox
        self._notices = notices
        self._clock = clock
        self._sent: deque[float] = deque(maxlen=100)
        self._able_since = self._clock()
        self._is_behind = False

    def start_anew(self) -> None:
        """Count from now on: they could not be sent before."""
        self._able_since = self._clock()

    def count_sent(self) -> None:
        """Count a report that was delivered."""
        self._sent.append(self._clock())

    def notice(self, since: float, period: int | None) -> None:
        """Say once that reports wait for too long, and once that they do not any more.

        Args:
            since: Monotonic time since which the oldest waits; infinity if none does.
            period: Seconds between reports of its window, if that is known.
        """
        if self.is_parked:
            return
        now, longest = self._clock(), allowed(period)
        waited = now - max(since, self._able_since)
        if self._is_behind and waited <= longest / 2:
            self._is_behind = False
            self._notices.info("Reports to %s have caught up", self._key.endpoint)
        elif not self._is_behind and waited > longest:
            self._is_behind = True
            why = self._why(self._figures())
            self._notices.warn(
                "behind",
                "Reports to %s fall behind, the oldest has waited for %.0f s: %s. To "
                "help: %s",
                self._key.endpoint,
                waited,
                why.text,
                why.remedy,
            )

    def behind(self, figures: Mapping[str, Any]) -> Behind | None:
        """Return why the reports wait for too long; None if they do not.

        Args:
            figures: The destination's, as the outbox's ``overview`` has them.
        """
        able_for = self._clock() - self._able_since
        if is_overdue(figures) and able_for > figures["oldest_report"]["allowed_age"]:
            return self._why(figures)
        return None

    def _why(self, figures: Mapping[str, Any]) -> Behind:
        if self._backlog.outage:
            return failing(figures.get("last_error"))
        if self._backlog.holds("report"):
            return bounded(self._rate)
        oldest = figures.get("oldest_report")
        closed = oldest["reports"] / max(oldest["age"], 1.0) if oldest else None
        return slow(closed, self._sent_a_second())

    def _figures(self) -> Mapping[str, Any]:
        """Return the destination's figures; nothing if the disk fails."""
        rows = self._outbox.overview()
        return next((row for row in rows if key_of(row) == self._key), {})

    def _sent_a_second(self) -> float:
        """Return how many were sent a second, in the last minute or of the last 100."""
        now = self._clock()
        times = [at for at in list(self._sent) if at > now - _MINUTE]
        if len(times) < (self._sent.maxlen or 0):
            return len(times) / _MINUTE
        return len(times) / max(now - times[0], 0.001)


def key_of(figures: Mapping[str, Any]) -> DestinationKey:
    """Return whose figures an entry of the outbox's ``overview`` has."""
    return DestinationKey(
        figures["endpoint"], figures["api_key_fingerprint"], figures["client"]
    )
