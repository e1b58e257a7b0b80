"""Records and their contents as rows of the outbox's tables.

Every function works within the transaction of its caller.
"""

from __future__ import annotations

from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from peakhold.outbox.ledger import count
from peakhold.outbox.packing import pack, unpack
from peakhold.records import DestinationKey, Record
from peakhold.records.content import ENCODING_VERSION, decode

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

    from peakhold.records.content import Content

SELECT = (
    "SELECT records.*, endpoint, client, fingerprint, contents.id AS content_id,"
    " encoding_version, packed, created FROM records"
    " JOIN destinations ON destinations.number = destination"
    " LEFT JOIN contents ON contents.number = content "
)
SPACING = 1 << 20
"""Between the numbers of two records, so that parts find room before their whole."""
_NOWHERE = -1
"""Number of a record for as long as the one that it takes is in use."""
_TOO_GREAT = 1 << 62
"""Numbers from here on are damaged: a thousand records a second take over 100 years."""


def key_of(destination: DestinationKey) -> tuple[str, str, str]:
    """Return endpoint, client and fingerprint as the table of destinations has them."""
    return (
        destination.endpoint,
        destination.client or "",
        destination.api_key_fingerprint,
    )


def destination_of(row: sqlite3.Row | Mapping[str, Any]) -> DestinationKey:
    """Return where the record of a row goes."""
    return DestinationKey(row["endpoint"], row["fingerprint"], row["client"] or None)


def record_of(
    row: sqlite3.Row | Mapping[str, Any], decoded: dict[int, Content] | None = None
) -> Record:
    """Return the record of a row.

    Args:
        row: As ``SELECT`` finds it.
        decoded: Contents by their numbers, for rows that may share one.

    Raises:
        zlib.error, ValueError, TypeError: If it is damaged: ``packing.UNREADABLE``.
    """
    content = decoded.get(row["content"]) if decoded else None
    if content is None:
        content = decode(row["kind"], row["encoding_version"], unpack(row["packed"]))
        if decoded is not None:
            decoded[row["content"]] = content
    # What is no UTF-8 was replaced when it was read, and matches nothing in the file.
    if not (isinstance(row["id"], str) and row["id"].isascii()):
        message = "the id is damaged"
        raise ValueError(message)
    if not isinstance(row["sealed_at"], float):
        message = "the time of sealing is damaged"
        raise TypeError(message)
    record = Record(
        destination_of(row),
        content,
        None if row["first"] is None else (row["first"], row["last"]),
        row["id"],
        datetime.fromisoformat(row["created"]),
        row["seals"],
        row["merge_key"],
    )
    # A bit of the number of its content may be flipped, or of those of its part: a part
    # has them in its id, and nothing else there has a hyphen.
    _, _, rest = row["id"].partition(".")
    last = rest.rpartition(".")[2]
    named = last if "-" in last else None
    part = None if record.part is None else "{}-{}".format(*record.part)
    if record.content_id != row["content_id"] or named != part:
        message = "it is not a part of its content"
        raise ValueError(message)
    return record


def forget_orphans(database: sqlite3.Connection) -> None:
    """Delete the contents that damage has left without a record."""
    database.execute(
        "DELETE FROM contents WHERE NOT EXISTS (SELECT 1 FROM records"
        " WHERE id >= contents.id AND id < contents.id || '/')"
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
    packed: Mapping[str, bytes] = MappingProxyType({}),
) -> bool:
    """Write a record, pending, and its content, unless they are there.

    Args:
        database: Where to.
        record: What is written.
        owner: Whose it is.
        number: Its place in the order of the records.
        sealed_at: The outbox's time of it.
        packed: Contents that were packed before, by their ids.

    Returns:
        Whether there was no record of the id.
    """
    destination = key_of(record.destination)
    database.execute(
        "INSERT OR IGNORE INTO destinations (endpoint, client, fingerprint)"
        " VALUES (?, ?, ?)",
        destination,
    )
    inserted = database.execute(
        "INSERT OR IGNORE INTO records (content, destination, number, id, first, last,"
        " kind, merge_key, sealed_at, seals, owner, state)"
        " SELECT ?, number, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'pending' FROM destinations"
        " WHERE endpoint = ? AND client = ? AND fingerprint = ?",
        (
            _content(database, record, packed),
            number,
            record.id,
            *(record.part or (None, None)),
            record.kind,
            record.merge_key,
            sealed_at,
            record.seals,
            owner,
            *destination,
        ),
    )
    return inserted.rowcount > 0


def _content(
    database: sqlite3.Connection, record: Record, packed: Mapping[str, bytes]
) -> int:
    """Return the number of a record's content, which is written if it is new."""
    found = database.execute(
        "SELECT number FROM contents WHERE id = ?", (record.content_id,)
    ).fetchone()
    if found:
        return int(found[0])
    number = database.execute(
        "INSERT INTO contents (id, encoding_version, packed, created)"
        " VALUES (?, ?, ?, ?)",
        (
            record.content_id,
            ENCODING_VERSION,
            packed.get(record.content_id) or pack(record.content.encode()),
            record.created.isoformat(),
        ),
    ).lastrowid
    return number or 0


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
    number = min(number for number, _ in old)
    (before,) = database.execute(
        "SELECT max(number) FROM records WHERE number < ?", (number,)
    ).fetchone()
    apart = (number - (before or 0)) // len(new)  # so that a part finds room, too
    if apart == 0:  # split all too often: they go to the end
        apart = SPACING
        number = last_number(database) + len(new) * apart
    # Before the old ones go, with the last of which its content does. The last new one
    # gets the number of the first old one then.
    seals = -sum(record.seals for _, record in old)
    for after, record in enumerate(reversed(new)):
        place = number - after * apart if after else _NOWHERE
        if insert(database, record, owner, place, sealed_at):
            seals += record.seals
    database.executemany(
        "DELETE FROM records WHERE number = ?", [(gone,) for gone, _ in old]
    )
    database.execute(
        "UPDATE records SET number = ? WHERE number = ?", (number, _NOWHERE)
    )
    count(database, "sealed", seals)
    return True


def used_bytes(database: sqlite3.Connection) -> int:
    """Return the size of the database without what is free in it."""
    pages, free, size = (
        database.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)
