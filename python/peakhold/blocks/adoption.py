"""Delivers what dead processes had in memory, which their journals have.

A window, or a batch of metadata, that stands in the journal (``delivery/journal.py``)
of a dead process as open was never committed, or was and the process could not write
that down any more. So the process that adopts it makes the record under the id that its
owner would have used, and the outbox takes an id once. To adopt a journal is to put the
own owner id behind the name of its directory, which one process can do; and if that one
dies, too, the next one can.
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from peakhold._peakhold import Journal, recover_journal
from peakhold.delivery.journal import ALONE
from peakhold.outbox.schema import explained
from peakhold.outbox.state import JournalName
from peakhold.records import (
    DestinationKey,
    Record,
    Share,
    Span,
    seal_metadata,
    seal_report,
)
from peakhold.records.metadata import coalesced

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from peakhold._peakhold import WindowSnapshot
    from peakhold.delivery.dispatcher import Dispatcher
    from peakhold.delivery.sender import Sender
    from peakhold.outbox import StateDirectory

PERIOD = 15.0
"""Seconds between two searches for journals of dead owners."""
_COMPARED = 256 * 1024
"""Bytes of another process's journal up to which its windows are compared."""


class Adoption:
    """Has the windows of dead processes delivered, once, whoever else is at it.

    Journals whose destination has no sender here stay for a process that has one.
    Nothing here raises because of the disk.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        unshared: Callable[[], Collection[tuple[str | int | None, ...]]] = tuple,
    ) -> None:
        """Bind to the deliverer of what is found; no file is touched yet.

        The dispatcher's own journal is kept short at the same times.

        Args:
            dispatcher: Who delivers.
            unshared: Names the open windows that could be shared and are not.
        """
        self._dispatcher = dispatcher
        self._unshared = unshared
        self._compares = dispatcher.settings.share is None
        self._met: set[str] = set()
        # Weakly: windows keep their sender, and an api key is kept for nothing else.
        self._senders: WeakValueDictionary[DestinationKey, Sender] = (
            WeakValueDictionary()
        )
        self._left_alone: set[str] = set()
        self._others: dict[str, set[DestinationKey]] = {}

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
            self._dispatcher.journals.tidy()
            try:
                for path in sorted(state.journals.iterdir()):
                    self._consider(path, state)
            except OSError as error:
                self._dispatcher.notices.warn(  # see `Journals`
                    "disk", "Journals cannot be looked through: %s", explained(error)
                )
        return now + PERIOD

    def _consider(self, path: Path, state: StateDirectory) -> None:
        """Deliver the windows of a journal if its owner is dead."""
        name = JournalName.of(path)
        if name is None or path.name in self._left_alone:
            return
        if state.is_alive(name.owner_id):
            if self._compares and name.owner_id != state.owner_id:
                self._compare(path)
            return
        senders = dict(self._senders)
        others = self._others.get(path.name)
        if others is not None and others.isdisjoint(senders):
            return
        with suppress(FileNotFoundError):  # another process may be faster
            found = self._read(path, name.writer_id)
            if found is None:
                return
            mine = [each for each in found.windows if each.destination in senders]
            if found.windows and not mine:
                self._others[path.name] = {each.destination for each in found.windows}
                return
            adopted = path.with_name(name.adopted_by(state.owner_id))
            path.rename(adopted)
            if found.damaged:
                self._warn(
                    "%d stretches of the journal %s are damaged and lost",
                    found.damaged,
                    path.name,
                )
            rest = _Adopted(adopted, name.writer_id, found, {each.id for each in mine})
            rest.end_if_done()
            for each in mine:
                record = each.record(partial(rest.commit, each))
                self._dispatcher.deliver(record, senders[each.destination])
                if self._dispatcher.committer.is_full:
                    self._dispatcher.committer.commit(patience=PERIOD)

    def _compare(self, path: Path) -> None:
        """Say so if another process has a window open that this one has, too.

        The second time: a process may just be taking the place of another.
        """
        common = _open_in(path).intersection(self._unshared())
        if common and path.name in self._met:
            self._compares = False
            self._dispatcher.notices.warn(
                "share",
                "Another process has the window %s open, too: each reports its own "
                "maxima. With PEAKHOLD_SHARE=host they make one report, and "
                "PEAKHOLD_SHARE=off says that it is meant so",
                min(str(window[2]) for window in common),
            )
        if common:
            self._met.add(path.name)

    def _read(self, path: Path, writer: str) -> _Found | None:
        """Return what a journal holds; None if it cannot be read, and stays."""
        try:
            segments = sorted(path.glob("*.journal"))
            written = max((each.stat().st_mtime for each in segments), default=0.0)
            data = [each.read_bytes() for each in segments]
            statistics = None
            with suppress(FileNotFoundError):
                statistics = (path / "statistics").read_bytes()
            recovered, damaged, unknown = recover_journal(data, statistics)
            windows = []
            alone = {each.stem for each in path.glob(f"*{ALONE}")}
            for *numbers, about, closed_at, frames, snapshot in recovered:
                if about is not None and (snapshot.peaks or frames):
                    at = written if closed_at is None else closed_at / 1e6
                    record_id = "-".join(map(str, [writer, *numbers]))
                    window = _Window.of(about, frames, snapshot, record_id, at)
                    windows.append(window.alone() if record_id in alone else window)
            whole = all(about is not None for _, _, about, *_ in recovered)
            whole = whole and not unknown and bool(recovered or not damaged)
            return _Found(windows, damaged + unknown, whole=whole)
        except (ValueError, KeyError, TypeError) as error:
            self._left_alone.add(path.name)
            self._warn(
                "The journal %s is left alone, delete it if nobody needs it: %s",
                path.name,
                error,
            )
            return None

    def _warn(self, message: str, *args: object) -> None:
        self._dispatcher.notices.warn("journal", message, *args)


def _open_in(path: Path) -> set[tuple[str | int | None, ...]]:
    """Return the names of the windows that a small journal has; its process goes on."""
    try:
        segments = sorted(path.glob("*.journal"))
        if sum(each.stat().st_size for each in segments) > _COMPARED:
            return set()
        recovered, *_ = recover_journal([each.read_bytes() for each in segments])
        about = [json.loads(each[2]) for each in recovered if each[2] is not None]
        return {tuple(each["window"]) for each in about}
    except (OSError, ValueError, KeyError, TypeError):  # or it is of another version
        return set()


@dataclass(frozen=True)
class _Window:
    """An open window of a dead process, or a batch of metadata."""

    destination: DestinationKey
    window: tuple[str | int | None, ...]
    frames: list[tuple[list[str], str, str]]
    snapshot: WindowSnapshot
    id: str
    at: float

    @classmethod
    def of(
        cls,
        about: bytes,
        frames: list[tuple[list[str], str, str]],
        snapshot: WindowSnapshot,
        record_id: str,
        at: float,
    ) -> _Window:
        known = json.loads(about)
        destination = DestinationKey(**known["destination"])
        return cls(destination, tuple(known["window"]), frames, snapshot, record_id, at)

    def alone(self) -> _Window:
        """Return it as one that is not shared."""
        return replace(self, window=self.window[:4])

    def record(self, on_committed: Callable[[], None]) -> Record:
        """Return the record that the window became, or would have become."""
        created = datetime.fromtimestamp(self.at, timezone.utc)
        if self.frames:
            record = seal_metadata(self.destination, coalesced(self.frames))
        else:
            local = created.astimezone()
            closed_at = local.replace(tzinfo=None)
            key, feed = self.window[2:4]
            span = Span(
                str(key), None if feed is None else str(feed), round(self.at * 1e6)
            )
            record = seal_report(
                self.destination, self.window, self.snapshot, closed_at, span
            )
            record = replace(record, share=Share.of(self.window, local))
        return replace(record, id=self.id, created=created, on_committed=on_committed)


@dataclass(frozen=True)
class _Found:
    """What the journal of a dead process holds.

    Attributes:
        windows: Those that are not committed.
        damaged: Stretches of bytes and records that cannot be read.
        whole: Whether everything is known that the readable records belong to.
    """

    windows: list[_Window]
    damaged: int
    whole: bool


class _Adopted:
    """A journal that was adopted, until its windows are committed."""

    def __init__(
        self, path: Path, writer: str, found: _Found, waiting: set[str]
    ) -> None:
        self._path = path
        self._writer = writer
        self._found = found
        self._waiting = waiting
        self._all_mine = len(waiting) == len(found.windows)
        self._journal = Journal(path)

    def commit(self, window: _Window) -> None:
        """Write down that a window is in the outbox."""
        _, aggregator, number = window.id.split("-")
        self._journal.commit(int(aggregator), int(number))
        self._waiting.discard(window.id)
        self.end_if_done()

    def end_if_done(self) -> None:
        """Delete the journal, or leave what it holds for others to them."""
        if self._waiting:
            return
        if not self._found.whole:
            self._path.rename(self._path.with_name(f"{self._writer}.corrupt"))
        elif self._all_mine:
            shutil.rmtree(self._path)
        else:
            self._path.rename(self._path.with_name(self._writer))
