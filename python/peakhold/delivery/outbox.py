"""Where sealed records wait until they are delivered or dropped.

Conservation, at every moment: ``sealed == delivered + pending + dropped``. The figures
count seals. A record that absorbed others in a merge stands for all of their seals; a
record that is split passes its seals to its first part, and every further part counts
as sealed once more.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from peakhold.delivery.record import ReportContent, merge_reports

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from peakhold.delivery.record import Destination, Kind, Record

MAX_RECORDS = 1_000
MAX_BYTES = 16 * 1024 * 1024
MERGES_PER_APPEND = 8
"""A frame loop may be waiting for ``append``, and merging need not shrink anything."""


@dataclass(frozen=True)
class Counts:
    """What became of the seals so far."""

    sealed: int
    delivered: int
    pending: int
    dropped: dict[str, int] = field(default_factory=dict)


class Outbox(Protocol):
    """Records in the order of their sealing; every method is atomic.

    A record is waiting, or leased to one deliverer, who then settles it by one of
    ``acknowledge``, ``release`` and ``drop``.
    """

    def append(self, record: Record, *, leased: bool = False) -> int:
        """Take a record in; returns how many seals were dropped to make room."""

    def lease(self, destination: Destination, kind: Kind) -> Record | None:
        """Lease the oldest waiting record of a kind, if there is one."""

    def replace(self, record: Record, parts: Sequence[Record], *, leased: int) -> None:
        """Put ``parts`` in place of a leased record, the first of them ``leased``."""

    def acknowledge(self, record: Record) -> None:
        """Forget a delivered record."""

    def release(self, record: Record) -> None:
        """Let a leased record wait again, in its old place."""

    def drop(self, record: Record, reason: str) -> None:
        """Give a leased record up."""

    def waiting(self, destination: Destination, kind: Kind) -> int:
        """Return the number of waiting records of a kind."""

    def counts(self) -> Counts:
        """Return the figures of the conservation equation."""


@dataclass
class _Entry:
    record: Record
    leased: bool
    seals: int = 1


class MemoryOutbox:
    """An ``Outbox`` in bounded memory.

    Past a bound, waiting reports of one window that were never attempted are merged,
    two at a time; when there are none, the oldest waiting record is dropped. Leased
    records and the newest one are left alone, so one window larger than the bound in
    bytes still goes out.
    """

    def __init__(
        self, max_records: int = MAX_RECORDS, max_bytes: int = MAX_BYTES
    ) -> None:
        """Start empty."""
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._waiting: Counter[tuple[Destination, Kind]] = Counter()
        self._bytes = 0
        self._sealed = 0
        self._delivered = 0
        self._dropped: Counter[str] = Counter()

    def append(self, record: Record, *, leased: bool = False) -> int:
        """Take a record in; returns how many seals were dropped to make room."""
        with self._lock:
            before = self._dropped["overflow"]
            self._sealed += 1
            self._insert(_Entry(record, leased))
            merges = MERGES_PER_APPEND
            while self._over_bounds():
                merges -= 1
                if not (merges >= 0 and self._merge_two()) and not self._drop_oldest():
                    break
            return self._dropped["overflow"] - before

    def lease(self, destination: Destination, kind: Kind) -> Record | None:
        """Lease the oldest waiting record of a kind, if there is one."""
        with self._lock:
            if not self._waiting[destination, kind]:
                return None
            for entry in self._entries.values():
                record = entry.record
                if not entry.leased and (record.destination, record.kind) == (
                    destination,
                    kind,
                ):
                    entry.leased = True
                    self._waiting[destination, kind] -= 1
                    return record
        return None

    def replace(self, record: Record, parts: Sequence[Record], *, leased: int) -> None:
        """Put ``parts`` in place of a leased record, the first of them ``leased``."""
        with self._lock:
            entries = list(self._entries.values())
            seals = self._entries[record.id].seals
            self._clear()
            for entry in entries:
                if entry.record.id != record.id:
                    self._insert(entry)
                    continue
                for at, part in enumerate(parts):
                    self._insert(_Entry(part, at < leased, seals if at == 0 else 1))
            self._sealed += len(parts) - 1

    def acknowledge(self, record: Record) -> None:
        """Forget a delivered record."""
        with self._lock:
            self._delivered += self._remove(record.id).seals

    def release(self, record: Record) -> None:
        """Let a leased record wait again, in its old place."""
        with self._lock:
            self._entries[record.id].leased = False
            self._waiting[record.destination, record.kind] += 1

    def drop(self, record: Record, reason: str) -> None:
        """Give a leased record up."""
        with self._lock:
            self._dropped[reason] += self._remove(record.id).seals

    def waiting(self, destination: Destination, kind: Kind) -> int:
        """Return the number of waiting records of a kind."""
        with self._lock:
            return self._waiting[destination, kind]

    def counts(self) -> Counts:
        """Return the figures of the conservation equation."""
        with self._lock:
            pending = sum(entry.seals for entry in self._entries.values())
            dropped = {why: many for why, many in self._dropped.items() if many}
            return Counts(self._sealed, self._delivered, pending, dropped)

    def _over_bounds(self) -> bool:
        return len(self._entries) > self._max_records or self._bytes > self._max_bytes

    def _clear(self) -> None:
        self._entries = {}
        self._waiting.clear()
        self._bytes = 0

    def _insert(self, entry: _Entry) -> None:
        record = entry.record
        self._entries[record.id] = entry
        self._bytes += record.size
        if not entry.leased:
            self._waiting[record.destination, record.kind] += 1

    def _remove(self, record_id: str) -> _Entry:
        entry = self._entries.pop(record_id)
        record = entry.record
        self._bytes -= record.size
        if not entry.leased:
            self._waiting[record.destination, record.kind] -= 1
        if not self._waiting[record.destination, record.kind]:
            del self._waiting[record.destination, record.kind]
        return entry

    def _merge_two(self) -> bool:
        """Merge the two oldest mergeable reports of one window, if there are two."""
        oldest: dict[tuple[Destination, Hashable], _Entry] = {}
        for entry in self._entries.values():
            content = entry.record.content
            # Content is there until the first attempt; a made body never changes.
            if entry.leased or not isinstance(content, ReportContent):
                continue
            window = (entry.record.destination, content.window)
            first = oldest.setdefault(window, entry)
            if first is entry:
                continue
            self._remove(entry.record.id)
            self._bytes -= first.record.size
            first.record = merge_reports(first.record, entry.record)
            self._bytes += first.record.size
            first.seals += entry.seals
            return True
        return False

    def _drop_oldest(self) -> bool:
        """Drop the oldest waiting record unless it is the newest of all."""
        newest = next(reversed(self._entries))
        for record_id, entry in self._entries.items():
            if not entry.leased and record_id != newest:
                self._dropped["overflow"] += self._remove(record_id).seals
                return True
        return False
