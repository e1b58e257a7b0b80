"""Parts of windows that are shared by a Redis server: what it has of them, and when.

A process keeps a part until Redis says that it is in somebody's report. Its ``fate`` is
``here`` while Redis never had it, ``unsure`` from before it is sent until the answer,
and after Redis has lost it, and ``there`` in between. Whom Redis has make the report of
an epoch puts it into its outbox, and tells Redis so: ``delivery/exchange.py``.

Every function works within the transaction of its caller.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from peakhold.outbox import epochs, ownership, rows
from peakhold.outbox.ledger import count
from peakhold.records.share import epoch_at

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterable

    from peakhold.outbox.epochs import Dropped
    from peakhold.outbox.state import StateDirectory
    from peakhold.records import DestinationKey, ReportContent, Share

MOST_BYTES = 8 * 1024 * 1024
"""Packed bytes that are offered at once, if they are more than one part."""
_MOST_SEALS = (1 << 31) - 1
_ID = re.compile(r"[0-9a-zA-Z.-]+")
"""What the ids of parts are made of; the server gives others back to nobody."""

_OFFERED = """
SELECT parts.*, name, frequency, shares.born AS known, endpoint, client, fingerprint
FROM parts JOIN shares ON shares.number = share
    JOIN destinations ON destinations.number = destination
WHERE place = ? AND owner = ? ORDER BY parts.number
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
        packed: Its content; None if Redis has it, or is not asked to take it yet.
        fate: What is known before this offer: ``here``, ``unsure`` or ``there``.
        born: When the window was made at the server that may have got the part; empty
            if none may.
    """

    id: str
    epoch: int
    seals: int
    packed: bytes | None
    fate: str
    born: str


class Offer(NamedTuple):
    """The parts that a process has of a shared window.

    Attributes:
        destination: Where their report goes.
        share: The window; its epoch says nothing.
        parts: The oldest first.
        number: The window's in the outbox; 0 without parts.
    """

    destination: DestinationKey
    share: Share
    parts: list[Part]
    number: int = 0

    @property
    def is_new(self) -> bool:
        """Whether a part goes with its content."""
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
        fates: Of each part ``new`` if it is there from now on, ``late`` if that is in a
            later epoch, ``there`` if it was there before, ``reported`` if a report has
            it, or ``absent``.
        epochs: In which epoch each is there; None if it is not.
        taken: An epoch that is this process's to report; None if there is none.
        wait: Seconds after which to ask again; None if there is nothing to wait for.
        missing: How many parts of a report were lost there before it was told of it.
        born: When the window was made at the server; changes when it has lost it.
    """

    offer: Offer
    fates: list[str]
    epochs: list[int | None]
    taken: Taken | None
    wait: float | None
    missing: int
    born: str


class Settled(NamedTuple):
    """What became of the parts about which Redis has answered.

    Attributes:
        gone: The ids of those that are not here any more.
        unsure: Of how many it is not known whether two reports have them, because
            Redis has lost them, or may have.
    """

    gone: list[str]
    unsure: int


def has_parts(database: sqlite3.Connection, owner: str, place: str) -> bool:
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
    wall: float,
    destinations: Collection[DestinationKey],
    dropped: Dropped,
) -> list[Offer]:
    """Return the parts to offer; those that go with their contents are ``unsure`` now.

    Not more than fit in a request come with their contents, the oldest; and none of a
    window that Redis was not asked about before. So it is always known whether it has
    forgotten a window since it may have had a part.

    Args:
        database: Where they are.
        owner: The process.
        place: The Redis server.
        wall: The time in seconds since 1970.
        destinations: For which there is a sender.
        dropped: Told of parts that cannot be read.
    """
    offers: dict[int, Offer] = {}
    room = MOST_BYTES
    for row in database.execute(_OFFERED, (place, owner)).fetchall():
        destination = rows.destination_of(row)
        goes = row["fate"] != "there" and row["known"] != ""
        if destination not in destinations or (goes and room <= 0):
            continue
        share = epochs.share_of(row)
        part = _part(row, epoch_at(wall, share.frequency), goes=goes)
        if part is None:
            epochs.remove(database, row["number"], "dropped:damaged", dropped)
            continue
        if part.packed is not None:
            room -= len(part.packed)
            database.execute(
                "UPDATE parts SET fate = 'unsure', born = ? WHERE number = ?",
                (row["born"] or row["known"], row["number"]),
            )
        number = row["share"]
        its = offers.setdefault(number, Offer(destination, share, [], number))
        its.parts.append(part)
    return list(offers.values())


