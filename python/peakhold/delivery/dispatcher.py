"""The process's one deliverer: its lanes, and whose turn it is."""

from __future__ import annotations

import random
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from peakhold.delivery.attempt import Attempts
from peakhold.delivery.encode import UnencodableError, split
from peakhold.delivery.errands import Errands
from peakhold.delivery.intake import Intake
from peakhold.delivery.lane import Lane
from peakhold.delivery.ledger import Counts
from peakhold.delivery.notices import Notices
from peakhold.delivery.outbox import PATIENCE, Outbox
from peakhold.delivery.record import Destination, seal_metadata
from peakhold.delivery.settings import DeliverySettings
from peakhold.delivery.store import Limits
from peakhold.delivery.timers import Timers
from peakhold.delivery.workers import Workers
from peakhold.interpreter import give_way

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peakhold.delivery.record import Kind, Record
    from peakhold.delivery.sender import Sender
    from peakhold.delivery.settings import Durability
    from peakhold.delivery.state import StateDirectory
    from peakhold.delivery.timers import Timer

HOST_GRACE = 5.0
"""Seconds a host's task has to start before the worker delivers in its place."""
HOST_PATIENCE = 1.0
"""Seconds that the host's task waits for what is just being sealed; longer takes what
hangs, and then the worker delivers it."""
TENDING = 15.0
"""Seconds after which the outbox is looked through again: for what dead processes
left, what somebody at the command line wants tried, and what is too old."""
HOST_LOOK = 0.05
"""Seconds between two looks at whether the host is to have a task for metadata."""
FRAMES_OFFERED = 250
"""Frames with metadata from which on a worker is to coalesce them."""
BATCHES_OFFERED = 20
"""So many times as many, and the frame that brings one more does it."""
LANE_IDLE = 600.0
"""Seconds after which a destination that has nothing to send is forgotten."""

_POLL = 0.05

Task = Callable[[], None]
Schedule = Callable[[Task], object]
"""Hands a task to the host: ``add_task`` or ``submit``."""


