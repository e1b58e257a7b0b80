"""Journals of this process's open windows.

An aggregator writes its record highs to a file per window (``rust/journal.rs``). The
file goes when the window's record is safe in the outbox; what becomes of the files of
a process that was killed is told in ``adoption.py``.

A file is named ``{owner}-{aggregator}-{window}.journal``. Its stem is the id of the
window's record.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from datetime import datetime
from itertools import count
from typing import TYPE_CHECKING

from peakhold._peakhold import PeakAggregator
from peakhold.notices import Notices
from peakhold.outbox.schema import explained
from peakhold.records import seal_report

if TYPE_CHECKING:
    from collections.abc import Hashable
    from pathlib import Path

    from peakhold._peakhold import WindowSnapshot
    from peakhold.delivery.dispatcher import Dispatcher
    from peakhold.outbox import StateDirectory
    from peakhold.records import Destination, Record

_numbers = count()


class Journals:
    """Where the windows of a process are written down.

    Durability ``memory``, and a state directory that cannot be used, leave windows
    without a journal. Nothing here raises because of the disk.
    """

    def __init__(
        self,
        state: StateDirectory | None,
        notices: Notices,
        *,
        sync: bool,
        limit: int,
    ) -> None:
        """Touch no file yet.

        Args:
            state: Where the files are; None if there are to be none.
            notices: Told about what cannot be written.
            sync: Whether the loss of power is to lose nothing either.
            limit: Bytes that all of them may take.
        """
        self._state = state
        self._notices = notices
        self._sync = sync
        self._limit = limit

    @classmethod
    def of(cls, dispatcher: Dispatcher) -> Journals:
        """Return those of the windows that a dispatcher reports."""
        settings = dispatcher.settings
        return cls(
            dispatcher.state,
            dispatcher.notices,
            sync=settings.durability == "power",
            limit=round(settings.outbox_mib * 2**20),
        )

    def after_fork(self) -> Journals:
        """Return those of a forked child, which has no dispatcher yet."""
        # A thread that the child does not have may hold the lock of the parent's.
        return Journals(self._state, Notices(), sync=self._sync, limit=self._limit)

    def aggregator(
        self, destination: Destination, window: tuple[str | None, ...]
    ) -> PeakAggregator:
        """Return an aggregator for the windows of a key, with journals if there can be.

        Args:
            destination: Where its reports go.
            window: Key of the window, so that recovered windows can be merged.
        """
        prefix = self._prefix()
        about = _about(destination, window) if prefix else b""
        return PeakAggregator(
            journal=prefix, about=about, sync=self._sync, limit=self._limit
        )

    def begin(
        self,
        aggregator: PeakAggregator,
        destination: Destination,
        window: tuple[str | None, ...],
    ) -> None:
        """Try again to have journals for the next windows of an aggregator without."""
        if prefix := self._prefix():
            about = _about(destination, window)
            aggregator.begin_journals(
                prefix, about=about, sync=self._sync, limit=self._limit
            )

    def _prefix(self) -> Path | None:
        """Return what the journals of an aggregator begin with, if there can be any."""
        if self._state is None:
            return None
        try:
            return self._state.journals / f"{self._state.owner_id}-{next(_numbers)}"
        except OSError as error:
            # The outbox, which most likely fails for the same reason, counts there too.
            self._notices.warn(
                "disk",
                "The state directory %s cannot be used, a kill of the process loses "
                "the windows that are open and what is sealed: %s",
                self._state.path,
                explained(error),
            )
            return None

    def seal(
        self,
        destination: Destination,
        window: Hashable,
        snapshot: WindowSnapshot,
        closed_at: datetime | None = None,
    ) -> Record:
        """Return the record of a window that was closed just now, or at a local time.

        Its journal goes when the outbox has it. If that was taken for one of a dead
        process, and adopted, the record gets an id of its own: the other one may lack
        what was observed since.
        """
        if self._state is not None and snapshot.peaks:
            self._state.stay_alive(self._notices)
        closed_at = closed_at or datetime.now()  # noqa: DTZ005 - as in the request
        record = seal_report(destination, window, snapshot, closed_at=closed_at)
        journal = snapshot.journal
        if journal is None:
            return record
        there = self._date(journal.name, closed_at)
        if journal.error is not None:
            self._notices.warn(
                "journal",
                "The journal of a window could not be written (%s): a kill of the "
                "process would have lost it. The next window tries anew; is there "
                "room, also in PEAKHOLD_OUTBOX_MIB, and can PEAKHOLD_STATE_DIR be "
                "written?",
                journal.error,
            )
        if journal.slow_writes:
            self._notices.count("slow_disk", journal.slow_writes)
        record = replace(record, on_committed=journal.remove)
        return replace(record, id=journal.name) if there else record

    def _date(self, name: str, closed_at: datetime) -> bool:
        """Give a journal the time of its report, which its adopter is to repeat.

        Returns:
            Whether there may be a file of that name. There is none of a window in which
            nothing was observed.
        """
        if self._state is not None:
            at = round(closed_at.timestamp() * 1e6) * 1_000
            try:
                os.utime(self._state.journal(name), ns=(at, at))
            except FileNotFoundError:
                return False
            except OSError:  # its date is that of its last record
                return True
        return True


def _about(destination: Destination, window: tuple[str | None, ...]) -> bytes:
    """Return what a journal says of itself to the process that adopts it."""
    about = {"destination": asdict(destination), "window": window}
    return json.dumps(about).encode("ascii")
