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
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import datetime
from itertools import count
from typing import TYPE_CHECKING

from peakhold._peakhold import PeakAggregator
from peakhold.notices import Notices
from peakhold.records import seal_report

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

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
        self, state: StateDirectory | None, notices: Notices, *, sync: bool
    ) -> None:
        """Touch no file yet.

        Args:
            state: Where the files are; None if there are to be none.
            notices: Told about what cannot be written.
            sync: Whether the loss of power is to lose nothing either.
        """
        self._state = state
        self._notices = notices
        self._sync = sync

    @classmethod
    def of(cls, dispatcher: Dispatcher) -> Journals:
        """Return those of the windows that a dispatcher reports."""
        sync = dispatcher.settings.durability == "power"
        return cls(dispatcher.state, dispatcher.notices, sync=sync)

    def after_fork(self) -> Journals:
        """Return those of a forked child, which has no dispatcher yet."""
        # A thread that the child does not have may hold the lock of the parent's.
        return Journals(self._state, Notices(), sync=self._sync)

    def aggregator(
        self, destination: Destination, window: tuple[str | None, ...]
    ) -> PeakAggregator:
        """Return an aggregator for the windows of a key, with journals if there can be.

        Args:
            destination: Where its reports go.
            window: Key of the window, so that recovered windows can be merged.
        """
        if self._state is None:
            return PeakAggregator()
        about = {"destination": asdict(destination), "window": window}
        try:
            name = f"{self._state.owner_id}-{next(_numbers)}"
            prefix = self._state.journals / name
        except OSError as error:
            self._notices.warn(
                "journal",
                "The state directory %s cannot be used (%s): a kill of the process "
                "loses the windows that are open. Set PEAKHOLD_STATE_DIR to one that "
                "can be written",
                self._state.path,
                error.strerror,
            )
            return PeakAggregator()
        return PeakAggregator(
            journal=prefix,
            about=json.dumps(about).encode("ascii"),
            sync=self._sync,
        )

    def seal(
        self,
        destination: Destination,
        window: Hashable,
        snapshot: WindowSnapshot,
        on_first_success: Callable[[], None] | None = None,
        closed_at: datetime | None = None,
    ) -> Record:
        """Return the record of a window that was closed just now, or at a local time.

        Its journal goes when the outbox has it.
        """
        closed_at = closed_at or datetime.now()  # noqa: DTZ005 - as in the request
        record = seal_report(
            destination, window, snapshot, on_first_success, closed_at=closed_at
        )
        journal = snapshot.journal
        if journal is None:
            return record
        self._date(journal.name, closed_at)
        if journal.error is not None:
            self._notices.warn(
                "journal",
                "The journal of a window could not be written (%s): a kill of the "
                "process would have lost it. The next window tries anew; is there "
                "room, and can PEAKHOLD_STATE_DIR be written?",
                journal.error,
            )
        return replace(record, id=journal.name, on_committed=journal.remove)

    def _date(self, name: str, closed_at: datetime) -> None:
        """Let whoever adopts a journal make the very report that may have been sent."""
        if self._state is not None:
            at = round(closed_at.timestamp() * 1e6) * 1_000
            # There is no file of a window in which nothing was observed.
            with suppress(OSError):
                os.utime(self._state.journal(name), ns=(at, at))
