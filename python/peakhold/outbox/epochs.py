"""Parts of shared windows: what processes sealed for one report, until it is made.

A part waits in its epoch (``records/share.py``). Once that is over, whoever comes first
puts the report of all its parts in their place, in one transaction, and so every part
is in exactly one report. A part that comes to an epoch which is closed, and one of the
future, as after a jump of the clock, goes into the epoch that runs.

Where a window is shared is its ``place``: ``HOST``, this file, or a Redis server, which
then has a copy of each part and says whose report it is in: see ``offers.py``.

Every function works within the transaction of its caller. ``wall`` is the time in
seconds since 1970, ``now`` that of the outbox's own.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from peakhold.outbox import rows
from peakhold.outbox.ledger import count, dicts
from peakhold.outbox.ownership import runs
from peakhold.outbox.packing import UNREADABLE, pack, unpack
from peakhold.records import ReportContent, Share, join_parts
from peakhold.records.content import ENCODING_VERSION, decode
from peakhold.records.share import closes_at, epoch_at

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Mapping, Sequence

    from peakhold.outbox.state import StateDirectory
    from peakhold.records import DestinationKey, Record

    Times = tuple[float, float]
    """The outbox's own time, and the seconds since 1970."""
    Dropped = Callable[[str, int], None]
    """Told the total, such as `dropped:damaged`, and the seals that went there."""

