"""How long a report may wait before its destination counts as falling behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peakhold.outbox.packing import UNREADABLE, unpack
from peakhold.records.content import period_of

if TYPE_CHECKING:
    from collections.abc import Mapping

LEAST_ALLOWED = 60.0
"""Seconds that any report may wait."""
PERIODS = 3
"""Times as long as its window was open."""


def allowed(period: float | None) -> float:
    """Return for how many seconds a report of a window may wait.

    Args:
        period: Seconds between reports of the window; None if that is not known.
    """
    return max(LEAST_ALLOWED, PERIODS * (period or 0))


def period_in(packed: bytes | None) -> int | None:
    """Return the period of a report as it is stored; None if it is not known."""
    try:
        return None if packed is None else period_of(unpack(packed))
    except UNREADABLE:  # damaged, which is seen when it is leased
        return None


def of_report(
    *, age: float, period: int | None, failed: object, owner: str, reports: int
) -> dict[str, Any]:
    """Return what is known of the oldest report of a destination that is pending.

    Args:
        age: Seconds since it was sealed.
        period: Seconds between reports of its window, if that is known.
        failed: Whether an attempt to send it failed.
        owner: The process whose it is.
        reports: Seals that wait with it, its own included.
    """
    return {
        "age": age,
        "allowed_age": allowed(period),
        "failed": bool(failed),
        "owner": owner,
        "reports": reports,
    }


def is_overdue(destination: Mapping[str, Any]) -> bool:
    """Whether the oldest pending report of a destination waits for too long.

    Args:
        destination: An entry of ``overview``. One with parked records waits for a
            person, and is not said to be behind as well.
    """
    oldest = destination["oldest_report"]
    if oldest is None or destination["parked"]:
        return False
    return bool(oldest["age"] > oldest["allowed_age"])
