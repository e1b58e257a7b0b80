"""What ``Store`` does, without SQLite: for an interpreter that was built without it."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from peakhold.outbox import forks, waits
from peakhold.outbox.ledger import Counts
from peakhold.outbox.store import DEAD_LIMIT, Waiting
from peakhold.records import merge_reports

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from peakhold.outbox.room import Limits
    from peakhold.records import DestinationKey, Kind, Record


@dataclass
class _Entry:
    """A record, and what became of it so far; ``next_at`` is monotonic time."""

    record: Record
    sealed_at: float
    leased: bool
    state: str = "pending"
    failed: bool = False
    last_error: str | None = None
    next_at: float = float("-inf")


class MemoryStore:
    """Sealed records in the order of their sealing, by their ids.

    Attributes:
        limits: What is too much, and too old.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        dropped: Callable[[str, int], None],
        clock: Callable[[], float],
    ) -> None:
        """Start empty; the arguments are those of ``Store``."""
        self.limits = limits
        self._dropped = dropped
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._totals: Counter[str] = Counter()
        self._drops: Counter[str] = Counter()
        self._lock = threading.Lock()
        forks.wait_for(self._lock)

    def add(
        self,
        records: Sequence[Record],
        *,
        leased: Collection[str] = (),
        moved: bool = False,
    ) -> set[str]:
        """Take encoded records in, and make room for them."""
        del moved  # from nowhere: there is no other store
        now, added = self._clock(), set[str]()
        with self._lock:
            for record in records:
                if record.id not in self._entries:
                    is_leased = record.id in leased
                    kept = replace(record, merge_key=None) if is_leased else record
                    self._entries[record.id] = _Entry(kept, now, is_leased)
                    self._totals["sealed"] += record.seals
                    added.add(record.id)
            self._expire(now)
            self._make_room()
        self._tell_drops()
        return added

    def make_room(self) -> bool:
        """Drop what is too old; returns False, for ``add`` has made room."""
        with self._lock:
            self._expire(self._clock())
        self._tell_drops()
        return False

    def lease(self, destination: DestinationKey, kind: Kind) -> Record | None:
        """Lease the oldest record of a kind."""
        with self._lock:
            for entry in self._waiting():
                record = entry.record
                if record.destination == destination and record.kind == kind:
                    # It may be sent: its body is final.
                    entry.record = replace(record, merge_key=None)
                    entry.leased = True
                    return replace(entry.record, waits_since=entry.sealed_at)
        return None

    def take(self, most: int = 100) -> list[Record]:
        """Take some records out that are not on lease, as if never sealed."""
        with self._lock:
            records = [entry.record for entry in self._waiting()][:most]
            for record in records:
                del self._entries[record.id]
                self._totals["sealed"] -= record.seals
        return records

    def is_empty(self) -> bool:
        """Whether there is nothing but dead records."""
        with self._lock:
            return all(entry.state == "dead" for entry in self._entries.values())

    def release(self, record: Record) -> bool:
        """Give a lease back."""
        if entry := self._entries.get(record.id):
            entry.leased = False
        return True

    def lost(self, reason: str, seals: int) -> bool:
        """Count seals that were dropped before they got here."""
        with self._lock:
            self._totals.update({"sealed": seals, f"dropped:{reason}": seals})
        return True

    def acknowledge(self, record: Record) -> bool:
        """Forget a delivered record."""
        with self._lock:
            self._remove(record.id, "delivered")
        return True

    def failed(
        self, record: Record, state: str, reason: str, error: str, pause: float = 0.0
    ) -> bool:
        """Note a failed attempt; the record is pending, parked or dead from now on."""
        del reason  # which is for those who look at a file
        with self._lock:
            if entry := self._entries.get(record.id):
                entry.state, entry.last_error, entry.leased = state, error, False
                entry.failed = True
                if state == "pending":
                    entry.next_at = self._clock() + pause
            dead = [key for key, each in self._entries.items() if each.state == "dead"]
            for old in dead[:-DEAD_LIMIT]:
                self._remove(old, "dropped:dead letters")
        self._tell_drops()
        return True

    def replace(self, record: Record, parts: Sequence[Record]) -> bool:
        """Put parts in place of a leased record, in their order."""
        with self._lock:
            self._put_in_place([([record.id], parts)])
        return True

    def adopt(self, destinations: Collection[DestinationKey]) -> list[Waiting]:
        """Return what there is to deliver."""
        del destinations  # nothing here is another process's
        latest: dict[tuple[DestinationKey, Kind], float] = {}
        with self._lock:
            for entry in self._entries.values():
                if entry.state != "dead":
                    key = entry.record.destination, entry.record.kind
                    latest[key] = max(latest.get(key, entry.next_at), entry.next_at)
        return [
            Waiting(destination, kind, try_now=False, not_before=not_before)
            for (destination, kind), not_before in latest.items()
        ]

    def overview(self) -> list[dict[str, Any]]:
        """Return figures per destination."""
        now = self._clock()
        found: dict[DestinationKey, dict[str, Any]] = {}
        with self._lock:
            for entry in self._entries.values():
                destination = entry.record.destination
                row = found.setdefault(
                    destination,
                    {
                        "endpoint": destination.endpoint,
                        "api_key_fingerprint": destination.api_key_fingerprint,
                        "client": destination.client,
                        **dict.fromkeys(("pending", "parked", "dead"), 0),
                        "oldest_age": None,
                        "oldest_report": None,
                        "last_error": None,
                    },
                )
                row[entry.state] += entry.record.seals
                if entry.state != "dead" and row["oldest_age"] is None:
                    row["oldest_age"] = max(0.0, now - entry.sealed_at)
                row["last_error"] = entry.last_error or row["last_error"]
                if entry.state == "pending" and entry.record.kind == "report":
                    self._count_report(row, entry, now)
        return list(found.values())

    @staticmethod
    def _count_report(row: dict[str, Any], entry: _Entry, now: float) -> None:
        if row["oldest_report"] is None:
            row["oldest_report"] = waits.of_report(
                age=max(0.0, now - entry.sealed_at),
                period=entry.record.period,
                failed=entry.failed,
                owner="memory",
                reports=0,
            )
        row["oldest_report"]["reports"] += entry.record.seals

    def counts(self) -> Counts:
        """Return the figures of the conservation equation."""
        with self._lock:
            states: Counter[str] = Counter()
            for entry in self._entries.values():
                states[entry.state] += entry.record.seals
            return Counts(
                self._totals["sealed"],
                self._totals["delivered"],
                states["pending"],
                states["parked"],
                states["dead"],
                {
                    name.partition(":")[2]: seals
                    for name, seals in self._totals.items()
                    if name.startswith("dropped:")
                },
            )

    def _tell_drops(self) -> None:
        """Report what was dropped; without the lock, for that may log."""
        with self._lock:
            drops, self._drops = self._drops, Counter()
        for reason, seals in drops.items():
            self._dropped(reason, seals)

    def _waiting(self) -> Iterator[_Entry]:
        for entry in self._entries.values():
            if entry.state != "dead" and not entry.leased:
                yield entry

    def _remove(self, record_id: str, total: str) -> None:
        if entry := self._entries.pop(record_id, None):
            self._totals[total] += entry.record.seals
            what, _, reason = total.partition(":")
            if what == "dropped":
                self._drops[reason] += entry.record.seals

    def _put_in_place(
        self, changes: Iterable[tuple[Sequence[str], Sequence[Record]]]
    ) -> None:
        """Put records in place of the first of some others, with its time."""
        gone: set[str] = set()
        placed: dict[str, dict[str, _Entry]] = {}
        for old, new in changes:
            entries = [self._entries[key] for key in old if key in self._entries]
            if len(entries) < len(old):
                continue
            sealed_at = max(each.sealed_at for each in entries)
            gone.update(old)
            placed[old[0]] = {
                each.id: _Entry(each, sealed_at, leased=False) for each in new
            }
            seals = sum(each.record.seals for each in entries)
            self._totals["sealed"] += sum(each.seals for each in new) - seals
        kept: dict[str, _Entry] = {}
        for key, entry in self._entries.items():
            kept.update(placed.get(key, {}))
            if key not in gone:
                kept[key] = entry
        self._entries = kept

    def _expire(self, now: float) -> None:
        for key, entry in list(self._entries.items()):
            if entry.sealed_at < now - self.limits.ttl and not entry.leased:
                self._remove(key, "dropped:expired")

    def _make_room(self) -> None:
        """Merge the reports of each window, then drop the oldest, dead ones first."""
        if self._size() <= self.limits.max_bytes:
            return
        windows: dict[tuple[DestinationKey, str], list[Record]] = {}
        for entry in self._waiting():
            record = entry.record
            if record.merge_key and entry.state == "pending":
                window = record.destination, record.merge_key
                windows.setdefault(window, []).append(record)
        merges = map(merge_reports, windows.values())
        self._put_in_place(
            ([record.id for record in old], new)
            for old, new in merges
            if len(new) < len(old)
        )
        excess = self._size() - self.limits.max_bytes
        sharing = Counter(each.record.content_id for each in self._entries.values())
        newest = next(reversed(self._entries))
        oldest = sorted(self._entries, key=lambda k: self._entries[k].state != "dead")
        for key in oldest:
            if excess <= 0:
                return
            entry = self._entries[key]
            if key != newest and not entry.leased:
                sharing[entry.record.content_id] -= 1
                if not sharing[entry.record.content_id]:
                    excess -= entry.record.size
                self._remove(key, "dropped:overflow")

    def _size(self) -> int:
        records = (each.record for each in self._entries.values())
        return sum({each.content_id: each.size for each in records}.values())
