"""One SQLite database of sealed records, in a file that processes share or in memory.

Conservation, at every commit: ``sealed == delivered + pending + parked + dead +
dropped``. The figures count seals. A record that absorbed others in a merge stands for
all of their seals; a record that is split passes its seals to its first part, and every
further part counts as sealed once more.

A record belongs to the process that sealed it, until that process is dead: then to the
first that has a sender for its destination. Within a process, one deliverer at a time
has it on lease.

Ages do not follow the wall clock, which jumps. They are told on the outbox's own: it
runs with the monotonic clock of the processes that use it, and while there is none it
advances with the wall clock, by one day at most.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from peakhold.delivery import forks, schema
from peakhold.delivery.encode import merge_reports
from peakhold.delivery.ledger import (
    BY_HAND,
    committed,
    count,
    counts_of,
    outbox_time,
    overview,
    remove,
)
from peakhold.delivery.packing import UNREADABLE, pack, unpack
from peakhold.delivery.record import Destination, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from peakhold.delivery.ledger import Counts
    from peakhold.delivery.record import Kind
    from peakhold.delivery.state import StateDirectory

DEAD_LIMIT = 1_000
"""Dead records that are kept."""
MERGED_AT_ONCE = 32
"""Reports that become one, or as few as there is room in, when the outbox is full."""
_JOURNAL = "-"
"""In the ids of windows that have a journal, and in no other."""
_SPACING = 1 << 20
"""Between the numbers of two records, so that parts find room before their whole."""

_SELECT = (
    "SELECT records.*, endpoint, client, fingerprint"
    " FROM records JOIN destinations ON destinations.number = destination "
)


_MERGEABLE = """
WHERE owner = ?1 AND (destination, merge_key) = (
    SELECT destination, merge_key FROM records
    WHERE owner = ?1 AND merge_key IS NOT NULL AND state = 'pending'
    GROUP BY destination, merge_key HAVING count(*) > 1
    ORDER BY min(number) LIMIT 1
)
ORDER BY records.number LIMIT ?2
"""


@dataclass(frozen=True)
class Limits:
    """What is too much, and too old.

    Attributes:
        max_bytes: Past them, reports are merged, or the oldest record is dropped.
        ttl: Seconds after which a record is dropped.
    """

    max_bytes: int = 256 * 1024 * 1024
    ttl: float = 7 * 24 * 3600.0


class Waiting(NamedTuple):
    """What a process has to deliver.

    Attributes:
        destination: Where it goes.
        kind: Which requests.
        at_once: Whether somebody at the command line wants it tried now.
        not_before: Monotonic time of the next attempt, as whoever made the last one had
            it; minus infinity if there was none, or it was parked.
    """

    destination: Destination
    kind: Kind
    at_once: bool
    not_before: float


class Store:
    """Sealed records; every method is one transaction.

    Raises:
        sqlite3.Error: The database cannot be read or written; any method.
        DamagedError: It cannot be read any more; any method.
        NewerSchemaError: A later version made it; any method.
        OSError: Its file cannot be made; any method.
    """

    def __init__(
        self,
        state: StateDirectory | None,
        limits: Limits,
        *,
        dropped: Callable[[str, int], None],
        clock: Callable[[], float] = time.monotonic,
        sync: str = "OFF",
    ) -> None:
        """Open nothing yet.

        Args:
            state: Where the file is; None for a database in memory.
            limits: What is too much.
            dropped: Told reason and number of the seals that are dropped.
            clock: Monotonic time in seconds.
            sync: SQLite's ``synchronous``.
        """
        self._state = state
        self._limits = limits
        self._dropped = dropped
        self._clock = clock
        self._sync = sync
        self._owner = "memory"
        self._path: Path | None = None
        self._inode = 0
        self._opened: sqlite3.Connection | None = None
        self._lag = 0.0
        self._leased: set[str] = set()
        self._drops: Counter[str] = Counter()
        self._lock = threading.Lock()
        forks.wait_for(self._lock)

    def __del__(self) -> None:
        """Close the database, about which Python 3.13 would warn."""
        self.close()

    def close(self) -> None:
        """Close the database; the next method opens it again."""
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    # What becomes of a record -----------------------------------------------------

    def add(
        self, records: Sequence[Record], *, leased: bool = False, moved: bool = False
    ) -> None:
        """Take encoded records in, and make room for them.

        Args:
            records: The records.
            leased: Whether the caller has them on lease from now on.
            moved: Whether they come from another store, maybe after other parts of
                their windows.
        """
        with self.transaction() as database:
            (last,) = database.execute("SELECT max(number) FROM records").fetchone()
            now = self.now()
            new = [
                each
                for each in records
                if not _was_added(database, each, window=not moved)
            ]
            for at, record in enumerate(new, 1):
                if leased:  # it is about to be sent, so its body is final
                    record = replace(record, merge_key=None)  # noqa: PLW2901 - in short
                _insert(database, record, self._owner, (last or 0) + at * _SPACING, now)
                count(database, "sealed", record.seals)
                if self._state and _JOURNAL in record.id:
                    database.execute(
                        "INSERT OR IGNORE INTO journals VALUES (?)", (_window(record),)
                    )
            if leased:
                self._leased.update(record.id for record in records)
            database.execute(
                "INSERT OR REPLACE INTO totals VALUES ('clock', ?), ('wall', ?)",
                (now, time.time()),
            )
            self._expire(database)
            while _used(database) > self._limits.max_bytes:
                if not self._merge(database) and not self._drop_oldest(database):
                    break

    def lease(self, destination: Destination, kind: Kind) -> Record | None:
        """Lease the oldest record of a kind that is this process's to deliver."""
        leased = None
        with self.transaction() as database:
            rows = database.execute(
                _SELECT + "WHERE owner = ? AND endpoint = ? AND client = ?"
                " AND fingerprint = ? AND kind = ? AND state != 'dead'"
                " ORDER BY records.number",
                (self._owner, *_key(destination), kind),
            )
            damaged = []
            for row in rows:
                if row["id"] in self._leased:
                    continue
                try:
                    leased = _record(row)
                    break
                except UNREADABLE:
                    damaged.append(row["id"])
            rows.close()
            for record_id in damaged:
                self._remove(database, record_id, "dropped:damaged")
            if leased and leased.merge_key:  # it may be sent: its body is final
                database.execute(
                    "UPDATE records SET merge_key = NULL WHERE id = ?", (leased.id,)
                )
        if leased is not None:
            self._leased.add(leased.id)
        return leased

    def take(self, most: int = 100) -> list[Record]:
        """Take some records out that are not on lease, as if never sealed."""
        with self.transaction() as database:
            rows = database.execute(
                _SELECT + "WHERE state != 'dead' ORDER BY records.number LIMIT ?",
                (most + len(self._leased),),
            ).fetchall()
            records = [_record(row) for row in rows if row["id"] not in self._leased]
            for record in records:
                database.execute("DELETE FROM records WHERE id = ?", (record.id,))
                count(database, "sealed", -record.seals)
        return records

    def is_empty(self) -> bool:
        """Whether there is nothing but dead records."""
        with self.transaction() as database:
            return not database.execute(
                "SELECT EXISTS (SELECT 1 FROM records WHERE state != 'dead')"
            ).fetchone()[0]

    def release(self, record: Record) -> bool:
        """Give a lease back."""
        self._leased.discard(record.id)
        return True

    def lost(self, reason: str, seals: int) -> bool:
        """Count seals that were dropped before they got here."""
        with self.transaction() as database:
            count(database, "sealed", seals)
            count(database, f"dropped:{reason}", seals)
        return True

    def acknowledge(self, record: Record) -> bool:
        """Forget a delivered record."""
        with self.transaction() as database:
            self._remove(database, record.id, "delivered")
        return self.release(record)

    def drop(self, record: Record, reason: str) -> bool:
        """Give a record up."""
        with self.transaction() as database:
            self._remove(database, record.id, f"dropped:{reason}")
        return self.release(record)

    def failed(
        self, record: Record, state: str, reason: str, error: str, pause: float = 0.0
    ) -> bool:
        """Note a failed attempt; the record is pending, parked or dead from now on.

        A pending one is to wait for ``pause`` seconds, after a restart as well. A
        restart may be what a parked one waits for.
        """
        with self.transaction() as database:
            next_at = self.now() + pause if state == "pending" else None
            database.execute(
                "UPDATE records SET state = ?, reason = ?, last_error = ?, next_at = ?,"
                " attempts = attempts + 1, merge_key = NULL WHERE id = ?",
                (state, reason, error, next_at, record.id),
            )
            for (old,) in database.execute(
                "SELECT id FROM records WHERE state = 'dead'"
                " ORDER BY number DESC LIMIT -1 OFFSET ?",
                (DEAD_LIMIT,),
            ).fetchall():
                self._remove(database, old, "dropped:dead letters")
        return self.release(record)

    def replace(self, record: Record, parts: Sequence[Record]) -> bool:
        """Put parts in place of a record, in their order."""
        with self.transaction() as database:
            self._put_in_place(database, [record], parts)
        return self.release(record)

    # Whose a record is ------------------------------------------------------------

    def adopt(self, destinations: Iterable[Destination]) -> list[Waiting]:
        """Take over what dead processes left for some destinations.

        Returns:
            What this process has to deliver; of a destination, what waits longest is
            the first.
        """
        with self.transaction() as database:
            self._expire(database)
            self._forget_journals(database)
            owners = database.execute(
                "SELECT DISTINCT owner FROM records WHERE state != 'dead'"
            ).fetchall()
            for (owner,) in owners:
                if self._state is None or self._state.is_alive(owner):
                    continue
                database.executemany(
                    "UPDATE records SET owner = ?"
                    " WHERE owner = ? AND state != 'dead' AND destination = ("
                    "  SELECT number FROM destinations"
                    "  WHERE endpoint = ? AND client = ? AND fingerprint = ?)",
                    [(self._owner, owner, *_key(each)) for each in destinations],
                )
            waiting = database.execute(
                "SELECT endpoint, client, fingerprint, kind,"
                " max(reason IS ?) AS at_once, max(next_at) AS next_at"
                " FROM records JOIN destinations ON destinations.number = destination"
                " WHERE owner = ? AND state != 'dead' GROUP BY destination, kind"
                " ORDER BY max(next_at) DESC",
                (BY_HAND, self._owner),
            ).fetchall()
        return [
            Waiting(
                _destination(row),
                row["kind"],
                bool(row["at_once"]),
                float("-inf") if row["next_at"] is None else row["next_at"] + self._lag,
            )
            for row in waiting
        ]

    def overview(self) -> list[dict[str, Any]]:
        """Return figures per destination."""
        with self.transaction() as database:
            return overview(database)

    def counts(self) -> Counts:
        """Return the figures of the conservation equation."""
        with self.transaction() as database:
            return counts_of(database)

    # Inside a transaction ---------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Have the database alone: all of what is done with it, or nothing, is kept."""
        with self._lock:
            try:
                if self._path and self._inode != _inode(self._path):
                    self.close()  # it was put aside or deleted: there is another one
                if self._opened is None:
                    self._opened = self._open()
                with committed(self._opened) as database:
                    yield database
            except BaseException as error:
                self._drops.clear()
                if self._path is None or not schema.is_damage(error):
                    raise
                self.close()
                if self._inode != _inode(self._path):
                    raise  # another process has moved it away already
                moved = schema.quarantine(self._path)
                raise schema.DamagedError(
                    f"{self._path} was damaged and is now {moved} ({error})"
                ) from None
            drops, self._drops = self._drops, Counter()
        for reason, seals in drops.items():
            self._dropped(reason, seals)

    def _open(self) -> sqlite3.Connection:
        if self._state is not None:
            self._path, self._owner = self._state.outbox, self._state.owner_id
            self._inode = _inode(self._path)  # of what is found damaged, if it is
        database = schema.connect(self._path, sync=self._sync)
        self._inode = _inode(self._path) if self._path else 0
        self._lag = self._clock() - outbox_time(database)
        database.row_factory = sqlite3.Row
        return database

    def now(self) -> float:
        """Return the outbox's own time, once it was used."""
        return self._clock() - self._lag

    def _remove(self, database: sqlite3.Connection, record_id: str, total: str) -> None:
        seals = remove(database, record_id, total)
        what, _, reason = total.partition(":")
        if seals and what == "dropped":
            self._drops[reason] += seals

    def _put_in_place(
        self, database: sqlite3.Connection, old: Sequence[Record], new: Sequence[Record]
    ) -> None:
        """Put records in place of some others, in their order."""
        marks = ",".join("?" * len(old))
        ids = [record.id for record in old]
        number, sealed_at, many = database.execute(
            f"SELECT min(number), max(sealed_at), count(*) FROM records WHERE id IN ({marks})",  # noqa: S608, E501 - question marks
            ids,
        ).fetchone()
        if many < len(old):  # somebody at the command line was faster
            return
        database.execute(f"DELETE FROM records WHERE id IN ({marks})", ids)  # noqa: S608
        (before,) = database.execute(
            "SELECT max(number) FROM records WHERE number < ?", (number,)
        ).fetchone()
        apart = (number - (before or 0)) // len(new)  # so that a part finds room, too
        if apart == 0:  # split all too often: they go to the end
            (last,) = database.execute("SELECT max(number) FROM records").fetchone()
            apart = _SPACING
            number = (last or 0) + len(new) * apart
        for after, record in enumerate(reversed(new)):
            _insert(database, record, self._owner, number - after * apart, sealed_at)
        seals = sum(record.seals for record in new) - sum(
            record.seals for record in old
        )
        count(database, "sealed", seals)

    def _forget_journals(self, database: sqlite3.Connection) -> None:
        """Forget the committed windows whose journals are gone."""
        known = database.execute("SELECT id FROM journals").fetchall()
        if self._state is None or not known:
            return
        # Twice: one that was just being renamed stands in the second.
        there = {
            path.name.partition(".")[0]
            for _ in range(2)
            for path in self._state.journals.iterdir()
        }
        gone = [(each,) for (each,) in known if each not in there]
        database.executemany("DELETE FROM journals WHERE id = ?", gone)

    def _merge(self, database: sqlite3.Connection) -> bool:
        """Merge the oldest reports of one window, if there are some that shrink."""
        rows = database.execute(
            _SELECT + _MERGEABLE,
            (self._owner, MERGED_AT_ONCE),
        ).fetchall()
        try:
            records = [_record(row) for row in rows]
        except UNREADABLE:
            return False
        merged = merge_reports(records) if records else []
        if len(merged) >= len(records):
            return False
        self._put_in_place(database, records, merged)
        return True

    def _expire(self, database: sqlite3.Connection) -> None:
        """Drop what is too old; ages are in the order of the numbers."""
        for record_id, sealed_at in database.execute(
            "SELECT id, sealed_at FROM records ORDER BY number"
        ):
            if sealed_at >= self.now() - self._limits.ttl:
                break
            if record_id not in self._leased:
                self._remove(database, record_id, "dropped:expired")

    def _drop_oldest(self, database: sqlite3.Connection) -> bool:
        """Drop the oldest dead record or else waiting one, unless it is the newest."""
        rows = database.execute(
            "SELECT id FROM records WHERE number < (SELECT max(number) FROM records)"
            " ORDER BY state != 'dead', number LIMIT ?",
            (len(self._leased) + 1,),
        ).fetchall()
        for (record_id,) in rows:
            if record_id not in self._leased:
                self._remove(database, record_id, "dropped:overflow")
                return True
        return False


