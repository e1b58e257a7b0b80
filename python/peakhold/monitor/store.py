"""The monitor's memory: what it was sent, and what can be read back from it."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peakhold.monitor.errors import StoreError
from peakhold.monitor.ingest import Content, Kind, Submission
from peakhold.monitor.overview import (
    Overview,
    WindowRow,
    read_overview,
    read_windows,
)
from peakhold.monitor.payloads import parse_metadata, parse_report, parse_windows
from peakhold.monitor.schema import open_for_reading, open_for_writing
from peakhold.monitor.statistics import Period, read_statistics
from peakhold.monitor.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future
    from os import PathLike

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True)
class StoredRequest:
    """A request as it was kept."""

    kind: Kind
    workspace: str
    received: datetime
    idempotency_key: str | None
    body: bytes


class Store:
    """Requests and their statistics in one SQLite file, for use by many threads.

    Writes go through one thread and are on disk when their future resolves; every
    read opens its own connection and sees one state of the file.

    Args:
        data: The file to keep everything in; None for a temporary one, which is
            deleted on `close`.
        clock: Tells the time of receipt in seconds since 1970 UTC.

    Raises:
        StoreError: The file is not the monitor's, is newer than this version of
            peakhold, or cannot be opened. It is left as it was.
    """

    def __init__(
        self,
        data: str | PathLike[str] | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        with ExitStack() as cleanup:
            if data is None:
                # A file even so: readers and the writer then work side by side.
                directory = cleanup.enter_context(
                    tempfile.TemporaryDirectory(prefix="peakhold-monitor-")
                )
                self._path = Path(directory) / "monitor.db"
            else:
                self._path = Path(data)
            self._writer = Writer(open_for_writing(self._path, temporary=data is None))
            cleanup.callback(self._writer.close)
            self._cleanup = cleanup.pop_all()

    def submit(
        self, kind: Kind, workspace: str, body: bytes, idempotency_key: str | None
    ) -> Future[bool]:
        """Check a body and queue it for storing.

        Returns:
            Resolved when it is on disk: True, or False if it was left out because a
            request of this kind, workspace and key arrived in the last seven days.

        Raises:
            InvalidRequestError: The body does not have the shape of its kind.
            StoreBusyError: Too much is waiting to be stored.
            StoreError: The store is closed.
        """
        received_us = int(self._clock() * 1_000_000)
        parse: dict[Kind, Callable[[bytes], Content]] = {
            "report": parse_report,
            "metadata": parse_metadata,
            "windows": partial(parse_windows, received_us=received_us),
        }
        return self._writer.submit(
            Submission(
                kind=kind,
                workspace=workspace,
                received_us=received_us,
                idempotency_key=idempotency_key,
                body=body,
                content=parse[kind](body),
            )
        )

    def statistics(
        self, workspace: str, period: Period, models: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Answer a statistics call, see `read_statistics`.

        Raises:
            StoreError: The file could not be read.
        """
        with self._reading() as connection:
            return read_statistics(connection, workspace, period, models)

    def windows(self, workspace: str) -> list[WindowRow]:
        """Sum up the windows of each aggregator and feed, see `read_windows`.

        Raises:
            StoreError: The file could not be read.
        """
        with self._reading() as connection:
            return read_windows(connection, workspace)

    def overview(self, workspace: str, model: str = "") -> Overview:
        """Gather what the dashboard shows, see `read_overview`.

        Raises:
            StoreError: The file could not be read.
        """
        with self._reading() as connection:
            return read_overview(connection, workspace, model)

    def requests(self, kind: Kind) -> list[StoredRequest]:
        """Return the stored requests of a kind with their bodies, in order of receipt.

        Raises:
            StoreError: The file could not be read.
        """
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT workspace, received_us, idempotency_key, body FROM requests"
                " WHERE kind = ? ORDER BY id",
                (kind,),
            ).fetchall()
        return [
            StoredRequest(
                kind, workspace, _EPOCH + timedelta(microseconds=us), key, body
            )
            for workspace, us, key, body in rows
        ]

    def check(self) -> None:
        """Read from the file once.

        Raises:
            StoreError: It cannot be read.
        """
        with self._reading() as connection:
            connection.execute("SELECT 1 FROM requests LIMIT 1").fetchone()

    def close(self) -> None:
        """Store what is queued and let go of the file; a second call does nothing."""
        self._cleanup.close()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            with open_for_reading(self._path) as connection:
                yield connection
        except sqlite3.Error as error:
            raise StoreError(f"the data file could not be read ({error})") from error
