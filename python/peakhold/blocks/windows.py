"""The open windows of the process, which blocks of one key share."""

from __future__ import annotations

import math
import os
import threading
from collections import Counter
from contextlib import ExitStack
from dataclasses import astuple, dataclass, replace
from datetime import datetime
from heapq import nsmallest
from itertools import starmap
from operator import attrgetter
from time import monotonic, time
from typing import TYPE_CHECKING, NamedTuple

from peakhold.blocks.adoption import Adoption
from peakhold.blocks.interval import Due, ReportInterval, time_kept
from peakhold.delivery import Sender, current
from peakhold.delivery.cache import SLOW
from peakhold.delivery.rejections import Rejection
from peakhold.locks import is_free, shared
from peakhold.records import Span, size_of
from peakhold.texts import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from peakhold._peakhold import WindowJournal, WindowSnapshot
    from peakhold.delivery import Dispatcher
    from peakhold.delivery.exporter import Exporter
    from peakhold.delivery.journal import Held, Journals
    from peakhold.notices import Notices
    from peakhold.records import Record, Share

CLOCK_GRACE = 1.0
"""Seconds past its deadline after which the clock closes a window."""

KEPT_EVERY = 1.0
"""Seconds from one writing of the statistics of open windows to the next."""
MOST = 10_000
"""Windows that may be open: a server's clients may name as many as they like."""
_RELEASED = 100
"""Windows that are closed early at a time, so that looking for them costs little."""
LONGEST_SLEEP = 60.0
"""Seconds after which a window is checked again, whatever its period."""
_PATIENCE = 0.1


@dataclass(frozen=True)
class WindowKey:
    """What blocks have to agree on to share a window.

    Attributes:
        endpoint: Where its reports go.
        api_key_fingerprint: Of the api key they are sent with.
        unique_aggregator_key: As given to ``run``.
        partition: The feed; None for the common window, of frames that name none and
            of feeds beyond ``PEAKHOLD_MAX_FEEDS``.
        frequency: Seconds between reports of a window that processes share; None: it is
            the process's own.
    """

    endpoint: str
    api_key_fingerprint: str
    unique_aggregator_key: str
    partition: str | None = None
    frequency: int | None = None

    @property
    def names(self) -> tuple[str | int | None, ...]:
        """The values, as journals have them; without a frequency that is None."""
        names = astuple(self)
        return names[:-1] if self.frequency is None else names

    @property
    def name(self) -> str:
        """What people call the window."""
        key, feed = self.unique_aggregator_key, self.partition
        return printable(key if feed is None else f"{key}, feed {feed}")

    def common(self) -> WindowKey:
        """Return the key of the common window."""
        return replace(self, partition=None)


