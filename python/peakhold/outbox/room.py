"""Keeping an outbox within its limits: what is too old goes, and what is too much.

Reports of one window are merged first; only when nothing merges any more is the oldest
record dropped, and at last the oldest part of a shared window. Everything here works
within the transaction of its caller.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peakhold.outbox import rows
from peakhold.outbox.packing import UNREADABLE
from peakhold.records import merge_reports

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Iterator

    from peakhold.records.content import Content

    _Remove = Callable[[sqlite3.Connection, int, str], None]

MERGED_AT_ONCE = 32
"""Reports that become one, or as few as there is room in, when the outbox is full."""
MERGED_BYTES = 256 * 1024
"""Packed bytes of these, if they are more than two."""
LOOKED_AT = 256
"""Records among which these are, for a large report is several."""
DROPPED_AT_ONCE = 100
"""Records that are looked up at once to be dropped."""
STEP = 0.02
"""Seconds after which a step ends, and the database is given to others."""

_WINDOWS = """
SELECT destination, merge_key, min(number), min(count(*), ?) FROM records
WHERE owner = ? AND merge_key IS NOT NULL AND state = 'pending'
GROUP BY destination, merge_key HAVING count(*) > 1
"""
_CONTENTS = """
SELECT content, length(packed), max(oldest.number) FROM (
    SELECT content, number FROM records
    WHERE owner = ? AND destination = ? AND merge_key = ? AND state = 'pending'
    ORDER BY number LIMIT ?
) AS oldest JOIN contents ON contents.number = content
GROUP BY content ORDER BY min(oldest.number) LIMIT ?
"""
_OF_WINDOW = """
WHERE owner = ? AND destination = ? AND merge_key = ? AND state = 'pending'
AND records.number <= ? ORDER BY records.number
"""
_OLDEST = "SELECT number, id, sealed_at FROM records ORDER BY number"
_DEAD = "SELECT number, id FROM records WHERE state = 'dead' ORDER BY number LIMIT ?"
_OLD_PARTS = "SELECT number FROM parts WHERE sealed_at < ?"
_PARTS = """
SELECT number FROM parts WHERE number < (SELECT max(number) FROM parts)
ORDER BY number LIMIT ?
"""
_NOT_DEAD = """
SELECT number, id FROM records
WHERE state != 'dead' AND number < (SELECT max(number) FROM records)
ORDER BY number LIMIT ?
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

    Each step works within the transaction of its caller and ends after ``STEP``
    seconds, however much is left to do. Together the steps take time in proportion to
    the number of records that go.

    ``remove`` is called with the database, a record's number and the total that its
    seals are added to, ``remove_part`` with those of a part. They are passed per call:
    storing a bound method would create a reference cycle and delay closing the
    database.

    Attributes:
        limits: What is too much, and too old.
        may_merge: Whether reports were added since no window shrank any more.
    """

    def __init__(self, limits: Limits, leased: Collection[str]) -> None:
        """Look at nothing yet.

        Args:
            limits: What is too much, and too old.
            leased: The ids of the records that are on lease at any moment.
        """
        self.limits = limits
        self.may_merge = True
        self._leased = leased
        self._unshrinkable: dict[tuple[object, ...], tuple[object, ...]] = {}

    def is_needed(self, database: sqlite3.Connection, now: float) -> bool:
        """Whether the oldest record is too old, or there are too many bytes."""
        oldest = database.execute(f"{_OLDEST} LIMIT 1").fetchone()
        return self._is_too_full(database) or (
            oldest is not None
            and isinstance(oldest["sealed_at"], float)
            and oldest["sealed_at"] < now - self.limits.ttl
        )

    def make(
        self,
        database: sqlite3.Connection,
        now: float,
        owner: str,
        remove: _Remove,
        remove_part: _Remove,
    ) -> bool:
        """Do one step; returns whether there is more to do."""
        until = time.perf_counter() + STEP
        oldest = now - self.limits.ttl
        for (number,) in database.execute(_OLD_PARTS, (oldest,)).fetchall():
            remove_part(database, number, "dropped:expired")
        for _ in self._expired(database, now, remove):
            if time.perf_counter() >= until:
                return True
        if not self._is_too_full(database):
            return False
        for act in (
            self._merged(database, owner),
            self._dropped(database, remove),
            _parts_dropped(database, remove_part),
        ):
            for _ in act:
                if not self._is_too_full(database):
                    return False
                if time.perf_counter() >= until:
                    return True
        return False

    def _is_too_full(self, database: sqlite3.Connection) -> bool:
        return rows.used_bytes(database) > self.limits.max_bytes

    def _expired(
        self, database: sqlite3.Connection, now: float, remove: _Remove
    ) -> Iterator[None]:
        """Drop what is too old; ages are in the order of the numbers."""
        oldest = now - self.limits.ttl
        for number, record_id, sealed_at in database.execute(_OLDEST):
            if not isinstance(sealed_at, float):
                continue  # damaged, which is seen when it is leased
            if sealed_at >= oldest:
                break
            if record_id not in self._leased:
                remove(database, number, "dropped:expired")
                yield

    def _merged(self, database: sqlite3.Connection, owner: str) -> Iterator[None]:
        """Merge the oldest reports of each window, until no window shrinks by that."""
        while self.may_merge:
            shrank = False
            known, self._unshrinkable = self._unshrinkable, {}
            windows = database.execute(_WINDOWS, (MERGED_AT_ONCE, owner)).fetchall()
            for destination, merge_key, *looks in windows:
                window, seen = (destination, merge_key), tuple(looks)
                if known.get(window) != seen and _merge_window(
                    database, owner, *window
                ):
                    shrank = True
                    yield
                else:
                    self._unshrinkable[window] = seen
            self.may_merge = shrank

    def _dropped(self, database: sqlite3.Connection, remove: _Remove) -> Iterator[None]:
        """Drop dead records, then waiting ones but the newest, the oldest first."""
        for query in (_DEAD, _NOT_DEAD):
            most = len(self._leased) + DROPPED_AT_ONCE
            while found := [
                number
                for number, record_id in database.execute(query, (most,)).fetchall()
                if record_id not in self._leased
            ]:
                for number in found:
                    remove(database, number, "dropped:overflow")
                    yield


def _parts_dropped(
    database: sqlite3.Connection, remove_part: _Remove
) -> Iterator[None]:
    """Drop parts but the newest, the oldest first."""
    while found := database.execute(_PARTS, (DROPPED_AT_ONCE,)).fetchall():
        for (number,) in found:
            remove_part(database, number, "dropped:overflow")
            yield


def _merge_window(
    database: sqlite3.Connection, owner: str, destination: int, merge_key: str
) -> bool:
    window = (owner, destination, merge_key)
    contents: set[int] = set()
    size = last = 0
    looks = (*window, LOOKED_AT, MERGED_AT_ONCE)
    for content, length, number in database.execute(_CONTENTS, looks).fetchall():
        size += length
        if size > MERGED_BYTES and len(contents) > 1:
            break
        contents.add(content)
        last = max(last, number)
    found = [
        row
        for row in database.execute(rows.SELECT + _OF_WINDOW, (*window, last))
        if row["content"] in contents
    ]
    decoded: dict[int, Content] = {}
    try:
        records = [rows.record_of(row, decoded) for row in found]
    except UNREADABLE:
        return False
    old, merged = merge_reports(records)
    if len(merged) >= len(old):
        return False
    numbers = {row["id"]: row["number"] for row in found}
    placed = [(numbers[record.id], record) for record in old]
    return rows.put_in_place(database, placed, merged, owner)
