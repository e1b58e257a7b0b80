"""Custom metadata on its way from the frames to records."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from peakhold.records.metadata import MetadataBatch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from peakhold.records import MetadataEntry

    Offer = tuple[Iterable[str], str, str]

BATCH_AGE = 5.0
"""Seconds for which metadata that cannot be sent is collected in memory."""
FRAMES_OFFERED = 250
"""Frames with metadata from which on a thread coalesces them."""
BATCHES_OFFERED = 20
"""So many times as many, and the frame that brings one more does it."""
HOST_LOOK = 0.05
"""Seconds between two looks at whether the host is to have a task for metadata."""


class Offers:
    """What frames with metadata left for one sender, as they left it.

    Appending takes no lock. ``noticed`` is cleared before the frames are taken, so that
    a frame which comes later has the dispatcher notice again.

    Attributes:
        owner: The dispatcher whose they are. A forked child has another one.
        frames: The ids, field and value of each.
        noticed: Whether a destination knows that there are some.
        host_at: Monotonic time from which on a frame looks whether the host is to have
            a task.
    """

    __slots__ = ("frames", "host_at", "noticed", "owner")

    def __init__(self, owner: object) -> None:
        """Start with none."""
        self.owner = owner
        self.frames: deque[Offer] = deque()
        self.noticed = False
        self.host_at = float("-inf")


class PendingMetadata:
    """The metadata of a destination that is not in a record yet.

    Attributes:
        since: Monotonic time of the oldest; infinity while there is none.
        crowded: Whether so many frames wait that they are to be coalesced.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.since = float("inf")
        self.crowded = False
        self._offers: list[Offers] = []
        self._batch = MetadataBatch()
        self._packing = threading.Lock()

    def __bool__(self) -> bool:
        """Whether there is any, or it is just being packed."""
        return bool(self._offers or self._batch or self._packing.locked())

    def notice(self, offers: Offers, now: float) -> None:
        """Know from now on that frames left something."""
        if not offers.noticed:
            self._offers.append(offers)  # first, for then it is not overlooked
            offers.noticed = True
        self.since = min(self.since, now)
        waiting = len(offers.frames) + len(self._offers)
        self.crowded |= waiting >= FRAMES_OFFERED

    def pack(self, now: float, *, whole: bool) -> Iterator[tuple[MetadataEntry, ...]]:
        """Yield the entries of every request that is full, and of the ``whole`` rest.

        What is yielded is the caller's, as soon as the next one is asked for.
        """
        with self._packing:
            self.crowded = False
            self.since = float("inf")
            for offers in list(self._offers):
                offers.noticed = False
                for _ in range(len(offers.frames)):
                    yield from self._batch.add(*offers.frames[0])
                    offers.frames.popleft()
                # What came since had itself noticed anew, and stands behind.
                self._offers.remove(offers)
            if whole and self._batch:
                yield from self._batch.sealed()
            if self._batch:
                self.since = min(self.since, now)
