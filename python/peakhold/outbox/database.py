"""One connection to an outbox: opened when it is used, and again when it has to be.

The outbox has a time of its own, which does not follow the wall clock's jumps: it runs
with the monotonic clock of the processes that use it, and while there is none it
advances with the wall clock, by one day at most.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, TypeVar

from peakhold.outbox import forks, schema
from peakhold.outbox.ledger import committed, outbox_time

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from pathlib import Path

    from peakhold.outbox.state import StateDirectory

_T = TypeVar("_T")


class Database:
    """Transactions on an outbox in a file that processes share, or in memory.

    Attributes:
        owner: Whose records this process adds, once the database was used.
    """

    def __init__(
        self, state: StateDirectory | None, clock: Callable[[], float], sync: str
    ) -> None:
        """Open nothing yet.

        Args:
            state: Where the file is; None for a database in memory.
            clock: Monotonic time in seconds.
            sync: SQLite's ``synchronous``.
        """
        self.owner = "memory"
        self._state = state
        self._clock = clock
        self._sync = sync
        self._path: Path | None = None
        self._inode = 0
        self._opened: sqlite3.Connection | None = None
        self._close: weakref.finalize[[], Database] | None = None
        self._lag = 0.0
        self._lock = threading.Lock()
        forks.wait_for(self._lock)

    def close(self) -> None:
        """Close the database; the next transaction opens it again."""
        self._opened = None
        if self._close is not None:
            self._close()

    def is_there(self) -> bool:
        """Whether there may be a file; looks without making one."""
        try:
            return self._state is not None and self._state.has_outbox()
        except OSError:
            return True

    def now(self) -> float:
        """Return the outbox's own time, once it was used."""
        return self._clock() - self._lag

    def monotonic(self, outbox_time: float) -> float:
        """Return the monotonic time of a time of the outbox's own."""
        return outbox_time + self._lag

    def transaction(self, act: Callable[[sqlite3.Connection], _T]) -> _T:
        """Have the database alone: all that ``act`` does with it is kept, or nothing.

        Not a context manager: an exception that a signal handler raises inside one
        would leave the lock and the transaction to the garbage collector.

        Raises:
            sqlite3.Error: It cannot be read or written.
            DamagedError: It cannot be read any more, and was put aside.
            NewerSchemaError: A later version made it.
            OSError: Its file cannot be made.
        """
        with self._lock:
            try:
                if self._path and self._inode != _inode(self._path):
                    self.close()  # it was put aside or deleted: there is another one
                if self._opened is None:
                    self._opened = self._open()
                result = committed(self._opened, act)
                self._check_that_it_stayed()
            except BaseException as error:
                if schema.is_readonly(error):
                    self.close()  # so says one that was moved while it was opened, too
                if self._state is not None and schema.is_damage(error):
                    self.close()
                    self._put_aside(self._state, error)
                raise
            return result

    def _check_that_it_stayed(self) -> None:
        """Raise if the file was moved while it was used: nobody looks there again."""
        if self._path and self._inode != _inode(self._path):
            raise schema.DamagedError(f"{self._path} was moved while it was used")

    def _put_aside(self, state: StateDirectory, error: BaseException) -> None:
        """Move a damaged file away, unless another process was faster, and raise.

        Raises:
            DamagedError: It is gone; the next transaction begins a new one.
            OSError: It cannot be moved, or not now.
        """

        def move() -> str:
            # Another process may begin a new one at once, which is not to be moved.
            if self._inode == _inode(state.outbox):
                return schema.quarantine(state.outbox)
            return "elsewhere"

        moved = state.alone(move)
        raise schema.DamagedError(
            f"{state.outbox} was damaged and is now {moved} ({error})"
        ) from None

    def _open(self) -> sqlite3.Connection:
        from sqlite3 import Row  # which not every interpreter has

        if self._state is not None:
            self._path, self.owner = self._state.outbox, self._state.owner_id
            self._inode = _inode(self._path)  # of what is found damaged, if it is
        database = schema.connect(self._path, sync=self._sync)
        self._inode = _inode(self._path) if self._path else 0
        # The finalizer holds the connection, which therefore outlives this object: in a
        # cycle the garbage collector could finalize the connection first, unclosed.
        self._close = weakref.finalize(self, database.close)
        self._close.atexit = False  # what is accepted at exit still has to be written
        self._lag = self._clock() - outbox_time(database)
        database.row_factory = Row
        return database


def _inode(path: Path) -> int:
    """Return what tells a file from another one of its name; 0 if there is none."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0
