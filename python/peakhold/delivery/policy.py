"""What a failed attempt means for its record and for its destination."""

from __future__ import annotations

import random
from enum import Enum
from typing import TYPE_CHECKING

from peakhold.roboflow.errors import TlsFailedError

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_DELAY = 1.0
LONGEST_DELAY = 60.0
LONGEST_RETRY_AFTER = 3600.0
PARKED_DELAY = 15 * 60.0
"""Seconds. Parked records wait for a person: a key, a payment, a workspace."""

NOT_FOUND = 404
_TOO_LARGE = 413
_NEEDS_A_PERSON = frozenset({401, 402, 403, NOT_FOUND, 423})
_PASSING = frozenset({408, 425, 429})
_CLIENT_ERRORS = range(400, 500)


class Verdict(Enum):
    """What to do with a record after an attempt."""

    DELIVERED = "delivered"
    RETRY = "retry"
    PARK = "park"
    TOO_LARGE = "too_large"
    REFUSED = "refused"


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status an exception carries, or None."""
    status = _attribute(error, "status")
    return status if isinstance(status, int) else None


def _attribute(error: BaseException | None, name: str) -> object:
    """Return an attribute of an exception, None if it has none that can be read."""
    try:
        return getattr(error, name, None)
    except Exception:  # noqa: BLE001 - of an injected client
        return None


def reason_of(error: BaseException, judged: Verdict) -> str:
    """Return in a word why a record is where it is: a status, or what else."""
    status = status_of(error)
    if status is not None:
        return f"HTTP {status}"
    return "TLS" if isinstance(error, TlsFailedError) else judged.value


def verdict(error: BaseException) -> Verdict:
    """Judge a failed attempt; an exception of unknown meaning is worth a retry."""
    status = status_of(error)
    if status in _NEEDS_A_PERSON or isinstance(error, TlsFailedError):
        return Verdict.PARK
    if status == _TOO_LARGE:
        return Verdict.TOO_LARGE
    if status in _CLIENT_ERRORS and status not in _PASSING:
        return Verdict.REFUSED
    return Verdict.RETRY


def verdict_of_others(error: BaseException) -> Verdict:
    """Judge what failed before the record itself could be sent: retry, or park.

    A workspace lookup that is refused says nothing against the record.
    """
    judged = verdict(error)
    return judged if judged is Verdict.RETRY else Verdict.PARK


class Backoff:
    """How long a destination is left alone; one per destination, not per record.

    Attributes:
        not_before: Monotonic time of the next attempt; minus infinity while nobody has
            said when.
        failures: Failed attempts since the last good one.
    """

    def __init__(
        self, jitter: Callable[[float, float], float] = random.uniform
    ) -> None:
        """Start healthy. ``jitter`` draws a number of seconds between two others."""
        self.not_before = float("-inf")
        self.failures = 0
        self._delay = FIRST_DELAY
        self._jitter = jitter

    def resume(self, not_before: float) -> None:
        """Wait as long as a dead process would have, unless something is planned."""
        if self.not_before == float("-inf"):
            self.not_before = not_before

    def failed(self, now: float, error: BaseException | None, judged: Verdict) -> None:
        """Plan the next attempt after a failed one."""
        self.failures += 1
        if judged is Verdict.PARK:
            delay = PARKED_DELAY
        else:
            # Decorrelated jitter: spreads clients without remembering attempts.
            drawn = self._jitter(FIRST_DELAY, self._delay * 3)
            delay = self._delay = min(LONGEST_DELAY, drawn)
        retry_after = _attribute(error, "retry_after")
        if isinstance(retry_after, (int, float)):
            delay = max(delay, min(float(retry_after), LONGEST_RETRY_AFTER))
        self.not_before = now + delay

    def succeeded(self) -> int:
        """Forget the failures; returns how many there were."""
        failures, self.failures = self.failures, 0
        self._delay = FIRST_DELAY
        self.not_before = 0.0
        return failures
