"""Parts of windows that are shared by a Redis server: what it has of them, and when.

A process keeps a part until Redis says that it is in somebody's report. Its ``fate`` is
``here`` while Redis never had it, ``unsure`` from before it is sent until the answer,
and after Redis has lost it, and ``there`` in between. Whom Redis has make the report of
an epoch puts it into its outbox, and tells Redis so: ``delivery/exchange.py``.

Every function works within the transaction of its caller.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from peakhold.outbox import epochs, ownership, rows
from peakhold.outbox.ledger import count

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterable

    from peakhold.outbox.state import StateDirectory
    from peakhold.records import DestinationKey, ReportContent, Share

MOST_BYTES = 8 * 1024 * 1024
"""Packed bytes that are offered at once, if they are more than one part."""

_OFFERED = """
SELECT id, share, epoch, seals, fate, length(packed) AS size, name, frequency, endpoint,
    client, fingerprint
FROM parts JOIN shares ON shares.number = parts.share
    JOIN destinations ON destinations.number = destination
WHERE place = ? AND owner = ?
ORDER BY parts.number
"""
_TAKE_OVER = """
UPDATE parts SET owner = ? WHERE owner NOT IN ({}) AND share IN (
    SELECT shares.number FROM shares
        JOIN destinations ON destinations.number = destination
    WHERE place = ? AND endpoint = ? AND client = ? AND fingerprint = ?
)
"""


class Part(NamedTuple):
    """A part that Redis is to take in, or is asked about.

    Attributes:
        id: Its id.
        epoch: Whose end closed it.
        seals: How many windows it stands for.
        packed: Its content; None if Redis has it.
    """

    id: str
    epoch: int
    seals: int
    packed: bytes | None


class Offer(NamedTuple):
    """The parts that a process has of a shared window.

    Attributes:
        destination: Where their report goes.
        share: The window; its epoch says nothing.
        parts: The oldest first.
    """

    destination: DestinationKey
    share: Share
    parts: list[Part]

    @property
    def is_new(self) -> bool:
        """Whether there is a part that Redis is not known to have."""
        return any(part.packed is not None for part in self.parts)


class Taken(NamedTuple):
    """An epoch that this process is to report.

    Attributes:
        epoch: Its number.
        parts: What it has, by the ids of the parts: how many windows each stands for,
            and its content.
        damaged: The ids of those that cannot be read.
    """

    epoch: int
    parts: dict[str, tuple[int, ReportContent]]
    damaged: list[str]


class Answer(NamedTuple):
    """What Redis says of an offer.

    Attributes:
        offer: What was offered.
        fates: Of each part ``there``, ``late`` if it is there in a later epoch,
            ``sealed`` if it is in a report, or ``absent``.
        taken: An epoch that is this process's to report; None if there is none.
        wait: Seconds after which to ask again; None if there is nothing to wait for.
    """

    offer: Offer
    fates: list[str]
    taken: Taken | None
    wait: float | None


def are_there(database: sqlite3.Connection, owner: str, place: str) -> bool:
    """Whether a process has parts for Redis."""
    return bool(
        database.execute(
            "SELECT EXISTS (SELECT 1 FROM parts JOIN shares ON shares.number = share"
            " WHERE place = ? AND owner = ?)",
            (place, owner),
        ).fetchone()[0]
    )


def offer(
    database: sqlite3.Connection,
    owner: str,
    place: str,
    destinations: Collection[DestinationKey],
) -> list[Offer]:
    """Return the parts of a process, whose fate is not known from now on.

    Not more than fit in a request come with their contents, the oldest.

    Args:
        database: Where they are.
        owner: The process.
        place: The Redis server.
        destinations: For which there is a sender.
    """
    offers: dict[int, Offer] = {}
    room = MOST_BYTES
    for row in database.execute(_OFFERED, (place, owner)).fetchall():
        destination = rows.destination_of(row)
        if destination not in destinations:
            continue
        packed = None
        if row["fate"] != "there":
            if room <= 0:
                continue
            room -= row["size"]
            (packed,) = database.execute(
                "SELECT packed FROM parts WHERE id = ?", (row["id"],)
            ).fetchone()
            database.execute(
                "UPDATE parts SET fate = 'unsure' WHERE id = ?", (row["id"],)
            )
        its = offers.setdefault(
            row["share"], Offer(destination, epochs.share_of(row), [])
        )
        its.parts.append(Part(row["id"], row["epoch"], row["seals"], packed))
    return list(offers.values())


def settle(
    database: sqlite3.Connection, owner: str, now: float, answers: Iterable[Answer]
) -> Counter[str]:
    """Do what the answers mean, and insert the reports of epochs that were taken.

    Args:
        database: Where the parts are.
        owner: This process, whose the reports are.
        now: The outbox's time.
        answers: What Redis has answered.

    Returns:
        How many parts have which fate. Those ``absent`` were there, and may be in two
        reports.
    """
    fates: Counter[str] = Counter()
    for answer in answers:
        for part, fate in zip(answer.offer.parts, answer.fates, strict=True):
            fates[fate] += 1
            if fate == "sealed":
                count(database, "delivered", _remove(database, part.id))
            else:
                database.execute(
                    "UPDATE parts SET fate = ? WHERE id = ?",
                    ("unsure" if fate == "absent" else "there", part.id),
                )
                database.execute(
                    "UPDATE shares SET late = late + ?"
                    " WHERE number = (SELECT share FROM parts WHERE id = ?)",
                    (int(fate == "late"), part.id),
                )
        if answer.taken is not None and answer.taken.parts:
            _report(database, owner, now, answer.offer, answer.taken)
    return fates


def _report(
    database: sqlite3.Connection, owner: str, now: float, offer: Offer, taken: Taken
) -> None:
    """Insert the report of an epoch in place of its parts that are here."""
    here = sum(_remove(database, part_id) for part_id in taken.parts)
    seals = sum(seals for seals, _ in taken.parts.values())
    contents = {part_id: content for part_id, (_, content) in taken.parts.items()}
    share = replace(offer.share, epoch=taken.epoch)
    inserted = epochs.insert_report(
        database, owner, now, offer.destination, share, contents, seals
    )
    count(database, "sealed", inserted - here)


def _remove(database: sqlite3.Connection, part_id: str) -> int:
    """Delete a part; returns for how many windows it stood, 0 if it is not here."""
    found = database.execute("SELECT seals FROM parts WHERE id = ?", (part_id,))
    seals = sum(int(row["seals"]) for row in found.fetchall())
    database.execute("DELETE FROM parts WHERE id = ?", (part_id,))
    return seals


def take_over(
    database: sqlite3.Connection,
    owner: str,
    place: str,
    state: StateDirectory,
    destinations: Collection[DestinationKey],
) -> None:
    """Make the parts of dead processes this process's own.

    Raises:
        OSError: It cannot be known which processes live.
    """
    owners = database.execute("SELECT DISTINCT owner FROM parts").fetchall()
    alive = [each for (each,) in owners if ownership.runs(state, each)]
    if len(alive) < len(owners):
        marks = ",".join("?" * len(alive))
        database.executemany(
            _TAKE_OVER.format(marks),
            [(owner, *alive, place, *rows.key_of(each)) for each in destinations],
        )
