"""The process's one deliverer: its lanes, and whose turn it is."""

from __future__ import annotations

import random
import threading
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from peakhold.delivery.attempt import Attempts
from peakhold.delivery.collecting import MetadataCollector
from peakhold.delivery.errands import Errands
from peakhold.delivery.intake import Intake
from peakhold.delivery.lanes import HostTasks, Lanes
from peakhold.delivery.policy import LONGEST_RETRY_AFTER
from peakhold.delivery.settings import DeliverySettings
from peakhold.delivery.timers import Timers
from peakhold.delivery.workers import Workers
from peakhold.interpreter import give_way
from peakhold.notices import Notices
from peakhold.outbox import Counts, Limits
from peakhold.outbox.outbox import PATIENCE, Outbox
from peakhold.records import Destination
from peakhold.records.encode import UnencodableError, split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from peakhold.delivery.lane import Lane
    from peakhold.delivery.lanes import Schedule
    from peakhold.delivery.sender import Sender
    from peakhold.delivery.settings import Durability
    from peakhold.delivery.timers import Timer
    from peakhold.outbox import StateDirectory
    from peakhold.records import Kind, Record

HOST_PATIENCE = 1.0
"""Seconds that the host's task waits for what is just being sealed; longer takes what
hangs, and then the worker delivers it."""
TENDING = 15.0
"""Seconds after which the outbox is looked through again: for what dead processes
left, what somebody at the command line wants tried, and what is too old."""
LEAST_PATIENCE = 0.2
"""Seconds that the end of a process waits, whatever it is allowed, for a thread that is
writing to the outbox: what that has taken is written nowhere else."""
_POLL = 0.01


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
            Limits(
                round(self.settings.outbox_mib * 2**20),
                self.settings.ttl,
                LONGEST_RETRY_AFTER,
            ),
            state,
            sync="FULL" if self.settings.durability == "power" else "OFF",
            clock=clock,
        )
        self._intake = Intake(self.outbox, self.notices, clock)
        self._lock = threading.RLock()
        self._attempts = Attempts(self.outbox, self.notices, clock, self._lock)
        self._clock = clock
        self._errands = Errands(self.notices, wanted=worker)
        self._workers = Workers(self.step, self._lock, self.notices, wanted=worker)
        self._timers = Timers(self.notices, clock)
        self._lanes = Lanes(
            self.notices,
            self.settings,
            clock=clock,
            jitter=jitter,
            look=self._look_through,
        )
        self._host_tasks = HostTasks(
            self._deliver_due, self._workers, self.notices, clock
        )
        self.metadata = MetadataCollector(
            self._lanes,
            self._intake,
            self._host_tasks,
            self._workers,
            clock,
            self._commit,
        )
        self._commits = 0
        self.rejected: Callable[[], dict[str, int]] = dict
        self._closers: list[Callable[[], None]] = []

    def warn_if_exposed(self) -> None:
        """Warn if somebody else may change what waits in the state directory.

        To be called without a lock that a logging handler may wait for.
        """
        if self.state is not None and (exposure := self.state.exposure()):
            self.notices.warn(
                "exposed",
                "The state directory %s %s, who may change what waits there; `peakhold "
                "doctor` has the remedy",
                self.state.path,
                exposure,
            )

    # Handing over -----------------------------------------------------------------

    def deliver(self, record: Record, sender: Sender) -> None:
        """Take a record for delivery in the background.

        Args:
            record: What to send.
            sender: Who sends it, and from now on everything to its destination.
        """
        self._intake.put(record, sender)
        with self._lock:
            self._lanes.of(sender).ready.add(record.kind)
        if not self._workers.signal():
            self._commit()

    def lend(self, sender: Sender, *, at_once: bool = False) -> None:
        """Have a sender from now on for what waits in the outbox for its destination.

        Args:
            sender: Who sends it.
            at_once: Whether it is tried now, whatever it was told to wait for.
        """
        with self._lock:
            lane = self._lanes.of(sender)
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
            with self._lock:
                lane = self._lanes.of(sender)
                lane.ready.add("report")  # as good as
                task = self._host_tasks.make(lane)
        free = self._errands.leave(lambda: self.deliver(seal(), sender))
        if not free and not self._workers.signal():
            self._errands.run()
        if schedule and task:
            self._host_tasks.hand(task, lane, schedule)

    def deliver_now(
        self, record: Record, sender: Sender, pending: list[Any] | None = None
    ) -> Exception | None:
        """Commit a record and make one attempt, on the caller's thread.

        What fails stays in the outbox, and so does what is interrupted.

        Args:
            record: What to send.
            sender: Who sends it.
            pending: Emptied as soon as the record is not the caller's to deliver any
                more, whatever interrupts the call.

        Returns:
            Why it failed, or None.
        """
        with self._lock:
            lane = self._lanes.of(sender)
        failed: Exception | None = None
        parts: list[Record] = []
        committed = False
        try:
            if pending:
                pending.clear()
            # Whoever waits sends every entry now, by a client of one a call as well.
            apart = not sender.sends_bodies
            parts = self._intake.encoded(record, sender, apart=apart)
            self.outbox.add(parts, leased=True)
            committed = True
            self._note(parts)
            while parts and failed is None:
                failed = self._attempts.attempt(parts[0], lane, sender)
                del parts[0]
            self._give_back(parts, lane, record.kind)
        except UnencodableError as error:
            return error
        except BaseException as error:
            self._give_back(parts, lane, record.kind)
            if committed:
                raise
            self.deliver(record, sender)  # of which the outbox takes what it has not
            if not isinstance(error, Exception):  # of an injected client
                raise
            return error
        return failed

    def _give_back(self, parts: Iterable[Record], lane: Lane, kind: Kind) -> None:
        """Leave to the workers what was on lease, at which they may have looked."""
        for part in parts:
            self.outbox.release(part)
        with self._lock:
            lane.ready.add(kind)
        self._workers.signal()

    def _deliver_due(self, lane: Lane) -> None:
        """Deliver what may be sent on a lane now, on the host's thread."""
        self._errands.finish(HOST_PATIENCE)
        self._commit(patience=HOST_PATIENCE)
        while self._turn(lane):
            pass

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

    def step(self, until: float = float("inf")) -> float | None:
        """Do what is due; returns the seconds until there is more, None if nothing.

        Nothing more is sent from monotonic time ``until`` on.
        """
        if len(self._errands):
            with self._workers.engaged():  # one may hang in a host's cache
                self._errands.run()
        self.metadata.seal_due()
        if self._intake.due_at <= self._clock():
            with self._workers.engaged():  # a disk may hang, or a client
                self._commit()
        if self._timers.next_at() <= self._clock():
            with self._workers.engaged():  # one may read the host's cache
                self._timers.run()
            self._workers.signal()  # another may have looked meanwhile
        for lane in list(self._lanes.values()):
            if self._clock() < until:
                self._turn(lane, as_worker=True)
        with self._lock:
            now = self._clock()
            self._lanes.forget_idle()
            lanes = self._lanes.values()
            dues = [at for at in map(self._due, lanes) if at is not None]
            times = [*dues, *(lane.seal_at() for lane in lanes)]
            soonest = min([*times, self._timers.next_at(), self._intake.due_at])
            return max(0.0, soonest - now) if soonest < float("inf") else None

    def _commit(self, *, patience: float = 0.0) -> None:
        """Have the outbox take in what was sealed.

        A thread that is at it already, which may hang, is waited for so many seconds.
        """
        try:
            self._note(self._intake.commit(patience=patience))
        except BaseException:
            self._look_through()  # for what was committed, and no lane knows of
            raise
        if self._intake.next_at <= self._clock():  # it came at the very end
            self._workers.signal()

    def _note(self, committed: Iterable[Record]) -> None:
        """Let the lanes know what is in the outbox now."""
        with self._lock:
            self._commits += 1
            for record in committed:
                if lane := self._lanes.get(record.destination):
                    lane.committed(record)

    def _look_through(self) -> None:
        self._timers.set(self._tend, self._clock())

    def _tend(self, now: float) -> float | None:
        """Look through the outbox, for what is this process's to deliver."""
        if self.state is not None:
            self.state.stay_alive(self.notices)
        with self._lock:
            commits, destinations = self._commits, list(self._lanes)
        found = self.outbox.tend(destinations)
        with self._lock:
            if self._commits == commits and self.outbox.disk_error is None:
                for lane in self._lanes.values():
                    lane.ready.clear()
            for destination, kind, at_once, not_before in found:
                if lane_found := self._lanes.get(destination):
                    lane_found.ready.add(kind)
                    lane_found.backoff.resume(not_before)
                    lane_found.wanted |= at_once
        if self.state is None:
            return None
        return now + (PATIENCE if self.outbox.disk_error else TENDING)

    def _due(self, lane: Lane) -> float | None:
        """Return when the worker may next send on a lane; None: nothing to send."""
        due = lane.next_kind()
        return max(due[0], lane.host_until, 0.0) if due else None

    def _turn(self, lane: Lane, *, as_worker: bool = False) -> bool:
        """Send one request on a lane if that may be now; returns whether it was."""
        mine = False
        try:
            with self._lock:
                now = self._clock()
                due = lane.next_kind()
                if due is None or due[0] > now:
                    return False
                if as_worker and lane.host_until > now:
                    return False
                kind, sender = due[1], lane.sender
                mine = lane.busy = True
                lane.wanted = False
            with self._workers.engaged() if as_worker else nullcontext():
                record = self._next_record(lane, kind, sender)
                if record is None:
                    return False
                error = self._attempts.attempt(record, lane, sender)
        finally:
            if mine:
                lane.busy = False
                self._workers.signal()
        return error is None

    def _next_record(self, lane: Lane, kind: Kind, sender: Sender) -> Record | None:
        """Lease what is sent next on a lane, if there is something after all."""
        with self._lock:
            lane.ready.discard(kind)
        self._commit()
        give_way()
        record = self.outbox.lease(sender.destination, kind)
        if record is None and kind == "metadata":
            self.metadata.seal(lane)
            self._commit()
            record = self.outbox.lease(sender.destination, kind)
        by_call = kind == "metadata" and not sender.sends_bodies
        if record and by_call and (parts := split(record, after_entry="first")):
            # The client takes one entry a call: the others wait for their turn.
            self.outbox.replace(record, parts)
            record = self.outbox.lease(sender.destination, kind)
        if record is not None:
            try:
                with self._lock:
                    lane.ready.add(kind)
                    lane.sent(kind, self._clock())
            except BaseException:
                self.outbox.release(record)
                raise
        return record

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
        with self._lock:
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

        Where no thread can be started, what is due is done on the caller's, and the
        last request may take longer.

        Returns:
            Whether it has nothing; False also if the outbox on disk cannot be looked
            through. Early False means that nothing more can go out in time.
        """
        deadline = self._clock() + timeout
        self._workers.signal()
        while True:
            with self._lock:
                # In this order: what was under way at the first look may have become
                # what is left, or nothing, by the second one.
                may_progress = self._may_progress(deadline)
                if not self._anything_left():
                    return True
            now = self._clock()
            if now >= deadline or not may_progress:
                return False
            if not self._workers.threads and not self._workers.signal():
                self.step(deadline)
            time.sleep(max(0.0, min(_POLL, deadline - self._clock())))

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
        self.metadata.seal_all()
        self._commit(patience=max(0.0, deadline - self._clock()))
        with self._lock:
            for lane in self._lanes.values():
                lane.backoff.not_before = 0.0
                lane.host_until = float("-inf")
        self._workers.signal()  # one errand may hang until the end
        self._errands.finish(max(0.0, deadline - self._clock()))
        self.metadata.seal_all()
        self._commit(patience=max(LEAST_PATIENCE, deadline - self._clock()))
        if self._workers.stopped:
            return  # closed before, and nobody delivers what came since
        if not self.flush(max(0.0, deadline - self._clock())):
            self._tell_what_is_left()
        self.outbox.tell_committed()  # else delivered windows leave journals
        self._errands.stop()
        self._workers.stop()

    def _tell_what_is_left(self) -> None:
        counts = self.uncommitted() + self.outbox.counts(patient=False)
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
            self._timers.at(self._tend) <= self._clock()
            or self._timers.running  # in this order: those that run are not listed
            or len(self._errands) > 0
            or not self.outbox.looked_through  # then nobody knows
            or self._intake.counts().pending > 0
            or any(
                lane.busy or lane.ready or lane.has_metadata
                for lane in list(self._lanes.values())
            )
        )

    def _may_progress(self, deadline: float) -> bool:
        return (
            self._timers.at(self._tend) < deadline
            or self._timers.running  # likewise
            or len(self._errands) > 0
            or self._intake.busy
            or self._intake.next_at < deadline
            or any(
                lane.busy or ((at := self._due(lane)) is not None and at < deadline)
                for lane in self._lanes.values()
            )
        )
