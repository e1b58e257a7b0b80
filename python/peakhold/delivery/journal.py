"""The journal of what this process has in memory: open windows and metadata.

All aggregators of a process write what raises their peaks to segments that they share,
in the directory ``journals/{owner}`` (``rust/journal.rs``), and so do the frames whose
metadata waits to be sent (``rust/metadata.rs``). The record of a window has the id
``{owner}-{aggregator}-{window}``, and that of a batch of metadata likewise. What
becomes of the journal of a process that was killed is in ``blocks/adoption.py``.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from peakhold._peakhold import Journal, MetadataJournal, PeakAggregator
from peakhold.notices import Notices
from peakhold.outbox.schema import explained
from peakhold.outbox.state import JournalName
from peakhold.records import seal_report

if TYPE_CHECKING:
    from collections.abc import Hashable

    from peakhold._peakhold import WindowJournal, WindowSnapshot
    from peakhold.outbox import StateDirectory
    from peakhold.records import DestinationKey, Record, Span

    Held = tuple[list[tuple[list[str], str, str]], WindowSnapshot]
    """What a journal holds: the frames of a batch of metadata, or peaks."""

ALONE = ".alone"
"""After the id of a part in the name of a file beside its journal: it is reported by
itself."""


class Journals:
    """Where the windows and the metadata of a process are written down.

    Durability ``memory``, and a state directory that cannot be used, leave them without
    a journal. Nothing here raises because of the disk.
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
        self._journal: Journal | None = None
        self._slow_writes = 0
        # Weakly: what is in use belongs to those who append to it.
        self._metadata: WeakValueDictionary[DestinationKey, MetadataJournal] = (
            WeakValueDictionary()
        )

    def after_fork(self) -> Journals:
        """Return those of a forked child, which has no dispatcher yet."""
        # A thread that the child does not have may hold the lock of the parent's.
        return Journals(self._state, Notices(), sync=self._sync, limit=self._limit)

    def aggregator(
        self,
        destination: DestinationKey,
        window: tuple[str | int | None, ...],
        *,
        statistics: bool = False,
        name: str = "",
    ) -> PeakAggregator:
        """Return an aggregator for the windows of a key, with journals if there can be.

        Args:
            destination: Where its reports go.
            window: Key of the window, so that recovered windows can be merged.
            statistics: Whether they have statistics.
            name: What the log calls them.
        """
        journal = self._writer()
        about = _about(destination, window) if journal else b""
        return PeakAggregator(
            journal=journal, about=about, statistics=statistics, name=name
        )

    def begin(
        self,
        aggregator: PeakAggregator,
        destination: DestinationKey,
        window: tuple[str | int | None, ...],
    ) -> None:
        """Try again to have journals for the next windows of an aggregator without."""
        if journal := self._writer():
            aggregator.begin_journals(journal, about=_about(destination, window))

    def metadata(self, destination: DestinationKey) -> MetadataJournal | None:
        """Return where the metadata of a destination is written, if that can be."""
        journal = self._metadata.get(destination)
        if journal is None and (writer := self._writer()):
            journal = MetadataJournal(writer, about=_about(destination))
            self._metadata[destination] = journal
        return journal

    def read_back(self, journals: list[WindowJournal]) -> dict[str, Held]:
        """Return what windows and batches wrote down, by their names.

        What is not there is left out.

        Raises:
            OSError: If the journal cannot be read.
        """
        if self._journal is None:
            return {}
        read, damaged = self._journal.read(journals)
        pairs = zip(journals, read, strict=True)
        found = {
            journal.name: held
            for journal, held in pairs
            if held is not None and (held[0] or held[1].peaks)
        }
        if damaged or len(found) < len(journals):
            self._notices.warn(
                "journal",
                "%d of %d windows and batches of metadata are not in the journal any "
                "more, of which %d stretches are damaged: they are lost, unless "
                "another process took the journal for that of a dead one",
                len(journals) - len(found),
                len(journals),
                damaged,
            )
        return found

    def keep_statistics(self, aggregators: list[PeakAggregator]) -> None:
        """Write down the statistics of open windows, in place of those before.

        Windows of a forked child may have a journal of before it had a dispatcher.
        """
        try:
            Journal.keep_statistics(aggregators)
        except OSError as error:
            self._notices.warn(
                "journal",
                "The statistics of open windows cannot be written down, a kill of the "
                "process would lose them: %s",
                explained(error),
            )

    def tidy(self) -> None:
        """Keep the segments few though a window lives long."""
        if self._journal is not None:
            try:
                self._journal.tidy()
            except OSError as error:
                self._notices.warn(
                    "journal", "The journal cannot be shortened: %s", explained(error)
                )

    def _writer(self) -> Journal | None:
        """Return the journal of the process, if there can be one."""
        if self._state is None:
            return None
        try:
            if self._journal is None:
                self._journal = Journal(
                    self._state.journals / self._state.owner_id,
                    sync=self._sync,
                    limit=self._limit,
                )
        except OSError as error:
            # The outbox, which most likely fails for the same reason, counts there too.
            self._notices.warn(
                "disk",
                "The state directory %s cannot be used (%s): a kill of the process "
                "loses the windows that are open and what is sealed. Set "
                "PEAKHOLD_STATE_DIR to a directory that can be written; `peakhold "
                "doctor` tries it",
                self._state.path,
                explained(error),
            )
            return None
        return self._journal

    def seal(
        self,
        destination: DestinationKey,
        window: Hashable,
        snapshot: WindowSnapshot,
        closed_at: datetime | None = None,
        journal: WindowJournal | None = None,
        span: Span | None = None,
    ) -> Record:
        """Return the record of a window that was closed just now, or at a local time.

        Its journal, by default the snapshot's, goes when the outbox has it. If that was
        taken for one of a dead process, and adopted, the record gets an id of its own:
        the other one may lack what was observed since.
        """
        journal = journal or snapshot.journal
        if self._state is not None and snapshot.peaks:
            self._state.stay_alive(self._notices)
        closed_at = closed_at or datetime.now()  # noqa: DTZ005 - as in the request
        record = seal_report(destination, window, snapshot, closed_at, span)
        return self.kept(record, journal, closed_at) if journal else record

    def kept(
        self, record: Record, journal: WindowJournal, closed_at: datetime | None = None
    ) -> Record:
        """Return a record as the one of what a journal has, which goes when it may.

        Args:
            record: Made of a window or of a batch of metadata.
            journal: Where that is written down.
            closed_at: When it was closed, local; now by default.
        """
        closed_at = closed_at or datetime.now()  # noqa: DTZ005 - as in the request
        there = self._close(journal, closed_at)
        if journal.error is not None:
            self._notices.warn(
                "journal",
                "The journal of a %s could not be written (%s): a kill of the process "
                "would have lost what it lacks. The next one tries anew; is there "
                "room, also in PEAKHOLD_OUTBOX_MIB, and can PEAKHOLD_STATE_DIR be "
                "written?",
                "window" if record.kind == "report" else "batch of metadata",
                journal.error,
            )
        if (slow := journal.slow_writes) > self._slow_writes:
            self._notices.count("slow_disk", slow - self._slow_writes)
            self._slow_writes = slow
        record = replace(record, on_committed=partial(self._remove, journal))
        return replace(record, id=journal.name) if there else record

    def alone(self, record: Record) -> Record:
        """Return a part of a shared window as a report of its own.

        Who adopts its journal is to do the same, whatever became of it here: else its
        maxima could be in this report and in a shared one. So that is written down.

        Raises:
            OSError: It cannot be.
        """
        record = replace(record, share=None)
        writer, hyphen, _ = record.content_id.partition("-")
        if self._state is None or not hyphen:  # it has no journal
            return record
        adopted = JournalName(writer, writer).adopted_by(self._state.owner_id)
        marks = [
            self._state.journals / journal / f"{record.content_id}{ALONE}"
            for journal in (writer, adopted)
        ]
        for mark in marks:
            with suppress(FileNotFoundError):  # one of them is not there
                mark.touch(mode=0o600)

        def remove() -> None:
            if record.on_committed is not None:
                record.on_committed()
            for mark in marks:
                mark.unlink(missing_ok=True)

        return replace(record, on_committed=remove)

    @staticmethod
    def _close(journal: WindowJournal, closed_at: datetime) -> bool:
        """Write down the time of a report, which an adopter is to repeat.

        Returns:
            Whether anything is in the journal. Of a window in which nothing was
            observed nothing is.
        """
        try:
            return journal.close(round(closed_at.timestamp() * 1e6))
        except OSError:  # its time is that of what was last written
            return True

    def _remove(self, journal: WindowJournal) -> None:
        journal.remove()
        if self._state is not None:
            self._state.settled.append(journal.name)


def _about(
    destination: DestinationKey, window: tuple[str | int | None, ...] = ()
) -> bytes:
    """Return what a journal says of itself to the process that adopts it."""
    about = {"destination": asdict(destination), "window": window}
    return json.dumps(about).encode("ascii")
