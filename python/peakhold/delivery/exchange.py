"""The exchange of parts of shared windows with other hosts, by a Redis server.

A turn offers what this process has, does what the answers mean, and tells Redis of the
reports that it made, until there is nothing more to tell. A part is kept here until
Redis says that it is in a report. What was asked and not answered is asked again, for
no repetition changes anything (``epochs.lua``).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from peakhold.delivery.redis_parts import (
    STALE,
    Done,
    Question,
    RedisParts,
    sharing_for,
)
from peakhold.outbox.epochs import ALONE_AFTER, Closed
from peakhold.outbox.offers import MOST_BYTES, Answer, Offer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from peakhold.delivery.exporter import Exporter
    from peakhold.notices import Notices
    from peakhold.outbox import Outbox
    from peakhold.records import DestinationKey, Share

AT_ONCE = 100
"""Windows that are asked about in one go."""
ROUNDS = 100
"""How often the server is asked in a turn, if there is more to ask each time."""
PAUSE = 1.0
"""Seconds until a server that gave no answer is asked again."""


@dataclass
class _Window:
    """A shared window.

    Attributes:
        done: What Redis is to know of its parts.
        asks_at: Monotonic time at which it is asked about next.
        shared_until: Monotonic time until which this process counts as sharing it.
    """

    done: Done | None = None
    asks_at: float = float("inf")
    shared_until: float = float("-inf")


class Exchange:
    """Asks a Redis server about the parts of this process.

    Attributes:
        away_since: Monotonic time since which the server is of no use; None if it is.
        is_cut_off: Whether parts wait for it now.
        is_whole: Whether neither server nor disk cut the last turn short.
    """

    def __init__(
        self,
        parts: RedisParts,
        outbox: Outbox,
        notices: Notices,
        clock: Callable[[], float],
        sharer: Callable[[], str],
    ) -> None:
        """Connect to nothing yet.

        Args:
            parts: The server.
            outbox: Where parts and reports of this process are.
            notices: Where trouble is counted.
            clock: Monotonic time in seconds.
            sharer: Returns the id of this process.
        """
        self.away_since: float | None = None
        self.is_cut_off = False
        self.is_whole = True
        self._parts = parts
        self._outbox = outbox
        self._notices = notices
        self._clock = clock
        self._sharer = sharer
        self._lock = threading.Lock()
        self._windows: dict[tuple[DestinationKey, Share], _Window] = {}

    @property
    def destinations(self) -> set[DestinationKey]:
        """Those for whose windows other processes may count on this one."""
        return {destination for destination, _ in list(self._windows)}

    def turn(
        self,
        exporters: Mapping[DestinationKey, Exporter],
        *,
        failing: Collection[DestinationKey] = (),
        leaving: bool = False,
    ) -> tuple[list[Closed], float | None]:
        """Offer this process's parts, and report the epochs that are handed to it.

        Args:
            exporters: Who send the reports; the parts of other destinations wait.
            failing: Destinations that take no reports now; others may.
            leaving: Whether this process shares no more.

        Returns:
            The epochs that it reports, and the seconds after which to look again; None
            if no part waits.
        """
        closed: list[Closed] = []
        with self._lock:
            if leaving:
                for window in self._windows.values():
                    window.asks_at = float("-inf")
            self.is_cut_off = self.is_whole = False
            for _ in range(ROUNDS):
                has_parts = self._outbox.has_parts()
                if has_parts is None:
                    return closed, PAUSE
                if not (has_parts or self._is_due()):
                    break
                outcome = self._round(exporters, failing, leaving=leaving)
                closed += outcome.closed
                if outcome.failure is not None:
                    return closed + self._away(outcome.failure, exporters), PAUSE
                if outcome.disk_failed:
                    return closed, PAUSE
                self._back()
                if not outcome.more:
                    break
            self.is_whole = True
            times = [window.asks_at for window in self._windows.values()]
            wait = max(0.0, min(times) - self._clock()) if times else None
            return closed, wait

    def _round(
        self,
        exporters: Mapping[DestinationKey, Exporter],
        failing: Collection[DestinationKey],
        *,
        leaving: bool,
    ) -> _Outcome:
        """Ask once about every window about which there is something to ask."""
        outcome = _Outcome()
        try:  # before a part may be there
            deadline = self._parts.deadline()
        except Exception as error:  # noqa: BLE001 - redis-py raises many kinds
            outcome.failure = error
            return outcome
        now = self._clock()
        offers = self._outbox.offer_parts(list(exporters))
        if offers is None:
            outcome.disk_failed = True
            return outcome
        questions = self._questions(offers, exporters, failing, now)
        for first in range(0, len(questions), AT_ONCE):
            try:
                replies = self._parts.exchange(
                    questions[first : first + AT_ONCE],
                    self._sharer(),
                    deadline,
                    leaving=leaving,
                )
            except Exception as error:  # noqa: BLE001 - likewise
                outcome.failure = error
                return outcome
            answers = [each for each in replies if isinstance(each, Answer)]
            settled = self._outbox.settle_parts(answers)
            if settled is None:
                outcome.disk_failed = True
                return outcome
            for answer, (gone, _) in zip(answers, settled, strict=True):
                self._note(answer, gone, now, leaving=leaving)
                outcome.add(answer)
            for each in replies:
                if isinstance(each, Exception):
                    outcome.fail(each)
        return outcome

    def _is_due(self) -> bool:
        now = self._clock()
        return any(
            window.done or window.asks_at <= now for window in self._windows.values()
        )

    def _questions(
        self,
        offers: Sequence[Offer],
        exporters: Mapping[DestinationKey, Exporter],
        failing: Collection[DestinationKey],
        now: float,
    ) -> list[Question]:
        for key in [key for key in self._windows if key[0] not in exporters]:
            del self._windows[key]  # its destination was forgotten
        asked = {(offer.destination, offer.share): offer for offer in offers}
        for key, window in self._windows.items():
            if window.done or window.asks_at <= now:
                asked.setdefault(key, Offer(*key, []))
        return [
            Question(
                offer,
                self._window(offer).done or Done(),
                exporters[offer.destination],
                self._sharing(offer, now),
                offer.destination not in failing,
            )
            for offer in asked.values()
        ]

    def _window(self, offer: Offer) -> _Window:
        return self._windows.get((offer.destination, offer.share)) or _Window()

    def _sharing(self, offer: Offer, now: float) -> float:
        """Return the seconds for which this process shares a window from now on."""
        if offer.is_new:
            return sharing_for(offer.share.frequency)
        return max(0.0, self._window(offer).shared_until - now)

    def _note(
        self, answer: Answer, gone: list[str], asked_at: float, *, leaving: bool
    ) -> None:
        """Update what to tell Redis about a window, and when to ask about it next.

        If nothing waits, it is asked once more when this process ceases to count as
        sharing: another one may have left parts to it.
        """
        offer, taken, wait = answer.offer, answer.taken, answer.wait
        window = self._window(offer)
        if taken is not None and taken.damaged:
            self._notices.warn(
                "sharing",
                "%d parts at the Redis server %s are damaged, or signed with another "
                "API key: they are removed",
                len(taken.damaged),
                self._parts,
            )
        shared_for = 0.0 if leaving else self._sharing(offer, asked_at)
        window.shared_until = asked_at + shared_for
        window.done = None  # the server has got it
        if taken is not None:
            reported = {taken.epoch: list(taken.parts)}
            window.done = Done(reported, {taken.epoch: taken.damaged}, gone)
        elif gone:
            window.done = Done(settled=gone)
        window.asks_at = float("inf")
        if "absent" in answer.fates:  # to be offered at once
            window.asks_at = self._clock()
        elif wait is not None and (offer.parts or not leaving):
            window.asks_at = self._clock() + wait
        elif shared_for:
            window.asks_at = window.shared_until
        key = offer.destination, offer.share
        self._windows[key] = window
        if not window.done and window.asks_at == float("inf"):
            del self._windows[key]

    def _away(
        self, failure: Exception, exporters: Mapping[DestinationKey, Exporter]
    ) -> list[Closed]:
        """Wait for the server, or report what waited for it long enough."""
        now = self._clock()
        if self.away_since is None:
            self.away_since = now
            self._notices.warn(
                "sharing",
                "The Redis server %s cannot be used (%s): parts of shared windows wait "
                "here; after %.0f s each process reports those that the server never "
                "had by itself",
                self._parts,
                self._parts.describe(failure),
                ALONE_AFTER,
            )
        closed: list[Closed] = []
        if now - self.away_since >= ALONE_AFTER:
            look = self._outbox.close_epochs(list(exporters), away=True)
            closed = look.closed if look else []
        self.is_cut_off = self._outbox.has_parts() is not False
        return closed

    def _back(self) -> None:
        if self.away_since is not None:
            self.away_since = None
            self._notices.info("The Redis server %s can be used again", self._parts)


@dataclass
class _Outcome:
    """What came of asking once.

    Attributes:
        closed: The epochs that are this process's to report.
        more: Whether there is more to ask at once: something to tell, a part that
            Redis has lost, or one that found no room.
        failure: Why not every question was answered.
        disk_failed: Whether the outbox could not be read or written.
    """

    closed: list[Closed] = field(default_factory=list)
    more: bool = False
    failure: Exception | None = None
    disk_failed: bool = False
    _offered: int = 0

    def fail(self, error: Exception) -> None:
        """Take in that a question has no answer; one that came late is asked again."""
        if str(error).startswith(STALE):
            self.more = True
        else:  # counts as an outage of the server
            self.failure = error

    def add(self, answer: Answer) -> None:
        """Take in an answer."""
        offer, taken = answer.offer, answer.taken
        if taken is not None and taken.parts:
            share = replace(offer.share, epoch=taken.epoch)
            self.closed.append(Closed(offer.destination, share))
        self._offered += sum(len(part.packed or b"") for part in offer.parts)
        self.more |= (
            taken is not None
            or self._offered >= MOST_BYTES
            or not {"absent", "reported"}.isdisjoint(answer.fates)
        )
