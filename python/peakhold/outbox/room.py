"""Keeping an outbox within its limits: what is too old goes, and what is too much.

Reports of one window are merged first; only when nothing merges any more is the oldest
record dropped. Everything here works within the transaction of its caller.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING

from peakhold.outbox import rows
from peakhold.outbox.packing import UNREADABLE
from peakhold.records.encode import merge_reports

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection

    _Remove = Callable[[sqlite3.Connection, int, str], None]

MERGED_AT_ONCE = 32
"""Reports that become one, or as few as there is room in, when the outbox is full."""

_WINDOWS = """
SELECT min(number), min(count(*), ?), destination, merge_key FROM records
WHERE owner = ? AND merge_key IS NOT NULL AND state = 'pending'
GROUP BY destination, merge_key HAVING count(*) > 1
"""
_OF_WINDOW = """
WHERE owner = ? AND destination = ? AND merge_key = ?
ORDER BY records.number LIMIT ?
"""


@dataclass(frozen=True)
class Limits:
    """What is too much, and too old.

    Attributes:
        max_bytes: Past them, reports are merged, or the oldest record is dropped.
        ttl: Seconds after which a record is dropped.
        longest_pause: Seconds that a record has to wait at most after an attempt,
            whatever a damaged file says.
    """

    max_bytes: int = 256 * 1024 * 1024
    ttl: float = 7 * 24 * 3600.0
    longest_pause: float = 3600.0


class Room:
    """Makes room in a database; records on lease stay.

    ``remove`` is called with the database, a record's number and the total that its
    seals are added to. It is lent for a call: to hold a method of the store would tie
    that to itself, and its database would be closed late.

    Attributes:
        limits: What is too much, and too old.
    """

    def __init__(self, limits: Limits, leased: Collection[str]) -> None:
        """Look at nothing yet.

        Args:
            limits: What is too much, and too old.
            leased: The ids of the records that are on lease at any moment.
        """
        self.limits = limits
        self._leased = leased
        self._unshrinkable: set[tuple[object, ...]] = set()

    def expire(self, database: sqlite3.Connection, now: float, remove: _Remove) -> None:
        """Drop what is too old; ages are in the order of the numbers."""
        oldest = now - self.limits.ttl
        for number, record_id, sealed_at in database.execute(
            "SELECT number, id, sealed_at FROM records ORDER BY number"
        ):
            if not isinstance(sealed_at, float):
                continue  # damaged, which is seen when it is leased
            if sealed_at >= oldest:
                break
            if record_id not in self._leased:
                remove(database, number, "dropped:expired")

    def make(self, database: sqlite3.Connection, owner: str, remove: _Remove) -> None:
        """Merge an owner's reports, or drop the oldest record, until there is room."""
        while rows.used_bytes(database) > self.limits.max_bytes:
            merged = self._merge(database, owner)
            if not merged and not self._drop_oldest(database, remove):
                break

    def _merge(self, database: sqlite3.Connection, owner: str) -> bool:
        """Merge the oldest reports of a window, of the first one where that shrinks."""
        found = database.execute(_WINDOWS, (MERGED_AT_ONCE, owner))
        windows = {tuple(row) for row in found}
        self._unshrinkable &= windows
        for window in sorted(windows - self._unshrinkable, key=itemgetter(0)):
            if _merge_window(database, owner, *window[2:]):
                return True
            self._unshrinkable.add(window)
        return False

    def _drop_oldest(self, database: sqlite3.Connection, remove: _Remove) -> bool:
        """Drop the oldest dead record or else waiting one, unless it is the newest."""
        found = database.execute(
            "SELECT number, id FROM records"
            " WHERE number < (SELECT max(number) FROM records)"
            " ORDER BY state != 'dead', number LIMIT ?",
            (len(self._leased) + 1,),
        ).fetchall()
        for number, record_id in found:
            if record_id not in self._leased:
                remove(database, number, "dropped:overflow")
                return True
        return False


def _merge_window(
    database: sqlite3.Connection, owner: str, destination: int, merge_key: str
) -> bool:
    found = database.execute(
        rows.SELECT + _OF_WINDOW, (owner, destination, merge_key, MERGED_AT_ONCE)
    ).fetchall()
    try:
        records = [rows.record_of(row) for row in found]
    except UNREADABLE:
        return False
    merged = merge_reports(records)
    if len(merged) >= len(records):
        return False
    numbers = [row["number"] for row in found]
    old = list(zip(numbers, records, strict=True))
    return rows.put_in_place(database, old, merged, owner)
