"""Looking at an outbox and mending it, while other processes use it.

No network and no api key is needed: every function takes the state directory. Records
are shown as dicts of plain values.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from peakhold._peakhold import recover_journal
from peakhold.errors import PeakholdError
from peakhold.outbox import epochs, schema
from peakhold.outbox.ledger import (
    BY_HAND,
    Counts,
    committed,
    count,
    counts_of,
    dicts,
    outbox_time,
    overview,
)
from peakhold.outbox.packing import UNREADABLE
from peakhold.outbox.rows import forget_orphans, record_of
from peakhold.outbox.state import JournalName

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from peakhold.outbox.state import StateDirectory

STATES = ("pending", "parked", "dead")

_SHOWN = (
    *("id", "kind", "endpoint", "api_key_fingerprint", "client", "state", "attempts"),
    *("reason", "last_error", "created", "seals", "bytes", "age", "owner"),
)
_RECORDS = """
SELECT records.*, endpoint, fingerprint, fingerprint AS api_key_fingerprint,
    nullif(client, '') AS client, contents.id AS content_id, encoding_version, packed,
    created, length(packed) AS bytes, max(0, :now - sealed_at) AS age
FROM records JOIN destinations ON destinations.number = destination
    LEFT JOIN contents ON contents.number = content
WHERE (:state IS NULL OR state = :state)
    AND (:endpoint IS NULL OR endpoint = :endpoint)
    AND (:id IS NULL OR records.id = :id)
    AND records.number > :after
