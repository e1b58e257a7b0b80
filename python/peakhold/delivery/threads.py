"""The threads that send, on which a host's cache or an endpoint may hang."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from peakhold.notices import Notices

MOST = 32
"""Threads there may be: so many destinations can hang, less one, and delay no other."""
KEPT = 1
"""Threads that stay when there is nothing to do: Python 3.12 starts none at exit."""
IDLE = 10.0
"""Seconds after which another thread without work ends."""


class Threads:
    """Threads that are started when a task finds none free, up to ``MOST``.

    Attributes:
        running: Those that there are.
        exiting: Whether the process is about to end, and starts no more.
    """

    def __init__(self, notices: Notices, *, wanted: bool) -> None:
        """Start no thread yet, and never one unless ``wanted``."""
        self.running: set[threading.Thread] = set()
        self.exiting = False
        self._notices = notices
        self._wanted = wanted
        self._stopped = False
        self._lock = threading.Lock()
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        # Threads that wait, less the tasks that do.
        self._spare = 0

    def submit(self, task: Callable[[], None]) -> bool:
        """Have a thread call ``task``; returns False if no thread can be had."""
        with self._lock:
            if self._stopped:
                return False
            self._spare -= 1  # first: interrupted after it, one thread more is started
            if self._spare < 0 and len(self.running) < MOST:
                self._start()
            if not self.running:
                self._spare += 1
                return False
            self._tasks.put(task)
            return True

    @property
    def is_full(self) -> bool:
        """Whether all threads that there may be are busy."""
        return self._spare <= 0 and len(self.running) >= MOST

    def work(self) -> None:
        """Be one of the threads until there are too many, or they are stopped."""
        with self._lock:
            if self._stopped:
                self.running.discard(threading.current_thread())
                return
            self.running.add(threading.current_thread())
            self._spare += 1
        while True:
            try:
                task = self._tasks.get(timeout=IDLE)
            except queue.Empty:
                with self._lock:
                    if self._spare > 0 and len(self.running) > KEPT:
                        self._spare -= 1
                        self.running.discard(threading.current_thread())
                        return
                continue
            if task is None:
                with self._lock:
                    self.running.discard(threading.current_thread())
                return
            self._call(task)
            with self._lock:
                self._spare += 1

    def stop(self) -> None:
        """Have the threads end when they are through with what was submitted."""
        with self._lock:
            self._stopped = True
            for _ in self.running:
                self._tasks.put(None)

    def _call(self, task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as error:  # noqa: BLE001 - it would end all deliveries
            self._notices.warn(
                "worker",
                "A thread goes on after an unexpected %s",
                type(error).__name__,
            )

    def _start(self) -> None:
        if not self._wanted:
            return
        thread = threading.Thread(target=self.work, name="peakhold", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            # At exit those that there are have to do.
            if not self.exiting:
                self._notices.warn("thread", "No thread could be started: %s", error)
        else:
            self.running.add(thread)
