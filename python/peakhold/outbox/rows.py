"""Records as rows of the outbox's tables.

Every function works within the transaction of its caller.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from peakhold.outbox.ledger import count
from peakhold.outbox.packing import pack, unpack
from peakhold.records import Destination, Record

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

SELECT = (
    "SELECT records.*, endpoint, client, fingerprint"
    " FROM records JOIN destinations ON destinations.number = destination "
)
SPACING = 1 << 20
"""Between the numbers of two records, so that parts find room before their whole."""
_TOO_GREAT = 1 << 62
"""Numbers from here on are damaged: a thousand records a second take over 100 years."""


def key_of(destination: Destination) -> tuple[str, str, str]:
    """Return endpoint, client and fingerprint as the table of destinations has them."""
    return (
        destination.endpoint,
        destination.client or "",
        destination.api_key_fingerprint,
    )


def destination_of(row: sqlite3.Row) -> Destination:
    """Return where the record of a row goes."""
    return Destination(row["endpoint"], row["fingerprint"], row["client"] or None)


def record_of(row: sqlite3.Row) -> Record:
    """Return the record of a row.

    Raises:
        zlib.error, ValueError, TypeError: If it is damaged: ``packing.UNREADABLE``.
    """
    body = unpack(row["body"])
    # What is no UTF-8 was replaced when it was read, and matches nothing in the file.
    if not (isinstance(row["id"], str) and row["id"].isascii()):
        message = "the id is damaged"
        raise ValueError(message)
    if not isinstance(row["sealed_at"], float):
        message = "the time of sealing is damaged"
        raise TypeError(message)
    return Record(
        destination_of(row),
        row["kind"],
        None,
        body,
        len(body),
        row["id"],
        datetime.fromisoformat(row["created"]),
        row["encoding_version"],
        row["seals"],
        row["merge_key"],
    )


def last_number(database: sqlite3.Connection) -> int:
    """Return the number of the newest record, 0 if there is none."""
    (last,) = database.execute(
        "SELECT max(number) FROM records WHERE number < ?", (_TOO_GREAT,)
    ).fetchone()
    return last or 0


def insert(
    database: sqlite3.Connection,
    record: Record,
    owner: str,
    number: int,
    sealed_at: float,
) -> None:
    """Write an encoded record, pending."""
    destination = key_of(record.destination)
    database.execute(
        "INSERT OR IGNORE INTO destinations (endpoint, client, fingerprint)"
        " VALUES (?, ?, ?)",
        destination,
    )
    database.execute(
        "INSERT INTO records (destination, number, id, kind, encoding_version, body,"
        " merge_key, created, sealed_at, seals, owner, state)"
        " SELECT number, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'pending' FROM destinations"
        " WHERE endpoint = ? AND client = ? AND fingerprint = ?",
        (
            number,
            record.id,
            record.kind,
            record.encoding_version,
            pack(record.body or b""),
            record.merge_key,
            record.created.isoformat(),
            sealed_at,
            record.seals,
            owner,
            *destination,
        ),
    )


def put_in_place(
    database: sqlite3.Connection,
    old: Sequence[tuple[int, Record]],
    new: Sequence[Record],
    owner: str,
) -> bool:
    """Put records in place of some others, told with their numbers, in their order.

    Returns:
        Whether all of those were there; else nothing is done.
    """
    found = [
        database.execute(
            "SELECT sealed_at FROM records WHERE number = ? AND +id = ?",
            (number, record.id),
        ).fetchone()
        for number, record in old
    ]
    if None in found:  # somebody at the command line was faster
        return False
    sealed_at = max(row[0] for row in found)
    database.executemany(
        "DELETE FROM records WHERE number = ?", [(number,) for number, _ in old]
    )
    number = min(number for number, _ in old)
    (before,) = database.execute(
        "SELECT max(number) FROM records WHERE number < ?", (number,)
    ).fetchone()
    apart = (number - (before or 0)) // len(new)  # so that a part finds room, too
    if apart == 0:  # split all too often: they go to the end
        apart = SPACING
        number = last_number(database) + len(new) * apart
    for after, record in enumerate(reversed(new)):
        insert(database, record, owner, number - after * apart, sealed_at)
    seals = sum(record.seals for record in new) - sum(record.seals for _, record in old)
    count(database, "sealed", seals)
    return True


def used_bytes(database: sqlite3.Connection) -> int:
    """Return the size of the database without what is free in it."""
    pages, free, size = (
        database.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)