HOST = ""
"""The place of windows that the processes of a state directory share."""
ALONE_AFTER = 30.0
"""Seconds after which a part of an epoch that may be closed is reported without the
others, if Redis cannot be reached and never had it."""
UNSURE_FOR = 600.0
"""Seconds for which one waits that Redis has, or may have: then it is reported without
the others, though it may be in their report, too."""
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
    total(fate = 'there') AS there, min(epoch) AS oldest_epoch,
    min(CASE WHEN fate != 'there' THEN epoch END) AS oldest_here
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
        alone: Parts that were reported without those of others.
        unsure: Parts of which it is not known whether two reports have them.
    """

    closed: list[Closed]
    next_at: float | None
    alone: int = 0
    unsure: int = 0


def add(
    database: sqlite3.Connection,
    record: Record,
    share: Share,
    owner: str,
    times: Times,
    packed: Mapping[str, bytes],
    place: str = HOST,
) -> tuple[float, bool]:
    """Take in a part that was not added before.

    Args:
        database: Where to.
        record: What the process has sealed.
        share: What it is a part of.
        owner: The process.
        times: ``now`` and ``wall``.
        packed: Contents that were packed before, by their ids.
        place: Where the window is shared.

    Returns:
        When its epoch may be closed, and whether it came late. Redis has clock and
        books of its own.
    """
    now, wall = times
    number, closed = _share(database, record.destination, share, times, place)
    running = epoch_at(wall, share.frequency)
    late = share.epoch <= closed and place == HOST
    epoch = running if late else min(share.epoch, running)
    database.execute(
        "INSERT INTO parts (id, share, epoch, encoding_version, packed, sealed_at,"
        " seals, owner) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            record.id,
            number,
            epoch,
            ENCODING_VERSION,
            packed.get(record.content_id) or pack(record.content.encode()),
            now,
            record.seals,
            owner,
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
    times: Times,
    place: str,
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
        "INSERT OR IGNORE INTO shares"
        " (destination, name, frequency, place, closed, used_at)"
        " SELECT number, ?, ?, ?, ?, ? FROM destinations"
        " WHERE endpoint = ? AND client = ? AND fingerprint = ?",
        (share.name, share.frequency, place, past, now, *key),
    )
    found = database.execute(
        "SELECT shares.number, closed FROM shares JOIN destinations"
        " ON destinations.number = destination"
        " WHERE name = ? AND frequency = ? AND place = ?"
        " AND endpoint = ? AND client = ? AND fingerprint = ?",
        (share.name, share.frequency, place, *key),
    ).fetchone()
    # After the clock was set back epochs come again.
    closed = found[1] if isinstance(found[1], int) else past
    return found[0], min(closed, epoch_at(wall, share.frequency) - 1)


def close(
    database: sqlite3.Connection,
    owner: str,
    times: Times,
    destinations: Collection[DestinationKey],
    dropped: Dropped,
    state: StateDirectory,
    *,
    leaving: bool = False,
) -> Look:
    """Put reports in place of the parts of every epoch that is over.

    Args:
        database: Where they are.
        owner: This process, whose the reports are.
        times: ``now`` and ``wall``.
        destinations: For which there is a sender; the parts of others stay.
        dropped: Told of parts that cannot be read.
        state: Says who lives.
        leaving: Whether this process shares no more. An epoch that no living process
            shares is not waited for.
    """
    _, wall = times
    if leaving:
        database.execute("DELETE FROM sharers WHERE owner = ?", (owner,))
    closed: list[Closed] = []
    next_at: list[float] = []
    for row in _shares(database, destinations):
        if row["place"] != HOST:
            continue
        share = share_of(row)
        abandoned = leaving and not _alive(database, row["number"], state)
        for epoch in _epochs(database, row["number"], share.frequency, wall):
            at = closes_at(epoch, share.frequency)
            if at > wall and not abandoned:
                next_at.append(at)
                continue
            its = replace(share, epoch=epoch)
            parts = _parts(database, row["number"], epoch)
            if _report(database, owner, times[0], row, its, parts, dropped):
                closed.append(Closed(rows.destination_of(row), its))
            if at <= wall:
                database.execute(
                    "UPDATE shares SET closed = ? WHERE number = ?",
                    (epoch, row["number"]),
                )
    return Look(closed, min(next_at, default=None))


def report_alone(
    database: sqlite3.Connection,
    owner: str,
    times: Times,
    destinations: Collection[DestinationKey],
    dropped: Dropped,
    state: StateDirectory,
    place: str,
    *,
    away: bool,
) -> Look:
    """Report parts that Redis should have had reported, without those of others.

    Those are this process's own while the server cannot be reached, and those for
    another server that no living process uses.

    Args:
        database: Where they are.
        owner: This process, whose the reports are.
        times: ``now`` and ``wall``.
        destinations: For which there is a sender.
        dropped: Told of parts that cannot be read.
        state: Says who lives.
        place: Where this process shares windows.
        away: Whether that is a server which cannot be reached.
    """
    _, wall = times
    closed: list[Closed] = []
    alone = unsure = 0
    for row in _shares(database, destinations):
        number, is_mine = row["number"], row["place"] == place
        waits = not away if is_mine else bool(_alive(database, number, state))
        if waits or row["place"] == HOST:
            continue
        share = share_of(row)
        for epoch in _epochs(database, number, share.frequency, wall):
            overdue = wall - closes_at(epoch, share.frequency)
            parts = [
                part
                for part in _parts(database, number, epoch)
                if part["owner"] == owner or not is_mine
                # The wall clock jumps, and a late part's epoch was over before.
                if min(overdue, times[0] - part["sealed_at"])
                > (ALONE_AFTER if part["fate"] == "here" else UNSURE_FOR)
            ]
            its = replace(share, epoch=epoch)
            reported = _report(database, owner, times[0], row, its, parts, dropped)
            if reported:
                closed.append(Closed(rows.destination_of(row), its))
            alone += reported
            unsure += sum(part["fate"] != "here" for part in parts)
    return Look(closed, None, alone, unsure)


def _shares(
    database: sqlite3.Connection, destinations: Collection[DestinationKey]
) -> list[sqlite3.Row]:
    """Return the shared windows that have parts, and a sender here."""
    return [
        row
        for row in database.execute(_SHARES).fetchall()
        if rows.destination_of(row) in destinations
    ]


def _parts(database: sqlite3.Connection, share: int, epoch: int) -> list[sqlite3.Row]:
    return database.execute(
        "SELECT * FROM parts WHERE share = ? AND epoch = ? ORDER BY number",
        (share, epoch),
    ).fetchall()


def share_of(row: sqlite3.Row | Mapping[str, Any]) -> Share:
    """Return the shared window of a row; of a damaged one, something that ends."""
    try:
        aggregator_key, partition = json.loads(row["name"])
    except (ValueError, TypeError):
        aggregator_key, partition = "", None
    frequency = row["frequency"]
    if not (isinstance(frequency, int) and 1 <= frequency <= _LONGEST):
        frequency = 1
    return Share(aggregator_key, partition, frequency, 0)


def _alive(
    database: sqlite3.Connection, share: int, state: StateDirectory
) -> list[str]:
    owners = database.execute("SELECT owner FROM sharers WHERE share = ?", (share,))
    return [owner for (owner,) in owners.fetchall() if runs(state, owner)]


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


def _report(
    database: sqlite3.Connection,
    owner: str,
    now: float,
    row: sqlite3.Row,
    share: Share,
    parts: Sequence[sqlite3.Row],
    dropped: Dropped,
) -> int:
    """Put a report in place of an epoch's parts; returns how many could be read."""
    readable: dict[str, ReportContent] = {}
    seals = 0
    for part in parts:
        content = content_of(part["encoding_version"], part["packed"])
        if content is None:
            remove(database, part["number"], "dropped:damaged", dropped)
        else:
            readable[part["id"]] = content
            seals += _seals(part["seals"])
            database.execute("DELETE FROM parts WHERE number = ?", (part["number"],))
    if not readable:
        return 0
    destination = rows.destination_of(row)
    inserted = insert_report(database, owner, now, destination, share, readable, seals)
    count(database, "sealed", inserted - seals)
    return len(readable)


