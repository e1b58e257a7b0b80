"""The outbox's books: what became of the seals, and what time it is for them.

Every function works within the transaction of its caller, or without one.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from peakhold.outbox import waits

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator

_T = TypeVar("_T")

BY_HAND = "by hand"
"""Reason of what somebody at the command line did. No failed attempt has it."""
LONGEST_PAUSE = 24 * 3600.0
"""Seconds that the outbox ages at most while nobody uses it."""

_DESTINATIONS = """
SELECT endpoint, fingerprint AS api_key_fingerprint, nullif(client, '') AS client,
    sum((state IN ('pending', 'part')) * seals) AS pending,
    sum((state = 'parked') * seals) AS parked,
    sum((state = 'dead') * seals) AS dead,
    max(0, :now - min(CASE WHEN state IN ('pending', 'parked') THEN sealed_at END))
        AS oldest_age,
    min(CASE WHEN state = 'pending' AND kind = 'report'
        THEN waiting.number END) AS oldest_report,
    sum((state = 'pending' AND kind = 'report') * seals) AS reports,
    (SELECT last_error FROM records AS failed
        WHERE failed.destination = destinations.number AND last_error IS NOT NULL
        ORDER BY failed.attempts > 0 DESC, failed.number DESC LIMIT 1) AS last_error
FROM destinations JOIN (
    SELECT number, destination, kind, state, seals, sealed_at FROM records
    UNION ALL
    SELECT NULL, destination, 'report', 'part', seals, sealed_at
    FROM parts JOIN shares ON shares.number = share
) AS waiting ON waiting.destination = destinations.number
GROUP BY destinations.number ORDER BY destinations.number
"""


_OLDEST = """
SELECT coalesce(max(0, :now - sealed_at), 0) AS age, attempts > 0 AS failed, owner,
    packed
FROM records LEFT JOIN contents ON contents.number = content
WHERE records.number = :number
"""


@dataclass(frozen=True)
class Counts:
    """What became of the seals so far."""

    sealed: int = 0
    delivered: int = 0
    pending: int = 0
    parked: int = 0
    dead: int = 0
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def unaccounted(self) -> int:
        """Seals that became nothing of all this; 0 says that the figures add up."""
        settled = self.delivered + self.pending + self.parked + self.dead
        return self.sealed - settled - sum(self.dropped.values())

    def __add__(self, other: Counts) -> Counts:
        """Return the figures of both."""
        return Counts(
            self.sealed + other.sealed,
            self.delivered + other.delivered,
            self.pending + other.pending,
            self.parked + other.parked,
            self.dead + other.dead,
            dict(Counter(self.dropped) + Counter(other.dropped)),
        )


def committed(
    database: sqlite3.Connection, act: Callable[[sqlite3.Connection], _T]
) -> _T:
    """Do something with a database, and commit it or roll it back.

    The connection does the latter two, in C: the exception of a signal handler comes
    before them or after them, and leaves no transaction open.
    """
    if database.in_transaction:  # for a second one came while it was rolled back
        database.rollback()
    with database:
        database.execute("BEGIN IMMEDIATE")
        return act(database)


def count(database: sqlite3.Connection, name: str, seals: int) -> None:
    """Add to a total: ``sealed``, ``delivered``, or ``dropped:`` and the reason."""
    database.execute("INSERT OR IGNORE INTO totals VALUES (?, 0)", (name,))
    database.execute(
        "UPDATE totals SET value = value + ? WHERE name = ?", (seals, name)
    )


def outbox_time(database: sqlite3.Connection) -> float:
    """Return the outbox's own time: that of its last use, and what passed since."""
    totals = dict(database.execute("SELECT name, value FROM totals").fetchall())
    passed = time.time() - totals.get("wall", time.time())
    told: float = totals.get("clock", 0.0) + min(max(passed, 0.0), LONGEST_PAUSE)
    return told


def remove(database: sqlite3.Connection, number: int, total: str) -> int:
    """Delete a record and add its seals to a total; returns them, 0 if it is gone."""
    row = database.execute(
        "SELECT seals FROM records WHERE number = ?", (number,)
    ).fetchone()
    if row is None:
        return 0
    database.execute("DELETE FROM records WHERE number = ?", (number,))
    count(database, total, row[0])
    return int(row[0])


def counts_of(database: sqlite3.Connection) -> Counts:
    """Return the figures of the conservation equation."""
    totals = {
        name: int(value)
        for name, value in database.execute("SELECT name, value FROM totals")
    }
    states = {
        state: int(seals)
        for state, seals in database.execute(
            "SELECT state, sum(seals) FROM records GROUP BY state"
        )
    }
    (parts,) = database.execute("SELECT total(seals) FROM parts").fetchone()
    return Counts(
        totals.get("sealed", 0),
        totals.get("delivered", 0),
        states.get("pending", 0) + int(parts),
        states.get("parked", 0),
        states.get("dead", 0),
        {
            name.partition(":")[2]: seals
            for name, seals in totals.items()
            if name.startswith("dropped:")
        },
    )


def overview(
    database: sqlite3.Connection, now: float | None = None
) -> list[dict[str, Any]]:
    """Return figures per destination: seals by state, oldest age, last error.

    Parts of shared windows count as pending, and have no age: they wait for others.
    ``oldest_report`` is what ``waits.of_report`` returns of the oldest report that is
    pending; None if there is none.

    Args:
        database: The outbox.
        now: The outbox's own time; None to have it told by the wall clock.
    """
    now = outbox_time(database) if now is None else now
    found = list(dicts(database, _DESTINATIONS, now=now))
    for row in found:
        reports, number = row.pop("reports"), row["oldest_report"]
        if number is not None:
            (oldest,) = dicts(database, _OLDEST, now=now, number=number)
            packed = oldest.pop("packed")
            oldest["period"] = waits.period_in(packed)
            row["oldest_report"] = waits.of_report(reports=reports, **oldest)
    return found


def dicts(
    database: sqlite3.Connection, query: str, **values: object
) -> Iterator[dict[str, Any]]:
    """Yield the rows that a query finds, as dicts."""
    cursor = database.execute(query, values)
    names = [column[0] for column in cursor.description]
    for row in cursor:
        yield dict(zip(names, row, strict=True))
