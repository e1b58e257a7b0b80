"""The open windows of the process, which blocks of one key share."""

from __future__ import annotations

import math
import os
import threading
from collections import Counter
from dataclasses import astuple, dataclass
from datetime import datetime
from functools import partial
from itertools import starmap
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from peakhold.blocks.adoption import Adoption
from peakhold.blocks.interval import WRITTEN_HERE, ReportInterval, time_kept
from peakhold.blocks.journal import Journals
from peakhold.delivery import current
from peakhold.locks import is_free

if TYPE_CHECKING:
    from peakhold._peakhold import WindowSnapshot
    from peakhold.delivery import Dispatcher, Sender
    from peakhold.records import Record

CLOCK_GRACE = 1.0
"""Seconds past its deadline after which the clock closes a window."""

_LONGEST_SLEEP = 60.0
_PATIENCE = 0.1


@dataclass(frozen=True)
class WindowKey:
    """What blocks have to agree on to share a window.

    Attributes:
        endpoint: Where its reports go.
        api_key_fingerprint: Of the api key they are sent with.
        unique_aggregator_key: As given to ``run``.
        partition: None: the window holds all feeds of the process.
    """

    endpoint: str
    api_key_fingerprint: str
    unique_aggregator_key: str
    partition: str | None = None


class Window:
    """Peaks since the last report, and who is to report them.

    ``run`` observes into it without a lock. Closing takes ``lock``, and whoever finds
    it taken need not wait: somebody else is closing.

    Attributes:
        aggregator: The open peaks.
        interval: When the next report is due.
        lock: Taken to close the window.
        last_used: Monotonic time of the last observation.
        period: Seconds between reports, as the last observer wants it.
        released: Whether the registry forgot it; what was observed since has to be
            flushed by the observer.
    """

    def __init__(
        self, key: WindowKey, sender: Sender, period: int, journals: Journals
    ) -> None:
        """Open a window that ``sender`` reports every ``period`` seconds."""
        self.key = key
        self.aggregator = journals.aggregator(sender.destination, astuple(key))
        self.interval = ReportInterval(key.unique_aggregator_key)
        self.lock = threading.Lock()
        self.last_used = monotonic()
        self.released = False
        self._sender = sender
        self._journals = journals
        self.period = period
        self._closed = 0
        self._goes_on = False
        self._watcher: Dispatcher | None = None

    def close_if_due(
        self, sender: Sender, period: int, closed: list[ClosedWindow]
    ) -> None:
        """Close the window if its interval is over; empty or not, as ``run`` does.

        Args:
            sender: The caller's; it reports the window from now on.
            period: The caller's frequency in seconds.
            closed: Gets what was closed, unless it is not time or another thread is
                closing. It is not returned: an exception that a signal handler raises
                would lose it.
        """
        # Once a window, with cold caches: each Python function called takes some 5 us.
        if self.lock.locked():
            return
        with self.lock:
            dispatcher = current()
            if self._watcher is not dispatcher:
                self._watch(dispatcher)
            self._sender, self.period = sender, period
            if monotonic() - self.interval.last_report < period:
                return
            if self.interval.is_over(sender.cache, period):
                self._goes_on = True
                self._close(closed)

    def check(self, now: float) -> float | None:
        """Close the window if its stream stopped, release it if that was long ago.

        Args:
            now: Monotonic time.

        Returns:
            When to check again, None after the release.
        """
        if self.lock.locked():
            return now + CLOCK_GRACE
        with self.lock:
            if now - self.last_used > time_kept(self.period):
                self._release()
                return None
            if now >= self._deadline():
                if self.aggregator.peaks and self.interval.is_over(
                    self._sender.cache, self.period
                ):
                    self._goes_on = False
                    closed: list[ClosedWindow] = []
                    self._close(closed)
                    current().deliver_later(closed[0].record, self._sender)
                if now >= self._deadline():
                    return now + min(self.period, _LONGEST_SLEEP)
            # A caller with a shorter frequency may come along any time.
            return min(self._deadline(), now + _LONGEST_SLEEP)

    def flush(self, patience: float = math.inf) -> None:
        """Deliver what is there, whatever the interval says and without the cache.

        Args:
            patience: Seconds to wait for another thread that is closing.
        """
        if is_free(self.lock, patience):
            with self.lock:
                self._flush()

    def start_anew(self) -> None:
        """Empty the window in a forked child: its peaks are the parent's to report."""
        self._journals = self._journals.after_fork()
        self.aggregator = self._journals.aggregator(
            self._sender.destination, astuple(self.key)
        )
        self.lock = threading.Lock()
        # Unknown, so that the next run looks closely and has the clock watch again.
        self.interval = ReportInterval(self.key.unique_aggregator_key)

    def _deadline(self) -> float:
        return self.interval.last_report + self.period + CLOCK_GRACE

    def _watch(self, dispatcher: Dispatcher) -> None:
        self._journals = REGISTRY.close_with(dispatcher)
        dispatcher.watch(self.check, monotonic() + CLOCK_GRACE)
        self._watcher = dispatcher

    def _close(self, closed: list[ClosedWindow]) -> None:
        self._closed += 1
        self.interval.last_report = monotonic()
        window = ClosedWindow(self, self._sender, self.period, self._closed)
        closed.append(window)
        # Taken and kept in one call of C, in which no signal handler raises.
        window.snapshots.extend(starmap(self.aggregator.snapshot, [()]))

    def seal(self, closed: ClosedWindow) -> Record:
        """Do what closing need not wait for: tell the cache, and make the record."""
        if not closed.snapshots:  # interrupted just before
            closed.snapshots.append(self.aggregator.snapshot())
        (snapshot,) = closed.snapshots
        self.interval.tell(closed.sender.cache, closed.period, closed.at)
        record = self._journals.seal(
            closed.sender.destination,
            self.key,
            snapshot,
            partial(self._reported, closed.number, closed.sender, closed.period),
            closed.at,
        )
        if snapshot.journal is None:
            sender = closed.sender
            self._journals.begin(self.aggregator, sender.destination, astuple(self.key))
        self._prepare()
        return record

    def _prepare(self) -> None:
        """Make the next window's journal, which else its first record waits for.

        Not for a stream that stopped: its window would keep a file for nothing.
        """
        if is_free(self.lock, _PATIENCE):
            with self.lock:
                if self._goes_on:
                    self.aggregator.prepare_journal()

    def _reported(self, closed: int, sender: Sender, period: int) -> None:
        """Count the interval from the successful send, unless a newer close did."""
        if self.lock.locked():
            return
        with self.lock:
            if closed == self._closed:
                self.interval.restart(sender.cache, period)

    def _flush(self) -> None:
        self._goes_on = False
        # Taken out first: what comes between a look and the swap would be lost.
        snapshot = self.aggregator.snapshot()
        record = self._journals.seal(self._sender.destination, self.key, snapshot)
        if snapshot.peaks:
            current().deliver(record, self._sender)
        elif record.on_committed is not None:  # it has a journal, made ahead
            current().notices.guarded(record.on_committed)

    def _release(self) -> None:
        # In this order: an observation after the flush sees the mark, see `run`.
        REGISTRY.forget(self)
        self.released = True
        self._flush()


