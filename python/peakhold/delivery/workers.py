"""The threads that step a dispatcher."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from peakhold.notices import Notices

FEWEST = 2
"""Threads there are from the first work on. Python 3.12 starts none while it exits, and
then, too, a destination that hangs must leave somebody to the others."""
MOST = 32
"""Threads there may be: so many destinations can hang, less one, and delay nobody."""
IDLE = 10.0
"""Seconds after which a thread more than needed ends."""
_PAUSE = 1.0


class Workers:
    """Threads that all do the same: step the dispatcher, then wait until more is due.

    What may take long is done inside ``engaged``, which sees to it that one thread at
    least is at hand for everything else.

    Attributes:
        threads: Those that are running.
        exiting: Whether the process is about to end.
        stopped: Whether there are to be no more.
        lock: The dispatcher's.
    """

    def __init__(
        self,
        step: Callable[[], float | None],
        lock: threading.RLock,
        notices: Notices,
        *,
        wanted: bool,
    ) -> None:
        """Start no thread yet, and never one unless ``wanted``.

        Args:
            step: Does what is due; returns the seconds until there is more, or None.
            lock: The dispatcher's.
            notices: Where trouble is counted.
            wanted: Whether there are to be threads.
        """
        self.threads: set[threading.Thread] = set()
        self.exiting = False
        self._step = step
        self.lock = lock
        # ``with`` is for the lock alone, see `peakhold.locks`.
        self._changed = threading.Condition(lock)
        self._notices = notices
        self._wanted = wanted
        self._engaged = 0
        self._signals = 0
        self.stopped = False

    def signal(self) -> bool:
        """Have the workers look for work; returns False if none can be started.

        Then the caller is to do what cannot wait for the next signal.
        """
        with self.lock:
            self._signals += 1
            self._staff()
            self._changed.notify_all()
            return bool(self.threads) or self.stopped or not self._wanted

    def stop(self) -> None:
        """Have the workers end."""
        self.stopped = True
        self.signal()

    @contextmanager
    def engaged(self) -> Iterator[None]:
        """Keep another worker at hand while the caller does something that may hang."""
        with self.lock:
            self._engaged += 1
            self._staff()
        try:
            yield
        finally:
            with self.lock:
                self._engaged -= 1

    def _needed(self) -> int:
        return min(max(FEWEST, self._engaged + 1), MOST)

    def _staff(self) -> None:
        while self._wanted and not self.stopped and len(self.threads) < self._needed():
            thread = threading.Thread(target=self._work, name="peakhold", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                # At exit those that there are have to do; what they cannot deliver in
                # time is told then.
                if not self.exiting:
                    self._notices.warn(
                        "thread", "No thread could be started: %s", error
                    )
                return
            self.threads.add(thread)

    def _work(self) -> None:
        needed_at = time.monotonic()
        with self.lock:  # the starting thread may be interrupted before it does so
            self.threads.add(threading.current_thread())
        while True:
            with self.lock:
                seen = self._signals
            delay = None if self.stopped else self._step_safely()
            with self.lock:
                now = time.monotonic()
                surplus = len(self.threads) > self._needed()
                if not surplus:
                    needed_at = now
                if self.stopped or now - needed_at >= IDLE:
                    self.threads.discard(threading.current_thread())
                    return
                if surplus:
                    delay = IDLE if delay is None else min(delay, IDLE)
                if self._signals == seen:
                    self._changed.wait(delay)

    def _step_safely(self) -> float | None:
        try:
            return self._step()
        except BaseException as error:  # noqa: BLE001 - it would end all deliveries
            self._notices.warn(
                "worker",
                "A worker goes on after an unexpected %s",
                type(error).__name__,
            )
            return _PAUSE
