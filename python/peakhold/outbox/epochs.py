"""Parts of shared windows: what processes sealed for one report, until it is made.

A part waits in its epoch (``records/share.py``). Once that is over, whoever comes first
puts the report of all its parts in their place, in one transaction, and so every part
is in exactly one report. A part that comes to an epoch which is closed, and one of the
future, as after a jump of the clock, goes into the epoch that runs.

Every function works within the transaction of its caller. ``wall`` is the time in
seconds since 1970, ``now`` that of the outbox's own.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from peakhold.outbox import rows
from peakhold.outbox.ledger import count, dicts
from peakhold.outbox.packing import UNREADABLE, pack, unpack
from peakhold.records import ReportContent, Share, join_parts
from peakhold.records.content import ENCODING_VERSION, decode
from peakhold.records.share import closes_at, epoch_at

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Mapping

    from peakhold.outbox.state import StateDirectory
    from peakhold.records import DestinationKey, Record

    Dropped = Callable[[str, int], None]
    """Told the total, such as `dropped:damaged`, and the seals that went there."""

KEPT = 600.0
"""Seconds for which it is known at least which epoch of a window was closed last."""
_LONGEST = 10**9

_SHARES = """
SELECT DISTINCT shares.*, endpoint, client, fingerprint FROM parts
    JOIN shares ON shares.number = share
    JOIN destinations ON destinations.number = destination
"""
_OVERVIEW = """
SELECT shares.*, endpoint, fingerprint AS api_key_fingerprint,
    nullif(client, '') AS client, count(parts.number) AS parts,
    min(epoch) AS oldest_epoch
FROM shares JOIN destinations ON destinations.number = destination
    LEFT JOIN parts ON share = shares.number
GROUP BY shares.number ORDER BY shares.number
"""
_UNUSED = """
DELETE FROM shares WHERE used_at < ? - max(?, 3 * frequency)
    AND NOT EXISTS (SELECT 1 FROM parts WHERE share = shares.number)
"""


class Closed(NamedTuple):
    """An epoch that was closed.

    Attributes:
        destination: Where its report goes.
        share: The shared window, and the epoch.
    """

    destination: DestinationKey
    share: Share


class Look(NamedTuple):
    """What a look at the parts has found.

    Attributes:
        closed: The epochs that were closed, each window's in their order.
        next_at: When another one may be closed, in seconds since 1970; None if no part
            waits.
    """

    closed: list[Closed]
    next_at: float | None


def add(
    database: sqlite3.Connection,
    record: Record,
    share: Share,
    owner: str,
    times: tuple[float, float],
    packed: Mapping[str, bytes],
) -> tuple[float, bool]:
    """Take in a part that was not added before.

    Args:
        database: Where to.
        record: What the process has sealed.
        share: What it is a part of.
        owner: The process.
        times: ``now`` and ``wall``.
        packed: Contents that were packed before, by their ids.

    Returns:
        When its epoch may be closed, and whether it came late.
    """
    now, wall = times
    number, closed = _share(database, record.destination, share, times)
    running = epoch_at(wall, share.frequency)
    late = share.epoch <= closed
    epoch = running if late else min(share.epoch, running)
    database.execute(
        "INSERT INTO parts (id, share, epoch, encoding_version, packed, sealed_at,"
        " seals) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            record.id,
            number,
            epoch,
            ENCODING_VERSION,
            packed.get(record.content_id) or pack(record.content.encode()),
            now,
            record.seals,
        ),
    )
    database.execute(
        "UPDATE shares SET late = late + ?, used_at = ? WHERE number = ?",
        (int(late), now, number),
    )
    database.execute("INSERT OR IGNORE INTO sharers VALUES (?, ?)", (number, owner))
    count(database, "sealed", record.seals)
    return closes_at(epoch, share.frequency), late


def _share(
    database: sqlite3.Connection,
    destination: DestinationKey,
    share: Share,
    times: tuple[float, float],
) -> tuple[int, int]:
    """Return a shared window's number, and the epoch of it that was closed last."""
    now, wall = times
    key = rows.key_of(destination)
    database.execute(
        "INSERT OR IGNORE INTO destinations (endpoint, client, fingerprint)"
        " VALUES (?, ?, ?)",
        key,
    )
    # Of one that is not known, or not any more, the epochs count as closed that may be.
    past = epoch_at(wall, share.frequency) - 1
    if closes_at(past, share.frequency) > wall:
        past -= 1
    database.execute(
        "INSERT OR IGNORE INTO shares (destination, name, frequency, closed, used_at)"
        " SELECT number, ?, ?, ?, ? FROM destinations"
        " WHERE endpoint = ? AND client = ? AND fingerprint = ?",
        (share.name, share.frequency, past, now, *key),
    )
    found = database.execute(
        "SELECT shares.number, closed FROM shares JOIN destinations"
        " ON destinations.number = destination"
        " WHERE name = ? AND frequency = ?"
        " AND endpoint = ? AND client = ? AND fingerprint = ?",
        (share.name, share.frequency, *key),
    ).fetchone()
    # After the clock was set back epochs come again.
    closed = found[1] if isinstance(found[1], int) else past
    return found[0], min(closed, epoch_at(wall, share.frequency) - 1)