class Window:
    """Peaks since the last report, and who is to report them.

    ``run`` observes into it without a lock. Closing takes ``lock``, and whoever finds
    it taken need not wait: somebody else is closing.

    Attributes:
        aggregator: The open peaks.
        began: When they were opened, in seconds since 1970 UTC.
        interval: When the next report is due.
        lock: Taken to close the window.
        last_used: Monotonic time of the last observation.
        period: Seconds between reports, as the last observer wants it.
        released: Whether the registry forgot it; what was observed since has to be
            flushed by the observer.
    """

    def __init__(
        self, key: WindowKey, sender: Sender, period: int, dispatcher: Dispatcher
    ) -> None:
        """Open a window that ``sender`` reports every ``period`` seconds."""
        self.key = key
        journals = dispatcher.journals
        self.aggregator = journals.aggregator(
            sender.destination,
            key.names,
            statistics=sender.wants_statistics(dispatcher.monitors),
            name=key.name,
        )
        self.began = time()
        self.interval = ReportInterval(key.unique_aggregator_key, key.partition)
        self.lock = threading.Lock()
        self._closing = threading.Lock()
        self.last_used = monotonic()
        self.released = False
        self._sender = sender
        self._journals = journals
        self.period = period
        self._closed = 0
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
        # No function is called for what a statement does: once a window, with cold
        # caches, each takes some 5 us.
        if self._closing.locked():
            return
        with self._closing:
            dispatcher, interval = current(), self.interval
            if self._watcher is not dispatcher:
                self._watch(dispatcher)
            self._sender, self.period = sender, period
            if monotonic() - interval.last_report < period:
                return
            # Without the lock, for the cache may hang.
            value = dispatcher.caches.read(sender.cache, interval.cache_key)
            with self.lock:
                if monotonic() - interval.last_report < period:
                    return  # the clock was faster
                due = interval.now(dispatcher.caches, value, period)
                if due is Due.REPORT:
                    self._close(closed)
                elif due is Due.BEGINS:
                    self._publish_begin(dispatcher)

    def check(self, now: float) -> float | None:
        """Close the window if its stream stopped, release it if that was long ago.

        The host's cache is read without the lock, for it may hang.

        Args:
            now: Monotonic time.

        Returns:
            When to check again, None after the release.
        """
        is_due = now >= self._deadline() and self.aggregator.peaks
        dispatcher, cache = self._watcher or current(), self._sender.cache
        if is_due and dispatcher.caches.is_read(cache):
            return now + SLOW  # so that a cache that hangs keeps one thread
        value = None
        if is_due:
            value = dispatcher.caches.read(cache, self.interval.cache_key)
        if self.lock.locked():
            return now + CLOCK_GRACE
        closed: list[ClosedWindow] = []
        with self.lock:
            if now - self.last_used > time_kept(self.period):
                self._release()
                return None
            if is_due and now >= self._deadline():
                due = self.interval.now(dispatcher.caches, value, self.period)
                if due is Due.REPORT:
                    self._close(closed)
                    dispatcher.deliver(closed[0], closed[0].sender)
                elif due is Due.BEGINS:
                    self._publish_begin(dispatcher)
            if now >= self._deadline():
                return now + min(self.period, LONGEST_SLEEP)
            # A caller with a shorter frequency may come along any time.
            return min(self._deadline(), now + LONGEST_SLEEP)

    def flush(self, patience: float = math.inf) -> None:
        """Deliver what is there, whatever the interval says and without the cache.

        Args:
            patience: Seconds to wait for another thread that is closing.
        """
        if is_free(self.lock, patience):
            with self.lock:
                self._flush()

    def start_anew(self, journals: Journals) -> None:
        """Empty the window in a forked child: its peaks are the parent's to report."""
        self._journals = journals
        self.aggregator = self._journals.aggregator(
            self._sender.destination,
            self.key.names,
            statistics=self.aggregator.has_statistics,
            name=self.key.name,
        )
        self.began = time()
        self.lock = threading.Lock()
        self._closing = threading.Lock()
        self._watcher = None
        # Unknown, so that the next run looks closely and has the clock watch again.
        self.interval.start_anew()

    def _deadline(self) -> float:
        return self.interval.last_report + self.period + CLOCK_GRACE

    def _watch(self, dispatcher: Dispatcher) -> None:
        REGISTRY.close_with(dispatcher)
        if self.aggregator.has_statistics:
            REGISTRY.keep_statistics()
        self._journals = dispatcher.journals
        dispatcher.watch(self.check, monotonic() + CLOCK_GRACE)
        self._watcher = dispatcher

    def _close(self, closed: list[ClosedWindow]) -> None:
        self._closed += 1
        self.interval.last_report = monotonic()
        window = ClosedWindow(self, self._sender, self.period, self._closed)
        closed.append(window)
        # Taken and kept in one call of C, in which no signal handler raises.
        window.snapshots.extend(starmap(self.aggregator.snapshot, [()]))

    def seal(
        self,
        closed: ClosedWindow,
        snapshot: WindowSnapshot,
        journal: WindowJournal | None,
    ) -> Record:
        """Return the record of what was closed."""
        sender, key = closed.sender, self.key
        monitors = (self._watcher or current()).monitors
        wanted = sender.wants_statistics(monitors)
        if wanted is not self.aggregator.has_statistics:
            self.aggregator.has_statistics = wanted
            if wanted:
                REGISTRY.keep_statistics()
        span = Span(
            key.unique_aggregator_key,
            key.partition,
            round(closed.ended * 1e6),
            round(closed.began * 1e6),
            closed.period,
        )
        record = self._journals.seal(
            sender.destination,
            key.names,
            snapshot,
            closed.at,
            journal,
            span,
        )
        if journal is None:
            self._journals.begin(self.aggregator, sender.destination, key.names)
        return record

    def _publish_begin(self, dispatcher: Dispatcher) -> None:
        # Local and without offset, as cache and request have it.
        now = datetime.now()  # noqa: DTZ005
        self.interval.publish(dispatcher.caches, self._sender.cache, self.period, now)

    def publish(self, closed: ClosedWindow, at: datetime, *, inline: bool) -> None:
        """Have the host's cache know the time of a report."""
        caches = (self._watcher or current()).caches
        cache, period = closed.sender.cache, closed.period
        self.interval.publish(caches, cache, period, at, inline=inline)

    def reported(self, closed: ClosedWindow, *, inline: bool) -> None:
        """Count the interval from the successful send, unless a newer close did."""
        if self.lock.locked():
            return
        with self.lock:
            if closed.number != self._closed:
                return
            self.interval.last_report = monotonic()
        now = datetime.now()  # noqa: DTZ005 - as above
        self.publish(closed, now, inline=inline)

    def _flush(self) -> None:
        # Taken out first: what comes between a look and the swap would be lost.
        snapshot = self.aggregator.snapshot()
        monitors = (self._watcher or current()).monitors
        # A monitor is to know of frames without a detection, too.
        if snapshot.peaks or (
            self._sender.sends_windows(monitors) and not snapshot.is_empty
        ):
            closed = ClosedWindow(self, self._sender, self.period, 0)
            closed.snapshots.append(snapshot)
            self._deliver(closed)

    def _deliver(self, closed: ClosedWindow) -> None:
        (self._watcher or current()).deliver(closed, closed.sender)

    def release(self) -> None:
        """Deliver what is there, and have the registry forget the window."""
        if not self.lock.locked():
            with self.lock:
                self._release()

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
        snapshots: The peaks, and their journal; one, once it was taken. After merging
            and reading back the peaks are elsewhere.
        at: When it was closed; local and without offset, as cache and request have it.
        ended: The same in seconds since 1970 UTC.
        began: When it was opened, likewise.
        sender: Who reports it.
        period: Seconds between reports.
        number: Of the closings of its window; 0 if its time concerns nobody.
        committed: Whether the outbox has it, or a window that absorbed it.
    """

    # Of the class, so that a frame which closes a window need not set them.
    committed = False
    _absorbed: tuple[WindowSnapshot, ...] = ()
    _inline = False
    _peaks: WindowSnapshot | None = None
    _record: Record | None = None

    def __init__(
        self, window: Window, sender: Sender, period: int, number: int
    ) -> None:
        """Close a window now; its peaks are taken next."""
        self.snapshots: list[WindowSnapshot] = []
        self.at = datetime.now()  # noqa: DTZ005 - see above
        self.began = window.began
        self.ended = window.began = time()
        self.sender = sender
        self.period = period
        self.number = number
        self._window = window
        self._lock = threading.Lock()

    @property
    def key(self) -> WindowKey:
        """The key of the window."""
        return self._window.key

    @property
    def size(self) -> int:
        """Bytes that it takes in memory, estimated without emptying the window."""
        return size_of(self._held()) if self.snapshots else 0

    def journals(self) -> tuple[WindowJournal, ...]:
        """Return where all of it is written down; nothing if some of it is not."""
        with self._lock:
            parts = [*self.snapshots, *self._absorbed]
            if not self.snapshots or not all(each.is_written for each in parts):
                return ()
            return tuple(each.journal for each in parts if each.journal)

    def unload(self) -> None:
        """Leave memory."""
        with self._lock:
            self._record = self._peaks = None
            self.snapshots[:] = [each.without_peaks() for each in self.snapshots]

    def load(self, held: list[Held]) -> None:
        """Take what was read of the journals into memory."""
        with self._lock:
            peaks = self._held()
            for each in self._absorbed:  # their statistics stayed in memory
                peaks = peaks.merge(each)
            for _, written in held:
                peaks = peaks.merge(written)
            self._peaks = peaks

    def record(self) -> Record:
        """Return the record of the window, which is made once."""
        with self._lock:
            if self._record is None:
                self._record = self._make()
            return self._record

    def absorb(self, later: ClosedWindow) -> bool:
        """Take a later window of the same key in, which is not delivered by itself.

        Returns:
            Whether it was; not if the record of one of them was made.
        """
        with self._lock:
            if self._record or later._record:
                return False
            if not (self.snapshots and later.snapshots):  # interrupted just before
                return False
            self._peaks = self._held().merge(later._held())
            absorbed = (*later.snapshots, *later._absorbed)
            self.snapshots[:] = [each.without_peaks() for each in self.snapshots]
            self.at, self.ended, self.sender = later.at, later.ended, later.sender
            self.period, self.number = later.period, later.number
            # Last: what is done again after an interruption makes no difference so far.
            self._absorbed += tuple(each.without_peaks() for each in absorbed)
            return True

    def publish(self, *, inline: bool = False) -> None:
        """Have the host's cache know the time of closing, at once or soon."""
        self._inline = inline
        if self.number:
            self._window.publish(self, self.at, inline=inline)

    def reported(self) -> None:
        """Count the interval from now on: the first attempt succeeded."""
        if self.number:
            self._window.reported(self, inline=self._inline)

    def _held(self) -> WindowSnapshot:
        return self._peaks or self.snapshots[0]

    def _make(self) -> Record:
        if not self.snapshots:  # interrupted just before
            self.snapshots.append(self._window.aggregator.snapshot())
        journal = self.snapshots[0].journal
        absorbed = self._absorbed
        held = self._held().with_one_part() if absorbed else self._held()
        record = self._window.seal(self, held, journal)
        if not absorbed:
            return record
        removals = [each.journal.remove for each in absorbed if each.journal]
        if record.on_committed is not None:
            removals.append(record.on_committed)

        def remove() -> None:
            with ExitStack() as stack:  # each, also if one of them fails
                for each in removals:
                    stack.callback(each)

        return replace(record, seals=1 + len(absorbed), on_committed=remove)


