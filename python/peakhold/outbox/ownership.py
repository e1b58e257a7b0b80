"""Whose a record is, and whether a window was committed before.

A record belongs to the process that sealed it, until that process is dead: then to the
first that has a sender for its destination. Every function works within the transaction
of its caller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peakhold.outbox.ledger import BY_HAND
from peakhold.outbox.rows import key_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from peakhold.outbox.state import StateDirectory
    from peakhold.records import DestinationKey, Record

_JOURNAL = "-"
"""In the ids of windows that have a journal, and in no other."""

_WAITING = """
SELECT endpoint, client, fingerprint, kind, max(reason IS ?) AS try_now,
    max(CASE typeof(next_at) WHEN 'real' THEN next_at END) AS next_at
FROM records JOIN destinations ON destinations.number = destination
WHERE owner = ? AND state != 'dead' GROUP BY destination, kind
ORDER BY next_at DESC
"""
_TAKE_OVER = """
UPDATE records SET owner = ? WHERE state != 'dead' AND destination = (
    SELECT number FROM destinations
    WHERE endpoint = ? AND client = ? AND fingerprint = ?
) AND owner NOT IN
"""
_NOTED = """
UPDATE records SET reason = NULL WHERE state != 'dead' AND destination = (
    SELECT number FROM destinations
    WHERE endpoint = ? AND client = ? AND fingerprint = ?
) AND owner = ? AND reason = ?
"""


def runs(state: StateDirectory, owner: object) -> bool:
    """Whether the process runs whose id a record has; one that is damaged is nobody's.

    Raises:
        OSError: It cannot be told, see ``StateDirectory.is_alive``.
    """
    return isinstance(owner, str) and owner.isalnum() and state.is_alive(owner)


def take_over(
    database: sqlite3.Connection,
    state: StateDirectory,
    destinations: Iterable[DestinationKey],
) -> None:
    """Make what dead processes left for some destinations this process's own."""
    owners = database.execute(
        "SELECT DISTINCT owner FROM records WHERE state != 'dead'"
    ).fetchall()
    alive = [owner for (owner,) in owners if runs(state, owner)]
    if len(alive) < len(owners):
        marks = ",".join("?" * len(alive))
        database.executemany(
            f"{_TAKE_OVER} ({marks})",
            [(state.owner_id, *key_of(each), *alive) for each in destinations],
        )


def waiting(
    database: sqlite3.Connection, owner: str, destinations: Iterable[DestinationKey]
) -> list[sqlite3.Row]:
    """Return what an owner has to deliver, per destination and kind.

    What somebody at the command line wants tried now is told so once, if it goes to one
    of the ``destinations``, for which there is a sender.
    """
    found = database.execute(_WAITING, (BY_HAND, owner)).fetchall()
    if any(row["try_now"] for row in found):
        database.executemany(
            _NOTED, [(*key_of(each), owner, BY_HAND) for each in destinations]
        )
    return found


def was_added(database: sqlite3.Connection, record: Record, *, moved: bool) -> bool:
    """Whether a record was added before.

    A journal may outlive its record. So a window that has one counts as added when any
    part of it was, unless the record moved here, maybe after other parts.
    """
    window = None if moved else record.content_id
    return bool(
        database.execute(
            "SELECT 1 FROM records WHERE id = ?1"
            " UNION ALL SELECT 1 FROM parts WHERE id = ?1"
            " UNION ALL SELECT 1 FROM journals WHERE id = ?2",
            (record.id, window),
        ).fetchone()
    )


def note_window(database: sqlite3.Connection, record: Record) -> None:
    """Note that the window of a record, if it has a journal, was committed."""
    if _JOURNAL in record.content_id:
        database.execute(
            "INSERT OR IGNORE INTO journals VALUES (?)", (record.content_id,)
        )


def forget_windows(database: sqlite3.Connection, state: StateDirectory) -> None:
    """Forget the committed windows that no journal has as open ones.

    Raises:
        OSError: The directory of the journals cannot be read.
    """
    gone = list(state.settled)
    others = database.execute(
        "SELECT id FROM journals WHERE id NOT BETWEEN ? AND ?",
        (f"{state.owner_id}-", f"{state.owner_id}."),
    ).fetchall()
    if others:
        # Twice: one that was just being renamed stands in the second.
        there = {
            path.name.partition(".")[0]
            for _ in range(2)
            for path in state.journals.iterdir()
        }
        gone += [id_ for (id_,) in others if id_.partition("-")[0] not in there]
    database.executemany("DELETE FROM journals WHERE id = ?", [(id_,) for id_ in gone])