def close(
    database: sqlite3.Connection,
    owner: str,
    times: tuple[float, float],
    destinations: Collection[DestinationKey],
    dropped: Dropped,
    *,
    leaving: StateDirectory | None = None,
) -> Look:
    """Put reports in place of the parts of every epoch that is over.

    Args:
        database: Where they are.
        owner: This process, whose the reports are.
        times: ``now`` and ``wall``.
        destinations: For which there is a sender; the parts of others stay.
        dropped: Told of parts that cannot be read.
        leaving: Given by a process that does not share any more: says who lives. An
            epoch that no living process shares is not waited for.
    """
    _, wall = times
    if leaving is not None:
        database.execute("DELETE FROM sharers WHERE owner = ?", (owner,))
    closed: list[Closed] = []
    next_at: list[float] = []
    for row in database.execute(_SHARES).fetchall():
        destination = rows.destination_of(row)
        if destination not in destinations:
            continue
        share = _share_of(row)
        abandoned = leaving is not None and not _is_shared(database, row, leaving)
        for epoch in _epochs(database, row["number"], share.frequency, wall):
            at = closes_at(epoch, share.frequency)
            if at > wall and not abandoned:
                next_at.append(at)
                continue
            its = Share(share.aggregator_key, share.partition, share.frequency, epoch)
            if _close_epoch(database, owner, times[0], row, its, dropped):
                closed.append(Closed(destination, its))
            if at <= wall:
                database.execute(
                    "UPDATE shares SET closed = ? WHERE number = ?",
                    (epoch, row["number"]),
                )
    return Look(closed, min(next_at, default=None))


def _share_of(row: sqlite3.Row | Mapping[str, Any]) -> Share:
    """Return the shared window of a row; of a damaged one, something that ends."""
    try:
        aggregator_key, partition = json.loads(row["name"])
    except (ValueError, TypeError):
        aggregator_key, partition = "", None
    frequency = row["frequency"]
    if not (isinstance(frequency, int) and 1 <= frequency <= _LONGEST):
        frequency = 1
    return Share(aggregator_key, partition, frequency, 0)


def _is_shared(
    database: sqlite3.Connection, row: sqlite3.Row, state: StateDirectory
) -> bool:
    """Whether a living process has sealed parts of a window, and did not leave."""
    return any(_alive(database, row["number"], state))


def _alive(
    database: sqlite3.Connection, share: int, state: StateDirectory
) -> list[str]:
    owners = database.execute("SELECT owner FROM sharers WHERE share = ?", (share,))
    return [
        owner
        for (owner,) in owners.fetchall()
        if isinstance(owner, str) and owner.isalnum() and state.is_alive(owner)
    ]


def _epochs(
    database: sqlite3.Connection, share: int, frequency: int, wall: float
) -> list[int]:
    """Return the epochs that have parts, none of the future."""
    running = epoch_at(wall, frequency)
    found = database.execute(
        "SELECT DISTINCT epoch FROM parts WHERE share = ? ORDER BY epoch", (share,)
    ).fetchall()
    epochs = [epoch for (epoch,) in found]
    # A text, which damage may make of a number, is greater than every number.
    if any(not isinstance(each, int) or each > running for each in epochs):
        database.execute(
            "UPDATE parts SET epoch = ?1"
            " WHERE share = ?2 AND (epoch > ?1 OR typeof(epoch) != 'integer')",
            (running, share),
        )
        return _epochs(database, share, frequency, wall)
    return epochs


