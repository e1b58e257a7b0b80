"""The destinations that a process sends to, and the tasks a host is given for them."""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING

from peakhold.delivery.lane import Lane
from peakhold.records import Destination

if TYPE_CHECKING:
    from collections.abc import Callable

    from peakhold.delivery.sender import Sender
    from peakhold.delivery.settings import DeliverySettings
    from peakhold.delivery.workers import Workers
    from peakhold.notices import Notices

    Task = Callable[[], None]
    Schedule = Callable[[Task], object]
    """Hands a task to the host: ``add_task`` or ``submit``."""

HOST_GRACE = 5.0
"""Seconds a host's task has to start before the worker delivers in its place."""
LANE_IDLE = 600.0
"""Seconds after which a destination that has nothing to send is forgotten."""


class Lanes(dict[Destination, Lane]):
    """The lanes by their destinations; the dispatcher's lock covers them."""

    def __init__(
        self,
        notices: Notices,
        settings: DeliverySettings,
        *,
        clock: Callable[[], float],
        jitter: Callable[[float, float], float],
        look: Callable[[], None],
    ) -> None:
        """Start without any.

        Args:
            notices: Where trouble is counted.
            settings: Rates.
            clock: Monotonic time in seconds.
            jitter: Draws a number between two others.
            look: Has the outbox looked through for what waits in it.
        """
        super().__init__()
        self._notices = notices
        self._settings = settings
        self._clock = clock
        self._jitter = jitter
        self._look = look

    def of(self, sender: Sender) -> Lane:
        """Return the lane of a sender's destination; it sends on it from now on."""
        lane = self.get(sender.destination)
        if lane is None:
            lane = Lane(
                self,
                sender,
                self._notices,
                self._jitter,
                self._settings.rate,
                self._settings.metadata_rate,
            )
            self._look()  # others may have left something for it
            self[sender.destination] = lane
        lane.lend(sender, self._clock())
        return lane

    def forget_idle(self) -> None:
        """Forget the lanes that have had nothing to send for long."""
        now = self._clock()
        for destination, lane in list(self.items()):
            if lane.busy or lane.has_metadata or now - lane.used <= LANE_IDLE:
                continue
            if lane.ready:  # or so it was; much may have been dropped since
                lane.used = now
                self._look()
                continue
            lane.open = False
            if lane.has_metadata:  # a frame came, and may have seen it open
                lane.open = True
            else:
                del self[destination]


class HostTasks:
    """Tasks by which a host's own threads deliver, at most one for a destination."""

    def __init__(
        self,
        deliver: Callable[[Lane], None],
        workers: Workers,
        notices: Notices,
        clock: Callable[[], float],
    ) -> None:
        """Give out none yet.

        Args:
            deliver: Delivers what may be sent on a lane now.
            workers: Of the same dispatcher, to take over from the host.
            notices: Where trouble is counted.
            clock: Monotonic time in seconds.
        """
        self._deliver = deliver
        self._workers = workers
        self._notices = notices
        self._clock = clock

    def make(self, lane: Lane) -> Task | None:
        """Make a task if the lane may send now and there is none yet.

        The caller holds the lock.
        """
        now = self._clock()
        due = lane.next_kind()
        outstanding = lane.host_task is not None and lane.host_task() is not None
        if due is None or due[0] > now or outstanding:
            return None
        task = partial(self._run, lane)
        # Weak: a host that throws the task away makes room for the next one.
        lane.host_task = weakref.ref(task)
        lane.host_until = now + HOST_GRACE
        return task

    def hand(self, task: Task, lane: Lane, schedule: Schedule) -> None:
        """Hand a task to the host."""
        try:
            schedule(task)
        except Exception as error:  # noqa: BLE001 - a pool shut down, and the like
            self._notices.warn(
                "host",
                "The host took no task (%s); peakhold's own worker delivers",
                type(error).__name__,
            )
            self._is_done(lane)

    def _run(self, lane: Lane) -> None:
        # From now on the workers leave it alone, between its turns as well.
        with self._workers.lock:
            lane.host_until = self._clock() + HOST_GRACE
        try:
            self._deliver(lane)
        finally:
            self._is_done(lane)

    def _is_done(self, lane: Lane) -> None:
        with self._workers.lock:
            lane.host_task = None
            lane.host_until = float("-inf")
        self._workers.signal()