def insert_report(
    database: sqlite3.Connection,
    owner: str,
    now: float,
    destination: DestinationKey,
    share: Share,
    parts: Mapping[str, ReportContent],
    seals: int,
) -> int:
    """Insert the report of an epoch, unless it is there.

    Args:
        database: Where to.
        owner: Whose it is.
        now: The outbox's time.
        destination: Where it goes.
        share: The shared window, and the epoch.
        parts: Contents by the ids of the parts; at least one.
        seals: How many windows they stand for.

    Returns:
        How many windows the records stand for that were inserted: a report of several
        requests counts once for each but the first, too.
    """
    number, inserted = rows.last_number(database), 0
    for record in join_parts(destination, share, parts, seals):
        number += rows.SPACING
        if rows.insert(database, record, owner, number, now):
            inserted += record.seals
    return inserted


def content_of(version: object, packed: object) -> ReportContent | None:
    """Return what a packed part holds; None if it is damaged."""
    try:
        content = decode("report", version, unpack(packed))  # type: ignore[arg-type]
    except UNREADABLE:
        return None
    return content if isinstance(content, ReportContent) else None


def destinations(database: sqlite3.Connection) -> set[DestinationKey]:
    """Return for which destinations parts wait."""
    return {rows.destination_of(row) for row in database.execute(_SHARES).fetchall()}


def unreadable(database: sqlite3.Connection) -> list[str]:
    """Return the ids of damaged parts."""
    query = "SELECT id, encoding_version, packed FROM parts ORDER BY number"
    return [
        row["id"]
        for row in dicts(database, query)
        if content_of(row["encoding_version"], row["packed"]) is None
    ]


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
            if not runs(state, owner):
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
        ``api_key_fingerprint`` and ``client`` say which, and ``share`` whether it is
        shared on this ``host`` or by ``redis``; ``processes`` is how many living ones
        of this host have sealed parts of it; ``epoch`` runs and ends at ``ends_at``
        (seconds since 1970), ``closed`` is the last one that takes no more parts, None
        with Redis, which keeps it; ``parts``
        wait, the oldest for ``overdue`` seconds since its epoch could be closed, and
        a Redis server has ``there`` of them: those may be in a report already, and are
        not overdue where no process asks; and ``late`` is how many parts came after
        their epoch was closed.
    """
    found = []
    for row in dicts(database, _OVERVIEW):
        share = share_of(row)
        epoch = epoch_at(wall, share.frequency)
        processes, overdue = len(_alive(database, row["number"], state)), 0.0
        oldest = row["oldest_epoch"] if processes else row["oldest_here"]
        if isinstance(oldest, int):
            overdue = max(0.0, wall - closes_at(oldest, share.frequency))
        found.append(
            {
                "aggregator_key": share.aggregator_key,
                "feed": share.partition,
                "frequency": share.frequency,
                "share": "host" if row["place"] == HOST else "redis",
                **{
                    name: row[name]
                    for name in ("endpoint", "api_key_fingerprint", "client")
                },
                "processes": processes,
                "epoch": epoch,
                "ends_at": epoch * share.frequency,
                "closed": row["closed"] if row["place"] == HOST else None,
                **{name: row[name] for name in ("parts", "late")},
                "there": int(row["there"]),
                "overdue": overdue,
            }
        )
    return found
