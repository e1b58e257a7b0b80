"""One SQLite database of sealed records, in a file that processes share or in memory.

Conservation, at every commit: ``sealed == delivered + pending + parked + dead +
dropped``. The figures count seals. A record that absorbed others in a merge stands for
all of their seals; a record that is split passes its seals to its first part, and every
further part counts as sealed once more.

Within a process, one deliverer at a time has a record on lease. Ages are told on the
outbox's own time, see ``Database``.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from peakhold.outbox import epochs, offers, ownership, rows
from peakhold.outbox.database import Database
from peakhold.outbox.ledger import count, counts_of, overview, remove
from peakhold.outbox.packing import UNREADABLE, pack
from peakhold.outbox.room import Limits, Room

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Mapping, Sequence

    from peakhold.outbox.ledger import Counts
    from peakhold.outbox.state import StateDirectory
    from peakhold.records import DestinationKey, Kind, Record, Share

_T = TypeVar("_T")

DEAD_LIMIT = 1_000
"""Dead records that are kept."""


class Waiting(NamedTuple):
    """What a process has to deliver.

    Attributes:
        destination: Where it goes.
        kind: Which requests.
        try_now: Whether somebody at the command line wants it tried now.
        not_before: Monotonic time of the next attempt, as whoever made the last one had
            it; minus infinity if there was none, or it was parked.
    """

    destination: DestinationKey
    kind: Kind
    try_now: bool
    not_before: float


class Store:
    """Sealed records; what reads or writes them is one transaction of ``Database``'s.

    A leased record is known by its number, and its id compared in the row: a damaged
    index would not lead from the one to the other.

    Attributes:
        needs_room: Whether ``make_room`` had something to do after the last call.
    """

    def __init__(
        self,
        state: StateDirectory | None,
        limits: Limits,
        *,
        dropped: Callable[[str, int], None],
        clock: Callable[[], float] = time.monotonic,
        sync: str = "OFF",
        place: str = epochs.HOST,
    ) -> None:
        """Open nothing yet.

        Args:
            state: Where the file is; None for a database in memory.
            limits: What is too much.
            dropped: Told reason and number of the seals that are dropped.
            clock: Monotonic time in seconds.
            sync: SQLite's ``synchronous``.
            place: Where this process shares windows.
        """
        self.needs_room = False
        self._state = state
        self._dropped = dropped
        self._database = Database(state, clock, sync)
        self._place = place
        self._leased: dict[str, int] = {}
        self._new_leases: list[str] = []
        self._drops: Counter[str] = Counter()
        self._room = Room(limits, self._leased)

    def close(self) -> None:
        """Close the database; the next method opens it again."""
        self._database.close()

    def is_there(self) -> bool:
        """Whether there may be a file; looks without making one."""
        return self._database.is_there()

    # What becomes of a record -----------------------------------------------------

    def add(
        self,
        records: Sequence[Record],
        *,
        leased: Collection[str] = (),
        moved: bool = False,
    ) -> set[str]:
        """Take encoded records in, whether or not there is room for them.

        Args:
            records: The records.
            leased: The ids of those that the caller has on lease from now on.
            moved: Whether they come from another store, maybe after other parts of
                their windows.

        Returns:
            The ids of those that were not here before.
        """
        # Before others have to wait for the database.
        contents = {record.content_id: record.content for record in records}
        packed = {key: pack(content.encode()) for key, content in contents.items()}

        def act(database: sqlite3.Connection) -> set[str]:
            added = self._insert(database, records, packed, leased=leased, moved=moved)
            self._room.may_merge = True
            self.needs_room = self._room.is_needed(database, self._database.now())
            return added

        return self.transaction(act)

    def add_parts(
        self, parts: Sequence[tuple[Record, Share]], wall: float
    ) -> tuple[float, int]:
        """Take in parts of shared windows, each once.

        Args:
            parts: Sealed windows, and what they are parts of.
            wall: The time in seconds since 1970.

        Returns:
            When the first of their epochs may be closed, as such a time; and how many
            of them came late.
        """
        packed = {
            record.content_id: pack(record.content.encode()) for record, _ in parts
        }

        def act(database: sqlite3.Connection) -> tuple[float, int]:
            times = self._database.now(), wall
            # All are looked at first: those to several destinations have one window.
            new_ones = [
                (record, share)
                for record, share in parts
                if not ownership.was_added(database, record, moved=False)
            ]
            closes_at, came_late = float("inf"), 0
            for record, share in new_ones:
                at, late = epochs.add(
                    database,
                    record,
                    share,
                    self._database.owner,
                    times,
                    packed,
                    self._place,
                )
                ownership.note_window(database, record)
                closes_at, came_late = min(closes_at, at), came_late + late
            self._keep_time(database)
            self.needs_room = self._room.is_needed(database, times[0])
            return closes_at, came_late

        return self.transaction(act)

    def close_epochs(
        self,
        destinations: Collection[DestinationKey],
        wall: float,
        *,
        leaving: bool = False,
        away: bool = False,
    ) -> epochs.Look:
        """Put reports in place of the parts whose epoch is over, see ``epochs``.

        Args:
            destinations: For which there is a sender.
            wall: The time in seconds since 1970.
            leaving: Whether this process shares no more; what no living one shares is
                reported at once then.
            away: Whether the Redis server cannot be reached.
        """

        def act(database: sqlite3.Connection) -> epochs.Look:
            if self._state is None:  # nobody shares what is in memory
                return epochs.Look([], None)
            owner, times = self._database.owner, (self._database.now(), wall)
            common = destinations, self._count_drop, self._state
            look = epochs.close(database, owner, times, *common, leaving=leaving)
            alone = epochs.report_alone(
                database, owner, times, *common, self._place, away=away
            )
            return alone._replace(
                closed=look.closed + alone.closed, next_at=look.next_at
            )

        return self.transaction(act)

    def has_parts(self) -> bool:
        """Whether this process has parts for Redis."""
        return self.transaction(
            lambda database: offers.has_parts(
                database, self._database.owner, self._place
            )
        )

    def offer_parts(
        self, destinations: Collection[DestinationKey], wall: float
    ) -> list[offers.Offer]:
        """Return this process's parts for Redis, which may have them from now on.

        Args:
            destinations: For which there is a sender.
            wall: The time in seconds since 1970.
        """
        return self.transaction(
            lambda database: offers.offer(
                database,
                self._database.owner,
                self._place,
                wall,
                destinations,
                self._count_drop,
            )
        )

    def settle_parts(self, answers: Sequence[offers.Answer]) -> list[offers.Settled]:
        """Do what Redis has answered, see ``offers.settle``."""

        def act(database: sqlite3.Connection) -> list[offers.Settled]:
            now = self._database.now()
            settled = offers.settle(database, self._database.owner, now, answers)
            self._keep_time(database)
            self.needs_room = self._room.is_needed(database, now)
            return settled

        return self.transaction(act)

    def destinations_of_parts(self) -> set[DestinationKey]:
        """Return for which destinations parts of shared windows wait."""
        return self.transaction(epochs.destinations)

    def make_room(self) -> bool:
        """Drop what is too old, and merge or drop what is too much, for a moment.

        Returns:
            Whether there is more to do.
        """
        self.needs_room = self.transaction(
            lambda database: self._room.make(
                database,
                self._database.now(),
                self._database.owner,
                self._remove,
                self._remove_part,
            )
        )
        return self.needs_room

    def lease(self, destination: DestinationKey, kind: Kind) -> Record | None:
        """Lease the oldest record of a kind that is this process's to deliver."""

        def act(database: sqlite3.Connection) -> Record | None:
            leased, number = None, 0
            found = database.execute(
                rows.SELECT + "WHERE owner = ? AND endpoint = ? AND client = ?"
                " AND fingerprint = ? AND kind = ? AND state != 'dead'"
                " ORDER BY records.number",
                (self._database.owner, *rows.key_of(destination), kind),
            )
            damaged = []
            for row in found:
                if row["id"] in self._leased:
                    continue
                try:
                    record, number = rows.record_of(row), row["number"]
                    since = self._database.monotonic(row["sealed_at"])
                    leased = replace(record, waits_since=since)
                    break
                except UNREADABLE:
                    damaged.append(row["number"])
            found.close()
            for each in damaged:
                self._remove(database, each, "dropped:damaged")
            if damaged:
                rows.forget_orphans(database)
            if leased and leased.merge_key:  # it may be sent: its body is final
                database.execute(
                    "UPDATE records SET merge_key = NULL WHERE number = ?", (number,)
                )
            if leased is not None:
                self._lease(leased.id, number)
            return leased

        return self.transaction(act)

    def take(self, most: int = 100) -> list[Record]:
        """Take some records out that are not on lease, as if never sealed."""

        def act(database: sqlite3.Connection) -> list[Record]:
            records = []
            found = database.execute(
                rows.SELECT + "WHERE state != 'dead' ORDER BY records.number LIMIT ?",
                (most + len(self._leased),),
            ).fetchall()
            for row in found:
                if row["id"] not in self._leased:
                    record = rows.record_of(row)
                    database.execute(
                        "DELETE FROM records WHERE number = ?", (row["number"],)
                    )
                    count(database, "sealed", -record.seals)
                    records.append(record)
            return records

        return self.transaction(act)

    def is_empty(self) -> bool:
        """Whether there is nothing but dead records."""
        return not self.transaction(
            lambda database: database.execute(
                "SELECT EXISTS (SELECT 1 FROM records WHERE state != 'dead')"
            ).fetchone()[0]
        )

    def release(self, record: Record) -> bool:
        """Give a lease back."""
        self._leased.pop(record.id, None)
        return True

    def lost(self, reason: str, seals: int) -> bool:
        """Count seals that were dropped before they got here."""

        def act(database: sqlite3.Connection) -> None:
            count(database, "sealed", seals)
            count(database, f"dropped:{reason}", seals)

        self.transaction(act)
        return True

    def acknowledge(self, record: Record) -> bool:
        """Forget a delivered record."""
        self.transaction(lambda database: self._settle(database, record, "delivered"))
        return self.release(record)

    def failed(
        self, record: Record, state: str, reason: str, error: str, pause: float = 0.0
    ) -> bool:
        """Note a failed attempt; the record is pending, parked or dead from now on.

        A pending one is to wait for ``pause`` seconds, after a restart as well. A
        restart may be what a parked one waits for.
        """

        def act(database: sqlite3.Connection) -> None:
            next_at = self._database.now() + pause if state == "pending" else None
            database.execute(
                "UPDATE records SET state = ?, reason = ?, last_error = ?, next_at = ?,"
                " attempts = attempts + 1, merge_key = NULL"
                " WHERE number = ? AND +id = ?",
                (state, reason, error, next_at, *self._lease_of(record)),
            )
            for (old,) in database.execute(
                "SELECT number FROM records WHERE state = 'dead'"
                " ORDER BY number DESC LIMIT -1 OFFSET ?",
                (DEAD_LIMIT,),
            ).fetchall():
                self._remove(database, old, "dropped:dead letters")

        self.transaction(act)
        return self.release(record)

    def replace(self, record: Record, parts: Sequence[Record]) -> bool:
        """Put parts in place of a leased record, in their order."""

        def act(database: sqlite3.Connection) -> None:
            number, _ = self._lease_of(record)
            rows.put_in_place(database, [(number, record)], parts, self._database.owner)

        self.transaction(act)
        return self.release(record)

    # Looking through them ---------------------------------------------------------

    def adopt(self, destinations: Collection[DestinationKey]) -> list[Waiting]:
        """Take over what dead processes left for some destinations.

        Returns:
            What this process has to deliver; of a destination, what waits longest is
            the first.
        """

        def act(database: sqlite3.Connection) -> tuple[list[sqlite3.Row], float]:
            if self._state is not None:
                ownership.forget_windows(database, self._state)
                ownership.take_over(database, self._state, destinations)
                epochs.tidy(
                    database, self._state, self._database.now(), self._count_drop
                )
                if self._place != epochs.HOST:
                    offers.take_over(
                        database,
                        self._state.owner_id,
                        self._place,
                        self._state,
                        destinations,
                    )
                self._room.may_merge = True
            owner = self._database.owner
            waiting = ownership.waiting(database, owner, destinations)
            return waiting, self._database.now() + self._room.limits.longest_pause

        settled = self._state.settled if self._state is not None else deque[str]()
        known = len(settled)
        waiting, latest = self.transaction(act)
        for _ in range(known):  # now that they are forgotten for good
            settled.popleft()
        return [
            Waiting(
                rows.destination_of(row),
                row["kind"],
                bool(row["try_now"]),
                float("-inf")
                if row["next_at"] is None
                else self._database.monotonic(min(row["next_at"], latest)),
            )
            for row in waiting
        ]

    def overview(self) -> list[dict[str, Any]]:
        """Return figures per destination."""
        return self.transaction(
            lambda database: overview(database, self._database.now())
        )

    def counts(self) -> Counts:
        """Return the figures of the conservation equation."""
        return self.transaction(counts_of)

    # Inside a transaction ---------------------------------------------------------

    def transaction(self, act: Callable[[sqlite3.Connection], _T]) -> _T:
        """Have the database alone, see there; drops are told once they are kept."""
        leases: list[str] = []
        drops: Counter[str] = Counter()

        def counted(database: sqlite3.Connection) -> _T:
            self._drops, self._new_leases = drops, leases
            return act(database)

        try:
            result = self._database.transaction(counted)
        except BaseException:
            for record_id in leases:
                self._leased.pop(record_id, None)
            raise
        for reason, seals in drops.items():
            self._dropped(reason, seals)
        return result

    def _lease(self, record_id: str, number: int) -> None:
        """Note a lease before any other thread can look, and as long as it is kept."""
        self._new_leases.append(record_id)  # first, for then it can be undone
        self._leased[record_id] = number

    def _insert(
        self,
        database: sqlite3.Connection,
        records: Sequence[Record],
        packed: Mapping[str, bytes],
        *,
        leased: Collection[str],
        moved: bool,
    ) -> set[str]:
        """Add records that were not added before, and note their leases."""
        now, number = self._database.now(), rows.last_number(database)
        # All are looked at first, for the parts of a window come together.
        new_ones = [
            record
            for record in records
            if not ownership.was_added(database, record, moved=moved)
        ]
        for record in new_ones:
            number += rows.SPACING
            new = record
            if record.id in leased:
                new = replace(record, merge_key=None)  # about to be sent: it is final
                self._lease(record.id, number)
            rows.insert(database, new, self._database.owner, number, now, packed)
            count(database, "sealed", record.seals)
            if self._state:
                ownership.note_window(database, record)
        self._keep_time(database)
        return {record.id for record in new_ones}

    def _keep_time(self, database: sqlite3.Connection) -> None:
        database.execute(
            "INSERT OR REPLACE INTO totals VALUES ('clock', ?), ('wall', ?)",
            (self._database.now(), time.time()),
        )

    def _lease_of(self, record: Record) -> tuple[int, str]:
        """Return the number and the id of a record; no record has the number 0."""
        return self._leased.get(record.id, 0), record.id

    def _settle(self, database: sqlite3.Connection, record: Record, total: str) -> None:
        """Remove a leased record, unless somebody at the command line was faster."""
        there = database.execute(
            "SELECT number FROM records WHERE number = ? AND +id = ?",
            self._lease_of(record),
        ).fetchone()
        if there:
            self._remove(database, there["number"], total)

    def _remove(self, database: sqlite3.Connection, number: int, total: str) -> None:
        self._count_drop(total, remove(database, number, total))

    def _remove_part(
        self, database: sqlite3.Connection, number: int, total: str
    ) -> None:
        epochs.remove(database, number, total, self._count_drop)

    def _count_drop(self, total: str, seals: int) -> None:
        what, _, reason = total.partition(":")
        if seals and what == "dropped":
            self._drops[reason] += seals