def _close_epoch(
    database: sqlite3.Connection,
    owner: str,
    now: float,
    row: sqlite3.Row,
    share: Share,
    dropped: Dropped,
) -> bool:
    """Put a report in place of an epoch's parts; False if none can be read."""
    key = (row["number"], share.epoch)
    parts: dict[str, ReportContent] = {}
    seals = 0
    for part in database.execute(
        "SELECT * FROM parts WHERE share = ? AND epoch = ? ORDER BY number", key
    ).fetchall():
        content = _content(part)
        if content is None:
            remove(database, part["number"], "dropped:damaged", dropped)
        else:
            parts[part["id"]] = content
            seals += _seals(part["seals"])
    database.execute("DELETE FROM parts WHERE share = ? AND epoch = ?", key)
    if not parts:
        return False
    records = join_parts(rows.destination_of(row), share, parts, seals)
    number = rows.last_number(database)
    for record in records:
        number += rows.SPACING
        rows.insert(database, record, owner, number, now)
    count(database, "sealed", len(records) - 1)
    return True


def _content(part: sqlite3.Row | Mapping[str, Any]) -> ReportContent | None:
    try:
        content = decode("report", part["encoding_version"], unpack(part["packed"]))
    except UNREADABLE:
        return None
    return content if isinstance(content, ReportContent) else None


def unreadable(database: sqlite3.Connection) -> list[str]:
    """Return the ids of damaged parts."""
    query = "SELECT id, encoding_version, packed FROM parts ORDER BY number"
    return [row["id"] for row in dicts(database, query) if _content(row) is None]


def tidy(
    database: sqlite3.Connection, state: StateDirectory, now: float, dropped: Dropped
) -> None:
    """Forget windows and processes that share nothing any more.

    Raises:
        OSError: It cannot be known which processes live.
    """
    if database.execute("SELECT EXISTS (SELECT 1 FROM shares)").fetchone()[0]:
        database.execute(_UNUSED, (now, KEPT))
        owners = database.execute("SELECT DISTINCT owner FROM sharers").fetchall()
        for (owner,) in owners:
            alive = isinstance(owner, str) and owner.isalnum() and state.is_alive(owner)
            if not alive:
                database.execute("DELETE FROM sharers WHERE owner = ?", (owner,))
        database.execute(
            "DELETE FROM sharers WHERE share NOT IN (SELECT number FROM shares)"
        )
    lost = database.execute(
        "SELECT number FROM parts WHERE share NOT IN (SELECT number FROM shares)"
    ).fetchall()
    for (number,) in lost:  # of a window that damage has made unknown
        remove(database, number, "dropped:damaged", dropped)


def remove(
    database: sqlite3.Connection, number: int, total: str, dropped: Dropped
) -> None:
    """Delete a part, and add its seals to a total."""
    row = database.execute(
        "SELECT seals FROM parts WHERE number = ?", (number,)
    ).fetchone()
    if row is not None:
        database.execute("DELETE FROM parts WHERE number = ?", (number,))
        count(database, total, _seals(row[0]))
        dropped(total, _seals(row[0]))


def _seals(value: object) -> int:
    return value if isinstance(value, int) else 1  # of a damaged row


def overview(
    database: sqlite3.Connection, state: StateDirectory, wall: float
) -> list[dict[str, Any]]:
    """Return figures per shared window.

    Returns:
        ``aggregator_key``, ``feed``, ``frequency``, ``endpoint``,
        ``api_key_fingerprint`` and ``client`` say which; ``processes`` is how many
        living ones have sealed parts of it; ``epoch`` runs and ends at ``ends_at``
        (seconds since 1970), ``closed`` is the last one that was reported; ``parts``
        wait, the oldest for ``overdue`` seconds since its epoch could be closed; and
        ``late`` is how many parts came after their epoch was closed.
    """
    found = []
    for row in dicts(database, _OVERVIEW):
        share = _share_of(row)
        epoch = epoch_at(wall, share.frequency)
        overdue = 0.0
        if isinstance(row["oldest_epoch"], int):
            overdue = max(0.0, wall - closes_at(row["oldest_epoch"], share.frequency))
        found.append(
            {
                "aggregator_key": share.aggregator_key,
                "feed": share.partition,
                "frequency": share.frequency,
                **{
                    name: row[name]
                    for name in ("endpoint", "api_key_fingerprint", "client")
                },
                "processes": len(_alive(database, row["number"], state)),
                "epoch": epoch,
                "ends_at": epoch * share.frequency,
                **{name: row[name] for name in ("closed", "parts", "late")},
                "overdue": overdue,
            }
        )
    return found
