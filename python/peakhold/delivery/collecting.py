"""Metadata on its way from the frames to sealed requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peakhold.records import seal_metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from peakhold.delivery.intake import Intake
    from peakhold.delivery.lane import Lane
    from peakhold.delivery.lanes import HostTasks, Lanes, Schedule
    from peakhold.delivery.sender import Sender
    from peakhold.delivery.workers import Workers

HOST_LOOK = 0.05
"""Seconds between two looks at whether the host is to have a task for metadata."""
FRAMES_OFFERED = 250
"""Frames with metadata from which on a worker is to coalesce them."""
BATCHES_OFFERED = 20
"""So many times as many, and the frame that brings one more does it."""


class MetadataCollector:
    """Collects metadata per destination, and seals it into requests."""

    def __init__(
        self,
        lanes: Lanes,
        intake: Intake,
        host_tasks: HostTasks,
        workers: Workers,
        clock: Callable[[], float],
        commit: Callable[[], None],
    ) -> None:
        """Bind to a dispatcher's parts; the workers' lock covers the lanes."""
        self._lanes = lanes
        self._intake = intake
        self._host_tasks = host_tasks
        self._workers = workers
        self._clock = clock
        self._commit = commit

    def add(
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
        if lane is None or lane.lanes is not self._lanes or lane.sender is not sender:
            with self._workers.lock:
                lane = sender.lane = self._lanes.of(sender)
        waiting = lane.batch.offer(inference_ids, field_name, field_value)
        if (
            waiting == 0  # no worker knows yet
            or waiting % FRAMES_OFFERED == 0
            or (schedule and self._clock() >= lane.host_at)
            or not lane.open
        ):
            self.look(lane, sender, waiting, schedule)

    def look(
        self, lane: Lane, sender: Sender, waiting: int, schedule: Schedule | None
    ) -> None:
        """Do what need not be done for each frame with metadata."""
        with self._workers.lock:
            if not lane.open:  # it was forgotten just now
                forgotten, lane = lane, self._lanes.of(sender)
                forgotten.batch.offer_to(lane.batch)
                sender.lane = lane
            lane.used = now = self._clock()
            lane.batch_since = min(lane.batch_since, now)
            lane.crowded |= waiting >= FRAMES_OFFERED
            task = self._host_tasks.make(lane) if schedule else None
            lane.host_at = now + HOST_LOOK
        if waiting >= FRAMES_OFFERED * BATCHES_OFFERED:
            self.seal(lane, whole=False)  # no worker comes to it
        if not self._workers.signal():
            self._commit()
        if schedule and task:
            self._host_tasks.hand(task, lane, schedule)

    def seal(self, lane: Lane, *, whole: bool = True) -> None:
        """Seal open metadata, all of it or only full requests.

        Without the lock, for many ids take milliseconds.
        """
        sender, batch = lane.sender, lane.batch
        with batch.sealing:
            lane.crowded = False
            for entries in batch.seal_all() if whole else batch.absorb():
                self._intake.put(seal_metadata(sender.destination, entries), sender)
                with self._workers.lock:
                    lane.ready.add("metadata")
            with self._workers.lock:
                if batch.is_new:
                    lane.batch_since = self._clock() if batch else float("inf")

    def seal_due(self) -> None:
        """Seal what is old enough, and full requests of what is much."""
        now = self._clock()
        for lane in list(self._lanes.values()):
            if lane.seal_at() <= now:
                self.seal(lane)
            elif lane.crowded:
                self.seal(lane, whole=False)

    def seal_all(self) -> None:
        """Seal everything."""
        for lane in list(self._lanes.values()):
            self.seal(lane)
