"""The outbox's file: its tables, and what is done about one that cannot be used."""

from __future__ import annotations

import errno
import os
from contextlib import closing, suppress
from datetime import datetime, timezone
from functools import cache, partial
from typing import TYPE_CHECKING

from peakhold.errors import PeakholdError

try:
    import sqlite3
except ImportError:  # an interpreter that was built without it
    SQLITE_ERRORS: tuple[type[Exception], ...] = ()
else:
    SQLITE_ERRORS = (sqlite3.Error,)

if TYPE_CHECKING:
    from pathlib import Path

FILE_NAME = "outbox.sqlite3"
SCHEMA_VERSION = 4
_WITHOUT_SHARES = 3
"""Of a file that only lacks the tables of shared windows."""
APPLICATION_ID = 0x706B6864
"""The letters pkhd in the header of the file: it is ours."""

CHECKED_SIZE = 32 * 1024 * 1024
"""Bytes up to which a file is checked when it is opened; that takes up to 0.2 s."""
_SQLITE_VERSIONS = 2
"""The highest version of SQLite's file format, for reading and for writing."""
KEPT_DAMAGED = 3
"""Damaged files that are kept for somebody to look at."""

_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS destinations (
    number INTEGER PRIMARY KEY,
    endpoint TEXT NOT NULL,
    client TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    UNIQUE (endpoint, client, fingerprint)
);
CREATE TABLE IF NOT EXISTS contents (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    encoding_version INTEGER NOT NULL,
    packed BLOB NOT NULL,
    created TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS records (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    content INTEGER NOT NULL REFERENCES contents (number),
    first INTEGER,
    last INTEGER,
    destination INTEGER NOT NULL REFERENCES destinations (number),
    kind TEXT NOT NULL,
    merge_key TEXT,
    sealed_at REAL NOT NULL CHECK (typeof(sealed_at) = 'real'),
    seals INTEGER NOT NULL CHECK (typeof(seals) = 'integer' AND seals > 0),
    owner TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'parked', 'dead')),
    attempts INTEGER NOT NULL DEFAULT 0,
    reason TEXT,
    last_error TEXT,
    next_at REAL CHECK (typeof(next_at) IN ('real', 'null'))
);
CREATE TABLE IF NOT EXISTS journals (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS undelivered
    ON records (owner, destination, kind, number, reason, next_at)
    WHERE state != 'dead';
CREATE INDEX IF NOT EXISTS mergeable ON records (owner, destination, merge_key, number)
    WHERE merge_key IS NOT NULL AND state = 'pending';
CREATE TRIGGER IF NOT EXISTS settled AFTER DELETE ON records BEGIN
    DELETE FROM contents WHERE number = OLD.content AND NOT EXISTS (
        SELECT 1 FROM records WHERE id >= contents.id AND id < contents.id || '/'
    );
END;
CREATE INDEX IF NOT EXISTS dead ON records (number) WHERE state = 'dead';
CREATE TABLE IF NOT EXISTS totals (
    name TEXT PRIMARY KEY,
    value REAL NOT NULL CHECK (typeof(value) = 'real')
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS shares (
    number INTEGER PRIMARY KEY,
    destination INTEGER NOT NULL REFERENCES destinations (number),
    name TEXT NOT NULL,
    frequency INTEGER NOT NULL,
    place TEXT NOT NULL,
    closed INTEGER NOT NULL,
    late INTEGER NOT NULL DEFAULT 0,
    used_at REAL NOT NULL,
    born TEXT NOT NULL DEFAULT '',
    UNIQUE (destination, name, frequency, place)
);
CREATE TABLE IF NOT EXISTS sharers (
    share INTEGER NOT NULL REFERENCES shares (number),
    owner TEXT NOT NULL,
    PRIMARY KEY (share, owner)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS parts (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    share INTEGER NOT NULL REFERENCES shares (number),
    epoch INTEGER NOT NULL,
    encoding_version INTEGER NOT NULL,
    packed BLOB NOT NULL,
    sealed_at REAL NOT NULL CHECK (typeof(sealed_at) = 'real'),
    seals INTEGER NOT NULL CHECK (typeof(seals) = 'integer' AND seals > 0),
    owner TEXT NOT NULL,
    fate TEXT NOT NULL DEFAULT 'here' CHECK (fate IN ('here', 'unsure', 'there')),
    born TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS epochs ON parts (share, epoch);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""  # noqa: S608 - nothing but constants
# A content is stored once, and a record for each destination that gets it or a part of
# it. The id of a record is the content's and maybe more after a dot, which comes before
# `/`; `first` and `last` are NULL for all of the content. `merge_key` names the window
# of a report; it is NULL once the report may have been sent, for then its body is
# final. `sealed_at` and `next_at` are on the outbox's own clock, see `Database`;
# `created` is for people. `journals` has the ids of committed windows and metadata
# until no journal has them any more. Types are checked because a flipped bit makes a
# text of a number. `parts` are windows that are reported together with those of other
# processes, once their epoch is over: see `epochs.py` and `offers.py`. A file whose
# tables have other texts is put aside: a change of one needs another SCHEMA_VERSION.


class NoSQLiteError(PeakholdError):
    """This interpreter has no SQLite, so that there is no outbox on disk."""


class NewerSchemaError(PeakholdError):
    """A later version of peakhold made the file; this one leaves it alone."""


class DamagedError(PeakholdError):
    """The file is damaged, or not an outbox."""


def check_sqlite() -> None:
    """Check that this interpreter has SQLite.

    Raises:
        NoSQLiteError: It has not.
    """
    if not SQLITE_ERRORS:
        raise NoSQLiteError(
            "this Python was built without the module sqlite3: use one that has it "
            "(to build one takes libsqlite3-dev or sqlite-devel)"
        )


def connect(path: Path | None, *, sync: str) -> sqlite3.Connection:
    """Open an outbox, a new one if there is none; None is one in memory.

    Args:
        path: The file.
        sync: SQLite's ``synchronous``: ``OFF`` or ``FULL``.

    Raises:
        NewerSchemaError: If a later version made it.
        DamagedError: If it is damaged or foreign, as ``is_damage`` says of others, too.
        OSError: If it cannot be made.
        sqlite3.Error: If it cannot be used.
    """
    if path is not None:
        _make(path)
    database = sqlite3.connect(
        path or ":memory:", timeout=1.0, isolation_level=None, check_same_thread=False
    )
    # A flipped bit in a text costs a record at most, not the file.
    database.text_factory = partial(str, encoding="utf-8", errors="replace")
    try:
        _prepare(database, path, sync)
    except BaseException:
        database.close()
        raise
    return database


def _make(path: Path) -> None:
    """Make the file if there is none, for its owner alone; SQLite does so for all.

    One that is there is not opened: closing a file gives up all locks that this process
    has on it, by other connections, too.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _check_writable(database: sqlite3.Connection, path: Path) -> None:
    """Tell a header that SQLite would only read from a disk that cannot be written."""
    try:
        database.execute("BEGIN IMMEDIATE")
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        database.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        if is_readonly(error):
            with path.open("rb") as file:
                versions = file.read(20)[18:]
            if any(version > _SQLITE_VERSIONS for version in versions):
                raise DamagedError("its header is damaged") from None
        raise


def _prepare(database: sqlite3.Connection, path: Path | None, sync: str) -> None:
    database.execute("BEGIN")  # another process may just be making it
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    (application,) = database.execute("PRAGMA application_id").fetchone()
    definitions = _definitions(database)
    database.execute("COMMIT")
    # `auto_vacuum` writes the first page before there is a table.
    new = pages <= 1 and not definitions
    if not new and application != APPLICATION_ID:
        raise DamagedError("it is not an outbox")
    if version > SCHEMA_VERSION:
        raise NewerSchemaError(
            f"{path} was made by a later version of peakhold: use that version, or "
            "another PEAKHOLD_STATE_DIR"
        )
    if not new and version < _WITHOUT_SHARES:
        raise DamagedError("its format is of before the first release")
    database.execute(f"PRAGMA synchronous = {sync}")
    # Not WAL: with several writers it could damage a file until SQLite 3.51.3.
    database.execute("PRAGMA journal_mode = TRUNCATE").fetchone()
    if new:
        # A report of twenty classes takes 1.3 kB: of smaller pages much is left empty.
        database.execute("PRAGMA page_size = 16384")
        # An outbox that was full for a day does not stay large.
        database.execute("PRAGMA auto_vacuum = FULL")
        database.executescript(_SCHEMA)
    elif path is not None:
        if version < SCHEMA_VERSION:
            database.executescript(_SCHEMA)  # what is there stays as it is
            definitions = _definitions(database)
        else:
            _check_writable(database, path)
        if definitions != _own_definitions():
            raise DamagedError("its tables are not those of an outbox")
        if path.stat().st_size <= CHECKED_SIZE:
            found = database.execute("PRAGMA integrity_check(1)").fetchone()
            if found != ("ok",):
                raise DamagedError("SQLite's check found damage")


def _definitions(database: sqlite3.Connection) -> list[tuple[str | None]]:
    # Without those that SQLite adds by itself, for `ANALYZE` for example. `VACUUM`
    # leaves them in another order.
    return database.execute(
        "SELECT sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_stat%' ORDER BY sql"
    ).fetchall()


@cache
def _own_definitions() -> list[tuple[str | None]]:
    with closing(sqlite3.connect(":memory:")) as database:
        database.executescript(_SCHEMA)
        return _definitions(database)


def is_damage(error: BaseException) -> bool:
    """Whether an exception says that the file is damaged, or not an outbox."""
    if isinstance(error, sqlite3.OperationalError):  # most say: busy, or full
        return str(error).startswith(("no such ", "unsupported file format"))
    # SQLite quotes the damaged text of a table's definition.
    return isinstance(error, (DamagedError, UnicodeDecodeError)) or (
        type(error) is sqlite3.DatabaseError
    )


def is_readonly(error: BaseException) -> bool:
    """Whether an exception says that the file can only be read."""
    return isinstance(error, sqlite3.OperationalError) and "readonly" in str(error)


def explained(error: Exception) -> str:
    """Return what an exception says, and what that means for an outbox."""
    for is_meant, meaning in _MEANINGS:
        if is_meant(error):
            return f"{error}: {meaning}"
    return str(error)


def _is_busy(error: Exception) -> bool:
    # SQLite's codes have one text each; Python 3.10 does not tell the codes.
    return isinstance(error, BlockingIOError) or "is locked" in str(error)


def _is_full(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "is full" in str(error)


def _is_forbidden(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
    return is_readonly(error) or "permission denied" in str(error)


def _is_in_the_way(error: Exception) -> bool:
    return isinstance(error, (FileExistsError, NotADirectoryError))


def _has_no_locks(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (
        errno.ENOLCK,
        errno.EOPNOTSUPP,
    )


_MEANINGS = (
    (_is_busy, "another process is using the outbox"),
    (_is_full, "the disk of the outbox is full, make room"),
    (
        _has_no_locks,
        "the file system has no locks, let PEAKHOLD_STATE_DIR name a local disk",
    ),
    (
        _is_in_the_way,
        "a file is in the way, let PEAKHOLD_STATE_DIR name another place",
    ),
    (
        _is_forbidden,
        "this process may not write there, let PEAKHOLD_STATE_DIR name another place",
    ),
)


def quarantine(path: Path) -> str:
    """Move a damaged file away, with what belongs to it; returns its new name.

    Raises:
        OSError: If it cannot be moved.
    """
    now = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
    target = path.with_name(f"{path.name}.corrupt-{now}")
    # First what belongs to it: a new file that somebody begins has one of its own.
    with suppress(FileNotFoundError):
        journal = path.with_name(f"{path.name}-journal")
        journal.rename(f"{target}-journal")
    path.rename(target)
    damaged = sorted(path.parent.glob(f"{path.name}.corrupt-*Z"))
    for old in damaged[:-KEPT_DAMAGED]:
        for part in old.parent.glob(f"{old.name}*"):
            part.unlink(missing_ok=True)
    return target.name
