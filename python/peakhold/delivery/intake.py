"""Between the frame loop and the outbox: sealed content that waits to be written.

A frame only appends to memory. A deliverer's thread, one at a time, makes the bodies
and has the outbox commit them.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from peakhold.locks import is_free
from peakhold.outbox import Counts
from peakhold.records.encode import UnencodableError, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from peakhold.delivery.sender import Sender
    from peakhold.notices import Notices
    from peakhold.outbox import Outbox
    from peakhold.records import Record

MAX_RECORDS = 1_000
MAX_BYTES = 16 * 1024 * 1024
"""What may wait here; past it the oldest is dropped. Usually it is nothing."""
_NEWEST = 64
"""Records that are known when they are put again."""
PAUSE = 5.0
"""Seconds until a client that could not describe its device is asked again."""


class Intake:
    """Sealed records that have no body yet, and who will send them.

    Attributes:
        next_at: Monotonic time at which there is something to commit; infinity if
            there is nothing.
    """

    def __init__(
        self,
        outbox: Outbox,
        notices: Notices,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start empty."""
        self.next_at = float("inf")
        self._outbox = outbox
        self._notices = notices
        self._clock = clock
        self._lock = threading.Lock()
        self._committing = threading.Lock()
        self._waiting: deque[tuple[Record, Sender]] = deque()
        self._newest: deque[str] = deque(maxlen=_NEWEST)
        self._bytes = 0
        self._writing: tuple[Record, Sender] | None = None
        self._overflowed = 0

    @property
    def busy(self) -> bool:
        """Whether a thread is committing what waited."""
        return self._committing.locked()

    @property
    def due_at(self) -> float:
        """Monotonic time at which somebody is to commit.

        Infinity while a thread is at it, which also takes what comes meanwhile, or has
        to be asked again when it is through.
        """
        return float("inf") if self.busy else self.next_at

    def put(self, record: Record, sender: Sender) -> None:
        """Take a record, once if it is put again at once; takes microseconds.

        After an interruption, as by a signal handler, the caller puts it again.
        """
        with self._lock:
            if record.id in self._newest:
                return
            # Last what is to be committed, and first what the end of it would leave
            # undone: an exception of a signal handler may come in between.
            self.next_at = min(self.next_at, self._clock())
            self._bytes += record.size
            self._waiting.append((record, sender))
            self._newest.append(record.id)
            while len(self._waiting) > 1 and (
                len(self._waiting) > MAX_RECORDS or self._bytes > MAX_BYTES
            ):
                self._overflowed += 1
                self._take()

    def commit(self, *, patience: float = 0.0) -> list[Record]:
        """Have the outbox commit what waits; returns the records it has now.

        Args:
            patience: Seconds to wait while another thread is doing it.
        """
        if not is_free(self._committing, patience):
            return []
        with self._committing:
            return self._commit()

    def _commit(self) -> list[Record]:
        committed: list[Record] = []
        again: list[tuple[Record, Sender]] = []
        try:
            with self._lock:
                self.next_at = float("inf")
                overflowed, self._overflowed = self._overflowed, 0
            self._outbox.lost("overflow", overflowed)
            while taken := self._next():
                parts = self._sealed(*taken)
                if parts is None:
                    again.append(taken)
                else:
                    committed += parts
        finally:
            with self._lock:
                if self._writing:  # after what is not an ``Exception``
                    if not self._waiting or self._waiting[0] is not self._writing:
                        again.append(self._writing)
                    self._writing = None
                self._waiting.extendleft(reversed(again))
                # Counted anew, for an interruption may have left it wrong.
                self._bytes = sum(record.size for record, _ in self._waiting)
                if again:
                    self.next_at = min(self.next_at, self._clock() + PAUSE)
        return committed

    def encoded(
        self, record: Record, sender: Sender, *, apart: bool = False
    ) -> list[Record]:
        """Make the body of a record, maybe in parts.

        Args:
            record: The record.
            sender: Who sends it.
            apart: Whether each metadata entry is to be a part.

        Raises:
            UnencodableError: If no JSON can say it; it is dropped.
            Exception: Whatever the client raises that is to describe its device.
        """
        facts = sender.facts() if record.kind == "report" else {}
        try:
            return encode(record, facts, entries_apart=apart)
        except UnencodableError:
            self._outbox.lost("unencodable", record.seals)
            raise

    def _sealed(self, record: Record, sender: Sender) -> list[Record] | None:
        """Have the outbox commit a record; returns None if it has to be tried again."""
        try:
            parts = self.encoded(record, sender)
            self._outbox.add(parts)
        except UnencodableError:
            return []
        except Exception as error:  # noqa: BLE001 - an injected client may raise any
            self._notices.warn(
                "commit",
                "What is sealed cannot be committed yet (%s: %s)",
                type(error).__name__,
                sender.describe(error),
            )
            return None
        return parts

    def counts(self) -> Counts:
        """Return the figures of what has not been committed."""
        with self._lock:
            pending = len(self._waiting) + (self._writing is not None)
            dropped = {"overflow": self._overflowed} if self._overflowed else {}
            return Counts(pending + self._overflowed, pending=pending, dropped=dropped)

    def _next(self) -> tuple[Record, Sender] | None:
        with self._lock:
            self._writing = self._waiting[0] if self._waiting else None
            if self._writing:
                self._take()
            return self._writing

    def _take(self) -> None:
        self._bytes -= self._waiting[0][0].size
        self._waiting.popleft()
