"""Where sealed records wait: in the store on disk, or in memory while that fails.

Nothing here raises because of the disk. What cannot be written waits in bounded memory,
and moves to the disk when that can be written again; what was settled meanwhile is
settled there before anything else is done.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from peakhold.errors import PeakholdError
from peakhold.outbox.epochs import HOST
from peakhold.outbox.memory import MemoryStore
from peakhold.outbox.room import STEP, Limits
from peakhold.outbox.schema import SQLITE_ERRORS, DamagedError, explained
from peakhold.outbox.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from peakhold.notices import Notices
    from peakhold.outbox.epochs import Look
    from peakhold.outbox.ledger import Counts
    from peakhold.outbox.offers import Answer, Offer, Settled
    from peakhold.outbox.state import StateDirectory
    from peakhold.outbox.store import Waiting
    from peakhold.records import DestinationKey, Kind, Record

MEMORY_BYTES = 16 * 1024 * 1024
"""Bound of what waits in memory."""
PATIENCE = 5.0
"""Seconds between two trials of a disk that fails."""
STEPS = 20
"""Steps that ``tend`` takes at most to make room, with pauses as long as the steps."""

_DISK_ERRORS: tuple[type[Exception], ...] = (
    *SQLITE_ERRORS,
    OSError,
    PeakholdError,
    # What comes of a column whose type is damaged.
    TypeError,
    ValueError,
)
_T = TypeVar("_T")
_D = TypeVar("_D")
_AnyStore = Store | MemoryStore


class Outbox:
    """Sealed records until they are settled, by one deliverer who has them on lease.

    Attributes:
        disk_error: Why nothing can be written to the disk; None if it can.
        readable: Whether what is on the disk could be read the last time.
        looked_through: Whether it is known what waits on the disk: ``tend`` could look,
            and ``lease`` since.
        sharing: What this process did about shared windows: ``parts`` that it sealed,
            how many of them came ``late`` or were reported ``alone``, of how many it
            is ``unsure`` whether two reports have them, and ``reports`` that it made
            of everybody's parts.
    """

    def __init__(
        self,
        notices: Notices,
        limits: Limits | None = None,
        state: StateDirectory | None = None,
        *,
        sync: str = "OFF",
        clock: Callable[[], float] = time.monotonic,
        place: str = HOST,
    ) -> None:
        """Open nothing yet.

        Args:
            notices: Told about the disk, and about what is dropped.
            limits: What is too much.
            state: Where the store on disk is; None if there is to be none, as without
                SQLite there cannot be.
            sync: SQLite's ``synchronous`` for it.
            clock: Monotonic time in seconds.
            place: Where this process shares windows.
        """
        limits = limits or Limits()
        in_memory = replace(limits, max_bytes=min(MEMORY_BYTES, limits.max_bytes))
        self.disk_error: str | None = None
        self.readable = True
        self.looked_through = True
        names = ("parts", "late", "alone", "unsure", "reports")
        self.sharing = dict.fromkeys(names, 0)
        self._notices = notices
        self._clock = clock
        self._memory: _AnyStore = (
            Store(None, in_memory, dropped=notices.dropped, clock=clock)
            if SQLITE_ERRORS
            else MemoryStore(in_memory, dropped=notices.dropped, clock=clock)
        )
        self._disk = (
            Store(
                state,
                limits,
                dropped=notices.dropped,
                clock=clock,
                sync=sync,
                place=place,
            )
            if state
            else None
        )
        self._next_trial = float("-inf")
        self._homes: dict[str, _AnyStore] = {}
        self._unsettled: dict[str, Callable[[Store], bool]] = {}
        self._settling = threading.Lock()
        # A callback may want to know the figures.
        self._moving = threading.RLock()
        self._telling = threading.Lock()
        self._uncommitted: list[Callable[[], None]] = []

    def add(
        self,
        records: Sequence[Record],
        *,
        leased: Collection[str] = (),
        moved: bool = False,
    ) -> set[str]:
        """Take encoded records in; calls ``on_committed`` of each when it is safe.

        What is too much then goes by one short step, and the rest in ``tend``.

        Args:
            records: The records.
            leased: The ids of those that the caller has on lease from now on.
            moved: Whether they come from memory, maybe after other parts of windows.

        Returns:
            The ids of those that were not here before.
        """
        store: _AnyStore | None = self._disk
        added = self._on_disk(
            lambda disk: disk.add(records, leased=leased, moved=moved), None
        )
        if added is None:
            store = self._memory
            added = store.add(records, leased=leased, moved=moved)
            store.make_room()
        elif self._disk and self._disk.needs_room:
            self._on_disk(Store.make_room, otherwise=False)
        if store is not None:
            self._homes.update(dict.fromkeys(added & {*leased}, store))
        tell = [record.on_committed for record in records if record.on_committed]
        if store is self._disk or self._disk is None:
            for committed in tell:
                self._notices.guarded(committed)
        else:
            with self._telling:
                self._uncommitted += tell
        return added

    def add_parts(self, records: Sequence[Record]) -> float | None:
        """Take in parts of shared windows; calls ``on_committed`` of each.

        Args:
            records: The records, each of which has a ``share``.

        Returns:
            When the first of their epochs may be closed, in seconds since 1970, or
            infinity if all were here before; None if the disk does not take them.
        """
        parts = [(record, record.share) for record in records if record.share]
        added = self._on_disk(lambda disk: disk.add_parts(parts, time.time()), None)
        if added is None:
            return None
        closes_at, late = added
        self.sharing["parts"] += len(parts)
        self.sharing["late"] += late
        if self._disk and self._disk.needs_room:
            self._on_disk(Store.make_room, otherwise=False)
        for record in records:
            if record.on_committed:
                self._notices.guarded(record.on_committed)
        return closes_at

    def close_epochs(
        self,
        destinations: Collection[DestinationKey],
        *,
        leaving: bool = False,
        away: bool = False,
    ) -> Look | None:
        """Put reports in place of the parts of epochs that are over.

        Args:
            destinations: For which there is a sender.
            leaving: Whether this process shares no more; what no living one shares is
                reported at once then.
            away: Whether the Redis server cannot be reached; then parts that waited
                for it for long are reported without those of others.

        Returns:
            What was closed, and when to look again; None if the disk fails.
        """
        look = self._on_disk(
            lambda disk: disk.close_epochs(
                destinations, time.time(), leaving=leaving, away=away
            ),
            None,
        )
        if look is not None:
            self.sharing["reports"] += len(look.closed)
            self.sharing["alone"] += look.alone
            self.sharing["unsure"] += look.unsure
        return look

    def has_parts(self) -> bool | None:
        """Whether this process has parts for Redis; None if the disk fails."""
        return self._on_disk(Store.has_parts, None)

    def offer_parts(
        self, destinations: Collection[DestinationKey]
    ) -> list[Offer] | None:
        """Return this process's parts for Redis, which may have them from now on.

        Args:
            destinations: For which there is a sender.

        Returns:
            The parts of each window; None if the disk fails.
        """
        return self._on_disk(
            lambda disk: disk.offer_parts(destinations, time.time()), None
        )

    def settle_parts(self, answers: Sequence[Answer]) -> list[Settled] | None:
        """Do what Redis has answered to offers.

        Returns:
            What became of the parts, for each answer; None if the disk fails.
        """
        settled = self._on_disk(lambda disk: disk.settle_parts(answers), None)
        if settled is not None:
            for answer, its in zip(answers, settled, strict=True):
                self.sharing["late"] += answer.fates.count("late")
                self.sharing["unsure"] += its.unsure
                self.sharing["reports"] += bool(answer.taken and answer.taken.parts)
        return settled

    def destinations_of_parts(self) -> set[DestinationKey] | None:
        """Return for which destinations parts wait; None if the disk fails."""
        return self._on_disk(Store.destinations_of_parts, None)

    def lost(self, reason: str, seals: int) -> None:
        """Count seals that were dropped on their way here."""
        if seals:
            self._notices.dropped(reason, seals)
            if not self._on_disk(
                lambda disk: disk.lost(reason, seals), otherwise=False
            ):
                self._memory.lost(reason, seals)

    def lease(self, destination: DestinationKey, kind: Kind) -> Record | None:
        """Lease the oldest waiting record of a kind, if there is one."""
        home: _AnyStore | None = self._disk
        record = self._on_disk(lambda disk: disk.lease(destination, kind), None)
        if record is None:
            if self._disk and self._clock() < self._next_trial:
                # There may be some, and nobody looks again before `tend` does.
                self.looked_through = not self._disk.is_there()
            home = self._memory
            record = home.lease(destination, kind)
        if record is not None and home is not None:
            self._homes[record.id] = home
        return record

    def release(self, record: Record) -> None:
        """Let a leased record wait again, if it was not settled."""
        self._homes.pop(record.id, None)
        if record.id not in self._unsettled:
            for store in (self._disk, self._memory):
                if store is not None:
                    store.release(record)

    def acknowledge(self, record: Record) -> None:
        """Forget a delivered record."""
        self._settle(record, lambda store: store.acknowledge(record))

    def failed(
        self, record: Record, state: str, reason: str, error: str, pause: float
    ) -> None:
        """Note a failed attempt: the record is pending, parked or dead from now on."""
        self._settle(
            record, lambda store: store.failed(record, state, reason, error, pause)
        )

    def replace(self, record: Record, parts: Sequence[Record]) -> None:
        """Put parts in place of a leased record."""
        self._settle(record, lambda store: store.replace(record, parts))

    def tend(self, destinations: Collection[DestinationKey]) -> list[Waiting]:
        """Adopt what dead processes left, drop what is too old, move what is misplaced.

        Args:
            destinations: For which there is a sender.

        Returns:
            What there is to be delivered by this process.
        """
        self._memory.make_room()
        for _ in range(STEPS):
            if not self._on_disk(Store.make_room, otherwise=False):
                break
            time.sleep(STEP)  # for the threads and processes that wait for the file
        with self._moving:
            while (
                self._disk
                and not self.disk_error
                and self._clock() >= self._next_trial
                and (moving := self._memory.take())
            ):
                self.add(moving, moved=True)
        # Last, for it is to find what was moved.
        on_disk = self._on_disk(lambda disk: disk.adopt(destinations), None)
        self.looked_through = on_disk is not None or not (
            self._disk and self._disk.is_there()
        )
        waiting = [*(on_disk or ()), *self._memory.adopt(destinations)]
        self.tell_committed()
        return waiting

    def tell_committed(self) -> None:
        """Tell those whose records were in memory, if nothing is there any more."""
        with self._telling:
            # In this order: what comes in between is not told now.
            tell, self._uncommitted = self._uncommitted, []
            if tell and not self._memory.is_empty():
                tell, self._uncommitted = [], tell
        for committed in tell:
            self._notices.guarded(committed)

    def counts(self, *, patient: bool = True) -> Counts:
        """Return the conservation equation's figures, but for a disk that fails.

        Args:
            patient: Whether to try a disk that failed last, maybe for a second.
        """
        with self._moving:  # else what moves is in neither
            counts = self._memory.counts()
            looks = patient or self.disk_error is None
            on_disk = self._look(Store.counts) if looks else None
        return counts + on_disk if on_disk else counts

    def overview(self) -> list[dict[str, Any]]:
        """Return figures per destination; without those of a disk that fails."""
        on_disk = self._look(Store.overview) or []
        return on_disk + self._memory.overview()

    def _settle(self, record: Record, act: Callable[[_AnyStore], bool]) -> None:
        if self._homes.pop(record.id, None) is self._memory:
            act(self._memory)
        elif not self._on_disk(act, otherwise=False):
            self._unsettled[record.id] = act

    def _on_disk(self, act: Callable[[Store], _T], otherwise: _D) -> _T | _D:
        """Do something on the disk; returns ``otherwise`` if that cannot be."""
        if self._disk is None or self._clock() < self._next_trial:
            return otherwise
        try:
            with self._settling:
                for record_id, settle in list(self._unsettled.items()):
                    self._try(self._disk, settle)
                    del self._unsettled[record_id]
            result = self._try(self._disk, act)
        except _DISK_ERRORS as error:
            self._fails(error)
            return otherwise
        self._next_trial = float("-inf")
        if self.disk_error is not None:
            self.disk_error = None
            self._notices.info("The outbox on disk can be used again")
        return result

    def _look(self, act: Callable[[Store], _T]) -> _T | None:
        """Read from the disk, which may work although nothing can be written."""
        try:
            found = self._try(self._disk, act) if self._disk else None
        except _DISK_ERRORS as error:
            self.readable = False
            self._fails(error)
            return None
        self.readable = True
        return found

    def _try(self, disk: Store, act: Callable[[Store], _T]) -> _T:
        """Do something on the disk; if the file is damaged, with the next one."""
        try:
            return act(disk)
        except DamagedError as error:
            self._notices.warn(
                "damage",
                "%s. A new outbox is begun; what waited in that one is not sent: it is "
                "kept to be looked at",
                error,
            )
        return act(disk)

    def _fails(self, error: Exception) -> None:
        self._next_trial = self._clock() + PATIENCE
        self.disk_error = explained(error)
        self._notices.warn(
            "disk",
            "The outbox on disk cannot be used, what is sealed waits in memory "
            "meanwhile: %s",
            self.disk_error,
        )
