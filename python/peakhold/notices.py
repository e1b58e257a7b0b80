"""Warnings that stay quiet: every occurrence counted, one a minute and cause shown."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from peakhold.texts import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_logger = logging.getLogger("peakhold.delivery")

_Event = TypeVar("_Event")

INTERVAL = 60.0
"""Seconds between two warnings of one cause."""


@dataclass(frozen=True)
class Failure:
    """What ``on_error`` callbacks get; it holds no api key.

    Attributes:
        endpoint: Where the record was to go.
        kind: ``report`` or ``metadata``.
        id: The record's.
        state: What the record is now: ``pending``, ``parked`` or ``dead``.
        error: Type and text of the exception.
    """

    endpoint: str
    kind: str
    id: str
    state: str
    error: str


@dataclass(frozen=True)
class Drop:
    """What ``on_drop`` callbacks get.

    Attributes:
        reason: Why seals were given up, as in the counters.
        seals: How many.
    """

    reason: str
    seals: int


ERROR_CALLBACKS: list[Callable[[Failure], object]] = []
DROP_CALLBACKS: list[Callable[[Drop], object]] = []


def on_error(callback: Callable[[Failure], object]) -> Callable[[Failure], object]:
    """Have a function called after every failed attempt to deliver.

    It runs on the thread that delivers, which it should not hold up. What it raises is
    logged and goes no further. It stays for the life of the process and those forked
    from it; to register it twice has it called twice.
    """
    ERROR_CALLBACKS.append(callback)
    return callback


def on_drop(callback: Callable[[Drop], object]) -> Callable[[Drop], object]:
    """Have a function called when seals are given up; otherwise like ``on_error``."""
    DROP_CALLBACKS.append(callback)
    return callback


class Notices:
    """Counts what went wrong by cause, and says so now and then.

    Attributes:
        counts: Occurrences of each cause.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with nothing counted; ``clock`` is monotonic, in seconds."""
        self.counts: Counter[str] = Counter()
        self._clock = clock
        self._lock = threading.Lock()
        self._shown: dict[str, tuple[float, int]] = {}

    def warn(self, cause: str, message: str, *args: object) -> None:
        """Count ``cause``, and log ``message % args`` unless that was done lately.

        Texts among ``args`` are made printable: they may be of servers and files.

        The number of occurrences that were not shown is added to the next one shown.
        """
        now = self._clock()
        with self._lock:
            self.counts[cause] += 1
            shown_at, shown_count = self._shown.get(cause, (-INTERVAL, 0))
            if now - shown_at < INTERVAL and shown_count:
                return
            unseen = self.counts[cause] - shown_count - 1
            self._shown[cause] = (now, self.counts[cause])
        if unseen:
            message += " (and %d more since the last such warning)"
            args = (*args, unseen)
        _logger.warning(message, *map(_loggable, args))

    def count(self, cause: str, occurrences: int) -> None:
        """Count what is common on a busy machine and no reason for a warning."""
        with self._lock:
            self.counts[cause] += occurrences

    def info(self, message: str, *args: object) -> None:
        """Log a recovery."""
        _logger.info(message, *map(_loggable, args))

    def failed(self, failure: Failure) -> None:
        """Tell the ``on_error`` callbacks."""
        self._tell(ERROR_CALLBACKS, failure)

    def dropped(self, reason: str, seals: int) -> None:
        """Say that seals were given up, and tell the ``on_drop`` callbacks."""
        self.warn(
            f"dropped:{reason}",
            "Gave up %d reports and metadata requests: %s",
            seals,
            reason,
        )
        self._tell(DROP_CALLBACKS, Drop(reason, seals))

    def _tell(
        self, callbacks: Iterable[Callable[[_Event], object]], event: _Event
    ) -> None:
        for callback in list(callbacks):
            self.guarded(partial(callback, event))

    def guarded(self, call: Callable[[], object]) -> None:
        """Call what is not to disturb deliveries, whatever it raises."""
        try:
            call()
        except Exception as error:  # noqa: BLE001 - see above
            self.warn("callback", "A callback raised %s", type(error).__name__)


def _loggable(arg: object) -> object:
    return arg if isinstance(arg, (int, float)) else printable(str(arg))
