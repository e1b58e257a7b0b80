"""The process's one deliverer: what is handed over to it, when what is due, the end."""

from __future__ import annotations

import queue
import random
import threading
import time
import weakref
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from peakhold.delivery.cache import HostCaches
from peakhold.delivery.committer import Committer
from peakhold.delivery.destination import IDLE, Destination, Leased, Shared
from peakhold.delivery.handover import Handover
from peakhold.delivery.journal import Journals
from peakhold.delivery.metadata import (
    BATCHES_OFFERED,
    FRAMES_OFFERED,
    HOST_LOOK,
    Offers,
)
from peakhold.delivery.policy import LONGEST_RETRY_AFTER
from peakhold.delivery.schedule import Schedule
from peakhold.delivery.settings import DeliverySettings
from peakhold.delivery.threads import Threads
from peakhold.notices import Notices
from peakhold.outbox import Counts, Limits
from peakhold.outbox.outbox import PATIENCE, Outbox
from peakhold.records import Destination as Key
from peakhold.records import Record, UnencodableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from peakhold.delivery.exporter import Exporter
    from peakhold.delivery.handover import Window
    from peakhold.delivery.sender import Sender
    from peakhold.delivery.settings import Durability
    from peakhold.outbox import StateDirectory
    from peakhold.records import Kind

    HostTask = Callable[[], None]
    HostSchedule = Callable[[HostTask], object]
    """Hands a task to the host: ``add_task`` or ``submit``."""
    Check = Callable[[float], float | None]
    """Called with the monotonic time; returns when to be called again, or None."""

HOST_GRACE = 5.0
"""Seconds a host's task has to start before a thread of ours delivers in its place."""
HOST_PATIENCE = 1.0
"""Seconds that the host's task waits for what is just being committed."""
UPKEEP = 15.0
"""Seconds after which the outbox is looked through again: for what dead processes
left, what somebody at the command line wants tried, and what is too old."""
LEAST_PATIENCE = 0.2
"""Seconds that the end of a process waits, whatever it is allowed, for a thread that is
writing to the outbox: what that has taken is written nowhere else."""
_PATIENCE = 1.0
_AFTER_FAILURE = 60.0
_PAUSE = 1.0
_POLL = 0.01
_FEW = 64


