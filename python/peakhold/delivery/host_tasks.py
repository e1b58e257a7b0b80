"""The tasks by which a host delivers, on threads of its own."""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from peakhold.delivery.destination import Destination, Shared

    HostTask = Callable[[], None]
    HostSchedule = Callable[[HostTask], object]
    """Hands a task to the host: ``add_task`` or ``submit``."""

HOST_GRACE = 5.0
"""Seconds a host's task has to start before a thread of ours delivers in its place."""
HOST_PATIENCE = 1.0
"""Seconds that the host's task waits for what is just being committed."""


class HostTasks:
    """Makes tasks for hosts, one for a destination at a time."""

    def __init__(self, shared: Shared) -> None:
        """Start without a task."""
        self._shared = shared

    def make(self, destination: Destination) -> HostTask | None:
        """Make a task for the host, unless there is one or nothing may be sent now.

        From then on our own threads leave the destination to it for a while.
        """
        with self._shared.lock:
            now = self._shared.clock()
            if destination.host_task and destination.host_task() is not None:
                return None
            if destination.exporter.offline or destination.backoff.not_before > now:
                return None
            task = partial(self._run, destination)
            # Weak: a host that throws the task away makes room for the next one.
            destination.host_task = weakref.ref(task)
            destination.host_until = now + HOST_GRACE
        return task

    def hand(
        self, task: HostTask, destination: Destination, schedule: HostSchedule
    ) -> None:
        """Hand a task to the host; our own threads deliver if it takes none."""
        try:
            schedule(task)
        except Exception as error:  # noqa: BLE001 - a pool shut down, and the like
            self._shared.notices.warn(
                "host",
                "The host took no task (%s); peakhold's own thread delivers",
                type(error).__name__,
            )
            self._end(destination)

    def _run(self, destination: Destination) -> None:
        # From now on the threads leave it alone, between its turns as well.
        with self._shared.lock:
            destination.host_until = self._shared.clock() + HOST_GRACE
        try:
            self._shared.committer.commit(patience=HOST_PATIENCE)
            while destination.turn(as_host=True):
                pass
        finally:
            self._end(destination)

    def _end(self, destination: Destination) -> None:
        with self._shared.lock:
            destination.host_task = None
            destination.host_until = float("-inf")
        destination.arrange()
        self._shared.scheduler.ring()  # for what was just being committed, too
