"""The process's one deliverer: lanes, timers, and whose turn it is."""

from __future__ import annotations

import random
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

from peakhold.delivery.attempt import Attempts
from peakhold.delivery.lane import Lane
from peakhold.delivery.notices import Notices
from peakhold.delivery.outbox import MemoryOutbox
from peakhold.delivery.record import seal_metadata
from peakhold.delivery.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peakhold.delivery.outbox import Counts, Outbox
    from peakhold.delivery.record import Destination, Record
    from peakhold.delivery.sender import Sender

HOST_GRACE = 5.0
"""Seconds a host's task has to start before the worker delivers in its place."""
EXIT_BUDGET = 2.0
"""Seconds for what is pending when the process exits."""
METADATA_REQUESTS_PER_SECOND = 4.0
LANE_IDLE = 600.0
"""Seconds after which a destination that has nothing to send is forgotten."""

_POLL = 0.05

Task = Callable[[], None]
Schedule = Callable[[Task], object]
"""Hands a task to the host: ``add_task`` or ``submit``."""
Timer = Callable[[float], float | None]
"""Called with the monotonic time; returns when to be called again, or None."""


class Dispatcher:
    """Delivers sealed records, on a worker's thread, the host's or the caller's.

    A lane is worked on by one deliverer at a time, except that a synchronous caller
    sends its own record at once. The lock is never held while anything is sent.
    """

    def __init__(
        self,
        outbox: Outbox | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[float, float], float] = random.uniform,
        metadata_rate: float = METADATA_REQUESTS_PER_SECOND,
        worker: bool = True,
    ) -> None:
        """Start without a thread; they come with the first work.

        Args:
            outbox: Where records wait; by default a bounded memory.
            clock: Monotonic time in seconds.
            jitter: Draws a number between two others.
            metadata_rate: Metadata requests a second and destination.
            worker: Whether to start threads; without them call ``step``.
        """
        self.outbox: Outbox = MemoryOutbox() if outbox is None else outbox
        self.notices = Notices(clock)
        self._wake = threading.Condition()
        self._attempts = Attempts(self.outbox, self.notices, clock, self._wake)
        self._clock = clock
        self._jitter = jitter
        self._metadata_rate = metadata_rate
        self._workers = Workers(self.step, self._wake, self.notices, wanted=worker)
        self._lanes: dict[Destination, Lane] = {}
        self._timers: dict[Timer, float] = {}
        self._timing = False
        self._closers: list[Callable[[], None]] = []

    # Handing over -----------------------------------------------------------------

    def deliver(
        self, record: Record, sender: Sender, schedule: Schedule | None = None
    ) -> None:
        """Take a record for delivery in the background.

        Args:
            record: What to send.
            sender: Who sends it, and from now on everything to its destination.
            schedule: Hands a task to the host, if the host is to deliver.
        """
        with self._wake:
            self._append(record)
            lane = self._lane(sender)
            task = self._host_task(lane) if schedule else None
        self._workers.signal()
        if schedule and task:
            self._hand(task, lane, schedule)

    def deliver_now(self, record: Record, sender: Sender) -> Exception | None:
        """Make one attempt on the caller's thread; what fails stays pending.

        Returns:
            Why it failed, or None.
        """
        self._append(record, leased=True)
        with self._wake:
            lane = self._lane(sender)
        error = self._attempts.attempt(record, lane, sender, every_part=True)
        self._workers.signal()
        return error

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
        with self._wake:
            lane = self._lane(sender)
            idle = not lane.batch
            for entries in lane.batch.add(inference_ids, field_name, field_value):
                self._append(seal_metadata(sender.destination, entries))
            task = self._host_task(lane) if schedule else None
        if idle:  # else the worker knows, and frames come by the hundreds a second
            self._workers.signal()
        if schedule and task:
            self._hand(task, lane, schedule)

    def _append(self, record: Record, *, leased: bool = False) -> None:
        if dropped := self.outbox.append(record, leased=leased):
            self.notices.warn(
                "overflow",
                "Too much is waiting to be delivered: %d sealed before were dropped",
                dropped,
            )

    def _lane(self, sender: Sender) -> Lane:
        lane = self._lanes.get(sender.destination)
        if lane is None:
            lane = Lane(sender, self.notices, self._jitter, self._metadata_rate)
            self._lanes[sender.destination] = lane
        lane.sender = sender
        lane.used = self._clock()
        return lane

    def _host_task(self, lane: Lane) -> Task | None:
        """Make a task for the host if the lane may send now and there is none yet."""
        now = self._clock()
        due = lane.next_kind(self.outbox)
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
        with self._wake:
            self._timers[timer] = at
        self._workers.signal()

    def at_close(self, closer: Callable[[], None]) -> None:
        """Have ``closer`` called before the last delivery, when the process exits."""
        self._closers.append(closer)

    # Working ----------------------------------------------------------------------

    def step(self) -> float | None:
        """Do what is due; returns the seconds until there is more, None if nothing."""
        self._run_timers()
        for lane in list(self._lanes.values()):
            self._turn(lane, as_worker=True)
        with self._wake:
            now = self._clock()
            self._forget_idle_lanes(now)
            dues = map(self._due, self._lanes.values())
            # Who is at the timers signals when they are through.
            timers = () if self._timing else self._timers.values()
            times = [*timers, *(at for at in dues if at is not None)]
            return max(0.0, min(times) - now) if times else None

    def _due(self, lane: Lane) -> float | None:
        """Return when the worker may next send on a lane; None: nothing to send."""
        due = lane.next_kind(self.outbox)
        return max(due[0], lane.host_until, 0.0) if due else None

    def _run_timers(self) -> None:
        """Call the timers that are due, unless another worker is at it."""
        with self._wake:
            now = self._clock()
            due = [timer for timer, at in self._timers.items() if at <= now]
            if self._timing or not due:
                return
            self._timing = True
        try:
            with self._workers.engaged():  # a timer reads the host's cache
                for timer in due:
                    self._run_timer(timer)
        finally:
            self._timing = False
            self._workers.signal()

    def _run_timer(self, timer: Timer) -> None:
        now = self._clock()
        again: float | None
        try:
            again = timer(now)
        except Exception as error:  # noqa: BLE001 - one timer must not stop the others
            self.notices.warn("timer", "A timer failed: %s", type(error).__name__)
            again = now + 60.0
        with self._wake:
            if again is None:
                del self._timers[timer]
            else:
                self._timers[timer] = again

    def _turn(self, lane: Lane, *, as_worker: bool = False) -> bool:
        """Send one request on a lane if that may be now; returns whether it was."""
        with self._wake:
            now = self._clock()
            due = lane.next_kind(self.outbox)
            if due is None or due[0] > now:
                return False
            if as_worker and lane.host_until > now:
                return False
            kind, sender = due[1], lane.sender
            if kind == "metadata" and not self.outbox.waiting(sender.destination, kind):
                self._append(seal_metadata(sender.destination, lane.batch.seal()))
            record = self.outbox.lease(sender.destination, kind)
            if record is None:
                return False
            lane.busy = True
            lane.paces[kind].sent(now)
        try:
            with self._workers.engaged() if as_worker else nullcontext():
                error = self._attempts.attempt(record, lane, sender, every_part=False)
        finally:
            with self._wake:
                lane.busy = False
            self._workers.signal()
        return error is None

    def _forget_idle_lanes(self, now: float) -> None:
        for destination, lane in list(self._lanes.items()):
            if lane.busy or now - lane.used <= LANE_IDLE:
                continue
            if lane.batch:  # cannot be sent, so it is put where there is a bound
                self._append(seal_metadata(destination, lane.batch.seal()))
            if not any(lane.has_work(self.outbox, kind) for kind in lane.paces):
                del self._lanes[destination]

    # Ending -----------------------------------------------------------------------

    def counts(self) -> Counts:
        """Return what became of the records so far."""
        return self.outbox.counts()

    def flush(self, timeout: float) -> bool:
        """Wait until nothing is pending, for at most ``timeout`` seconds.

        Returns:
            Whether nothing is. Early False means that nothing more can go out in time.
        """
        deadline = self._clock() + timeout
        self._workers.signal()
        with self._wake:
            while self._anything_left():
                now = self._clock()
                if now >= deadline or not self._may_progress(deadline):
                    return False
                self._wake.wait(min(_POLL, deadline - now))
        return True

    def close(self, timeout: float = EXIT_BUDGET) -> None:
        """Seal what is open and deliver what is pending, for ``timeout`` seconds."""
        self._workers.exiting = True
        for closer in self._closers:
            closer()
        with self._wake:
            for lane in self._lanes.values():
                lane.backoff.not_before = 0.0
                lane.host_until = float("-inf")
        if not self.flush(timeout):
            with self._wake:
                ids = sum(len(lane.batch) for lane in self._lanes.values())
            self.notices.warn(
                "exit",
                "Exiting with %d reports and metadata requests, and %d more inference "
                "ids, not delivered",
                self.counts().pending,
                ids,
            )
        self._workers.stop()

    def _anything_left(self) -> bool:
        open_metadata = any(lane.batch for lane in list(self._lanes.values()))
        return open_metadata or self.outbox.counts().pending > 0

    def _may_progress(self, deadline: float) -> bool:
        return any(
            lane.busy or ((at := self._due(lane)) is not None and at < deadline)
            for lane in self._lanes.values()
        )