class Dispatcher:
    """Delivers what it is handed, on threads of its own, the host's or the caller's.

    One thread keeps the time and commits; what may hang is done by others
    (``Threads``). The lock covers the destinations, and is never held while anything is
    sent or written.
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
        self.caches = HostCaches(self.notices, self._start_soon)
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
        self.journals = Journals(
            state,
            self.notices,
            sync=self.settings.durability == "power",
            limit=round(self.settings.outbox_mib * 2**20),
        )
        self.rejected: Callable[[], dict[str, int]] = dict
        self.jitter = jitter
        self.committer = Committer(
            self.outbox, self.journals, self.notices, clock, self._look_through
        )
        self._clock = clock
        self._worker = worker
        self._lock = threading.RLock()
        self._shared = Shared(
            self.outbox,
            self.committer,
            self.journals,
            self.notices,
            self.settings,
            self._lock,
            clock,
            self._draw,
            self._arrange,
        )
        self._destinations: dict[Key, Destination] = {}
        self._sweep_at = _FEW
        self._schedule: Schedule[Destination | Check] = Schedule()
        self._threads = Threads(self.notices, wanted=worker)
        self._thread: threading.Thread | None = None
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._closers: list[Callable[[], None]] = []
        self._deadline = float("inf")
        self._committing = False
        self._exiting = False
        self._closed = False

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
        task = self._host_task(destinations[0]) if schedule else None
        self.committer.put(Handover(content, destinations))
        if self._thread is None:
            self._signal()
        else:  # without another call, which costs a frame some microseconds
            self._bell.put(None)
        if schedule and task:
            self._hand(task, destinations[0], schedule)

    def deliver_now(
        self,
        content: Window | Record,
        exporter: Exporter,
        pending: list[Any] | None = None,
    ) -> BaseException | None:
        """Commit something and make one attempt, on the caller's thread.

        What fails stays in the outbox, and so does what is interrupted.

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
            parts = record.divided(record.content.parts())
            if exporter.one_entry:
                parts = [entry for part in parts for entry in part.by_entry()]
            self.outbox.add(parts, leased={part.id for part in parts})
            handover.committed = True
            if handover.window is not None:
                handover.window.publish(at_once=True)
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
            self._arrange(destination)
        return failed

    def register(self, exporter: Exporter, *, at_once: bool = False) -> Destination:
        """Have an exporter from now on for all that goes to its destination.

        Args:
            exporter: Who sends it.
            at_once: Whether it is tried now, whatever it was to wait for.

        Returns:
            The destination.
        """
        # As for each window but the first: without a lock, and without hashing a key.
        known: Destination | None = exporter.registered
        if known is not None and known.dispatcher is self and not at_once:
            known.used = self._clock()  # first, for then it is not forgotten
            if known.exporter is exporter and not known.forgotten:
                return known
        with self._lock:
            destination = self._destinations.get(exporter.destination)
            if destination is None:
                destination = self._open(exporter)
            else:
                destination.use(exporter)
            exporter.registered = destination
            if at_once:
                destination.backoff.not_before = 0.0
        if at_once:
            self._arrange(destination)
        return destination

    def _open(self, exporter: Exporter) -> Destination:
        if len(self._destinations) >= self._sweep_at:
            self._forget_idle()
        destination = Destination(exporter, self._shared, self)
        self._destinations[exporter.destination] = destination
        self._look_through()  # others may have left something for it
        return destination

    def _forget_idle(self) -> None:
        """Forget the destinations that have had nothing to send for long."""
        oldest = self._clock() - IDLE
        for key, destination in list(self._destinations.items()):
            if destination.used < oldest and destination.is_idle:
                destination.forgotten = True
                if destination.used < oldest:
                    del self._destinations[key]
                else:  # a frame came meanwhile
                    destination.forgotten = False
        self._sweep_at = max(_FEW, 2 * len(self._destinations))

    # Metadata ---------------------------------------------------------------------

    def add_metadata(
        self,
        inference_ids: list[str],
        field_name: str,
        field_value: str,
        sender: Sender,
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
        self, offers: Offers, sender: Sender, schedule: HostSchedule | None
    ) -> None:
        """Do what need not be done for each frame with metadata."""
        try:
            if offers.journal is None:
                offers.journal = self.journals.metadata(sender.destination)
            with self._lock:
                destination = self.register(sender)
                destination.metadata.notice(offers, self._clock())
                offers.host_at = self._clock() + HOST_LOOK
            task = self._host_task(destination) if schedule else None
            if self._closed or len(offers.frames) >= FRAMES_OFFERED * BATCHES_OFFERED:
                destination.pack(whole=self._closed)  # no thread comes to it
            self._arrange(destination)
            self._signal()
        except BaseException:
            offers.noticed = False  # so that the next frame does what was not done
            raise
        if schedule and task:
            self._hand(task, destination, schedule)

    # The host's tasks -------------------------------------------------------------

    def _host_task(self, destination: Destination) -> HostTask | None:
        """Make a task for the host, unless there is one or nothing may be sent now.

        From then on our own threads leave the destination to it for a while.
        """
        with self._lock:
            now = self._clock()
            if destination.host_task and destination.host_task() is not None:
                return None
            if destination.exporter.offline or destination.backoff.not_before > now:
                return None
            task = partial(self._run_host_task, destination)
            # Weak: a host that throws the task away makes room for the next one.
            destination.host_task = weakref.ref(task)
            destination.host_until = now + HOST_GRACE
        return task

    def _hand(
        self, task: HostTask, destination: Destination, schedule: HostSchedule
    ) -> None:
        try:
            schedule(task)
        except Exception as error:  # noqa: BLE001 - a pool shut down, and the like
            self.notices.warn(
                "host",
                "The host took no task (%s); peakhold's own thread delivers",
                type(error).__name__,
            )
            self._host_is_done(destination)

    def _run_host_task(self, destination: Destination) -> None:
        # From now on the threads leave it alone, between its turns as well.
        with self._lock:
            destination.host_until = self._clock() + HOST_GRACE
        try:
            self.committer.commit(patience=HOST_PATIENCE)
            while destination.turn(as_host=True):
                pass
        finally:
            self._host_is_done(destination)

    def _host_is_done(self, destination: Destination) -> None:
        with self._lock:
            destination.host_task = None
            destination.host_until = float("-inf")
        self._arrange(destination)
        self._ring()

    # Time -------------------------------------------------------------------------

    def watch(self, check: Check, at: float) -> None:
        """Have ``check`` called at monotonic time ``at``, on a thread that may hang.

        It gets the monotonic time and returns when to be called again, or None.
        """
        if self._schedule.add(check, at) or self._thread is None:
            self._signal()

    def _start_soon(self, function: Callable[[], None]) -> None:
        def check(_now: float) -> None:
            function()

        self.watch(check, self._clock())

    def at_close(self, closer: Callable[[], None]) -> None:
        """Have ``closer`` called before the last delivery, when the process exits."""
        self._closers.append(closer)

    def step(self, until: float = float("inf")) -> float | None:
        """Do what is due on the caller's thread; nothing from monotonic ``until`` on.

        Returns:
            The seconds until there is more to do, None if nothing.
        """
        self.committer.commit()
        self._each_due(self._do, until)
        return self._delay()

    def _each_due(
        self, act: Callable[[Destination | Check], object], until: float = float("inf")
    ) -> None:
        due = self._schedule.take_due(self._clock())
        try:
            while due and self._clock() < until:
                act(due.pop(0))
        finally:  # what is left after an exception that is not an ``Exception``, too
            for task in due:
                self._schedule.add(task, self._clock())
                self._schedule.done(task)

    def _delay(self) -> float | None:
        # Who commits has this looked at again when that is done.
        busy = self._committing or self.committer.busy
        commit_at = float("inf") if busy else self.committer.next_at()
        next_at = min(self._schedule.next_at(), commit_at)
        return None if next_at == float("inf") else max(0.0, next_at - self._clock())

    def _signal(self) -> None:
        """Have the thread that keeps the time look for work; commit if it cannot be."""
        if self._thread is None:
            self._start()
        if self._thread is not None:
            self._bell.put(None)
        elif self._worker:
            self.committer.commit()
            if self._closed and self._clock() < self._deadline:
                self.step(self._deadline)  # in what is left of the exit's time

    def _start(self) -> None:
        failed: RuntimeError | None = None
        with self._lock:
            if self._thread is not None or not self._worker or self._exiting:
                return
            thread = threading.Thread(
                target=self._keep_time, name="peakhold-clock", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:  # what is due is done by who flushes, then
                failed = error
            else:
                self._thread = thread
        if failed is not None:  # without the lock: a logging handler may want it
            self.notices.warn("thread", "No thread could be started: %s", failed)

    def _keep_time(self) -> None:
        self._threads.submit(self._ring)  # Python 3.12 starts no thread at exit
        while not self._exiting:
            try:
                self._round()
                delay = self._delay()
            except BaseException as error:  # noqa: BLE001 - it would end all deliveries
                self.notices.warn(
                    "worker",
                    "A thread goes on after an unexpected %s",
                    type(error).__name__,
                )
                delay = _PAUSE
            with suppress(queue.Empty):
                self._bell.get(timeout=delay)
                while True:
                    self._bell.get_nowait()
        self._threads.work()

    def _round(self) -> None:
        """Have the threads commit what waits, and do what is due.

        What was committed makes the turn of its destination due.
        """
        busy = self._committing or self.committer.busy
        if not busy and self.committer.next_at() <= self._clock():
            self._committing = True
            if self._threads.is_full or not self._threads.submit(self._commit):
                self._commit()
        self._each_due(self._submit)

    def _commit(self) -> None:
        try:
            self.committer.commit()
        finally:
            self._committing = False
            self._ring()

    def _submit(self, task: Destination | Check) -> None:
        if not self._threads.submit(partial(self._do, task)):
            self._do(task)

    def _do(self, task: Destination | Check) -> None:
        """Do what was due, and arrange the next time."""
        try:
            if isinstance(task, Destination):
                task.turn()
            else:
                self._call(task)
        finally:
            if isinstance(task, Destination):
                self._arrange(task)
            if self._schedule.done(task) or self.committer.next_at() < float("inf"):
                self._ring()

    def _call(self, check: Check) -> None:
        now = self._clock()
        again: float | None = now + _AFTER_FAILURE
        try:
            again = check(now)
        except Exception as error:  # noqa: BLE001 - one must not stop the others
            self.notices.warn("timer", "A timer failed: %s", type(error).__name__)
        finally:
            if again is not None:
                self._schedule.add(check, again)

    def _arrange(self, destination: Destination) -> None:
        """Have a destination's turn come when it has something to do."""
        rings = False
        for task, at in (
            (destination, destination.next_at()),
            (destination.pack_due, destination.pack_at()),
        ):
            if at < float("inf"):
                rings |= self._schedule.add(task, at)
        if rings:
            self._ring()

    def _ring(self) -> None:
        """Have the thread that keeps the time look again, if there is one."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._bell.put(None)

    def _draw(self, low: float, high: float) -> float:
        return self.jitter(low, high)

    # Upkeep -----------------------------------------------------------------------

    def _look_through(self) -> None:
        if self._schedule.add(self._upkeep, self._clock()):
            self._ring()

    def _upkeep(self, now: float) -> float | None:
        """Look through the outbox, for what is this process's to deliver."""
        if self.state is not None:
            self.state.stay_alive(self.notices)
        with self._lock:
            destinations = dict(self._destinations)
        before = {key: each.stored_changes for key, each in destinations.items()}
        found = self.outbox.tend(list(destinations))
        kinds: dict[Key, set[Kind]] = {key: set() for key in destinations}
        for key, kind, at_once, not_before in found:
            if destination := destinations.get(key):
                kinds[key].add(kind)
                with self._lock:
                    destination.backoff.resume(not_before)
                    destination.wanted |= at_once
        whole = self.outbox.disk_error is None
        for key, destination in destinations.items():
            destination.found(kinds[key], before[key] if whole else None)
            self._arrange(destination)
        with self._lock:
            self._forget_idle()
        if self.state is None:
            return None
        return now + (PATIENCE if self.outbox.disk_error else UPKEEP)

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

    def uncommitted(self) -> Counts:
        """Return the figures of what the outbox has not got yet."""
        return self.committer.counts()

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
                key = Key(row["endpoint"], row["api_key_fingerprint"], row["client"])
                destination = self._destinations.get(key)
                at = destination.next_at() if destination else float("inf")
                waits = at < float("inf")
                row["next_attempt_in"] = max(0.0, at - now) if waits else None
        return rows

    # Ending -----------------------------------------------------------------------

    def flush(self, timeout: float) -> bool:
        """Wait until this process has nothing to deliver, for ``timeout`` seconds.

        Where no thread can be started, what is due is done on the caller's, and the
        last request may take longer.

        Returns:
            Whether it has nothing; False also if the outbox on disk cannot be looked
            through. Early False means that nothing more can go out in time.
        """
        deadline = self._clock() + timeout
        if self._thread is None:
            self._start()
        # What an exception of a signal handler may have left undone.
        self.caches.start()
        for destination in list(self._destinations.values()):
            with self._lock:  # nor is a host waited for
                destination.host_until = float("-inf")
            self._arrange(destination)
        self._ring()
        while True:
            # In this order: what was under way at the first look may have become what
            # is left, or nothing, by the second one.
            may_progress = self._may_progress(deadline)
            if not self._anything_left():
                return True
            if self._clock() >= deadline or not may_progress:
                return False
            if not self._threads.running and self._thread is None:
                self.step(deadline)
            elif self._exiting:  # the thread that kept the time sends now
                self._round()
            time.sleep(max(0.0, min(_POLL, deadline - self._clock())))

    def close(self, timeout: float | None = None) -> None:
        """Commit what is open, then deliver what there is time for.

        What is accepted afterwards is committed and sent on the caller's thread.

        Args:
            timeout: Seconds to deliver; None for those of the settings.
        """
        budget = self.settings.exit_seconds if timeout is None else timeout
        self._deadline = self._clock() + budget
        self._threads.exiting = True
        for closer in self._closers:
            closer()
        self.pack_metadata()
        self.committer.commit(patience=max(0.0, self._deadline - self._clock()))
        with self._lock:
            destinations = list(self._destinations.values())
            for destination in destinations:
                destination.backoff.not_before = 0.0
                destination.host_until = float("-inf")
        for destination in destinations:
            self._arrange(destination)
        if self._closed:
            return
        self._exiting = True
        self._bell.put(None)
        self.committer.commit(
            patience=max(LEAST_PATIENCE, self._deadline - self._clock())
        )
        if not self.flush(max(0.0, self._deadline - self._clock())):
            self._warn_of_what_is_left()
        self.outbox.tell_committed()  # else delivered windows leave journals
        self._closed = True
        self._thread = None
        self._threads.stop()
        self.committer.commit()  # what another thread handed over just now

    def pack_metadata(self) -> None:
        """Make records of all metadata that frames left."""
        for destination in list(self._destinations.values()):
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
                else "they wait in the outbox",
            )

    def _anything_left(self) -> bool:
        # In this order: what is under way moves from the front to the back, and what a
        # destination hands over to be committed it commits in its turn.
        commits = self.committer.commits
        return bool(
            self.committer.counts().pending
            or self.caches.is_writing
            or self._schedule.at(self._upkeep) <= self._clock()
            or any(not isinstance(each, Destination) for each in self._schedule.taken())
            or not self.outbox.looked_through  # then nobody knows
            or any(not each.is_idle for each in list(self._destinations.values()))
            or self.committer.counts().pending
            or commits % 2
            or commits != self.committer.commits
        )

    def _may_progress(self, deadline: float) -> bool:
        return (
            self.committer.busy
            or self.caches.is_writing
            or self.committer.next_at() < deadline
            or self._schedule.at(self._upkeep) < deadline
            or any(not isinstance(each, Destination) for each in self._schedule.taken())
            or any(
                each.busy or each.next_at() < deadline
                for each in list(self._destinations.values())
            )
        )