def _part(row: sqlite3.Row, running: int, *, goes: bool) -> Part | None:
    """Return the part of a row, maybe with its content; None if it is damaged."""
    packed = row["packed"] if goes else None
    seals = row["seals"]
    if not (
        isinstance(row["id"], str)
        and _ID.fullmatch(row["id"])
        and isinstance(seals, int)
        and 0 < seals <= _MOST_SEALS
    ):
        return None
    version = row["encoding_version"]
    if packed is not None and epochs.content_of(version, packed) is None:
        return None  # nor could another process read it
    epoch = row["epoch"]
    if not (isinstance(epoch, int) and 0 <= epoch <= running):
        epoch = running  # of a clock that jumped, or damaged
    return Part(row["id"], epoch, seals, packed, row["fate"], row["born"])


def settle(
    database: sqlite3.Connection, owner: str, now: float, answers: Iterable[Answer]
) -> list[Settled]:
    """Do what the answers mean, and insert the reports of epochs that were taken.

    Args:
        database: Where the parts are.
        owner: This process, whose the reports are.
        now: The outbox's time.
        answers: What Redis has answered.

    Returns:
        What became of the parts, for each answer.
    """
    return [_settle(database, owner, now, answer) for answer in answers]


def _settle(
    database: sqlite3.Connection, owner: str, now: float, answer: Answer
) -> Settled:
    offer, gone, unsure = answer.offer, list[str](), answer.missing
    database.execute(
        "UPDATE shares SET born = ?, late = late + ? WHERE number = ?",
        (answer.born, answer.fates.count("late"), offer.number),
    )
    for part, fate, epoch in zip(offer.parts, answer.fates, answer.epochs, strict=True):
        forgot = part.born not in ("", answer.born)
        unsure += forgot or (part.fate == "there" and fate not in ("there", "reported"))
        if fate == "reported":
            count(database, "delivered", _remove(database, part.id))
            gone.append(part.id)
        elif fate != "absent" or part.fate != "here":
            database.execute(
                "UPDATE parts SET fate = ?, born = ?, epoch = ? WHERE id = ?",
                (
                    "unsure" if epoch is None else "there",
                    answer.born,
                    part.epoch if epoch is None else epoch,
                    part.id,
                ),
            )
    if answer.taken is not None and answer.taken.parts:
        gone += _report(database, owner, now, offer, answer.taken)
    return Settled(gone, unsure)


def _report(
    database: sqlite3.Connection, owner: str, now: float, offer: Offer, taken: Taken
) -> list[str]:
    """Insert the report of an epoch in place of its parts here; returns their ids."""
    here = {part_id: _remove(database, part_id) for part_id in taken.parts}
    seals = sum(seals for seals, _ in taken.parts.values())
    contents = {part_id: content for part_id, (_, content) in taken.parts.items()}
    share = replace(offer.share, epoch=taken.epoch)
    inserted = epochs.insert_report(
        database, owner, now, offer.destination, share, contents, seals
    )
    count(database, "sealed", inserted - sum(here.values()))
    return [part_id for part_id, seals in here.items() if seals]


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
        database.execute(
            "INSERT OR IGNORE INTO sharers SELECT DISTINCT share, owner FROM parts"
            " WHERE owner = ?",
            (owner,),
        )
