"""The process's one deliverer: what is handed over to it, its figures, the end."""

from __future__ import annotations

import random
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from peakhold.delivery.cache import HostCaches
from peakhold.delivery.committer import Committer
from peakhold.delivery.destination import Leased, Shared
from peakhold.delivery.destinations import Destinations
from peakhold.delivery.handover import Handover
from peakhold.delivery.host_tasks import HostTasks
from peakhold.delivery.journal import Journals
from peakhold.delivery.metadata import (
    BATCHES_OFFERED,
    FRAMES_OFFERED,
    HOST_LOOK,
    Offers,
)
from peakhold.delivery.monitors import Monitors
from peakhold.delivery.policy import LONGEST_RETRY_AFTER
from peakhold.delivery.scheduler import Scheduler
from peakhold.delivery.settings import SHARED, DeliverySettings
from peakhold.notices import Notices
from peakhold.outbox import Counts, Limits, Outbox
from peakhold.outbox.epochs import HOST
from peakhold.records import Record, ReportContent, UnencodableError
from peakhold.records.metadata import METADATA_IDS_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable

    from peakhold.delivery.exchange import Exchange
    from peakhold.delivery.exporter import Exporter
    from peakhold.delivery.handover import Recipient, Window
    from peakhold.delivery.host_tasks import HostSchedule
    from peakhold.delivery.rejections import Rejection
    from peakhold.delivery.settings import Durability
    from peakhold.outbox import StateDirectory

FEED_FIELD = "feed"
"""Field of custom metadata that names the feed of a window."""
LEAST_PATIENCE = 0.2
"""Seconds that the end of a process waits, whatever it is allowed, for a thread that is
writing to the outbox: what that has taken is written nowhere else."""
_PATIENCE = 1.0
_POLL = 0.01


