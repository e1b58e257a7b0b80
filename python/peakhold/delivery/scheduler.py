"""The thread that keeps the time: it has threads commit, and do what is due."""

from __future__ import annotations

import queue
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from peakhold.delivery.schedule import Schedule
from peakhold.delivery.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from peakhold.delivery.committer import Committer
    from peakhold.notices import Notices

    Check = Callable[[float], float | None]
    """Called with the monotonic time; returns when to be called again, or None."""

_AFTER_FAILURE = 60.0
_PAUSE = 1.0


class Scheduler:
    """Calls checks when they are due, and has the committer commit what waits.

    One thread keeps the time, and does nothing that may hang: others do (``Threads``).
    All of them come with the first work.

    Attributes:
        thread: The thread that keeps the time, if there is one.
        bell: What is put there makes it look for work, as ``wake`` does; a frame puts
            it there itself, which saves a call.
    """

    def __init__(
        self,
        committer: Committer,
        notices: Notices,
        clock: Callable[[], float],
        *,
        worker: bool,
    ) -> None:
        """Start without a thread.

        Args:
            committer: Knows when there is something to commit.
            notices: Where trouble is counted.
            clock: Monotonic time in seconds.
            worker: Whether to start threads; without them call ``step``.
        """
        self.thread: threading.Thread | None = None
        self.bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._committer = committer
        self._notices = notices
        self._clock = clock
        self._worker = worker
        self._lock = threading.RLock()
        self._schedule: Schedule[Check] = Schedule()
        self._threads = Threads(notices, wanted=worker)
        self._committing = False
        self._deadline = float("inf")
        self._retired = False
        self._stopped = False

    # What is due ------------------------------------------------------------------

    def add(self, check: Check, at: float) -> None:
        """Have ``check`` called at monotonic time ``at``, if not before.

        It is called on a thread that may hang, and never by two at once.
        """
        if self._schedule.add(check, at):
            self.ring()

    def watch(self, check: Check, at: float) -> None:
        """Have ``check`` called like ``add``, and start a thread if there is none."""
        self.add(check, at)
        if self.thread is None:
            self.wake()

    def at(self, check: Check) -> float:
        """Return when a check is due; infinity if it is not, or being called."""
        return self._schedule.at(check)

    @property
    def busy(self) -> bool:
        """Whether a check is being called, or about to be."""
        return self._schedule.busy

    # The thread that keeps the time -----------------------------------------------

    def wake(self) -> None:
        """Have the thread look for work; commit if there cannot be one."""
        self.start()
        if self.thread is not None:
            self.bell.put(None)
        elif self._worker:
            self._committer.commit()
            if self._stopped and self._clock() < self._deadline:
                self.step(self._deadline)  # in what is left of the exit's time

    def ring(self) -> None:
        """Have the thread look again, if there is one."""
        if self.thread is not None and self.thread is not threading.current_thread():
            self.bell.put(None)

    def start(self) -> None:
        """Start the thread, if there is to be one and there is none."""
        failed: RuntimeError | None = None
        with self._lock:
            if self.thread is not None or not self._worker or self._retired:
                return
            thread = threading.Thread(
                target=self._keep_time, name="peakhold-clock", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:  # then a flush does what is due
                failed = error
            else:
                self.thread = thread
        if failed is not None:  # without the lock: a logging handler may want it
            self._notices.warn("thread", "No thread could be started: %s", failed)

    def _keep_time(self) -> None:
        self._threads.submit(self.ring)  # Python 3.12 starts no thread at exit
        while not self._retired:
            try:
                self._round()
                delay = self._delay()
            except BaseException as error:  # noqa: BLE001 - it would end all deliveries
                self._notices.warn(
                    "worker",
                    "A thread goes on after an unexpected %s",
                    type(error).__name__,
                )
                delay = _PAUSE
            with suppress(queue.Empty):
                self.bell.get(timeout=delay)
                while True:
                    self.bell.get_nowait()
        self._threads.work()

    def _delay(self) -> float | None:
        # Whatever commits rings when that is done, for this to be looked at again.
        busy = self._committing or self._committer.busy
        commit_at = float("inf") if busy else self._committer.next_at()
        next_at = min(self._schedule.next_at(), commit_at)
        return None if next_at == float("inf") else max(0.0, next_at - self._clock())

    def _round(self) -> None:
        """Have the threads commit what waits, and call what is due.

        What was committed makes the turn of its destination due.
        """
        busy = self._committing or self._committer.busy
        if not busy and self._committer.next_at() <= self._clock():
            self._committing = True
            if self._threads.is_full or not self._threads.submit(self._commit):
                self._commit()
        self._each_due(self._submit)

    def _commit(self) -> None:
        try:
            self._committer.commit()
        finally:
            self._committing = False
            self.ring()

    def _each_due(
        self, act: Callable[[Check], object], until: float = float("inf")
    ) -> None:
        due = self._schedule.take_due(self._clock())
        try:
            while due and self._clock() < until:
                act(due.pop(0))
        finally:  # what is left after an exception that is not an ``Exception``, too
            for check in due:
                self._schedule.add(check, self._clock())
                self._schedule.done(check)

    def _submit(self, check: Check) -> None:
        if not self._threads.submit(partial(self._call, check)):
            self._call(check)

    def _call(self, check: Check) -> None:
        """Call what was due, and have it called again when it says."""
        now = self._clock()
        again: float | None = now + _AFTER_FAILURE
        try:
            again = check(now)
        except Exception as error:  # noqa: BLE001 - one must not stop the others
            self._notices.warn("timer", "A timer failed: %s", type(error).__name__)
        finally:
            try:
                if again is not None:
                    self._schedule.add(check, again)
            finally:
                due = self._schedule.done(check)
                if due or self._committer.next_at() < float("inf"):
                    self.ring()

    # Without the thread -----------------------------------------------------------

    def step(self, until: float = float("inf")) -> float | None:
        """Do what is due on the caller's thread; nothing from monotonic ``until`` on.

        Returns:
            The seconds until there is more to do, None if nothing.
        """
        self._committer.commit()
        self._each_due(self._call, until)
        return self._delay()

    def help(self, until: float) -> None:
        """Do on the caller's thread what no other thread does any more, or can do."""
        if not self._threads.running and self.thread is None:
            self.step(until)
        elif self._retired:  # the thread that kept the time sends now
            self._round()

    # Ending -----------------------------------------------------------------------

    def expect_end(self, deadline: float) -> None:
        """Take note that the process ends, with time to deliver until ``deadline``."""
        self._deadline = deadline
        self._threads.exiting = True

    def retire(self) -> None:
        """Make the thread that keeps the time one of the others; then call ``help``."""
        self._retired = True
        self.bell.put(None)

    def stop(self) -> None:
        """Let the threads end; what comes later is done on the caller's thread."""
        self._stopped = True
        self.thread = None
        self._threads.stop()
