"""The exchange of parts of shared windows with other hosts, by a Redis server.

A turn offers what this process has, does what the answers mean, and tells Redis of the
reports that it made, until there is nothing more to tell. A part is kept here until
Redis says that it is in a report. What was asked and not answered is asked again, for
no repetition changes anything (``epochs.lua``).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from peakhold.delivery.redis_parts import Done, Question, RedisParts, sharing_for
from peakhold.outbox.epochs import ALONE_AFTER, Closed
from peakhold.outbox.offers import MOST_BYTES, Answer, Offer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from peakhold.delivery.exporter import Exporter
    from peakhold.notices import Notices
    from peakhold.outbox import Outbox
    from peakhold.records import DestinationKey, Share

AT_ONCE = 100
"""Windows that are asked about in one go."""
PAUSE = 1.0
"""Seconds until a server that gave no answer is asked again."""


@dataclass
class _Window:
    """A shared window.

    Attributes:
        asks_at: Monotonic time at which it is asked about next.
        shared_until: Monotonic time until which this process counts as sharing it.
    """

    asks_at: float = float("-inf")
    shared_until: float = float("-inf")


class Exchange:
    """Asks a Redis server about the parts of this process.

    Attributes:
        away_since: Monotonic time since which the server gives no answer; None if it
            does.
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
        self._parts = parts
        self._outbox = outbox
        self._notices = notices
        self._clock = clock
        self._sharer = sharer
        self._lock = threading.Lock()
        self._done: dict[tuple[DestinationKey, Share], Done] = {}
        self._windows: dict[tuple[DestinationKey, Share], _Window] = {}

    @property
    def is_sharing(self) -> bool:
        """Whether other processes may count on this one to ask once more."""
        return bool(self._windows)

    def turn(
        self, exporters: Mapping[DestinationKey, Exporter], *, leaving: bool = False
    ) -> tuple[list[Closed], float | None]:
        """Offer parts until the server has all of them, and report what is ours to.

        Args:
            exporters: Who send the reports; the parts of other destinations wait.
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
            while self._is_due() or self._outbox.has_parts():
                try:  # before a part may be there
                    deadline = self._parts.deadline()
                except Exception as error:  # noqa: BLE001 - redis-py raises many kinds
                    return closed + self._away(error, exporters), PAUSE
                now = self._clock()
                questions = self._questions(exporters, now)
                answers, failure = self._ask(questions, deadline, leaving=leaving)
                for answer in answers:  # what it was not told, it is told again
                    self._done.pop((answer.offer.destination, answer.offer.share), None)
                if not self._outbox.settle_parts(answers):
                    return closed, PAUSE
                closed += [
                    Closed(offer.destination, replace(offer.share, epoch=taken.epoch))
                    for offer, _, taken, _ in answers
                    if taken is not None
                ]
                self._note(answers)
                if failure is not None:
                    return closed + self._away(failure, exporters), PAUSE
                self._back()
                self._plan(answers, now, leaving=leaving)
                if not (self._done or _is_more(answers)):
                    break
            times = [window.asks_at for window in self._windows.values()]
            wait = max(0.0, min(times) - self._clock()) if times else None
            return closed, wait

    def _is_due(self) -> bool:
        now = self._clock()
        return bool(self._done) or any(
            window.asks_at <= now for window in self._windows.values()
        )

    def _plan(
        self, answers: Sequence[Answer], asked_at: float, *, leaving: bool
    ) -> None:
        """Know when to ask about each window again.

        Once more at the end of an epoch, if nothing waits: another process may leave
        parts before that, because this one counts as sharing.
        """
        for offer, _, _, wait in answers:
            key = offer.destination, offer.share
            window = self._windows.setdefault(key, _Window())
            shared_for = 0.0 if leaving else self._sharing(offer, asked_at)
            window.shared_until = asked_at + shared_for
            if wait is not None and (offer.parts or not leaving):
                window.asks_at = self._clock() + wait
            elif shared_for:
                window.asks_at = window.shared_until
            else:
                del self._windows[key]

    def _sharing(self, offer: Offer, now: float) -> float:
        """Return the seconds for which this process shares a window from now on."""
        if offer.is_new:
            return sharing_for(offer.share.frequency)
        window = self._windows.get((offer.destination, offer.share), _Window())
        return max(0.0, window.shared_until - now)

    def _questions(
        self, exporters: Mapping[DestinationKey, Exporter], now: float
    ) -> list[Question]:
        offers = {
            (offer.destination, offer.share): offer
            for offer in self._outbox.offer_parts(list(exporters))
        }
        for known in (self._windows, self._done):
            for key in [key for key in known if key[0] not in exporters]:
                del known[key]  # its destination was forgotten
        due = {key for key, window in self._windows.items() if window.asks_at <= now}
        for key in due | self._done.keys():
            offers.setdefault(key, Offer(*key, []))
        return [
            Question(
                offer,
                self._done.get(key, Done()),
                exporters[offer.destination],
                self._sharing(offer, now),
            )
            for key, offer in offers.items()
        ]

    def _ask(
        self, questions: Sequence[Question], deadline: float, *, leaving: bool
    ) -> tuple[list[Answer], Exception | None]:
        """Return the answers, and why there are not all of them."""
        answers: list[Answer] = []
        failure: Exception | None = None
        for first in range(0, len(questions), AT_ONCE):
            some = questions[first : first + AT_ONCE]
            try:
                replies = self._parts.exchange(
                    some, self._sharer(), deadline, leaving=leaving
                )
            except Exception as error:  # noqa: BLE001 - likewise
                return answers, error
            for reply in replies:
                if isinstance(reply, Exception):
                    failure = reply
                else:
                    answers.append(reply)
        return answers, failure

    def _note(self, answers: Sequence[Answer]) -> None:
        """Note what Redis is to know next.

        If that gets lost with the process, another one makes the same report again.
        """
        for answer in answers:
            offer, taken = answer.offer, answer.taken
            gone = {
                part.id
                for part, fate in zip(offer.parts, answer.fates, strict=True)
                if fate == "sealed"
            }
            done = Done()
            if taken is not None:
                done.reported[taken.epoch] = list(taken.parts)
                done.damaged[taken.epoch] = taken.damaged
                gone |= taken.parts.keys() & {part.id for part in offer.parts}
            done.settled += sorted(gone)
            if taken is not None or gone:
                self._done[offer.destination, offer.share] = done

    def _away(
        self, failure: Exception, exporters: Mapping[DestinationKey, Exporter]
    ) -> list[Closed]:
        """Wait for the server, or report what waited for it long enough."""
        now = self._clock()
        if self.away_since is None:
            self.away_since = now
            self._notices.warn(
                "sharing",
                "The Redis server %s gives no answer (%s): shared windows wait here, "
                "and are reported without those of other hosts after %.0f s",
                self._parts,
                self._parts.describe(failure),
                ALONE_AFTER,
            )
        if now - self.away_since < ALONE_AFTER:
            return []
        look = self._outbox.close_epochs(list(exporters), away=True)
        return look.closed if look else []

    def _back(self) -> None:
        if self.away_since is not None:
            self.away_since = None
            self._notices.info("The Redis server %s answers again", self._parts)


def _is_more(answers: Sequence[Answer]) -> bool:
    """Whether there is more to offer: what Redis has lost, or what found no room."""
    packed = [part.packed for answer in answers for part in answer.offer.parts]
    offered = sum(len(each) for each in packed if each)
    return offered >= MOST_BYTES or any("absent" in each.fates for each in answers)