def _was_added(database: sqlite3.Connection, record: Record, *, window: bool) -> bool:
    """Whether it was, or, as a journal may outlive that, any part of its window."""
    return bool(
        database.execute(
            "SELECT 1 FROM records WHERE id = ?1"
            " UNION ALL SELECT 1 FROM journals WHERE id = ?2",
            (record.id, _window(record) if window else None),
        ).fetchone()
    )


def _window(record: Record) -> str:
    """Return the id of the window whose record, or part of it, one is."""
    return record.id.partition(".")[0]


def _insert(
    database: sqlite3.Connection,
    record: Record,
    owner: str,
    number: int,
    sealed_at: float,
) -> None:
    destination = _key(record.destination)
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


def _inode(path: Path) -> int:
    """Return what tells a file from another one of its name; 0 if there is none."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def _key(destination: Destination) -> tuple[str, str, str]:
    return (
        destination.endpoint,
        destination.client or "",
        destination.api_key_fingerprint,
    )


def _destination(row: sqlite3.Row) -> Destination:
    return Destination(row["endpoint"], row["fingerprint"], row["client"] or None)


def _record(row: sqlite3.Row) -> Record:
    body = unpack(row["body"])
    return Record(
        _destination(row),
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


def _used(database: sqlite3.Connection) -> int:
    pages, free, size = (
        database.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)