def _publish_epoch(dispatcher: Dispatcher) -> Callable[[Exporter, Share], None]:
    """Return what has the host's cache know the time of a shared window's report."""

    def publish(exporter: Exporter, share: Share) -> None:
        if isinstance(exporter, Sender):
            interval = ReportInterval(share.aggregator_key, share.partition)
            # Of one that nobody shares any more the end may still be to come.
            ended_at = min(share.epoch * share.frequency, time())
            # Local and without offset, as cache and request have it.
            ended = datetime.fromtimestamp(ended_at)  # noqa: DTZ006
            interval.publish(
                dispatcher.caches, exporter.cache, share.frequency, ended, ended=True
            )

    return publish


class _Bound(NamedTuple):
    """A dispatcher, and what goes with it."""

    dispatcher: Dispatcher
    adoption: Adoption


class WindowRegistry:
    """The windows of the process by their keys."""

    def __init__(self) -> None:
        """Start empty."""
        self._windows: dict[WindowKey, Window] = {}
        self._feeds: dict[WindowKey, set[str]] = {}
        self._bound: _Bound | None = None
        self._keeping = False

    def acquire(
        self,
        key: WindowKey,
        sender: Sender,
        period: int,
        kind: type[Window] = Window,
    ) -> Window:
        """Return the window of a key, a new one of a kind if there is none.

        For a feed beyond ``PEAKHOLD_MAX_FEEDS`` it is the common window.
        """
        bound = self.lend(current(), sender)
        most = bound.dispatcher.settings.max_feeds
        if len(self._windows) >= MOST and key not in self._windows:
            self._release_unused(bound.dispatcher.notices)
        given = key
        with shared("windows"):
            if key.partition is not None and self._is_beyond(key, most):
                key = key.common()
            window = self._windows.get(key)
            if window is None:
                window = self._windows[key] = kind(
                    key, sender, period, bound.dispatcher
                )
                # Last: an interruption in between leaves one feed uncounted.
                if key.partition is not None:
                    feeds = self._feeds.setdefault(key.common(), set())
                    feeds.add(key.partition)
            window.last_used = monotonic()
        if key is not given:
            bound.dispatcher.notices.warn(
                "feeds",
                "There are %d feeds of one unique_aggregator_key that have a window "
                "each: frames of further ones go to the common window. Are names of "
                "feeds made anew each time? If not, raise PEAKHOLD_MAX_FEEDS",
                most,
            )
        if window.aggregator.has_statistics:
            self.keep_statistics()
        return window

    def _is_beyond(self, key: WindowKey, most: int) -> bool:
        """Whether a feed has no window, and so many others have one."""
        if key in self._windows:
            return False
        return len(self._feeds.get(key.common(), ())) >= most

    def _release_unused(self, notices: Notices) -> None:
        """Close some windows early: those that were not used for the longest time."""
        windows = list(self._windows.values())
        for window in nsmallest(_RELEASED, windows, key=attrgetter("last_used")):
            notices.warn(
                "windows",
                "There are %d open windows: those unused for longest are closed "
                "early. Are values of unique_aggregator_key, or names of feeds, made "
                "anew each time?",
                len(windows),
            )
            window.release()

    def close_with(self, dispatcher: Dispatcher) -> None:
        """Have every window flushed when ``dispatcher`` closes.

        A forked child has a dispatcher of its own, and windows it did not acquire.
        """
        self._bind(dispatcher)

    def lend(self, dispatcher: Dispatcher, sender: Sender) -> _Bound:
        """Have what dead processes left for a destination sent by ``sender``."""
        bound = self._bind(dispatcher)
        bound.adoption.lend(sender)
        return bound

    def _bind(self, dispatcher: Dispatcher) -> _Bound:
        with shared("windows"):
            if self._bound is None or self._bound.dispatcher is not dispatcher:
                dispatcher.at_close(self.flush_all)
                dispatcher.rejected = self.rejected
                self._keeping = False
                dispatcher.on_closed(_publish_epoch(dispatcher))
                self._bound = _Bound(
                    dispatcher, Adoption(dispatcher, self._names_if_not_shared)
                )
            return self._bound

    def _names_if_not_shared(self) -> set[tuple[str | int | None, ...]]:
        """Return which windows are open that other processes cannot share."""
        return {key.names for key in list(self._windows) if key.frequency is None}

    def keep_statistics(self) -> None:
        """Have the statistics of open windows written down from now on; some have."""
        if self._bound is not None and not self._keeping:
            self._keeping = True
            watch = self._bound.dispatcher.watch
            watch(self._keep_statistics, monotonic() + KEPT_EVERY)

    def _keep_statistics(self, now: float) -> float | None:
        """Write down what a kill of the process would lose, but for the last second."""
        self._keeping = False  # first, for a window may be opened meanwhile
        aggregators = [each.aggregator for each in list(self._windows.values())]
        counting = [each for each in aggregators if each.has_statistics]
        if self._bound is None or not counting:
            return None
        self._keeping = True
        self._bound.dispatcher.journals.keep_statistics(counting)
        return now + KEPT_EVERY

    def rejected(self) -> list[Rejection]:
        """Return what the open windows did not take, by model and reason."""
        found: list[Rejection] = []
        for window in list(self._windows.values()):
            rest = Counter(window.aggregator.rejected)
            if not rest:
                continue
            name = window.key.name
            for model_id, counts in window.aggregator.rejected_by_model.items():
                rest.subtract(counts)
                found += [Rejection(name, model_id, *each) for each in counts.items()]
            found += [Rejection(name, None, *each) for each in (+rest).items()]
        return found

    def forget(self, window: Window) -> None:
        """Give a window up, so that its key gets a new one."""
        with shared("windows"):
            if self._windows.get(window.key) is window:
                # In this order: an interruption in between leaves one feed uncounted.
                if window.key.partition is not None:
                    self._leave_place(window.key, window.key.partition)
                del self._windows[window.key]

    def _leave_place(self, key: WindowKey, feed: str) -> None:
        """Have one feed less of an aggregator key."""
        feeds = self._feeds.get(key.common(), set())
        feeds.discard(feed)
        if not feeds:
            self._feeds.pop(key.common(), None)

    def flush_all(self) -> None:
        """Deliver what every window holds; the process exits."""
        deadline = monotonic() + _PATIENCE
        for window in list(self._windows.values()):
            window.flush(max(0.0, deadline - monotonic()))

    def start_anew(self) -> None:
        """Empty every window in a forked child, which keeps its blocks."""
        if self._bound is not None:
            journals = self._bound.dispatcher.journals.after_fork()
            for window in self._windows.values():
                window.start_anew(journals)


REGISTRY = WindowRegistry()

if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=REGISTRY.start_anew)