ORDER BY records.number LIMIT :most
"""
_AGAIN = """
UPDATE records SET state = 'pending', reason = ?
WHERE state != 'pending' AND number IN
"""
_STATES = "SELECT number, id, state FROM records WHERE number IN"
_SEALS = "SELECT sum(seals) FROM records WHERE number IN"
_DELETE = "DELETE FROM records WHERE number IN"
_ERRORS: tuple[type[Exception], ...] = (
    *schema.SQLITE_ERRORS,
    OSError,
    schema.DamagedError,
)
_AT_ONCE = 900
"""Records that are changed in one transaction. Older SQLite takes 999 parameters."""
_PAGE = 200
"""Records that are read at once: the file is locked meanwhile, whoever takes them."""


Progress = Callable[[int, int], object]
"""Told how many records of how many are done."""


def _unsaid(_done: int, _total: int) -> None:
    """Say nothing of the progress."""


class OutboxError(PeakholdError):
    """There is no outbox, or it cannot be used; the text says why."""


def listed(
    state: StateDirectory,
    *,
    record_state: str | None = None,
    endpoint: str | None = None,
) -> list[dict[str, Any]]:
    """Return the records, the oldest first, without their bodies.

    Args:
        state: Where the outbox is.
        record_state: Only those that are ``pending``, ``parked`` or ``dead``.
        endpoint: Only those that go there.

    Raises:
        OutboxError: If there is neither outbox nor open window, or it cannot be used.
    """
    if _has_windows_alone(state):
        return []
    with _opened(state) as database:
        records = _found(database, record_state, endpoint)
        return [_shown(record) for record in records]


def shown(state: StateDirectory, record_id: str) -> dict[str, Any]:
    """Return one record with its ``body`` as the request's JSON, None if damaged.

    Raises:
        OutboxError: If there is no such record, or no outbox.
    """
    with _opened(state) as database:
        for record in _found(database, record_id=record_id):
            return _with_body(record)
    raise OutboxError(
        f"there is no record {record_id} in {state.path}; it may be delivered by now"
    )


def exported(
    state: StateDirectory,
    *,
    record_state: str | None = None,
    endpoint: str | None = None,
) -> Iterator[str]:
    """Yield the records as lines of JSON, bodies included.

    Raises:
        OutboxError: If there is no outbox, or it cannot be used.
    """
    with _opened(state) as database:
        for record in _found(database, record_state, endpoint):
            yield json.dumps(_with_body(record))


def missing(state: StateDirectory, record_ids: Sequence[str]) -> list[str]:
    """Return those of some ids that no record has.

    Raises:
        OutboxError: If there is no outbox, or it cannot be used.
    """
    with _opened(state) as database:
        known = {each for _, each in _numbers(database, record_ids)}
    return [record_id for record_id in record_ids if record_id not in known]


def retry(
    state: StateDirectory,
    record_ids: Sequence[str] | None = None,
    *,
    record_state: str | None = None,
    progress: Progress = _unsaid,
) -> tuple[int, int]:
    """Make parked and dead records pending again.

    A process that has a sender for them tries them within 15 seconds, and else the next
    one that starts.

    Args:
        state: Where the outbox is.
        record_ids: Which; None for all.
        record_state: Of these, only those that are ``pending``, ``parked`` or ``dead``.
        progress: Called after every few thousand of them.

    Returns:
        How many are pending again, and how many were chosen.

    Raises:
        OutboxError: If there is no outbox, or it cannot be used.
    """

    def act(database: sqlite3.Connection, numbers: Sequence[int]) -> int:
        again = f"{_AGAIN} {_marks(numbers)}"
        return database.execute(again, (BY_HAND, *numbers)).rowcount

    return _for_each(state, record_ids, record_state, act, progress)


def drop(
    state: StateDirectory,
    record_ids: Sequence[str] | None = None,
    *,
    record_state: str | None = None,
    progress: Progress = _unsaid,
) -> int:
    """Give records up for good; returns how many. They are counted as dropped.

    Args:
        state: Where the outbox is.
        record_ids: Which; None for all.
        record_state: Of these, only those that are ``pending``, ``parked`` or ``dead``.
        progress: Called after every few thousand of them.

    Raises:
        OutboxError: If there is no outbox, or it cannot be used.
    """

    def act(database: sqlite3.Connection, numbers: Sequence[int]) -> int:
        marks = _marks(numbers)
        (seals,) = database.execute(f"{_SEALS} {marks}", numbers).fetchone()
        count(database, f"dropped:{BY_HAND}", seals or 0)
        return database.execute(f"{_DELETE} {marks}", numbers).rowcount

    return _for_each(state, record_ids, record_state, act, progress)[0]


def _for_each(
    state: StateDirectory,
    record_ids: Sequence[str] | None,
    record_state: str | None,
    act: Callable[[sqlite3.Connection, Sequence[int]], int],
    progress: Progress,
) -> tuple[int, int]:
    """Do something with some records, in transactions that others can wait for."""
    done = 0
    with _opened(state) as database:
        chosen = _numbers(database, record_ids, record_state)
        for at in range(0, len(chosen), _AT_ONCE):
            some = dict(chosen[at : at + _AT_ONCE])

            def step(database: sqlite3.Connection, some: dict[int, str] = some) -> int:
                there = database.execute(f"{_STATES} {_marks(some)}", tuple(some))
                # Meanwhile one may be delivered, and its number another's.
                found = [
                    number
                    for number, record_id, its_state in there
                    if some[number] == record_id and record_state in (None, its_state)
                ]
                return act(database, found)

            done += committed(database, step)
            progress(at + len(some), len(chosen))
        committed(database, forget_orphans)
    return done, len(chosen)


def _marks(values: Collection[object]) -> str:
    return f"({','.join('?' * len(values))})"


def problems(state: StateDirectory, progress: Progress = _unsaid) -> list[str]:
    """Return what is wrong with the outbox's file and its figures; nothing if fine.

    Args:
        state: Where the outbox is.
        progress: Called after every few thousand records.

    Raises:
        OutboxError: If there is no outbox, or it cannot be opened.
    """
    with _opened(state) as database:
        found = [text for (text,) in database.execute("PRAGMA integrity_check(10)")]
        found = [] if found == ["ok"] else found
        with _snapshot(database):
            unaccounted = counts_of(database).unaccounted
        if unaccounted:
            found.append(f"the figures do not add up: {unaccounted:+,} seals")
        (total,) = database.execute("SELECT count(*) FROM records").fetchone()
        for number, record in enumerate(_found(database), 1):
            if number % _AT_ONCE == 0:
                progress(number, total)
            try:
                record_of(record)
            except UNREADABLE:
                found.append(f"the body of record {record['id']} is damaged")
        found += [
            f"the part {part_id} of a shared window is damaged"
            for part_id in epochs.unreadable(database)
        ]
    return found


def destinations(state: StateDirectory) -> list[dict[str, Any]]:
    """Return ``overview`` of an outbox.

    Raises:
        OutboxError: If there is no outbox, or it cannot be used.
    """
    with _opened(state) as database:
        return overview(database)


def status(state: StateDirectory) -> dict[str, Any]:
    """Return what ``health`` tells of an outbox, as of one moment.

    Returns:
        ``state_directory``, ``counts``, the seals that are ``unaccounted`` for,
        ``destinations``, ``windows``, see there, and ``sharing``: figures per shared
        window, see ``epochs.overview``.

    Raises:
        OutboxError: If there is neither outbox nor open window, or it cannot be used.
    """
    # First of all: a window that is just being committed is told twice, not left out.
    open_windows = windows(state)
    counts, found = Counts(), list[dict[str, Any]]()
    sharing: list[dict[str, Any]] = []
    if not _has_windows_alone(state):
        with _opened(state) as database, _snapshot(database):
            counts, found = counts_of(database), overview(database)
            sharing = epochs.overview(database, state, time.time())
    return {
        "state_directory": str(state.path),
        "counts": asdict(counts),
        "unaccounted": counts.unaccounted,
        "destinations": found,
        "windows": open_windows,
        "sharing": sharing,
    }


def windows(state: StateDirectory) -> dict[str, int]:
    """Return how many windows and batches of metadata journals have, by their process.

    Returns:
        How many are of processes that are ``running``, and how many of dead ones,
        which the next process with a sender for them delivers: ``left``.

    Raises:
        OutboxError: If the state directory cannot be used.
    """
    found = {"running": 0, "left": 0}
    try:
        for path in (state.path / "journals").glob("*"):
            name = JournalName.of(path)
            if name is not None:
                kind = "running" if state.is_alive(name.owner_id) else "left"
                found[kind] += _open_in(path)
    except OSError as error:
        raise _unusable(state.path, error) from error
    return found


def _open_in(journal: Path) -> int:
    """Return how many of both are in a journal; one if it cannot be read."""
    segments = []
    try:
        paths = list(journal.glob("*.journal"))
    except FileNotFoundError:  # it is being taken over
        return 0
    for path in paths:
        with suppress(FileNotFoundError):  # its process may go on
            segments.append(path.read_bytes())
    try:
        found, _, _ = recover_journal(segments)
    except ValueError:  # of a later version
        return 1
    return len(found)


def _has_windows_alone(state: StateDirectory) -> bool:
    """Whether there are open windows and no outbox, as after an early kill."""
    return not _is_there(state) and any(windows(state).values())


def _is_there(state: StateDirectory) -> bool:
    """Whether there is an outbox.

    Raises:
        OutboxError: If nobody may look, or a file is in the place of a directory.
    """
    try:
        _check_place(state.path)
        return state.has_outbox()
    except OSError as error:
        raise _unusable(state.path, error) from error


def _check_place(directory: Path) -> None:
    """Check that no file is in the way; Windows calls what is below one absent.

    Raises:
        OSError: One is, in place of the directory or above it.
    """
    nearest = next(filter(os.path.lexists, (directory, *directory.parents)), None)
    if nearest is not None and not nearest.is_dir():
        number = errno.ENOTDIR
        raise NotADirectoryError(number, os.strerror(number), str(nearest))


@contextmanager
def _snapshot(database: sqlite3.Connection) -> Iterator[None]:
    """Read what was committed at one moment."""
    database.execute("BEGIN")
    try:
        yield
    finally:
        database.execute("ROLLBACK")


@contextmanager
def _opened(state: StateDirectory) -> Iterator[sqlite3.Connection]:
    path = _file(state)
    try:
        schema.check_sqlite()
    except schema.NoSQLiteError as error:
        raise OutboxError(str(error)) from error
    if not _is_there(state):
        raise OutboxError(
            f"there is no outbox in {state.path}: nothing was sealed there yet, or "
            "PEAKHOLD_STATE_DIR has to name another directory"
        )
    try:
        with closing(schema.connect(path, sync="OFF")) as database:
            yield database
    except _ERRORS as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: Exception) -> OutboxError:
    return OutboxError(
        f"{path} cannot be used: {schema.explained(error)}; `peakhold doctor` says "
        "what to do"
    )


def _file(state: StateDirectory) -> Path:
    return state.path / schema.FILE_NAME


def _found(
    database: sqlite3.Connection,
    state: str | None = None,
    endpoint: str | None = None,
    record_id: str | None = None,
) -> Iterator[dict[str, Any]]:
    wanted = {"state": state, "endpoint": endpoint, "id": record_id}
    now, after = outbox_time(database), 0
    while page := list(
        dicts(database, _RECORDS, now=now, after=after, most=_PAGE, **wanted)
    ):
        for record in page:
            after = record["number"]
            yield record


def _shown(record: dict[str, Any]) -> dict[str, Any]:
    """Return what people see, as JSON can say it: a flipped bit makes bytes of text."""
    return {
        name: repr(record[name]) if isinstance(record[name], bytes) else record[name]
        for name in _SHOWN
    }


def _numbers(
    database: sqlite3.Connection,
    record_ids: Sequence[str] | None,
    state: str | None = None,
) -> list[tuple[int, str]]:
    """Return numbers and ids of some records, without an index that may be damaged."""
    found = database.execute(
        "SELECT number, id FROM records WHERE ?1 IS NULL OR state = ?1", (state,)
    )
    wanted = None if record_ids is None else set(record_ids)
    return [row for row in found if wanted is None or row[1] in wanted]


def _with_body(record: dict[str, Any]) -> dict[str, Any]:
    try:
        body = json.loads(record_of(record).body)
    except UNREADABLE:
        body = None
    return {**_shown(record), "body": body}
