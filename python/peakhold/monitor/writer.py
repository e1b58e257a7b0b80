"""The one thread that writes to the data file.

Requests that arrive while a commit is under way wait in a queue and share the next
one, so that the cost of a commit (about a millisecond when synced to disk) is paid
once for all of them.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING

from peakhold.monitor.errors import NO_THREAD, StoreBusyError, StoreError
from peakhold.monitor.ingest import Submission, store_all

if TYPE_CHECKING:
    import sqlite3

logger = logging.getLogger("peakhold.monitor")

MAX_QUEUED_BYTES = 64 * 1024 * 1024
"""Bodies waiting for a commit; more than this is refused."""

_BATCH = 256
"""Most requests of one commit: bounds how long the first of them waits."""


class Writer:
    """Commits submissions in the order of their arrival.

    Args:
        connection: The writing connection, from now on used by this thread alone.

    Raises:
        StoreError: The thread cannot be started.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._changed = threading.Condition()
        self._queue: deque[tuple[Submission, Future[bool]]] = deque()
        self._queued_bytes = 0
        self._closing = False
        self._thread = threading.Thread(
            target=self._run, name="peakhold-monitor-writer", daemon=True
        )
        try:
            self._thread.start()
        except RuntimeError as error:
            connection.close()
            raise StoreError(NO_THREAD.format(error)) from error

    def submit(self, submission: Submission) -> Future[bool]:
        """Queue a submission.

        Returns:
            Resolved after the commit: True if it was stored, False if its idempotency
            key was already known. Fails with StoreError if it could not be stored.

        Raises:
            StoreBusyError: The queue is full.
            StoreError: The writer is closed.
        """
        future: Future[bool] = Future()
        # A sender that goes away cannot take back what it has handed in.
        future.set_running_or_notify_cancel()
        with self._changed:
            if self._closing:
                raise StoreError("the monitor is stopping, nothing more is stored")
            if self._queued_bytes + len(submission.body) > MAX_QUEUED_BYTES:
                raise StoreBusyError(
                    f"{len(self._queue):,} requests wait to be stored; send this one "
                    "again in a moment"
                )
            self._queue.append((submission, future))
            self._queued_bytes += len(submission.body)
            self._changed.notify()
        return future

    def close(self) -> None:
        """Commit what is queued, end the thread and close the connection."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        while batch := self._next_batch():
            self._commit(batch)

    def _commit(self, batch: list[tuple[Submission, Future[bool]]]) -> None:
        try:
            stored = store_all(
                self._connection, [submission for submission, _ in batch]
            )
        # Whatever it is, the senders must learn of it and the thread must live on.
        except Exception as error:  # noqa: BLE001
            logger.warning("%d requests were not stored (%s)", len(batch), error)
            failure = StoreError(f"the data file could not be written ({error})")
            for _, future in batch:
                future.set_exception(failure)
        else:
            for (_, future), was_stored in zip(batch, stored, strict=True):
                future.set_result(was_stored)

    def _next_batch(self) -> list[tuple[Submission, Future[bool]]]:
        """Wait for work; an empty batch means that there will be no more."""
        with self._changed:
            while not self._queue and not self._closing:
                self._changed.wait()
            batch = [
                self._queue.popleft() for _ in range(min(_BATCH, len(self._queue)))
            ]
            self._queued_bytes -= sum(len(submission.body) for submission, _ in batch)
        return batch
