"""The destinations of a process: found, looked through for work, and forgotten."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from peakhold.delivery.behind import plain, seen_from_outside
from peakhold.delivery.destination import IDLE, Destination
from peakhold.delivery.lateness import key_of
from peakhold.outbox.outbox import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from peakhold.delivery.behind import Behind
    from peakhold.delivery.destination import Shared
    from peakhold.delivery.exchange import Exchange
    from peakhold.delivery.exporter import Exporter
    from peakhold.outbox import StateDirectory
    from peakhold.outbox.epochs import Closed
    from peakhold.records import DestinationKey, Kind, Share

UPKEEP = 15.0
"""Seconds after which the outbox is looked through again: for what dead processes
left, what somebody at the command line wants tried, and what is too old."""
_FEW = 64


def _unsaid(_exporter: Exporter, _share: Share) -> None:
    """Say nothing of an epoch."""


class Destinations:
    """The destinations that have something to send, or had something lately."""

    def __init__(
        self,
        shared: Shared,
        state: StateDirectory | None,
        exchange: Exchange | None = None,
    ) -> None:
        """Start with none.

        Args:
            shared: What they have in common.
            state: Where the outbox is; None if in memory.
            exchange: Asks the Redis server by which windows are shared, if one is.
        """
        self._shared = shared
        self._state = state
        self._lock = shared.lock
        self._clock = shared.clock
        self._on_closed: Callable[[Exporter, Share], None] = _unsaid
        self._exchange = exchange
        self._parts_wait = False
        self._has_left = False
        self._sealed = 0
        self._with_parts: set[DestinationKey] = set()
        self._by_key: dict[DestinationKey, Destination] = {}
        self._sweep_at = _FEW

    def values(self) -> list[Destination]:
        """Return those that there are."""
        return list(self._by_key.values())

    def register(self, exporter: Exporter, *, try_now: bool = False) -> Destination:
        """Have an exporter from now on for all that goes to its destination.

        Args:
            exporter: Who sends it.
            try_now: Whether it is tried now, whatever it was to wait for.

        Returns:
            The destination.
        """
        # As for each window but the first: without a lock, and without hashing a key.
        known: Destination | None = exporter.registered
        if known is not None and not try_now:
            known.used = self._clock()  # first, for then it is not forgotten
            if known.owner is self and known.exporter is exporter:
                return known
        with self._lock:
            destination = self._by_key.get(exporter.destination)
            if destination is None:
                destination = self._open(exporter)
            else:
                destination.use(exporter)
            exporter.registered = destination
            if try_now:
                destination.backoff.not_before = 0.0
        if try_now:
            destination.arrange()
        return destination

    def _open(self, exporter: Exporter) -> Destination:
        if len(self._by_key) >= self._sweep_at:
            self.forget_idle()
        destination = Destination(exporter, self._shared, self)
        self._by_key[exporter.destination] = destination
        self.look_through()  # others may have left something for it
        return destination

    def forget_idle(self) -> None:
        """Forget those that have had nothing to send for long."""
        shared = self._with_parts | (
            self._exchange.destinations if self._exchange else set()
        )
        with self._lock:
            oldest = self._clock() - IDLE
            for key, destination in list(self._by_key.items()):
                if key in shared:
                    continue
                if destination.used < oldest and destination.is_idle:
                    destination.owner = None
                    if destination.used < oldest:
                        del self._by_key[key]
                    else:  # a frame came meanwhile
                        destination.owner = self
            self._sweep_at = max(_FEW, 2 * len(self._by_key))

    def look_through(self) -> None:
        """Have the outbox looked through soon, on a thread if there is one."""
        self._shared.scheduler.add(self.upkeep, self._clock())

    def upkeep(self, now: float) -> float | None:
        """Look through the outbox, for what is this process's to deliver.

        Args:
            now: Monotonic time.

        Returns:
            When to look again; None for an outbox in memory.
        """
        outbox = self._shared.outbox
        if self._state is not None:
            self._state.stay_alive(self._shared.notices)
        destinations = self._known()
        before = {key: each.stored_changes for key, each in destinations.items()}
        found = outbox.tend(list(destinations))
        kinds: dict[DestinationKey, set[Kind]] = {key: set() for key in destinations}
        for key, kind, try_now, not_before in found:
            if destination := destinations.get(key):
                kinds[key].add(kind)
                with self._lock:
                    destination.backoff.resume(not_before)
                    if not_before > float("-inf"):  # an outage, maybe of the last run
                        destination.backlog.begin(known=False)
                    destination.wanted |= try_now
        with_parts = outbox.destinations_of_parts()
        if with_parts is not None:
            self._with_parts = with_parts
        whole = outbox.disk_error is None
        for key, destination in destinations.items():
            destination.found(kinds[key], before[key] if whole else None)
            destination.arrange()
        self.forget_idle()
        if self._state is None:
            return None
        look_at = self.close_epochs(now)
        if look_at is not None:
            self._shared.scheduler.add(self.close_epochs, look_at)
        if self._exchange is not None:  # maybe of parts that dead processes left
            self._shared.scheduler.add(self.exchange_parts, now)
        return now + (PATIENCE if outbox.disk_error else UPKEEP)

    # Shared windows ---------------------------------------------------------------

    def tell_closed(self, listener: Callable[[Exporter, Share], None]) -> None:
        """Have a function told of the epochs that this process closes.

        It is called with who sends the report, and the window and epoch that it is of.
        """
        self._on_closed = listener

    def await_epoch(self, closes_at: float) -> None:
        """Look at the parts of shared windows when their epoch may be closed.

        With a Redis server at once, for other hosts wait for them.

        Args:
            closes_at: When that is, in seconds since 1970.
        """
        self._parts_wait, self._has_left = True, False
        self._sealed += 1
        if self._exchange is not None:
            self._shared.scheduler.add(self.exchange_parts, self._clock())
            return
        at = self._clock() + max(0.0, closes_at - time.time())
        self._shared.scheduler.add(self.close_epochs, at)

    def close_epochs(self, now: float) -> float | None:
        """Report the shared windows whose epoch is over, and whose parts are here.

        Args:
            now: Monotonic time.

        Returns:
            When to look again; None if no part waits.
        """
        next_at, _ = self._close_epochs(leaving=False)
        if next_at is None:
            return None
        return now + max(0.0, next_at - time.time())

    def exchange_parts(self, _now: float) -> float | None:
        """Exchange parts with other hosts, and report the epochs that are handed out.

        Returns:
            When to do it again; None if no part waits.
        """
        wait = self._exchange_parts(leaving=False)
        return None if wait is None else self._clock() + wait

    def _exchange_parts(self, *, leaving: bool) -> float | None:
        if self._exchange is None:
            return None
        known = self._known()
        closed, wait = self._exchange.turn(
            {key: each.exporter for key, each in known.items()},
            failing={key for key, each in known.items() if each.is_failing},
            leaving=leaving,
        )
        self._parts_wait = wait is not None
        self._tell(closed)
        return wait

    @property
    def is_cut_off(self) -> bool:
        """Whether parts wait for a Redis server that gives no answer."""
        return bool(self._exchange and self._exchange.is_cut_off)

    def leave(self) -> bool:
        """Share no more; what no living process shares is reported at once.

        Returns:
            Whether there is a report now, or a server is being asked.
        """
        if self._exchange is None:
            return self._parts_wait and self._close_epochs(leaving=True)[1]
        if self._has_left or not (self._parts_wait or self._exchange.destinations):
            return False
        # On a thread that may hang.
        self._shared.scheduler.add(self.exchange_last_parts, self._clock())
        return True

    def exchange_last_parts(self, _now: float) -> None:
        """Exchange parts as one that shares no more."""
        if self._exchange is None:
            return
        sealed = self._sealed
        wait = self._exchange_parts(leaving=True)
        self._has_left = self._exchange.is_whole and self._sealed == sealed
        if wait is not None:  # the process may go on all the same
            self._shared.scheduler.add(self.exchange_parts, self._clock() + wait)

    def _close_epochs(self, *, leaving: bool) -> tuple[float | None, bool]:
        """Return when to look again, and whether there is a report now."""
        look = self._shared.outbox.close_epochs(list(self._known()), leaving=leaving)
        if look is None:
            return time.time() + PATIENCE, False
        if self._exchange is None:
            self._parts_wait = look.next_at is not None
        self._tell(look.closed)
        return look.next_at, bool(look.closed)

    def _known(self) -> dict[DestinationKey, Destination]:
        with self._lock:
            return dict(self._by_key)

    def _tell(self, closed: list[Closed]) -> None:
        """Send the reports of epochs, and call the listener for each."""
        known = self._known()
        for key, share in closed:
            if destination := known.get(key):
                destination.note_stored("report")
                self._shared.notices.guarded(
                    partial(self._on_closed, destination.exporter, share)
                )

    # Figures and the end ----------------------------------------------------------

    def overview(self) -> list[dict[str, Any]]:
        """Return figures per destination, and when this process tries it next."""
        rows = self._shared.outbox.overview()
        with self._lock:
            known = [self._by_key.get(key_of(row)) for row in rows]
            now = self._clock()
            for row, destination in zip(rows, known, strict=True):
                at = destination.next_at() if destination else float("inf")
                waits = at < float("inf")
                row["next_attempt_in"] = max(0.0, at - now) if waits else None
        for row, destination in zip(rows, known, strict=True):
            row["behind"] = plain(self._behind(row, destination))
        return rows

    def _behind(
        self, row: Mapping[str, Any], destination: Destination | None
    ) -> Behind | None:
        """Return why a destination is behind; None if it is not, or stays offline."""
        oldest = row["oldest_report"]
        if oldest is None or (destination and destination.exporter.offline):
            return None
        state = self._state
        if state is None or oldest["owner"] in {"memory", self._own_id(state)}:
            return destination.lateness.behind(row) if destination else None
        return seen_from_outside(row, state)

    @staticmethod
    def _own_id(state: StateDirectory) -> str:
        try:
            return state.owner_id
        except OSError:  # then nothing on the disk is its own
            return ""

    def hurry(self, *, try_now: bool = False) -> None:
        """Do not wait for hosts any more; with ``try_now``, not for pauses either."""
        for destination in self.values():
            with self._lock:
                destination.host_until = float("-inf")
                if try_now:
                    destination.backoff.not_before = 0.0
            destination.arrange()