class ClosedWindow:
    """What a window held when it was closed, on its way to delivery.

    After an interruption on that way, as by a signal handler, it is begun anew: there
    is one snapshot and one record all the same.

    Attributes:
        snapshots: The peaks; one, once it was taken.
        at: When it was closed; local and without offset, as cache and request have it.
        sender: Who reports it.
        period: Seconds between reports.
        number: Of the closings of its window.
    """

    __slots__ = (
        *("_lock", "_record", "_window"),
        *("at", "number", "period", "sender", "snapshots"),
    )

    def __init__(
        self, window: Window, sender: Sender, period: int, number: int
    ) -> None:
        """Close a window now; its peaks are taken next."""
        self.snapshots: list[WindowSnapshot] = []
        self.at = datetime.now()  # noqa: DTZ005 - see above
        self.sender = sender
        self.period = period
        self.number = number
        self._window = window
        self._record: Record | None = None
        self._lock = threading.Lock()

    def record(self) -> Record:
        """Return the record of the window, which is made once."""
        with self._lock:
            if self._record is None:
                self._record = self._window.seal(self)
            return self._record


class _Bound(NamedTuple):
    """A dispatcher, and what goes with it."""

    dispatcher: Dispatcher
    journals: Journals
    adoption: Adoption


class WindowRegistry:
    """The windows of the process by their keys."""

    def __init__(self) -> None:
        """Start empty."""
        self._windows: dict[WindowKey, Window] = {}
        self._lock = threading.Lock()
        self._bound: _Bound | None = None

    def acquire(self, key: WindowKey, sender: Sender, period: int) -> Window:
        """Return the window of a key, a new one if there is none."""
        bound = self._bind(current())
        bound.adoption.lend(sender)
        with self._lock:
            window = self._windows.get(key)
            if window is None:
                window = self._windows[key] = Window(
                    key, sender, period, bound.journals
                )
            window.last_used = monotonic()
            return window

    def close_with(self, dispatcher: Dispatcher) -> Journals:
        """Have every window flushed when ``dispatcher`` closes.

        A forked child has a dispatcher of its own, and windows it did not acquire.

        Returns:
            The journals of the windows that ``dispatcher`` reports.
        """
        return self._bind(dispatcher).journals

    def _bind(self, dispatcher: Dispatcher) -> _Bound:
        with self._lock:
            if self._bound is None or self._bound.dispatcher is not dispatcher:
                dispatcher.at_close(self.flush_all)
                dispatcher.rejected = self.rejected
                self._bound = _Bound(
                    dispatcher, Journals.of(dispatcher), Adoption(dispatcher)
                )
            return self._bound

    def rejected(self) -> dict[str, int]:
        """Return what the open windows did not take, by reason."""
        total: Counter[str] = Counter()
        for window in list(self._windows.values()):
            total.update(window.aggregator.rejected)
        return dict(total)

    def forget(self, window: Window) -> None:
        """Give a window up, so that its key gets a new one."""
        with self._lock:
            if self._windows.get(window.key) is window:
                del self._windows[window.key]

    def flush_all(self) -> None:
        """Deliver what every window holds; the process exits."""
        deadline = monotonic() + _PATIENCE
        for window in list(self._windows.values()):
            window.flush(max(0.0, deadline - monotonic()))

    def start_anew(self) -> None:
        """Empty every window in a forked child, which keeps its blocks."""
        self._lock = threading.Lock()
        WRITTEN_HERE.clear()
        for window in self._windows.values():
            window.start_anew()


REGISTRY = WindowRegistry()

if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=REGISTRY.start_anew)