class Dispatcher:
    """Delivers what it is handed, on threads of its own, the host's or the caller's.

    Attributes:
        register: Has an exporter for its destination, see ``Destinations``.
        watch: Has a function called later, see ``Scheduler``.
        step: Does what is due on the caller's thread, likewise.
        destinations: Returns figures of each, see ``Destinations``.
        on_closed: Has a function told of closed epochs, likewise.
    """

    def __init__(
        self,
        state: StateDirectory | None = None,
        settings: DeliverySettings | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[float, float], float] = random.uniform,
        worker: bool = True,
    ) -> None:
        """Start without a thread; they come with the first work.

        Args:
            state: Where the outbox is; None keeps it in memory.
            settings: Bounds and rates.
            clock: Monotonic time in seconds.
            jitter: Draws a number between two others.
            worker: Whether to start threads; without them call ``step``.
        """
        self.state = state
        self.settings = settings or DeliverySettings()
        self.notices = Notices(clock)
        limit = round(self.settings.outbox_mib * 2**20)
        sync = self.settings.durability == "power"
        redis = self.settings.redis
        self.outbox = Outbox(
            self.notices,
            Limits(limit, self.settings.ttl, LONGEST_RETRY_AFTER),
            state,
            sync="FULL" if sync else "OFF",
            clock=clock,
            place=redis.place if redis else HOST,
        )
        self.journals = Journals(state, self.notices, sync=sync, limit=limit)
        known = state.path / "endpoints.json" if state else None
        self.monitors = Monitors(known, self.settings.windows)
        self.rejected: Callable[[], list[Rejection]] = list
        self.jitter = jitter
        self.committer = Committer(
            self.outbox,
            self.journals,
            self.notices,
            clock,
            self._look_through,
            self._register_feed,
            self._await_epoch,
        )
        self._clock = clock
        self._scheduler = Scheduler(self.committer, self.notices, clock, worker=worker)
        self.caches = HostCaches(self.notices, self._scheduler)
        self._lock = threading.RLock()
        shared = Shared(
            self.outbox,
            self.committer,
            self.journals,
            self.monitors,
            self.notices,
            self.settings,
            self._lock,
            clock,
            self._draw,
            self._scheduler,
        )
        self._destinations = Destinations(shared, state, self._exchange())
        self._host_tasks = HostTasks(shared)
        self.register = self._destinations.register
        self.watch = self._scheduler.watch
        self.step = self._scheduler.step
        self.destinations = self._destinations.overview
        self.on_closed = self._destinations.tell_closed
        self._closers: list[Callable[[], None]] = []
        self._closed = False

    def _exchange(self) -> Exchange | None:
        if self.settings.redis is None or self.state is None:
            return None
        from peakhold.delivery.exchange import Exchange
        from peakhold.delivery.redis_parts import RedisParts

        state = self.state
        return Exchange(
            RedisParts(self.settings.redis, self.settings.ttl),
            self.outbox,
            self.notices,
            self._clock,
            lambda: state.owner_id,
        )

    # Handing over -----------------------------------------------------------------

    def deliver(
        self,
        content: Window | Record,
        *exporters: Exporter,
        schedule: HostSchedule | None = None,
    ) -> None:
        """Take a closed window, or a record, for delivery in the background.

        Args:
            content: What to send.
            exporters: Who send it, and from now on everything to their destinations.
            schedule: Hands a task to the host, if the host is to deliver.
        """
        destinations = tuple(map(self.register, exporters))
        if len(destinations) > 1:
            destinations = tuple(dict.fromkeys(destinations))
        task = self._host_tasks.make(destinations[0]) if schedule else None
        self.committer.put(Handover(content, destinations))
        if self._scheduler.thread is None:
            self._scheduler.wake()
        else:  # without another call, which costs a frame some microseconds
            self._scheduler.bell.put(None)
        if schedule and task:
            self._host_tasks.hand(task, destinations[0], schedule)

    def deliver_now(
        self,
        content: Window | Record,
        exporter: Exporter,
        pending: list[Any] | None = None,
    ) -> BaseException | None:
        """Commit something and make one attempt, on the caller's thread.

        What fails stays in the outbox, and so does what is interrupted. A part of a
        shared window is only committed: its epoch may not be over for others.

        Args:
            content: What to send.
            exporter: Who sends it.
            pending: Emptied as soon as the content is not the caller's to deliver any
                more, whatever interrupts the call.

        Returns:
            Why it failed, or None.
        """
        destination = self.register(exporter)
        handover = Handover(content, (destination,))
        parts: list[Record] = []
        failed: BaseException | None = None
        try:
            if pending:
                pending.clear()
            record = self.committer.described(handover)
            self._register_feed(record, handover.recipients)
            if self._is_part(record):
                handover.committed = True
                return None
            record = self._alone(record)
            parts = record.divided(record.content.parts())
            if exporter.one_entry:
                parts = [entry for part in parts for entry in part.by_entry()]
            self.outbox.add(parts, leased={part.id for part in parts})
            handover.committed = True
            if handover.window is not None:
                handover.window.publish(inline=True)
            while parts and failed is None:
                window = handover.window if len(parts) == 1 else None  # its last part
                failed = destination.export([Leased(parts[0], window)], exporter)
                del parts[0]
        except UnencodableError as error:
            return error
        except BaseException as error:
            if handover.committed:
                raise
            # First, for a thread may lease them at once.
            destination.give_back([Leased(part, None) for part in parts])
            parts = []
            self.deliver(content, exporter)  # the outbox takes no part of it twice
            if not isinstance(error, Exception):  # of an injected client
                raise
            return error
        finally:
            # A thread may have found nothing to send while these were on lease here.
            destination.give_back([Leased(part, None) for part in parts])
            destination.arrange()
        return failed

    def _is_part(self, record: Record) -> bool:
        """Have the outbox take a record if it is a part of a shared window."""
        closes_at = self.outbox.add_parts([record]) if record.share else None
        if closes_at is not None:
            self._await_epoch(closes_at)
        return closes_at is not None

    def _alone(self, record: Record) -> Record:
        if record.share:
            record = self.journals.alone(record)
            self.outbox.sharing["alone"] += 1
        return record

    # Metadata ---------------------------------------------------------------------

    def add_metadata(
        self,
        inference_ids: list[str],
        field_name: str,
        field_value: str,
        sender: Exporter,
        schedule: HostSchedule | None = None,
    ) -> None:
        """Take metadata for delivery in the background, together with what else comes.

        It is in the journal before this returns, if there is one.

        Args:
            inference_ids: Ids of the inferences it belongs to.
            field_name: Name of the field.
            field_value: Its value.
            sender: Who sends it, and from now on everything to its destination.
            schedule: Hands a task to the host, if the host is to deliver.
        """
        offers = sender.offers
        if offers is None or offers.owner is not self:
            journal = self.journals.metadata(sender.destination)
            offers = sender.offers = Offers(self, journal)
        if offers.journal is None:
            offers.frames.append((inference_ids, field_name, field_value, None, 0))
        else:
            offers.journal.append(offers.frames, inference_ids, field_name, field_value)
        if (
            not offers.noticed
            or len(offers.frames) % FRAMES_OFFERED == 0
            or (schedule and self._clock() >= offers.host_at)
            or self._closed
        ):
            self._notice(offers, sender, schedule)

    def _notice(
        self, offers: Offers, sender: Exporter, schedule: HostSchedule | None
    ) -> None:
        """Do what need not be done for each frame with metadata."""
        try:
            if offers.journal is None:
                offers.journal = self.journals.metadata(sender.destination)
            with self._lock:
                destination = self.register(sender)
                destination.metadata.notice(offers, self._clock())
                offers.host_at = self._clock() + HOST_LOOK
            task = self._host_tasks.make(destination) if schedule else None
            if self._closed or len(offers.frames) >= FRAMES_OFFERED * BATCHES_OFFERED:
                destination.pack(whole=self._closed)  # no thread comes to it
            destination.arrange()
            self._scheduler.wake()
        except BaseException:
            offers.noticed = False  # so that the next frame does what was not done
            raise
        if schedule and task:
            self._host_tasks.hand(task, destination, schedule)

    def _register_feed(self, record: Record, recipients: tuple[Recipient, ...]) -> None:
        """Have the feed of a window, if it is of one, go out as custom metadata.

        In batches like that of frames, for many feeds may report every second. Done
        twice, as after a kill, it says the same.
        """
        content = record.content
        if not (self.settings.feed_metadata and isinstance(content, ReportContent)):
            return
        feed = content.feed
        exporters = [
            each.exporter for each in recipients if each.exporter.feed_metadata
        ]
        if feed is None or not exporters:
            return
        ids = content.inference_ids
        for exporter in exporters:
            for first in range(0, len(ids), METADATA_IDS_LIMIT):
                some = ids[first : first + METADATA_IDS_LIMIT]
                self.add_metadata(some, FEED_FIELD, feed, exporter)

    # What the parts ask for -------------------------------------------------------

    def _look_through(self) -> None:
        self._destinations.look_through()

    def _await_epoch(self, closes_at: float) -> None:
        self._destinations.await_epoch(closes_at)

    def _draw(self, low: float, high: float) -> float:
        return self.jitter(low, high)

    # Figures ----------------------------------------------------------------------

    def counts(self) -> Counts:
        """Return what became of the records so far."""
        return self._counted(self.outbox.counts)

    def _counted(self, of_outbox: Callable[[], Counts]) -> Counts:
        """Return figures of the outbox and of what it has not got, at one moment."""
        until = time.monotonic() + _PATIENCE
        while True:
            commits = self.committer.commits
            if commits % 2 == 0:
                counts = self.committer.counts() + of_outbox()
                if commits == self.committer.commits:
                    return counts
            if time.monotonic() > until or self.committer.is_mine:
                return self.committer.counts() + of_outbox()
            time.sleep(_POLL / 10)

    @property
    def shares(self) -> bool:
        """Whether windows are shared with other processes."""
        return self.settings.share in SHARED and self.state is not None

    def sharing(self) -> dict[str, Any]:
        """Return who shares windows, and what this process did about shared ones."""
        share = self.settings.share if self.shares else "off"
        return {"share": share, **self.outbox.sharing}

    @property
    def durability(self) -> Durability:
        """What reports outlive now: as set, or as little as the disk allows."""
        failing = self.state is None or self.outbox.disk_error is not None
        return "memory" if failing else self.settings.durability

    # Ending -----------------------------------------------------------------------

    def at_close(self, closer: Callable[[], None]) -> None:
        """Have ``closer`` called before the last delivery, when the process exits."""
        self._closers.append(closer)

    def flush(self, timeout: float) -> bool:
        """Wait until this process has nothing to deliver, for ``timeout`` seconds.

        Where no thread can be started, what is due is done on the caller's, and the
        last request may take longer.

        Returns:
            Whether it has nothing; False also if the outbox on disk cannot be looked
            through. Early False means that nothing more can go out in time.
        """
        deadline = self._clock() + timeout
        self._scheduler.start()
        # What an exception of a signal handler may have left undone.
        self.caches.start()
        self._destinations.hurry()
        self._scheduler.ring()
        while True:
            # In this order: what was under way at the first look may have become what
            # is left, or nothing, by the second one.
            may_progress = self._may_progress(deadline)
            left, over = self._anything_left(), self._clock() >= deadline
            if not left and (over or not self._destinations.leave()):
                return True
            if over or (left and not may_progress):
                return False
            self._scheduler.help(deadline)
            time.sleep(max(0.0, min(_POLL, deadline - self._clock())))

    def close(self, timeout: float | None = None) -> None:
        """Commit what is open, then deliver what there is time for.

        What is accepted afterwards is committed and sent on the caller's thread.

        Args:
            timeout: Seconds to deliver; None for those of the settings.
        """
        budget = self.settings.exit_seconds if timeout is None else timeout
        deadline = self._clock() + budget
        self._scheduler.expect_end(deadline)
        for closer in self._closers:
            closer()
        self.pack_metadata()
        self.committer.commit(patience=max(0.0, deadline - self._clock()))
        self._destinations.hurry(try_now=True)
        if self._closed:
            return
        self._scheduler.retire()
        self.pack_metadata()  # of the feeds whose windows were just committed
        self.committer.commit(patience=max(LEAST_PATIENCE, deadline - self._clock()))
        if not self.flush(max(0.0, deadline - self._clock())):
            self._warn_of_what_is_left()
        self.outbox.tell_committed()  # else delivered windows leave journals
        self._closed = True
        self._scheduler.stop()
        self.committer.commit()  # what another thread handed over just now

    def pack_metadata(self) -> None:
        """Make records of all metadata that frames left."""
        for destination in self._destinations.values():
            destination.pack()

    def _warn_of_what_is_left(self) -> None:
        counts = self._counted(partial(self.outbox.counts, patient=False))
        if waiting := counts.pending + counts.parked:
            self.notices.warn(
                "exit",
                "Exiting with %d reports and metadata requests not delivered; %s",
                waiting,
                "they are lost with the process"
                if self.state is None or self.outbox.disk_error
                else "they wait in the outbox and the journal",
            )

    def _anything_left(self) -> bool:
        # In this order: what is under way moves from the front to the back, and what a
        # destination hands over to be committed it commits in its turn.
        commits = self.committer.commits
        return bool(
            self.committer.counts().pending
            or self.caches.is_writing
            or self._scheduler.at(self._destinations.upkeep) <= self._clock()
            or self._scheduler.at(self._destinations.close_epochs) <= self._clock()
            or self._scheduler.at(self._destinations.exchange_parts) <= self._clock()
            or self._destinations.is_cut_off
            or self._scheduler.busy
            or not self.outbox.looked_through  # then nobody knows
            or any(not each.is_idle for each in self._destinations.values())
            or self.committer.counts().pending
            or commits % 2
            or commits != self.committer.commits
        )

    def _may_progress(self, deadline: float) -> bool:
        return (
            self.committer.busy
            or self.caches.is_writing
            or self.committer.next_at() < deadline
            or self._scheduler.at(self._destinations.upkeep) < deadline
            or self._scheduler.at(self._destinations.close_epochs) < deadline
            or self._scheduler.at(self._destinations.exchange_parts) < deadline
            or self._scheduler.busy
            or any(
                each.busy or each.next_at() < deadline
                for each in self._destinations.values()
            )
        )
