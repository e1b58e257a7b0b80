"""The data file: its tables, how it is recognised, and how it is opened.

A file is recognised by two numbers of SQLite's header, which are read as plain bytes:
a file that is not ours is refused before SQLite has touched it.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from peakhold.monitor.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

APPLICATION_ID = 0x504B_484D  # "PKHM"
SCHEMA_VERSION = 2

BUSY_TIMEOUT = 10.0
"""Seconds to wait for another connection's lock; a commit takes milliseconds."""

_HEADER_BYTES = 100
_MAGIC = b"SQLite format 3\x00"

_TABLES = (
    # What arrived, untouched. received_us: microseconds since 1970 UTC.
    """CREATE TABLE requests (
        id INTEGER PRIMARY KEY,
        kind TEXT NOT NULL CHECK (kind IN ('report', 'metadata', 'windows')),
        workspace TEXT NOT NULL,
        received_us INTEGER NOT NULL,
        idempotency_key TEXT,
        body BLOB NOT NULL
    )""",
    """CREATE INDEX requests_by_key
        ON requests (workspace, kind, idempotency_key, received_us)
        WHERE idempotency_key IS NOT NULL""",
    "CREATE INDEX requests_by_kind ON requests (workspace, kind)",
    # A class of a model. Results refer to it by number, so that a million of them
    # are summed along one narrow index without comparing text.
    """CREATE TABLE series (
        id INTEGER PRIMARY KEY,
        workspace TEXT NOT NULL,
        model_id TEXT NOT NULL,
        project TEXT NOT NULL,
        class_name TEXT NOT NULL,
        UNIQUE (workspace, model_id, class_name)
    )""",
    """CREATE TABLE results (
        request_id INTEGER NOT NULL REFERENCES requests (id),
        series_id INTEGER NOT NULL REFERENCES series (id),
        received_us INTEGER NOT NULL,
        confidence REAL NOT NULL,
        inference_id TEXT NOT NULL
    )""",
    """CREATE INDEX results_by_series
        ON results (series_id, received_us, confidence)""",
    """CREATE INDEX results_by_inference
        ON results (inference_id, series_id) WHERE inference_id <> ''""",
    # Closed windows of peakhold sinks. began_us, ended_us: as they say themselves.
    """CREATE TABLE windows (
        number INTEGER PRIMARY KEY,
        workspace TEXT NOT NULL,
        window_id TEXT NOT NULL,
        request_id INTEGER NOT NULL REFERENCES requests (id),
        aggregator TEXT NOT NULL,
        feed TEXT,
        began_us INTEGER,
        ended_us INTEGER NOT NULL,
        received_us INTEGER NOT NULL,
        frequency INTEGER,
        epoch INTEGER,
        is_counted INTEGER NOT NULL,
        UNIQUE (workspace, window_id)
    )""",
    # What each process counted in a window: added once, whatever it came with.
    """CREATE TABLE parts (
        number INTEGER PRIMARY KEY,
        workspace TEXT NOT NULL,
        part_id TEXT NOT NULL,
        window INTEGER NOT NULL REFERENCES windows (number),
        frames INTEGER NOT NULL,
        without INTEGER NOT NULL,
        is_partial INTEGER NOT NULL,
        rejected TEXT NOT NULL,
        UNIQUE (workspace, part_id)
    )""",
    "CREATE INDEX parts_by_window ON parts (window)",
    """CREATE TABLE counts (
        part INTEGER NOT NULL REFERENCES parts (number),
        series_id INTEGER NOT NULL REFERENCES series (id),
        frames INTEGER NOT NULL,
        detections INTEGER NOT NULL,
        outside INTEGER NOT NULL,
        sum INTEGER NOT NULL,
        least REAL,
        histogram TEXT NOT NULL,
        PRIMARY KEY (part, series_id)
    ) WITHOUT ROWID""",
    # The value a field of an inference has now; earlier ones stay in requests.
    """CREATE TABLE metadata (
        workspace TEXT NOT NULL,
        inference_id TEXT NOT NULL,
        field_name TEXT NOT NULL,
        field_value TEXT NOT NULL,
        received_us INTEGER NOT NULL,
        request_id INTEGER NOT NULL REFERENCES requests (id),
        PRIMARY KEY (workspace, inference_id, field_name)
    ) WITHOUT ROWID""",
    """CREATE INDEX metadata_by_value
        ON metadata (workspace, field_name, field_value, received_us)""",
)


def open_for_writing(path: Path, *, temporary: bool) -> sqlite3.Connection:
    """Open the data file for the one writer, creating it where there is none.

    Args:
        path: The file. Its directory must exist.
        temporary: The file does not outlive the monitor, so it is not synced to disk.

    Raises:
        StoreError: The file is not the monitor's, is newer than this version of
            peakhold, or cannot be opened. It is left as it was.
    """
    try:
        if path.exists() and not path.is_file():
            raise StoreError(f"{path} is not a file; name a file to keep the data in")
        # Not readable for others: bodies name machines and what they saw.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        _check_header(path)
        connection = _connect(path, mode="rw")
    # ValueError: a path that no system call takes, such as one with a NUL
    except (OSError, ValueError, sqlite3.Error) as error:
        raise StoreError(
            f"the data file {path} cannot be opened for writing ({error}); "
            "name a file in an existing directory that you may write to"
        ) from error
    try:
        # A rollback journal, not WAL: a second monitor on the same file stays safe.
        journal, sync = ("MEMORY", "OFF") if temporary else ("TRUNCATE", "FULL")
        connection.execute(f"PRAGMA synchronous = {sync}")
        _prepare(connection, path)
        connection.execute(f"PRAGMA journal_mode = {journal}")
    except sqlite3.Error as error:
        connection.close()
        raise StoreError(
            f"the data file {path} cannot be used ({error}); it was left as it is, "
            "move it away or name another"
        ) from error
    except BaseException:
        connection.close()
        raise
    return connection


def open_for_reading(path: Path) -> closing[sqlite3.Connection]:
    """Open a read-only connection, which sees one state of the file until closed."""
    connection = _connect(path, mode="ro")
    connection.execute("BEGIN")
    return closing(connection)


def _connect(path: Path, *, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY_TIMEOUT,
        isolation_level=None,
        check_same_thread=False,
    )


def _check_header(path: Path) -> None:
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if not header:
        return
    if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
        raise _foreign(path)
    # Offsets of the SQLite file format, section 1.3 "The Database Header"
    version = int.from_bytes(header[60:64], "big")
    application = int.from_bytes(header[68:72], "big")
    _check_numbers(path, application, version)


def _check_numbers(path: Path, application: int, version: int) -> None:
    if application != APPLICATION_ID:
        raise _foreign(path)
    if version < SCHEMA_VERSION:
        raise StoreError(
            f"the data file {path} has format {version}, of before the first release; "
            "it was left as it is, name another file"
        )
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"the data file {path} has format {version}, this version of peakhold "
            f"reads format {SCHEMA_VERSION}; upgrade peakhold or name another file"
        )


def _foreign(path: Path) -> StoreError:
    return StoreError(
        f"the file {path} was not made by the peakhold monitor; "
        "it was left as it is, name another file"
    )


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Create the tables in an empty file; check again what SQLite found in another."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (objects,) = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        if (application, version, objects) == (0, 0, 0):
            for statement in _TABLES:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        else:
            _check_numbers(path, application, version)
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
