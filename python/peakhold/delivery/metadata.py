"""Custom metadata on its way from the frames to records."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from peakhold.records.metadata import MetadataBatch, coalesced

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from peakhold import _peakhold
    from peakhold._peakhold import MetadataJournal, WindowJournal
    from peakhold.records import MetadataEntry

    Frame = tuple[Iterable[str], str, str]
    Offer = tuple[Iterable[str], str, str, _peakhold.MetadataBatch | None, int]
    Packed = tuple[tuple[MetadataEntry, ...], WindowJournal | None]

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
        journal: Where they are written down, and from there appended to ``frames``;
            None if they are in memory alone.
        frames: The ids, field and value of each, its batch in the journal if there is
            one, and its number there.
        noticed: Whether a destination knows that there are some.
        host_at: Monotonic time from which on a frame looks whether the host is to have
            a task.
    """

    __slots__ = ("frames", "host_at", "journal", "noticed", "owner")

    def __init__(self, owner: object, journal: MetadataJournal | None = None) -> None:
        """Start with none."""
        self.owner = owner
        self.journal = journal
        self.frames: deque[Offer] = deque()
        self.noticed = False
        self.host_at = float("-inf")


class PendingMetadata:
    """The metadata of a destination that is not in a record yet.

    What is in the journal becomes a record by the batches that the journal makes, so
    that the next process would make the same record of a batch. Other metadata fills
    requests to the last id.

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
        self._journals: set[MetadataJournal] = set()
        self._written: dict[_peakhold.MetadataBatch, dict[int, Frame]] = {}
        self._packing = threading.Lock()

    def __bool__(self) -> bool:
        """Whether there is any, or it is just being packed."""
        waits = self._offers or self._written or self._batch
        return bool(waits or self._packing.locked())

    def notice(self, offers: Offers, now: float) -> None:
        """Know from now on that frames left something."""
        if not offers.noticed:
            if offers.journal is not None:
                self._journals.add(offers.journal)
            self._offers.append(offers)  # first, for then it is not overlooked
            offers.noticed = True
        self.since = min(self.since, now)
        waiting = len(offers.frames) + len(self._offers)
        self.crowded |= waiting >= FRAMES_OFFERED

    def pack(self, now: float, *, whole: bool) -> Iterator[Packed]:
        """Yield the entries of every request that is full, and of the ``whole`` rest.

        With them comes where they are written down. What is yielded is the caller's, as
        soon as the next one is asked for.
        """
        with self._packing:
            self.crowded = False
            self.since = float("inf")
            if whole:
                for journal in list(self._journals):
                    journal.cut()
            for offers in list(self._offers):
                offers.noticed = False
                for _ in range(len(offers.frames)):
                    for entries in self._take(*offers.frames[0]):
                        yield entries, None
                    offers.frames.popleft()
                # What came since had itself noticed anew, and stands behind.
                self._offers.remove(offers)
            yield from self._complete()
            if whole and self._batch:
                for entries in self._batch.sealed():
                    yield entries, None
            if self._batch or self._written:
                self.since = min(self.since, now)

    def _complete(self) -> Iterator[Packed]:
        """Yield the batches of the journal to which no more frames come."""
        for batch, frames in list(self._written.items()):
            if len(frames) == batch.frames:
                in_order = (frames[number] for number in sorted(frames))
                yield coalesced(in_order), batch.journal
                del self._written[batch]

    def _take(
        self,
        inference_ids: Iterable[str],
        field_name: str,
        field_value: str,
        batch: _peakhold.MetadataBatch | None,
        number: int,
    ) -> Iterable[tuple[MetadataEntry, ...]]:
        """Take the frame of an offer; returns the entries of every request it filled.

        After an interruption it may be taken again.
        """
        if batch is None:
            return self._batch.add(inference_ids, field_name, field_value)
        frames = self._written.setdefault(batch, {})
        frames[number] = (inference_ids, field_name, field_value)
        return ()
