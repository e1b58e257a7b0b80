"""The open windows that dead processes left behind, delivered by whoever finds them.

A journal (``journal.py``) that is still there when its owner is dead was never
committed, or was and the process could not delete it any more. So whoever adopts it
makes the record under the id that its owner would have used, and the outbox takes an id
once. To adopt a journal is to put the own owner id before its suffix, which one process
can do; and if that one dies, too, the next one can.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from peakhold._peakhold import recover_journal
from peakhold.outbox.schema import explained
from peakhold.outbox.state import JournalName
from peakhold.records import Destination, Record, seal_report

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from peakhold._peakhold import WindowSnapshot
    from peakhold.delivery.dispatcher import Dispatcher
    from peakhold.delivery.sender import Sender
    from peakhold.outbox import StateDirectory

PERIOD = 15.0
"""Seconds between two searches for journals of dead owners."""


class Adoption:
    """Has the windows of dead processes delivered, once, whoever else is at it.

    Journals whose destination has no sender here stay for a process that has one.
    Nothing here raises because of the disk.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        """Bind to the deliverer of what is found; no file is touched yet."""
        self._dispatcher = dispatcher
        # Weakly: windows keep their sender, and an api key is kept for nothing else.
        self._senders: WeakValueDictionary[Destination, Sender] = WeakValueDictionary()
        self._left_alone: set[str] = set()

    def lend(self, sender: Sender) -> None:
        """Have what dead processes left for a destination sent by ``sender``."""
        new = sender.destination not in self._senders
        self._senders[sender.destination] = sender
        if new and self._dispatcher.state is not None:
            self._dispatcher.watch(self.adopt, 0.0)

    def adopt(self, now: float) -> float:
        """Deliver the windows of those that died since.

        Args:
            now: Monotonic time.

        Returns:
            When to look again.
        """
        state = self._dispatcher.state
        if state is not None:
            state.stay_alive(self._dispatcher.notices)
            try:
                for path in sorted(state.journals.iterdir()):
                    self._consider(path, state)
            except OSError as error:
                self._dispatcher.notices.warn(  # see `Journals`
                    "disk", "Journals cannot be looked through: %s", explained(error)
                )
        return now + PERIOD

    def _consider(self, path: Path, state: StateDirectory) -> None:
        """Deliver the window of a journal if its owner is dead."""
        name = JournalName.of(path)
        if name is None or path.name in self._left_alone:
            return
        if state.is_alive(name.owner_id):
            return
        with suppress(FileNotFoundError):  # another process may be faster
            written = path.stat().st_mtime
            found = self._read(path)
            if found is None:
                return
            sender = self._senders.get(found.destination)
            if sender is None:
                return
            mine = path.with_name(name.adopted_by(state.owner_id))
            path.rename(mine)
            if found.damaged:
                self._warn("The end of the journal %s is damaged and lost", path.name)
            if found.snapshot.peaks:
                record = found.record(name.record_id, written, partial(_remove, mine))
                self._dispatcher.deliver(record, sender)
            else:
                mine.unlink()

    def _read(self, path: Path) -> _Found | None:
        """Return what a journal holds; None if it is none, which then stays."""
        try:
            data = path.read_bytes()
            about, snapshot, damaged = recover_journal(data)
            if about is not None:
                return _Found.of(about, snapshot, damaged=damaged)
        except (ValueError, KeyError, TypeError) as error:
            self._left_alone.add(path.name)
            self._warn(
                "The journal %s is left alone, delete it if nobody needs it: %s",
                path.name,
                error,
            )
            return None
        if data:
            path.rename(path.with_suffix(".corrupt"))
            self._warn("The journal %s is damaged from the start", path.name)
        else:  # killed when it had just been made
            path.unlink()
        return None

    def _warn(self, message: str, *args: object) -> None:
        self._dispatcher.notices.warn("journal", message, *args)


@dataclass(frozen=True)
class _Found:
    """A window of a dead process."""

    destination: Destination
    window: tuple[str | None, ...]
    snapshot: WindowSnapshot
    damaged: bool

    @classmethod
    def of(cls, about: bytes, snapshot: WindowSnapshot, *, damaged: bool) -> _Found:
        known = json.loads(about)
        destination = Destination(**known["destination"])
        return cls(destination, tuple(known["window"]), snapshot, damaged)

    def record(
        self, record_id: str, written: float, on_committed: Callable[[], None]
    ) -> Record:
        """Return the record that the window would have become when last written."""
        created = datetime.fromtimestamp(written, timezone.utc)
        closed_at = created.astimezone().replace(tzinfo=None)
        return replace(
            seal_report(self.destination, self.window, self.snapshot, closed_at),
            id=record_id,
            created=created,
            on_committed=on_committed,
        )


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