class Dispatcher:
    """Delivers sealed records, on a worker's thread, the host's or the caller's.

    A lane is worked on by one deliverer at a time, except that a synchronous caller
    sends its own record at once. The lock is never held while anything is sent.
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
        self.outbox = Outbox(
            self.notices,
            Limits(round(self.settings.outbox_mib * 2**20), self.settings.ttl),
            state,
            sync="FULL" if self.settings.durability == "power" else "OFF",
            clock=clock,
        )
        self._intake = Intake(self.outbox, self.notices, clock)
        self._wake = threading.Condition()
        self._attempts = Attempts(self.outbox, self.notices, clock, self._wake)
        self._clock = clock
        self._jitter = jitter
        self._errands = Errands(self.notices, wanted=worker)
        self._workers = Workers(self.step, self._wake, self.notices, wanted=worker)
        self._lanes: dict[Destination, Lane] = {}
        self._timers = Timers(self.notices, clock)
        self._commits = 0
        self.rejected: Callable[[], dict[str, int]] = dict
        self._closers: list[Callable[[], None]] = []

    # Handing over -----------------------------------------------------------------

    def deliver(self, record: Record, sender: Sender) -> None:
        """Take a record for delivery in the background.

        Args:
            record: What to send.
            sender: Who sends it, and from now on everything to its destination.
        """
        self._intake.put(record, sender)
        with self._wake:
            self._lane(sender).ready.add(record.kind)
        self._workers.signal()

    def lend(self, sender: Sender, *, at_once: bool = False) -> None:
        """Have a sender from now on for what waits in the outbox for its destination.

        Args:
            sender: Who sends it.
            at_once: Whether it is tried now, whatever it was told to wait for.
        """
        with self._wake:
            lane = self._lane(sender)
            if at_once:
                lane.backoff.not_before = 0.0
        self._workers.signal()

    def deliver_later(
        self,
        seal: Callable[[], Record],
        sender: Sender,
        schedule: Schedule | None = None,
    ) -> None:
        """Take what will be a report for delivery in the background.

        Args:
            seal: Makes the record, on a thread of the dispatcher's.
            sender: Who sends it, and from now on everything to its destination.
            schedule: Hands a task to the host, if the host is to deliver.
        """
        task = None
        if schedule:  # first of all, for from then on the workers leave it to the host
            with self._wake:
                lane = self._lane(sender)
                lane.ready.add("report")  # as good as
                task = self._host_task(lane)
        if not self._errands.leave(lambda: self.deliver(seal(), sender)):
            self._workers.signal()
        if schedule and task:
            self._hand(task, lane, schedule)

    def deliver_now(self, record: Record, sender: Sender) -> Exception | None:
        """Commit a record and make one attempt, on the caller's thread.

        What fails stays in the outbox.

        Returns:
            Why it failed, or None.
        """
        with self._wake:
            lane = self._lane(sender)
        try:
            parts = self._intake.seal(record, sender, leased=True)
        except UnencodableError as error:
            return error
        except Exception as error:  # noqa: BLE001 - of an injected client
            self.deliver(record, sender)
            return error
        failed: Exception | None = None
        try:
            self._note(parts)
            while parts and failed is None:
                failed = self._attempts.attempt(parts.pop(0), lane, sender)
        finally:
            for part in parts:
                self.outbox.release(part)
            with self._wake:  # a worker may have looked while they were on lease
                lane.ready.add(record.kind)
            self._workers.signal()
        return failed

    def add_metadata(
        self,
        inference_ids: Iterable[str],
        field_name: str,
        field_value: str,
        sender: Sender,
        schedule: Schedule | None = None,
    ) -> None:
        """Take metadata for delivery in the background, together with what else comes.

        Args:
            inference_ids: Ids of the inferences it belongs to.
            field_name: Name of the field.
            field_value: Its value.
            sender: Who sends it, and from now on everything to its destination.
            schedule: Hands a task to the host, if the host is to deliver.
        """
        lane = sender.lane
        if lane is None or lane.dispatcher is not self or lane.sender is not sender:
            with self._wake:
                lane = sender.lane = self._lane(sender)
        waiting = lane.batch.offer(inference_ids, field_name, field_value)
        if (
            waiting == 0  # no worker knows yet
            or waiting % FRAMES_OFFERED == 0
            or (schedule and self._clock() >= lane.host_at)
            or not lane.open
        ):
            self._look_at_metadata(lane, sender, waiting, schedule)

    def _look_at_metadata(
        self, lane: Lane, sender: Sender, waiting: int, schedule: Schedule | None
    ) -> None:
        """Do what need not be done for each frame with metadata."""
        with self._wake:
            if not lane.open:  # it was forgotten just now
                forgotten, lane = lane, self._lane(sender)
                forgotten.batch.offer_to(lane.batch)
                sender.lane = lane
            lane.used = now = self._clock()
            lane.batch_since = min(lane.batch_since, now)
            lane.crowded |= waiting >= FRAMES_OFFERED
            task = self._host_task(lane) if schedule else None
            lane.host_at = now + HOST_LOOK
        if waiting >= FRAMES_OFFERED * BATCHES_OFFERED:
            self._seal(lane, whole=False)  # no worker comes to it
        self._workers.signal()
        if schedule and task:
            self._hand(task, lane, schedule)

    def _seal(self, lane: Lane, *, whole: bool = True) -> None:
        """Seal open metadata, all of it or only full requests.

        Without the lock, for many ids take milliseconds.
        """
        sender, batch = lane.sender, lane.batch
        with batch.sealing:
            lane.crowded = False
            for entries in batch.seal_all() if whole else batch.absorb():
                self._intake.put(seal_metadata(sender.destination, entries), sender)
                with self._wake:
                    lane.ready.add("metadata")
            with self._wake:
                if batch.is_new:
                    lane.batch_since = self._clock() if batch else float("inf")

    def _lane(self, sender: Sender) -> Lane:
        now = self._clock()
        lane = self._lanes.get(sender.destination)
        if lane is None:
            lane = Lane(
                self,
                sender,
                self.notices,
                self._jitter,
                self.settings.rate,
                self.settings.metadata_rate,
            )
            self._lanes[sender.destination] = lane
            # Others may have left something for it.
            self._timers.set(self._tend, now)
        lane.lend(sender, now)
        return lane

    def _host_task(self, lane: Lane) -> Task | None:
        """Make a task for the host if the lane may send now and there is none yet."""
        now = self._clock()
        due = lane.next_kind()
        outstanding = lane.host_task is not None and lane.host_task() is not None
        if due is None or due[0] > now or outstanding:
            return None
        task = partial(self.deliver_due, lane)
        # Weak: a host that throws the task away makes room for the next one.
        lane.host_task = weakref.ref(task)
        lane.host_until = now + HOST_GRACE
        return task

    def _hand(self, task: Task, lane: Lane, schedule: Schedule) -> None:
        try:
            schedule(task)
        except Exception as error:  # noqa: BLE001 - a pool shut down, and the like
            self.notices.warn(
                "host",
                "The host took no task (%s); peakhold's own worker delivers",
                type(error).__name__,
            )
            self._host_is_done(lane)

    def deliver_due(self, lane: Lane) -> None:
        """Deliver what may be sent on a lane now, on the host's thread."""
        with self._wake:  # the workers leave it alone, between its turns as well
            lane.host_until = self._clock() + HOST_GRACE
        try:
            self._errands.finish(HOST_PATIENCE)
            self._commit(patience=HOST_PATIENCE)
            while self._turn(lane):
                pass
        finally:
            self._host_is_done(lane)

    def _host_is_done(self, lane: Lane) -> None:
        with self._wake:
            lane.host_task = None
            lane.host_until = float("-inf")
        self._workers.signal()

    # Timers -----------------------------------------------------------------------

    def watch(self, timer: Timer, at: float) -> None:
        """Have ``timer`` called by the worker at monotonic time ``at``.

        It gets the monotonic time and returns when to be called again, or None.
        """
        self._timers.set(timer, at)
        self._errands.start()
        self._workers.signal()

    def at_close(self, closer: Callable[[], None]) -> None:
        """Have ``closer`` called before the last delivery, when the process exits."""
        self._closers.append(closer)

    # Working ----------------------------------------------------------------------

    def step(self) -> float | None:
        """Do what is due; returns the seconds until there is more, None if nothing."""
        if len(self._errands):
            with self._workers.engaged():  # one may hang in a host's cache
                self._errands.run()
        self._seal_batches()
        if self._intake.due_at <= self._clock():
            with self._workers.engaged():  # a disk may hang, or a client
                self._commit()
        if self._timers.next_at() <= self._clock():
            with self._workers.engaged():  # one may read the host's cache
                self._timers.run()
            self._workers.signal()  # another may have looked meanwhile
        for lane in list(self._lanes.values()):
            self._turn(lane, as_worker=True)
        with self._wake:
            now = self._clock()
            self._forget_idle_lanes(now)
            lanes = self._lanes.values()
            dues = [at for at in map(self._due, lanes) if at is not None]
            times = [*dues, *(lane.seal_at() for lane in lanes)]
            soonest = min([*times, self._timers.next_at(), self._intake.due_at])
            return max(0.0, soonest - now) if soonest < float("inf") else None

    def _seal_batches(self, *, every: bool = False) -> None:
        """Seal open metadata that is old enough, or all of it."""
        now = self._clock()
        for lane in list(self._lanes.values()):
            if every or lane.seal_at() <= now:
                self._seal(lane)
            elif lane.crowded:
                self._seal(lane, whole=False)

    def _commit(self, *, patience: float = 0.0) -> None:
        """Have the outbox take in what was sealed.

        A thread that is at it already, which may hang, is waited for so many seconds.
        """
        self._note(self._intake.commit(patience=patience))
        if self._intake.next_at <= self._clock():  # it came at the very end
            self._workers.signal()

    def _note(self, committed: Iterable[Record]) -> None:
        """Let the lanes know what is in the outbox now."""
        with self._wake:
            self._commits += 1
            for record in committed:
                if lane := self._lanes.get(record.destination):
                    lane.committed(record)

    def _tend(self, now: float) -> float | None:
        """Look through the outbox, for what is this process's to deliver."""
        commits = self._commits
        found = self.outbox.tend(list(self._lanes))
        with self._wake:
            if self._commits == commits and self.outbox.disk_error is None:
                for lane in self._lanes.values():
                    lane.ready.clear()
            for destination, kind, at_once, not_before in found:
                if lane_found := self._lanes.get(destination):
                    lane_found.ready.add(kind)
                    lane_found.backoff.resume(not_before)
                    if at_once:
                        lane_found.backoff.not_before = 0.0
        if self.state is None:
            return None
        return now + (PATIENCE if self.outbox.disk_error else TENDING)

    def _due(self, lane: Lane) -> float | None:
        """Return when the worker may next send on a lane; None: nothing to send."""
        due = lane.next_kind()
        return max(due[0], lane.host_until, 0.0) if due else None

    def _turn(self, lane: Lane, *, as_worker: bool = False) -> bool:
        """Send one request on a lane if that may be now; returns whether it was."""
        with self._wake:
            now = self._clock()
            due = lane.next_kind()
            if due is None or due[0] > now:
                return False
            if as_worker and lane.host_until > now:
                return False
            kind, sender = due[1], lane.sender
            lane.busy = True
        try:
            with self._workers.engaged() if as_worker else nullcontext():
                record = self._next_record(lane, kind, sender)
                if record is None:
                    return False
                error = self._attempts.attempt(record, lane, sender)
        finally:
            with self._wake:
                lane.busy = False
            self._workers.signal()
        return error is None

    def _next_record(self, lane: Lane, kind: Kind, sender: Sender) -> Record | None:
        """Lease what is sent next on a lane, if there is something after all."""
        with self._wake:
            lane.ready.discard(kind)
        self._commit()
        give_way()
        record = self.outbox.lease(sender.destination, kind)
        if record is None and kind == "metadata":
            self._seal(lane)
            self._commit()
            record = self.outbox.lease(sender.destination, kind)
        by_call = kind == "metadata" and not sender.sends_bodies
        if record and by_call and (parts := split(record, after_entry="first")):
            # The client takes one entry a call: the others wait for their turn.
            self.outbox.replace(record, parts)
            record = self.outbox.lease(sender.destination, kind)
        if record is not None:
            with self._wake:
                lane.ready.add(kind)
                lane.sent(kind, self._clock())
        return record

    def _forget_idle_lanes(self, now: float) -> None:
        for destination, lane in list(self._lanes.items()):
            if lane.busy or lane.has_metadata or now - lane.used <= LANE_IDLE:
                continue
            if lane.ready:  # or so it was; much may have been dropped since
                lane.used = now
                self._timers.set(self._tend, now)
                continue
            lane.open = False
            if lane.has_metadata:  # a frame came, and may have seen it open
                lane.open = True
            else:
                del self._lanes[destination]

    # Ending -----------------------------------------------------------------------

    def counts(self) -> Counts:
        """Return what became of the records so far."""
        return self.uncommitted() + self.outbox.counts()

    def uncommitted(self) -> Counts:
        """Return the figures of what the outbox has not got yet."""
        closing = len(self._errands)
        return Counts(closing, pending=closing) + self._intake.counts()

    @property
    def durability(self) -> Durability:
        """What reports outlive now: as set, or as little as the disk allows."""
        failing = self.state is None or self.outbox.disk_error is not None
        return "memory" if failing else self.settings.durability

    def destinations(self) -> list[dict[str, Any]]:
        """Return figures per destination, and when this process tries it next."""
        rows = self.outbox.overview()
        with self._wake:
            now = self._clock()
            for row in rows:
                destination = Destination(
                    row["endpoint"], row["api_key_fingerprint"], row["client"]
                )
                lane = self._lanes.get(destination)
                at = self._due(lane) if lane else None
                row["next_attempt_in"] = None if at is None else max(0.0, at - now)
        return rows

    def flush(self, timeout: float) -> bool:
        """Wait until this process has nothing to deliver, for ``timeout`` seconds.

        Returns:
            Whether it has nothing. Early False means that nothing more can go out in
            time.
        """
        deadline = self._clock() + timeout
        self._workers.signal()
        with self._wake:
            while True:
                # In this order: what was under way at the first look may have become
                # what is left, or nothing, by the second one.
                may_progress = self._may_progress(deadline)
                if not self._anything_left():
                    return True
                now = self._clock()
                if now >= deadline or not may_progress:
                    return False
                self._wake.wait(min(_POLL, deadline - now))

    def close(self, timeout: float | None = None) -> None:
        """Seal and commit what is open, then deliver what there is time for.

        Args:
            timeout: Seconds to deliver; None for those of the settings.
        """
        budget = self.settings.exit_seconds if timeout is None else timeout
        deadline = self._clock() + budget
        self._workers.exiting = True
        for closer in self._closers:
            closer()
        self._seal_batches(every=True)
        self._commit(patience=max(0.0, deadline - self._clock()))
        with self._wake:
            for lane in self._lanes.values():
                lane.backoff.not_before = 0.0
                lane.host_until = float("-inf")
        self._workers.signal()  # one errand may hang until the end
        self._errands.finish(max(0.0, deadline - self._clock()))
        self._seal_batches(every=True)
        self._commit(patience=max(0.0, deadline - self._clock()))
        if self._workers.stopped:
            return  # closed before, and nobody delivers what came since
        if not self.flush(max(0.0, deadline - self._clock())):
            self._tell_what_is_left()
        self._errands.stop()
        self._workers.stop()

    def _tell_what_is_left(self) -> None:
        counts = self.counts()
        if waiting := counts.pending + counts.parked:
            self.notices.warn(
                "exit",
                "Exiting with %d reports and metadata requests not delivered; %s",
                waiting,
                "they are lost with the process"
                if self.state is None or self.outbox.disk_error
                else "they wait in the outbox",
            )

    def _anything_left(self) -> bool:
        return (
            self._timers.running
            or len(self._errands) > 0
            or self._timers.at(self._tend) <= self._clock()
            or self._intake.counts().pending > 0
            or any(
                lane.busy or lane.ready or lane.has_metadata
                for lane in list(self._lanes.values())
            )
        )

    def _may_progress(self, deadline: float) -> bool:
        return (
            self._timers.running
            or len(self._errands) > 0
            or self._timers.at(self._tend) < deadline
            or self._intake.busy
            or self._intake.next_at < deadline
            or any(
                lane.busy or ((at := self._due(lane)) is not None and at < deadline)
                for lane in self._lanes.values()
            )
        )
